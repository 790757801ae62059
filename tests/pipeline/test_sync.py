"""Which live picture is shown when, and with which maps, by a made-up clock."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest

from stream_cam.config import LookConfig, SyncName
from stream_cam.frame import Explanation, Frame, Prediction, Region
from stream_cam.pipeline.captured import CapturedFrame
from stream_cam.pipeline.sync import LiveSync, Shown
from stream_cam.settings import SettingsSnapshot

MS = 1_000_000
START = 10**12
IMAGE = np.zeros((9, 16, 3), np.uint8)


def frame_at(index: int, captured_ns: int) -> Frame:
    return Frame(IMAGE, index, index, Fraction(1, 30), captured_ns)


def explanation_of(frame: Frame, explained_ns: int, label: int = 0) -> Explanation:
    cams = np.zeros((1, 3, 4), np.float32)
    cams[0, 1, 1] = 1.0
    target = Prediction(f"class {label}", label, 0.9)
    return Explanation(
        logits=np.array([1.0, 0.0], np.float32),
        predictions=(target,),
        targets=(target,),
        cams=cams,
        region=Region.whole((9, 16)),
        frame_size_hw=(9, 16),
        frame_index=frame.index,
        captured_ns=frame.captured_ns,
        explained_ns=explained_ns,
    )


@dataclass
class Run:
    """What was shown of a camera whose network takes `network_ms`, millisecond by millisecond."""

    fps: float
    network_ms: float
    seconds: float = 6.0
    sync: SyncName = "auto"
    max_delay: float = 0.5
    away: tuple[float, ...] = ()
    """Seconds at which the camera gives nothing for a second."""
    hangs_from: int | None = None
    """From this frame on the network never returns."""
    shown: list[tuple[Shown, int]] = field(default_factory=list)
    """With the time, in ms from the start."""

    def __post_init__(self) -> None:
        self.line = line = LiveSync()
        look = LookConfig(sync=self.sync, max_delay=self.max_delay)
        settings = SettingsSnapshot(look)
        slot: Frame | None = None
        busy: tuple[Frame, float] | None = None
        n_read = 0
        for ms in range(int(self.seconds * 1000)):
            now_ns = START + ms * MS
            is_away = any(0 <= ms - 1000 * start < 1000 for start in self.away)
            while n_read / self.fps * 1000 <= ms:
                if is_away:
                    n_read += 1
                    continue
                slot = frame_at(n_read, now_ns)
                line.add_frame(CapturedFrame(slot, settings))
                n_read += 1
            if busy is not None and ms >= busy[1]:
                explained = CapturedFrame(busy[0], settings)
                line.add_explanation(explanation_of(busy[0], now_ns), explained, now_ns)
                busy = None
            if busy is None and slot is not None:
                hangs = self.hangs_from is not None and slot.index >= self.hangs_from
                busy = slot, ms + (1e9 if hangs else self.network_ms)
                slot = None
            while (shown := line.take(now_ns)) is not None:
                self.shown.append((shown, ms))
        self.n_read = n_read

    def after(self, seconds: float) -> list[tuple[Shown, int]]:
        return [one for one in self.shown if one[1] >= seconds * 1000]

    def delays_ms(self, after_seconds: float = 2.0) -> list[float]:
        return [
            ms - (shown.captured.frame.captured_ns - START) / MS
            for shown, ms in self.after(after_seconds)
        ]

    def rate(self, after_seconds: float = 2.0) -> float:
        return len(self.after(after_seconds)) / (self.seconds - after_seconds)

    def modes(self, after_seconds: float = 2.0) -> set[str]:
        return {shown.mode for shown, _ in self.after(after_seconds)}


def test_a_network_that_keeps_up_gives_every_picture_its_own_map() -> None:
    run = Run(fps=30, network_ms=25)
    assert run.modes(0.0) == {"own"}
    assert all(
        shown.explanation is not None
        and shown.explanation.frame_index == shown.captured.frame.index
        for shown, _ in run.shown
    )
    assert run.rate() == pytest.approx(30, abs=0.5)
    assert max(run.delays_ms()) <= 26


@pytest.mark.parametrize("network_ms", [50, 100, 200])
def test_slower_pictures_are_delayed_and_lie_between_their_maps(network_ms: int) -> None:
    run = Run(fps=30, network_ms=network_ms)
    assert run.modes() == {"interpolated"}
    for shown, _ in run.after(2.0):
        explanation, frame = shown.explanation, shown.captured.frame
        assert explanation is not None
        assert explanation.captured_ns == frame.captured_ns
        if explanation.between_frames is not None:
            before, after = explanation.between_frames
            assert before < frame.index < after
    assert run.rate() >= 29
    assert max(run.delays_ms()) <= 2 * network_ms + 1000 / 30 + 50
    assert run.line.counts.late == 0


def test_interpolated_pictures_are_evenly_paced() -> None:
    run = Run(fps=30, network_ms=120)
    times = [ms for _, ms in run.after(3.0)]
    gaps = np.diff(times)
    assert gaps.min() >= 30
    assert gaps.max() <= 37


def test_a_network_slower_than_the_delay_allows_shows_its_own_frames_only() -> None:
    run = Run(fps=30, network_ms=400)
    assert run.modes() == {"matched"}
    assert run.rate() == pytest.approx(2.5, abs=0.3)
    assert run.line.too_slow
    for shown, _ in run.after(2.0):
        assert shown.explanation is not None
        assert shown.explanation.frame_index == shown.captured.frame.index
    assert Run(fps=30, network_ms=400, max_delay=1.0).modes() == {"interpolated"}
    assert Run(fps=30, network_ms=100, max_delay=0.0).modes() == {"matched"}


def test_matched_shows_explained_pictures_only_and_newest_all_at_once() -> None:
    run = Run(fps=30, network_ms=100, sync="matched")
    assert run.modes(0.0) == {"matched"}
    assert run.rate() == pytest.approx(9.5, abs=1.0)
    run = Run(fps=30, network_ms=100, sync="newest")
    assert run.modes(0.0) == {"newest"}
    assert len(run.shown) == run.n_read
    assert max(run.delays_ms(0.0)) == 0
    ages = [
        (shown.captured.frame.captured_ns - shown.explanation.captured_ns) / MS
        for shown, _ in run.after(2.0)
        if shown.explanation is not None
    ]
    assert 100 <= max(ages) <= 240


def test_a_camera_of_one_frame_a_second_gets_its_own_map_on_every_picture() -> None:
    run = Run(fps=1, network_ms=300, seconds=10)
    assert run.modes(0.0) == {"own"}
    assert len(run.shown) == 10
    assert all(
        shown.explanation is not None
        and shown.explanation.frame_index == shown.captured.frame.index
        for shown, _ in run.shown
    )


def test_auto_goes_on_with_an_old_map_when_the_network_hangs() -> None:
    run = Run(fps=30, network_ms=25, seconds=6, hangs_from=30)
    last = [shown for shown, ms in run.after(3.2)]
    assert len(last) > 60
    assert {shown.mode for shown in last} == {"newest"}
    assert {shown.explanation.frame_index for shown in last if shown.explanation} == {29}
    assert run.line.too_slow
    matched = Run(fps=30, network_ms=25, seconds=6, hangs_from=30, sync="matched")
    assert matched.shown[-1][0].captured.frame.index == 29


@pytest.mark.parametrize("sync", ["auto", "newest", "matched"])
@pytest.mark.parametrize("network_ms", [20, 100, 700])
def test_nothing_waits_without_bound(sync: SyncName, network_ms: int) -> None:
    run = Run(fps=60, network_ms=network_ms, sync=sync)
    assert run.line.counts.most_waiting <= 0.5 * 60 + 3
    assert run.line.counts.most_waiting_bytes == run.line.counts.most_waiting * IMAGE.nbytes


def test_the_mode_does_not_swing_when_the_network_is_about_as_fast_as_the_camera() -> None:
    run = Run(fps=30, network_ms=36, seconds=20)
    modes = [shown.mode for shown, _ in run.after(1.0)]
    changes = sum(one != other for one, other in pairwise(modes))
    assert changes <= 2


def test_pauses_and_outages_of_the_camera_do_not_count_as_a_slow_network() -> None:
    run = Run(fps=10, network_ms=20, seconds=12, away=(3.0, 4.2, 5.4, 6.6))
    assert run.modes(0.0) == {"own"}
    assert not run.line.too_slow
    interpolated = Run(fps=30, network_ms=100, seconds=12, away=(3.0, 4.2, 5.4, 6.6))
    assert interpolated.modes() == {"interpolated"}


def test_the_end_shows_what_still_waits() -> None:
    line, settings = LiveSync(), SettingsSnapshot(LookConfig())
    frames = [frame_at(index, START + index * 33 * MS) for index in range(4)]
    for frame in frames:
        line.add_frame(CapturedFrame(frame, settings))
    assert line.take(START + 100 * MS) is None
    explanation = explanation_of(frames[3], START + 130 * MS)
    line.add_explanation(explanation, CapturedFrame(frames[3], settings), START + 130 * MS)
    line.end()
    shown = line.take(START + 130 * MS)
    assert shown is not None
    assert shown.captured.frame.index == 3
    assert line.take(START + 130 * MS) is None
    assert line.wake_ns() is None


def test_a_pause_forgets_what_waits() -> None:
    line = LiveSync()
    line.add_frame(CapturedFrame(frame_at(0, START), SettingsSnapshot(LookConfig())))
    line.clear()
    assert line.take(START + 10**10) is None
