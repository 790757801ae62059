"""Sources that fail, hang and come back, by a clock that the tests move."""

from __future__ import annotations

import logging
import queue
import random
import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from support.manual_clock import DEADLINE_SECONDS, ManualClock, NoJitter

from stream_cam.config import CaptureConfig
from stream_cam.errors import SourceError, SourceErrorKind, UsageError
from stream_cam.frame import Frame
from stream_cam.sinks import Picture, StreamInfo, VideoSink
from stream_cam.sources.base import Source, SourceInfo, StreamState
from stream_cam.sources.reconnecting import LOOKS_PERMANENT, ReconnectingSource
from stream_cam.sources.video import VideoSource

URI = "rtsp://me:s3cret@cam/stream"


class Line(Source):
    """One connection: returns the items put into it; an exception is raised, None is the end."""

    corrupt_frames = 0

    def __init__(
        self, *, size_hw: tuple[int, int] = (48, 64), live: bool = True, fails: str | None = None
    ) -> None:
        self._info = SourceInfo("line", size_hw, Fraction(25), None, live)
        self.fails = fails
        self.opening: threading.Event | None = None
        self.entered, self.closed = threading.Event(), threading.Event()
        self.items: queue.Queue[Frame | BaseException | None] = queue.Queue()

    def give(self, pts: int = 7) -> Line:
        image = np.zeros((*self.info.size_hw, 3), np.uint8)
        self.items.put(Frame(image, 99, pts, Fraction(1, 90_000), time.monotonic_ns()))
        return self

    def __enter__(self) -> Line:
        self.entered.set()
        if self.opening is not None:
            assert self.opening.wait(DEADLINE_SECONDS)
        if self.fails is not None:
            raise SourceError(f"cannot be opened: {self.fails}", kind=self.fails)  # type: ignore[arg-type]
        return self

    def close(self) -> None:
        self.closed.set()

    def __iter__(self) -> Iterator[Frame]:
        while (item := self.items.get(timeout=DEADLINE_SECONDS)) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item


class Watched:
    """A reconnecting source over given connections, read by a thread; the last one repeats."""

    def __init__(
        self,
        *lines: Line | Callable[[], Line],
        jitter: random.Random | None = None,
        give_up_after: float | None = None,
    ) -> None:
        self.clock = ManualClock()
        self.opened = 0
        self._lines = list(lines)
        self.source = ReconnectingSource(
            URI,
            self._open,
            CaptureConfig(give_up_after=give_up_after),
            clock=self.clock,
            jitter=jitter or NoJitter(),
        )
        self.frames: queue.Queue[Frame] = queue.Queue()
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _open(self) -> Line:
        line = self._lines[min(self.opened, len(self._lines) - 1)]
        self.opened += 1
        return line if isinstance(line, Line) else line()

    def _watch(self) -> None:
        try:
            with self.source:
                for frame in self.source:
                    self.frames.put(frame)
        except BaseException as error:
            self.error = error

    def frame(self) -> Frame:
        return self.frames.get(timeout=DEADLINE_SECONDS)

    def end(self) -> None:
        self._thread.join(DEADLINE_SECONDS)
        assert not self._thread.is_alive()

    def stop(self) -> None:
        self.source.stop()
        self.end()


def test_frames_count_on_over_reconnections() -> None:
    first, second = Line(), Line(size_hw=(96, 32)).give(pts=1)
    watched = Watched(first.give(pts=5_000_000), second)
    frames = [watched.frame()]
    first.corrupt_frames = 3
    first.give(pts=5_003_600)
    frames.append(watched.frame())
    first.items.put(SourceError("cut", kind="lost"))
    watched.clock.pass_wait(0.5)
    frames.append(watched.frame())
    assert first.closed.is_set()
    second.corrupt_frames = 1
    assert [frame.index for frame in frames] == [0, 1, 2]
    assert [frame.size_hw for frame in frames] == [(48, 64), (48, 64), (96, 32)]
    assert frames[0].pts < frames[1].pts < frames[2].pts
    assert {frame.time_base for frame in frames} == {Fraction(1, 10**9)}
    assert watched.source.corrupt_frames == 4
    health = watched.source.health
    assert (health.connections, health.recoveries, health.abandoned_readers) == (2, 1, 0)
    assert health.slowest_recovery_seconds == pytest.approx(0.5)
    second.items.put(None)
    watched.stop()
    assert watched.error is None


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_recording_has_the_capture_clocks_times_over_an_outage(tmp_path: Path, suffix: str) -> None:
    """Whatever the camera says they are: its clock begins anew, and runs too fast."""
    first, second = Line().give(pts=5_000_000), Line()
    watched = Watched(first, second)
    frames = [watched.frame()]
    for pts in (5_090_000, 5_180_000):
        threading.Event().wait(0.01)
        first.give(pts)
        frames.append(watched.frame())
    first.items.put(SourceError("cut", kind="lost"))
    second.give(pts=1)
    watched.clock.pass_wait(0.5)
    frames.append(watched.frame())
    second.items.put(None)
    watched.stop()
    path = tmp_path / f"out{suffix}"
    with VideoSink(str(path), StreamInfo(Fraction(25), False, True)) as sink:
        for frame in frames:
            sink.write(Picture(frame.image_bgr, frame, None))
    expected = [(frame.captured_ns - frames[0].captured_ns) / 1e9 for frame in frames]
    with VideoSource(str(path)) as source:
        times = [frame.pts_seconds for frame in source]
    assert times == pytest.approx(expected, abs=2e-3 if suffix == ".mkv" else 1e-4)


