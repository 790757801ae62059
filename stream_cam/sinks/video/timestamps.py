"""From a source's times to those of a video file, in its ticks."""

from __future__ import annotations

from fractions import Fraction
from typing import Final

_MATROSKA_TICK: Final = Fraction(1, 1000)
_FINE_TICK: Final = Fraction(1, 90_000)
_FINEST_TICK: Final = Fraction(1, 1_000_000)
"""MP4 keeps a frame's duration in 31 bits of ticks; nanoseconds would overflow after 2 s."""
_LIVE_TICK: Final = Fraction(1, 10_000)
"""With it a picture may last for 59 hours of an outage; with 1/90000, for 6."""
_LONGEST: Final = 2**31 - 2**16
"""FFmpeg writes 2^31 - 1 as 1, and does not survive more."""
_MOST_BRIDGES: Final = 100
"""A time that lies further ahead is a source's mistake."""


class Timestamps:
    """The times of one file: they begin at 0 with its first picture, and increase.

    Args:
        start_seconds: the first picture's time in the source.
        time_base: the source's.
        matroska: whether the file is an MKV or WebM, which count milliseconds.
        live: whether the source is.
    """

    def __init__(
        self, start_seconds: Fraction, time_base: Fraction, *, matroska: bool, live: bool
    ) -> None:
        self.start_seconds = start_seconds
        self._matroska = matroska
        if matroska:
            self.tick = _MATROSKA_TICK
        elif time_base >= _FINEST_TICK:
            self.tick = time_base
        else:
            self.tick = _LIVE_TICK if live else _FINE_TICK
        self._last = -1
        self.repaired = 0
        """Times that did not increase, and were moved behind the one before."""

    @property
    def last_seconds(self) -> Fraction:
        """The last picture's time in the source."""
        return self.start_seconds + self._last * self.tick

    def next(self, seconds: Fraction) -> tuple[int, range]:
        """The ticks of the next picture, which is of that time in the source.

        Returns:
            And those at which the one before is to be written once more, because it lasts longer
            than an MP4 can say at once.
        """
        before, ticks = self._last, round((seconds - self.start_seconds) / self.tick)
        if ticks <= before:
            self.repaired += 1
            ticks = before + 1
        self._last = ticks
        sane = before >= 0 and ticks - before <= _MOST_BRIDGES * _LONGEST
        between = range(before + _LONGEST, ticks, _LONGEST)
        return ticks, between if sane and not self._matroska else range(0)

    def until(self, seconds: Fraction, ticks: int) -> int:
        """How long a picture at `ticks` lasts if it does until that time in the source."""
        return round((seconds - self.start_seconds) / self.tick) - ticks


def duration(ticks: int) -> int:
    """The nearest one that a file can say."""
    return min(max(1, ticks), _LONGEST)
