"""A file that people watch plays at its own speed."""

from __future__ import annotations

import pytest
from pipeline_parts import Frames

from stream_cam.sources.pace import PacedSource


class Clock:
    """Time passes only while somebody sleeps or works."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


def paced(source: Frames, clock: Clock) -> PacedSource:
    return PacedSource(source, lambda: clock.now, clock.sleep)


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


def test_nobody_waits_long_for_a_frame(clock: Clock) -> None:
    def jump(index: int) -> None:
        if index == 1:
            clock.now -= 60.0  # as if the next frame were due in a minute

    with paced(Frames(3, before=jump), clock) as source:
        assert len(list(source)) == 3
    assert clock.slept == pytest.approx([1.5, 0.04])


def test_what_is_known_of_the_source_stays_known(clock: Clock) -> None:
    inner = Frames(3)
    source = paced(inner, clock)
    assert source.info is inner.info
    assert source.corrupt_frames == 0