def test_waits_grow_from_half_a_second_to_ten() -> None:
    watched = Watched(Line(fails="refused"))
    for seconds in (0.5, 1, 2, 4, 8, 10, 10, 10):
        watched.clock.pass_wait(seconds)
    watched.stop()
    assert isinstance(watched.error, SourceError)  # it never was there


def test_waits_are_jittered() -> None:
    watched = Watched(Line(fails="refused"), jitter=random.Random(1))
    waits = [watched.clock.pass_wait(0.3, 10.0) for _ in range(14)]
    watched.stop()
    assert waits[0] < waits[2] < waits[4]
    assert len(set(waits[6:])) > 3
    assert all(7.5 <= wait <= 10 for wait in waits[6:])


def test_reader_that_hangs_is_left_behind_and_hands_nothing_on() -> None:
    hung, fresh = Line().give(), Line()
    watched = Watched(hung, fresh.give())
    watched.frame()
    watched.clock.pass_wait(5.0)
    watched.clock.pass_wait(0.5)
    assert watched.frame().index == 1
    hung.give()  # the call returns after all
    assert hung.closed.wait(DEADLINE_SECONDS)
    fresh.give()
    assert watched.frame().index == 2
    assert watched.frames.empty()
    assert watched.source.health.abandoned_readers == 1
    fresh.items.put(None)
    watched.stop()


def test_readers_that_hang_do_not_pile_up(caplog: pytest.LogCaptureFixture) -> None:
    lines: list[Line] = []

    def hanging() -> Line:
        line = Line(fails="lost")
        line.opening = threading.Event()
        lines.append(line)
        return line

    watched = Watched(Line().give(), hanging)
    watched.frame()
    watched.clock.pass_wait(5.0)  # silence
    for wait, attempt in ((0.5, 4.0), (1.0, 8.0)):
        watched.clock.pass_wait(wait)  # the next attempt
        watched.clock.pass_wait(attempt)  # which hangs
    watched.clock.pass_wait(2.0)
    for _ in range(5):
        watched.clock.pass_wait(10.0)  # no further one: three hang
    assert len(lines) == 2
    assert sum("3 reads hang" in message for message in caplog.messages) == 1
    assert not lines[0].closed.is_set()
    release = lines[0].opening
    assert release is not None
    release.set()
    watched.clock.pass_wait(15.0)  # one has returned: there was room for another
    assert len(lines) == 3
    assert watched.source.health.abandoned_readers >= 3
    started = time.monotonic()
    watched.stop()
    assert time.monotonic() - started < 2.0
    for line in lines[1:]:
        assert line.opening is not None
        line.opening.set()


def test_attempts_get_twice_the_time_of_the_last_connection() -> None:
    slow, hung = Line().give(), Line()
    slow.opening, hung.opening = threading.Event(), threading.Event()
    watched = Watched(slow, hung)
    watched.clock.wait_for_waiter()
    watched.clock.advance(6.0)
    slow.opening.set()
    watched.frame()
    watched.clock.pass_wait(5.0)  # silence
    watched.clock.pass_wait(0.5)
    watched.clock.pass_wait(12.0)
    watched.clock.pass_wait(1.0)
    watched.clock.pass_wait(15.0)  # the limits that were asked for
    watched.stop()
    hung.opening.set()


def test_first_connection_counts_as_any_other() -> None:
    watched = Watched(Line(fails="refused"), Line(fails="unreachable"), Line().give())
    watched.clock.pass_wait(0.5)
    watched.clock.pass_wait(1.0)
    assert watched.frame().index == 0
    assert watched.source.health.recoveries == 0
    watched.stop()


