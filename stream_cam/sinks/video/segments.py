"""A recording in segments: one video after the other, each of which plays alone."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from fractions import Fraction
from itertools import count
from pathlib import Path
from typing import NamedTuple

from stream_cam.config import RecordConfig
from stream_cam.errors import OutputExistsError, UsageError
from stream_cam.frame import Frame
from stream_cam.sinks.base import Picture, Sink, StreamInfo
from stream_cam.sinks.video.lock import check_unlocked, is_locked
from stream_cam.sinks.video.recording_names import part_path
from stream_cam.sinks.video.retention import Retention, SystemClock
from stream_cam.sinks.video.segment_names import file_name, live_name, segments_of
from stream_cam.sinks.video.sink import VideoSink

logger = logging.getLogger(__name__)

_POLL_SECONDS = 1.0


class Segment(NamedTuple):
    """A finished segment."""

    begin_seconds: Fraction
    """The time in the source at which it begins."""
    path: Path


class SegmentSink(Sink):
    """Records `out.mp4` as `out-00h00m00s.mp4`, `out-00h10m00s.mp4`, …, each a `VideoSink`'s.

    A segment ends before the first picture whose time has reached the next multiple of `--segment`,
    counted from the recording's first picture. The next one begins with that picture, as a key
    frame. No picture is lost or doubled between them. The last picture of a segment lasts until the
    next begins. Segments of live sources have the local time of their first picture in their names,
    those of files their place in the source. A thread of its own finalizes a finished segment, so
    that the next one does not wait.

    While a live source is away, a segment whose time is over is finished. The next one begins with
    the next picture.

    Args:
        path: the recording's name, from which segments get theirs; no file of this name is written.
        stream: the source's properties.
        record: how it is written, with the segments' length and retention.
        overwrite: a file's segments replace those of the same name; a live source's never do.
        clock: for tests.

    Raises:
        UsageError, OutputExistsError: as `check_segments`.
    """

    def __init__(
        self,
        path: str,
        stream: StreamInfo,
        record: RecordConfig,
        *,
        overwrite: bool = False,
        threads: int = 0,
        clock: SystemClock | None = None,
    ) -> None:
        length = record.segment_seconds
        if length is None:
            raise ValueError("record.segment says how long a segment is; got None")
        self.name = path
        self._recording = Path(path)
        self._length = length
        self._stream, self._record = stream, record
        self._overwrite, self._threads = overwrite, threads
        self._clock = clock or SystemClock()
        check_segments(self._recording, record, live=stream.live, overwrite=overwrite)
        like = VideoSink(path, stream, record)
        self.takes_repeats, self.repeat_seconds = like.takes_repeats, like.repeat_seconds
        self.poll_seconds = _POLL_SECONDS if stream.live else None
        self._retention = Retention(self._recording, record, self._clock)
        self._current: VideoSink | None = None
        self._number = 0
        self._first_seconds: Fraction | None = None
        self._last: Frame | None = None
        self._start_seconds: dict[Path, Fraction] = {}
        """By name: the time in the source at which each segment begins."""
        self._finishing = ThreadPoolExecutor(1, "segments")
        self._failure: Exception | None = None
        self._lock = threading.Lock()
        self.segments: list[str] = []
        self.kept: Future[list[Segment]] = Future()
        """Once the sink is closed: the finished segments that are still there, oldest first."""
        self.written = 0
        """Pictures given to the encoder so far."""
        self._warn_of_part_files()

    def _warn_of_part_files(self) -> None:
        """Part files of an earlier run do not stop a live recording."""
        parts = segments_of(self._recording, live=True, part=True) if self._stream.live else []
        left = [each.path for each in parts if not is_locked(each.path)]
        if left:
            logger.warning(
                "%s is there, left by a run that was killed (%d in all): `stream-cam recover %s` "
                "makes recordings of it",
                left[0],
                len(left),
                self.name,
            )

    def write(self, picture: Picture) -> bool:
        if self._failure is not None:
            raise self._failure
        at = _seconds(picture.frame)
        if self._first_seconds is None:
            self._first_seconds = at
        number = int((at - self._first_seconds) / self._length)
        if self._current is not None and number > self._number:
            self._end(at)
        if self._current is None:
            self._number = max(number, self._number)
            self._current = self._begin(picture.frame)
        self._last = picture.frame
        self._current.write(picture)
        self.written += 1
        return True

    def poll(self) -> bool:
        if self._current is not None and self._last is not None and self._first_seconds is not None:
            over = self._first_seconds + (self._number + 1) * self._length
            passed_ns = self._clock.monotonic_ns() - self._last.captured_ns
            # A picture captured before that time may still be on its way.
            if _seconds(self._last) + Fraction(passed_ns, 10**9) >= over + Fraction(_POLL_SECONDS):
                self._end(over)
        return True

    def source_ended(self) -> None:
        if self._current is not None:
            self._current.source_ended()

    def close(self) -> None:
        if self._current is not None:
            self._end(None)
        self._finishing.shutdown()
        if not self.kept.done():
            there = [Segment(self._start_seconds[path], path) for path in map(Path, self.segments)]
            self.kept.set_result(there)
        if self._failure is not None:
            raise self._failure

    def _begin(self, first: Frame) -> VideoSink:
        name = next(name for name in self._names(first) if self._is_free(name))
        self._start_seconds[name] = _seconds(first)
        with self._lock:
            self._retention.segment_begun(name)
        later = self._first_seconds if self._number else None
        return VideoSink(
            str(name),
            self._stream,
            self._record,
            overwrite=self._overwrite and not self._stream.live,
            threads=self._threads,
            first_seconds=later,
            make_room=self._make_room,
        )

    def _names(self, first: Frame) -> Iterator[Path]:
        """Names for a segment that begins with a frame, best first."""
        if self._stream.live:
            ago_ns = max(0, self._clock.monotonic_ns() - first.captured_ns)
            begin = self._clock.now() - timedelta(microseconds=ago_ns / 1000)
            yield from (live_name(self._recording, begin, again) for again in count(1))
        assert self._first_seconds is not None
        at = _seconds(first) - self._first_seconds + (self._record.start_seconds or 0)
        yield from (file_name(self._recording, max(0, int(at)), again) for again in count(1))

    def _is_free(self, path: Path) -> bool:
        there = self._stream.live and (path.exists() or part_path(path).exists())
        return path not in self._start_seconds and not there

    def _end(self, until: Fraction | None) -> None:
        """Complete the current segment, at a time of the source or (None) with its last picture."""
        assert self._current is not None
        if until is not None:
            self._current.end_at(until)
        self._finishing.submit(self._finish, self._current)
        self._current = None

    def _finish(self, segment: VideoSink) -> None:
        try:
            try:
                segment.close()
            finally:
                if segment.published:
                    self._add(segment)
        except Exception as exc:
            # Raised at the next picture, or on closing.
            self._failure = self._failure or exc

    def _add(self, segment: VideoSink) -> None:
        with self._lock:
            self.segments.append(segment.name)
            self._start_seconds[Path(segment.name)] = segment.start_seconds
            self._forget(self._retention.segment_finished(Path(segment.name)))

    def _make_room(self, n_bytes: int) -> bool:
        """Free disk space; whether that was possible."""
        with self._lock:
            freed, removed = self._retention.make_room(n_bytes)
            self._forget(removed)
        return freed >= n_bytes

    def _forget(self, removed: list[Path]) -> None:
        self.segments = [name for name in self.segments if Path(name) not in removed]
        self.removed = self._retention.removed


def _seconds(frame: Frame) -> Fraction:
    return frame.pts * frame.time_base


def check_segments(recording: Path, record: RecordConfig, *, live: bool, overwrite: bool) -> None:
    """Find out whether a recording can be made in segments, once the source is known.

    Raises:
        UsageError: segments of a file are to be removed.
        OutputExistsError: segments of the same kind are there, and `overwrite` is not given.
    """
    if live:
        return
    if record.keep is not None:
        raise UsageError("--keep is for live sources; of a file all segments are wanted")
    there = segments_of(recording, live=False)
    if overwrite:
        return
    if there:
        others = f", and {len(there) - 1} more" if there[1:] else ""
        raise OutputExistsError(
            f"{there[0].path} exists{others}; give --overwrite to replace those of the same name, "
            "or another name"
        )
    parts = segments_of(recording, live=False, part=True)
    if parts:
        check_unlocked(parts[0].path)
        raise OutputExistsError(
            f"{parts[0].path} is there, left by a run that was killed: `stream-cam recover "
            f"{recording}` makes a recording of it, --overwrite replaces it"
        )
