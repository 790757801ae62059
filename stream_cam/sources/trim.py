"""A part of a file, or every n-th frame of it, as a source."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from typing import Final, Protocol, runtime_checkable

from stream_cam.config import RecordConfig
from stream_cam.errors import SourceError, UsageError
from stream_cam.frame import Frame
from stream_cam.sources.base import Source, SourceInfo, WrappedSource

logger = logging.getLogger(__name__)

_BACK_SECONDS: Final = (0, 2, 10, 60)
"""Distances before the start at which a key frame is looked for; then the source's beginning."""


@runtime_checkable
class Seekable(Protocol):
    """A source that can start at a time without reading from its beginning."""

    def seek(self, seconds: Fraction) -> None:
        """The next frames begin at this time at the latest, maybe earlier."""
        ...


def trim(source: Source, config: RecordConfig) -> Source:
    """The source itself, or the part of it that is asked for."""
    if config.start_seconds is None and config.end_seconds is None and config.every == 1:
        return source
    return TrimmedSource(source, config.start_seconds, config.end_seconds, config.every)


class TrimmedSource(WrappedSource):
    """The frames from `start` to before `end`, every n-th of them; times stay the source's.

    With a start, frames are counted from the first one at or after it.

    Args:
        start, end: seconds of the source's own time, counted from its first frame; None: all.
        every: 2 leaves out every other frame.
    """

    def __init__(
        self, source: Source, start: Fraction | None, end: Fraction | None, every: int
    ) -> None:
        super().__init__(source)
        self._start, self._end, self._every = start or Fraction(0), end, every

    @property
    def info(self) -> SourceInfo:
        """The part's properties; its number of frames is estimated from its duration."""
        info = self._source.info
        n_frames, duration = info.n_frames, info.duration_seconds
        if duration is not None and (self._start or self._end is not None):
            end = duration if self._end is None else min(duration, float(self._end))
            part = max(0.0, end - float(self._start))
            n_frames = None if info.fps is None else max(1, round(part * info.fps))
        if self._start:
            info = replace(info, audio_lead_seconds=Fraction(0))
        if n_frames is not None:
            n_frames = -(-n_frames // self._every)
        return replace(info, n_frames=n_frames)

    def __enter__(self) -> TrimmedSource:
        self._source.__enter__()
        try:
            self._check()
        except BaseException:
            self.close()
            raise
        return self

    def _check(self) -> None:
        info = self._source.info
        if info.live:
            raise UsageError("--start, --end and --every are for files, not for live sources")
        duration = info.duration_seconds
        if duration is not None and self._start >= duration:
            raise SourceError(
                f"{info.name} lasts {duration:.1f} s, and --start is {float(self._start):g} s"
            )

    def __iter__(self) -> Iterator[Frame]:
        frames = iter(self._source)
        first = next(frames, None)
        if first is None:
            return
        begin = first.pts * first.time_base
        if self._start and isinstance(self._source, Seekable):
            first, frames = self._seek_to_start(self._source, begin)
        count = 0
        while first is not None:
            seconds = first.pts * first.time_base - begin
            if self._end is not None and seconds >= self._end:
                break
            if seconds >= self._start:
                if count % self._every == 0:
                    # After a seek, the number of frames before it is unknown.
                    yield replace(first, index=count) if self._start else first
                count += 1
            first = next(frames, None)
        if not count:
            until = "on" if self._end is None else f"to {float(self._end):g} s"
            raise SourceError(
                f"{self._source.info.name} has no frame from {float(self._start):g} s {until}"
            )

    def _seek_to_start(
        self, source: Seekable, begin: Fraction
    ) -> tuple[Frame | None, Iterator[Frame]]:
        """The first frame at or before the start, and those after it.

        A seek may end too late: in an MPEG transport stream anywhere, elsewhere at a key frame
        that comes before some of the pictures that are shown ahead of it.
        """
        wanted = begin + self._start
        for back in _BACK_SECONDS:
            source.seek(max(begin, wanted - back))
            frames = iter(self._source)
            first = next(frames, None)
            if first is not None and first.pts * first.time_base <= wanted:
                return first, frames
            if wanted - back <= begin:
                break
        self._source.__exit__(None, None, None)
        self._source.__enter__()
        frames = iter(self._source)
        return next(frames, None), frames