def test_first_connection_that_hangs_is_left_behind() -> None:
    hung = Line()
    hung.opening = threading.Event()
    watched = Watched(hung, Line().give())
    watched.clock.pass_wait(15.0)  # to open, and to read
    watched.clock.pass_wait(0.5)
    assert watched.frame().index == 0
    hung.opening.set()
    assert hung.closed.wait(DEADLINE_SECONDS)
    watched.stop()


@pytest.mark.parametrize("kind", sorted(LOOKS_PERMANENT))
def test_lasting_error_ends_the_first_connection(kind: SourceErrorKind) -> None:
    watched = Watched(Line(fails=kind))
    watched.end()
    assert isinstance(watched.error, SourceError)
    assert watched.error.kind == kind
    assert watched.opened == 1


def test_with_a_limit_the_first_connection_is_tried_so_long() -> None:
    watched = Watched(Line(fails="not found"), give_up_after=3)
    for seconds in (0.5, 1.0, 1.5):
        watched.clock.pass_wait(seconds)
    watched.end()
    assert isinstance(watched.error, SourceError)
    assert "gave up after 3 s (--give-up-after)" in str(watched.error)
    assert watched.error.kind == "not found"


def test_later_it_is_said_at_once_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    first = Line().give()
    watched = Watched(first, Line(fails="authentication"), Line().give())
    watched.frame()
    with caplog.at_level(logging.WARNING):
        first.items.put(None)
        watched.clock.pass_wait(0.5)
        watched.clock.pass_wait(10.0)  # cameras lock users out
        assert watched.frame().index == 1
    said = [record.message for record in caplog.records]
    assert len(said) == 3
    assert "ended" in said[0]
    assert "authentication" in said[1]
    assert "is back after 10.5 s" in said[2]
    assert not any("s3cret" in line for line in said)
    watched.stop()


def test_same_reason_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    first = Line().give()
    watched = Watched(first, *[Line(fails="refused") for _ in range(6)], Line().give())
    watched.frame()
    first.items.put(None)
    for seconds in (0.5, 1, 2, 4, 8, 10, 10):
        watched.clock.pass_wait(seconds)
    watched.frame()
    watched.stop()
    assert len([r for r in caplog.records if r.levelno >= logging.WARNING]) == 3


def test_gives_up_in_the_middle_of_a_hang() -> None:
    watched = Watched(Line().give(), give_up_after=4)
    watched.frame()
    watched.clock.pass_wait(4.0)
    watched.end()
    assert isinstance(watched.error, SourceError)
    assert watched.error.kind == "timeout"


def test_outage_says_why_there_are_no_frames() -> None:
    first, second = Line().give(), Line()
    watched = Watched(first, second)
    watched.frame()
    watched.clock.advance(0.04)
    first.give()
    watched.frame()
    assert watched.source.outage() is None
    watched.clock.wait_for_waiter()
    watched.clock.advance(1.5)
    quiet = watched.source.outage()
    assert quiet is not None
    assert not quiet.reconnecting
    first.items.put(SourceError("the connection was cut", kind="lost"))
    while (away := watched.source.outage()) is None or not away.reconnecting:
        assert watched.frames.empty()
    assert away.kind == "lost"
    assert away.last_frame_age_seconds == pytest.approx(1.5)
    assert away.next_try_seconds == pytest.approx(0.5)
    assert "was cut" in away.reason
    second.give()
    watched.clock.advance(0.5)
    watched.frame()
    assert watched.source.outage() is None
    watched.stop()


def test_recorded_source_is_passed_through_whole() -> None:
    line = Line(live=False)
    for pts in range(20):
        line.give(pts)
    line.items.put(None)
    watched = Watched(line)
    watched.end()
    assert watched.error is None
    assert [watched.frame().pts for _ in range(20)] == list(range(20))
    assert watched.opened == 1


def test_recorded_source_that_fails_is_not_tried_again() -> None:
    line = Line(live=False).give()
    line.items.put(SourceError("cut", kind="lost"))
    watched = Watched(line)
    watched.end()
    assert isinstance(watched.error, SourceError)
    assert watched.opened == 1


def test_mistake_in_the_program_is_not_healed() -> None:
    def mistaken() -> Line:
        raise UsageError("no such thing")

    watched = Watched(mistaken)
    watched.end()
    assert isinstance(watched.error, UsageError)


def test_old_first_frame_is_not_given_out_as_new() -> None:
    line = Line().give()
    clock = ManualClock()
    with ReconnectingSource(URI, lambda: line, clock=clock) as source:
        clock.advance(8.0)  # the models are loaded
        line.give()
        assert next(iter(source)).index == 0
        assert source.info.live
        line.items.put(None)


