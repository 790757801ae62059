"""A file that people watch plays at its own speed."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
from conftest import VideoMaker
from support.pipeline_parts import Frames

from stream_cam.config import ModelConfig, PipelineConfig, RunConfig
from stream_cam.frame import Frame
from stream_cam.pipeline.session import run_session
from stream_cam.sources.pacing import PacedSource


class Clock:
    """Time passes only while somebody sleeps or works."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []
        self.stopped = False

    def wait(self, seconds: float) -> bool:
        self.slept.append(seconds)
        self.now += seconds
        return self.stopped


@pytest.fixture
def clock() -> Clock:
    return Clock()


class Hourly(Frames):
    """A frame an hour."""

    def __iter__(self) -> Iterator[Frame]:
        for frame in super().__iter__():
            yield replace(frame, time_base=Fraction(3600))


def paced(source: Frames, clock: Clock) -> PacedSource:
    return PacedSource(source, lambda: clock.now, clock.wait)


def test_frames_come_when_they_are_due(clock: Clock) -> None:
    with paced(Frames(26), clock) as source:
        times = [clock.now for _ in source]
    assert times == pytest.approx([100.0 + index / 25 for index in range(26)])


def test_work_between_frames_is_not_added(clock: Clock) -> None:
    with paced(Frames(11), clock) as source:
        for _ in source:
            clock.now += 0.03
    assert clock.now == pytest.approx(100.0 + 10 / 25 + 0.03)


def test_who_is_late_does_not_hurry(clock: Clock) -> None:
    times = []
    with paced(Frames(6), clock) as source:
        for frame in source:
            times.append(clock.now)
            if frame.index == 2:
                clock.now += 10.0  # a pause
    assert times[3:] == pytest.approx([110.08, 110.12, 110.16])


def test_a_stop_ends_the_waiting() -> None:
    """The next frame is due in an hour; also a picture that stays for ever."""
    for still in (False, True):
        inner = Frames(1) if still else Hourly(2)
        inner._info = replace(inner.info, still=still)
        with PacedSource(inner) as source:
            frames = iter(source)
            next(frames)
            threading.Timer(0.05, source.stop).start()
            begun = time.monotonic()
            assert next(frames, None) is None
            assert time.monotonic() - begun < 20.0


def test_waiting_is_no_delay_of_the_frame(clock: Clock) -> None:
    with paced(Frames(3), clock) as source:
        for frame in source:
            assert time.monotonic_ns() - frame.captured_ns < 20e9


def test_pictures_stay_and_the_last_one_to_the_end(clock: Clock) -> None:
    inner = Frames(2)
    inner._info = replace(inner.info, still=True)
    seen = []
    with paced(inner, clock) as source:
        assert source.info.n_frames is None
        for frame in source:
            seen.append((frame.index, int(frame.image_bgr[0, 0, 0])))
            clock.stopped = len(seen) == 20
    assert [index for index, _ in seen] == list(range(20))
    assert [value for _, value in seen] == [0] * 6 + [1] * 14


def test_paced_source_passes_on_the_info(clock: Clock) -> None:
    inner = Frames(3)
    source = paced(inner, clock)
    assert source.info is inner.info
    assert source.corrupt_frames == 0


def test_pictures_that_are_counted_come_once_and_stay_as_long(clock: Clock) -> None:
    inner = Frames(3)
    inner._info = replace(inner.info, still=True)
    with PacedSource(inner, lambda: clock.now, clock.wait, once=True) as source:
        seen = [(frame.index, clock.now) for frame in source]
        assert source.info.n_frames == 3
    assert seen == [(0, 100.0), (1, 103.0), (2, 106.0)]
    assert clock.now == 109.0


def test_a_live_file_plays_at_its_own_speed(make_video: VideoMaker, tiny: Path) -> None:
    """Also where nobody watches: else 1.9 s of video are over as soon as they are decoded."""
    path = make_video("clip.mp4", n_frames=20)
    config = PipelineConfig(
        ModelConfig(weights=str(tiny), engine="eager"), run=RunConfig(live=True, quiet=True)
    )
    report = run_session(str(path), ["null"], config)
    assert report.live
    assert report.captured == 20
    assert 1.85 < report.seconds < 20
