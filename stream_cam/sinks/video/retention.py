"""Removes the oldest segments of a live recording, to make room for the next ones."""

from __future__ import annotations

import logging
import os
import time
from datetime import datetime
from pathlib import Path

import av
import av.error

from stream_cam.config import RecordConfig
from stream_cam.sinks.video.segment_names import SegmentName, segments_of
from stream_cam.uri import TAG_ERRORS

logger = logging.getLogger(__name__)


class SystemClock:
    """Local time and monotonic time; tests replace it."""

    def now(self) -> datetime:
        """Local time."""
        return datetime.now()

    def monotonic_ns(self) -> int:
        """On the clock of `Frame.captured_ns`."""
        return time.monotonic_ns()


class Retention:
    """Removes the oldest segments of one recording, whenever a further one is finished.

    It also does so when the disk is nearly full: the newest pictures are worth more than the
    oldest.

    A file is removed only if every sign says that it is such a segment. It is an ordinary file
    beside the recording, its whole name has the segments' form, and its metadata say that
    stream-cam made it. The newest segment always stays. The segment that is being recorded has
    another name.

    A segment's age counts from its end. For segments of this run a monotonic clock measures it. For
    segments of earlier runs it is the time of their file or of their name, whichever is later.

    Args:
        recording: `out.mp4`, with segments such as `out-20261122T101500.mp4`.
        record: with the limits.
    """

    def __init__(self, recording: Path, record: RecordConfig, clock: SystemClock) -> None:
        self._recording = recording
        self._option = f"--keep {record.keep}"
        self._max_bytes, self._max_seconds = record.keep_bytes, record.keep_seconds
        self._clock = clock
        self._min_free = record.min_free
        self._newest: Path | None = None
        self._unfinished: set[Path] = set()
        """Segments of this run. One may have its name before `segment_finished` is called."""
        self._warned = False
        self._finished_ns: dict[Path, int] = {}
        """By path, for this run's segments."""
        self._ours: dict[Path, bool] = {}
        """By path of files that were opened: whether stream-cam made them."""
        self.removed = 0

    def segment_begun(self, path: Path) -> None:
        """Called when a segment of this run begins; it stays until `segment_finished`."""
        self._unfinished.add(path)

    def segment_finished(self, newest: Path) -> list[Path]:
        """Called when a segment has its name; returns the segments that were removed for it."""
        self._unfinished.discard(newest)
        if not self._is_limited():
            return []
        self._newest = newest
        self._finished_ns[newest] = self._clock.monotonic_ns()
        self._ours[newest] = True
        beyond = self._beyond_limit(self._removable(), newest)
        return [each.path for each in beyond if self._remove(each, self._option)]

    def make_room(self, n_bytes: int) -> tuple[int, list[Path]]:
        """Remove the oldest segments until so much is free, or none if all would not suffice.

        Returns:
            The bytes that were freed, and the segments that were removed.
        """
        older = self._removable() if self._is_limited() else []
        freed, removed = 0, []
        if sum(_size(each.path) for each in older) < n_bytes:
            return 0, []
        for each in older:
            if freed >= n_bytes:
                break
            size = _size(each.path)
            if self._remove(each, f"--min-free {self._min_free}"):
                freed += size
                removed.append(each.path)
        if removed and not self._warned:
            self._warned = True
            logger.warning(
                "the disk of %s is nearly full (--min-free %s): from now on its oldest segments "
                "are removed before %s asks for it",
                self._recording,
                self._min_free,
                self._option,
            )
        return freed, removed

    def _is_limited(self) -> bool:
        return self._max_bytes is not None or self._max_seconds is not None

    def _removable(self) -> list[SegmentName]:
        """Finished segments of this and of earlier runs without the newest; oldest first."""
        segments = segments_of(self._recording, live=True)
        there = sorted((s for s in segments if s.path not in self._unfinished), key=self._order)
        newest = self._newest or (there[-1].path if there else None)
        return [each for each in there if each.path != newest and self._is_ours(each.path)]

    def _beyond_limit(self, there: list[SegmentName], newest: Path) -> list[SegmentName]:
        """The segments beyond the limit.

        Args:
            there: all segments but the newest, oldest first.
        """
        if self._max_seconds is not None:
            return [each for each in there if self._age_seconds(each) > self._max_seconds]
        assert self._max_bytes is not None
        sizes = [_size(each.path) for each in there]
        total, beyond = sum(sizes) + _size(newest), []
        for each, size in zip(there, sizes, strict=True):
            if total <= self._max_bytes:
                break
            beyond.append(each)
            total -= size
        return beyond

    def _order(self, segment: SegmentName) -> tuple[bool, float]:
        """Sorts by age, this run's last: a clock that was set back gives them early names."""
        finished_ns = self._finished_ns.get(segment.path)
        if finished_ns is not None:
            return True, finished_ns / 1e9
        return False, self._made_at(segment)

    def _age_seconds(self, segment: SegmentName) -> float:
        finished_ns = self._finished_ns.get(segment.path)
        if finished_ns is not None:
            return (self._clock.monotonic_ns() - finished_ns) / 1e9
        return self._clock.now().timestamp() - self._made_at(segment)

    def _made_at(self, segment: SegmentName) -> float:
        """The time at which an earlier run made it, by file or name, the later; s since 1970."""
        assert isinstance(segment.begin, datetime)
        try:
            written_at = segment.path.stat().st_mtime
        except OSError:  # it is gone
            written_at = self._clock.now().timestamp()
        return max(written_at, segment.begin.timestamp())

    def _is_ours(self, path: Path) -> bool:
        if path not in self._ours:
            self._ours[path] = _is_made_by_us(path)
            if not self._ours[path]:
                logger.debug("%s has a segment's name, but stream-cam did not make it", path)
        return self._ours[path]

    def _remove(self, segment: SegmentName, option: str) -> bool:
        path = segment.path
        self._finished_ns.pop(path, None)
        try:
            path.unlink()
        except OSError as exc:
            self._ours[path] = False  # warned once
            logger.warning("%s cannot be removed (%s): %s", path, option, exc.strerror)
            return False
        del self._ours[path]
        self.removed += 1
        logger.debug("removed %s (%s)", path, option)
        return True


def _size(path: Path) -> int:
    try:
        return os.path.getsize(path)
    except OSError:
        return 0


def _is_made_by_us(path: Path) -> bool:
    try:
        with av.open(f"file:{path}", metadata_errors=TAG_ERRORS) as container:
            tags = {key.lower(): value for key, value in container.metadata.items()}
    except (av.error.FFmpegError, OSError):
        return False
    return tags.get("comment", "").startswith("stream-cam ")