def test_time_that_the_models_take_is_no_interval() -> None:
    """Else a frame that waited is followed by the next one at once, and a slow camera is quiet."""
    line = Line().give()
    clock = ManualClock()
    with ReconnectingSource(URI, lambda: line, clock=clock) as source:
        frames = iter(source)
        for seconds in (8.0, 0.1, 2.5):
            clock.advance(seconds)
            line.give()
            next(frames)
        clock.advance(2.4)
        assert source.outage() is None
        clock.advance(5.2)
        assert source.outage() is not None
        line.items.put(None)


def test_stop_reaches_the_source_of_the_connection() -> None:
    told = threading.Event()
    line = Line().give()
    line.stop = told.set  # type: ignore[method-assign]
    watched = Watched(line)
    watched.frame()
    watched.source.stop()
    assert told.is_set()
    line.items.put(None)
    watched.end()


def test_connections_that_do_not_last_are_tried_ever_more_rarely(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One frame proves nothing: each connection gives some and is cut."""

    def short() -> Line:
        line = Line().give()
        line.items.put(SourceError("cut", kind="lost"))
        return line

    watched = Watched(short)
    with caplog.at_level(logging.WARNING):
        for seconds in (0.5, 1, 2, 4, 8, 10, 10):
            watched.frame()
            watched.clock.pass_wait(seconds)
    watched.stop()
    said = [record.message for record in caplog.records]
    assert sum("connections did not last" in line for line in said) == 1
    assert len(said) < 8


def test_connection_that_has_lasted_is_opened_again_at_once() -> None:
    first, steady = Line().give(), Line().give()
    watched = Watched(first, Line(fails="refused"), steady, Line())
    watched.frame()
    first.items.put(None)
    watched.clock.pass_wait(0.5)
    watched.clock.pass_wait(1.0)
    watched.frame()
    for _ in range(4):
        watched.clock.advance(3.0)
        steady.give()
        watched.frame()
    steady.items.put(None)
    watched.clock.pass_wait(0.5)
    watched.stop()


def test_slow_camera_is_neither_dead_nor_quiet() -> None:
    """A frame every 2.5 s, whatever rate is announced (25 a second)."""
    line = Line().give()
    watched = Watched(line)
    watched.frame()
    for _ in range(4):
        watched.clock.advance(2.4)
        assert watched.source.outage() is None
        watched.clock.advance(0.1)
        line.give()
        watched.frame()
    watched.clock.advance(7.4)
    assert watched.source.outage() is None
    watched.clock.advance(0.2)
    assert watched.source.outage() is not None
    assert watched.opened == 1
    line.items.put(None)
    watched.stop()


def test_camera_slower_than_the_patience_is_found_out() -> None:
    """A frame every 8 s: the first silence ends a connection, the next one is waited for."""
    hung, slow = Line().give(), Line().give()
    watched = Watched(hung, slow)
    watched.frame()
    watched.clock.pass_wait(5.0)
    watched.clock.pass_wait(0.5)
    watched.frame()
    for _ in range(5):
        watched.clock.wait_for_waiter()
        watched.clock.advance(8.0)
        slow.give()
        watched.frame()
    assert watched.opened == 2
    assert watched.source.outage() is None
    for line in (hung, slow):
        line.items.put(None)
    watched.stop()


class MidStream(Line):
    """Joined between two key frames: packets come, pictures do not."""

    comes = True

    def __init__(self) -> None:
        super().__init__()
        self._packets = 0

    @property
    def stream_state(self) -> StreamState:
        """One packet more at each look."""
        self._packets += self.comes
        return StreamState(self._packets, awaits_key_frame=True)


def test_stream_joined_between_key_frames_is_waited_for() -> None:
    line = MidStream()
    line.opening = threading.Event()
    watched = Watched(line)
    watched.clock.pass_wait(15.0)  # the usual patience, twice
    watched.clock.pass_wait(15.0)
    away = watched.source.outage()
    assert away is not None
    assert (away.state, away.reconnecting) == ("waiting for a key frame", False)
    assert "waiting for a key frame" in away.reason
    line.opening.set()
    line.give()
    watched.frame()
    assert watched.opened == 1
    assert watched.source.outage() is None
    line.items.put(None)
    watched.stop()


@pytest.mark.parametrize("comes", [True, False])
def test_no_key_frame_is_not_waited_for_for_ever(
    comes: bool, caplog: pytest.LogCaptureFixture
) -> None:
    line = MidStream()
    line.comes, line.opening = comes, threading.Event()
    watched = Watched(line, Line(fails="refused"))
    for _ in range(4 if comes else 1):  # 60 s, or the usual patience
        watched.clock.pass_wait(15.0)
    watched.clock.pass_wait(0.5)
    watched.stop()
    assert ("no key frame" in caplog.text) == comes
    line.opening.set()
