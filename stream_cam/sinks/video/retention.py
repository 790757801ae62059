"""Room for what is recorded next: of a live recording's segments only the newest are kept."""

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
    """The time of day and the time that passes, for tests to hold in their hands."""

    def now(self) -> datetime:
        """Local, as on the wall."""
        return datetime.now()

    def monotonic_ns(self) -> int:
        """As `Frame.captured_ns`."""
        return time.monotonic_ns()


class Retention:
    """Removes the oldest segments of one recording, whenever a further one is finished.

    Also when the disk is nearly full: whoever lets old segments go rather loses one of them than
    what comes next.

    Only what is in doubt by no sign is removed: an ordinary file beside the recording, called like
    its segments to the last letter, whose metadata say that stream-cam made it. The newest one
    always stays, and what is still being recorded has another name.

    A segment is as old as its finishing. For those of this run that is measured by a clock that
    nobody sets; those of earlier runs are as old as their file or their name says, the younger one.

    Args:
        recording: `out.mp4`, of which segments are `out-20261122T101500.mp4`.
        record: how much is kept.
    """

    def __init__(self, recording: Path, record: RecordConfig, clock: SystemClock) -> None:
        self._recording = recording
        self._option = f"--keep {record.keep}"
        self._most_bytes, self._most_seconds = record.keep_bytes, record.keep_seconds
        self._clock = clock
        self._min_free = record.min_free
        self._newest: Path | None = None
        self._unfinished: set[Path] = set()
        """Of this run's segments: one may have its name already while `finished` is on its way."""
        self._told = False
        self._finished_ns: dict[Path, int] = {}
        """Of this run's segments."""
        self._ours: dict[Path, bool] = {}
        """Files that were looked into."""
        self.removed = 0

    def begun(self, path: Path) -> None:
        """A segment of this run is being recorded; it stays until `finished` was called with it."""
        self._unfinished.add(path)

    def finished(self, newest: Path) -> list[Path]:
        """A segment has got its name; gives the ones that were removed for it."""
        self._unfinished.discard(newest)
        if not self._may_remove():
            return []
        self._newest = newest
        self._finished_ns[newest] = self._clock.monotonic_ns()
        self._ours[newest] = True
        superfluous = self._superfluous(self._older_ones(), newest)
        return [each.path for each in superfluous if self._remove(each, self._option)]

    def make_room(self, n_bytes: int) -> tuple[int, list[Path]]:
        """The disk is nearly full: the oldest go, until so much is freed, unless all of them would
        not suffice; gives how much was freed, and the ones that were removed.
        """
        older = self._older_ones() if self._may_remove() else []
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
        if removed and not self._told:
            self._told = True
            logger.warning(
                "the disk of %s is nearly full (--min-free %s): from now on its oldest segments "
                "are removed before %s asks for it",
                self._recording,
                self._min_free,
                self._option,
            )
        return freed, removed

    def _may_remove(self) -> bool:
        return self._most_bytes is not None or self._most_seconds is not None

    def _older_ones(self) -> list[SegmentName]:
        """Finished segments, of earlier runs as well, but for the newest; oldest first."""
        segments = segments_of(self._recording, live=True)
        there = sorted((s for s in segments if s.path not in self._unfinished), key=self._order)
        newest = self._newest or (there[-1].path if there else None)
        return [each for each in there if each.path != newest and self._is_ours(each.path)]

    def _superfluous(self, there: list[SegmentName], newest: Path) -> list[SegmentName]:
        """Of the segments besides the newest, oldest first, those that are beyond the limit."""
        if self._most_seconds is not None:
            return [each for each in there if self._age_seconds(each) > self._most_seconds]
        assert self._most_bytes is not None
        sizes = [_size(each.path) for each in there]
        total, superfluous = sum(sizes) + _size(newest), []
        for each, size in zip(there, sizes, strict=True):
            if total <= self._most_bytes:
                break
            superfluous.append(each)
            total -= size
        return superfluous

    def _order(self, segment: SegmentName) -> tuple[bool, float]:
        """By it the oldest come first, this run's last: a clock set back gives them early names."""
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
        """When an earlier run made it: by its file or by its name, the later one; s since 1970."""
        assert isinstance(segment.begin, datetime)
        try:
            written_at = segment.path.stat().st_mtime
        except OSError:  # it is gone
            written_at = self._clock.now().timestamp()
        return max(written_at, segment.begin.timestamp())

    def _is_ours(self, path: Path) -> bool:
        if path not in self._ours:
            self._ours[path] = _made_by_us(path)
            if not self._ours[path]:
                logger.debug("%s is called like a segment, but stream-cam did not make it", path)
        return self._ours[path]

    def _remove(self, segment: SegmentName, option: str) -> bool:
        path = segment.path
        self._finished_ns.pop(path, None)
        try:
            path.unlink()
        except OSError as exc:
            self._ours[path] = False  # said once
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


def _made_by_us(path: Path) -> bool:
    try:
        with av.open(f"file:{path}", metadata_errors=TAG_ERRORS) as container:
            tags = {key.lower(): value for key, value in container.metadata.items()}
    except (av.error.FFmpegError, OSError):
        return False
    return tags.get("comment", "").startswith("stream-cam ")
