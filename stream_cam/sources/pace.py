"""A file at its own speed, for people who watch it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from stream_cam.closing import Closes
from stream_cam.frame import Frame
from stream_cam.sources.base import Source, SourceInfo

_LONGEST_SECONDS = 1.5
"""Nobody is kept waiting longer for a frame; also less than a pipeline waits for a source."""
_LATE_SECONDS = 0.5
"""Who is so late (a pause, a slow network) does not hurry to make up for it."""


class PacedSource(Closes):
    """Gives each frame when it is due, by its time in the file, and not before.

    Args:
        source: not live.
        now, sleep: of a monotonic clock, in seconds.
    """

    def __init__(
        self,
        source: Source,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._source = source
        self._now, self._sleep = now, sleep

    @property
    def info(self) -> SourceInfo:
        return self._source.info

    @property
    def corrupt_frames(self) -> int:
        """Frames that could not be decoded."""
        return int(getattr(self._source, "corrupt_frames", 0))

    def __enter__(self) -> PacedSource:
        self._source.__enter__()
        return self

    def close(self) -> None:
        self._source.__exit__(None, None, None)

    def __iter__(self) -> Iterator[Frame]:
        begin: float | None = None
        for frame in self._source:
            now = self._now()
            if begin is None:
                begin = now - frame.pts_seconds
            wait = begin + frame.pts_seconds - now
            if wait > 0.0:
                self._sleep(min(wait, _LONGEST_SECONDS))
            if not -_LATE_SECONDS <= wait <= _LONGEST_SECONDS:
                begin = self._now() - frame.pts_seconds
            yield frame
