"""Repair of the timestamps of streams whose own ones are missing or wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from typing import Final

import av

from stream_cam.frame import JUMP_SECONDS

_MOST_DOUBTED: Final = 8
"""Pictures that are held until it is clear where the time goes on: 25 MB at 1080p."""

TimedPicture = tuple[av.VideoFrame, int | None]
"""A picture, and its time in ticks."""


def without_wild_timestamps(
    pictures: Iterable[TimedPicture],
    fps: Fraction,
    time_base: Fraction,
    is_damaged: Callable[[], bool],
) -> Iterator[TimedPicture]:
    """Removes the timestamps of pictures whose damaged headers give arbitrary ones.

    A time that goes back, or ahead by more than five seconds and three pictures, is believed when
    those after it go on from there, and not when they go on from where it was before.

    Args:
        pictures: of a file, in their order.
        fps: about as many a second.
        time_base: of the ticks, s.
        is_damaged: whether the file has shown damage so far; then a jump at its very end is none.
    """
    step = max(1, round(1 / (fps * time_base)))
    most = max(round(JUMP_SECONDS / time_base), 3 * step)  # a time-lapse makes no jumps
    last: int | None = None
    doubted: list[TimedPicture] = []
    for picture, pts in pictures:
        ahead = None if pts is None or last is None else pts - last
        if doubted and ahead is not None and 0 < ahead <= most:
            yield from ((each, None) for each, _ in doubted)
            doubted = []
        elif doubted or (ahead is not None and (ahead > most or ahead <= -step)):
            doubted.append((picture, pts))
            if len(doubted) < _MOST_DOUBTED:
                continue
            *before, (picture, pts) = doubted
            yield from before
            doubted = []
        yield picture, pts
        last = last if pts is None else pts
    yield from ((each, None) for each, _ in doubted) if is_damaged() else doubted


class MonotonicTimestamps:
    """Makes timestamps that always increase out of a stream's own.

    Args:
        fps: the rate to count at where there is nothing to go by.
    """

    def __init__(self, fps: Fraction) -> None:
        self._fps = fps
        self._last: int | None = None
        self._shift = 0
        self.repaired = 0

    def next(self, pts: int | None, time_base: Fraction) -> int:
        """The time of the next frame in units of `time_base`: `pts` itself wherever it can be."""
        step = max(1, round(1 / (self._fps * time_base)))
        last = self._last
        if pts is None:
            self.repaired += 1
            value = 0 if last is None else last + step
        else:
            value = pts + self._shift
            if last is not None and value <= last:
                self.repaired += 1
                if last - value < step:
                    value = last + 1
                else:
                    # The clock was set back, as where two recordings were joined: go on from
                    # here, with the distances that the stream gives.
                    self._shift += last + step - value
                    value = last + step
        self._last = value
        return value
