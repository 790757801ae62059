"""Converts a source's times into those of a video file, in its ticks."""

from __future__ import annotations

from fractions import Fraction
from typing import Final

_MATROSKA_TICK: Final = Fraction(1, 1000)
_FINE_TICK: Final = Fraction(1, 90_000)
_FINEST_TICK: Final = Fraction(1, 1_000_000)
"""MP4 keeps a frame's duration in 31 bits of ticks; nanoseconds would overflow after 2 s."""
_LIVE_TICK: Final = Fraction(1, 10_000)
"""A picture may then last for an outage of 59 hours; with 1/90000 s, for 6."""
_MAX_DURATION: Final = 2**31 - 2**16
"""FFmpeg writes 2^31 - 1 as 1, and does not survive more."""
_MAX_REPEATS: Final = 100
"""A time that lies further ahead is a source's mistake."""


class Timestamps:
    """The times of one file: they begin at 0 with its first picture, and increase.

    Args:
        start_seconds: the first picture's time in the source.
        time_base: the source's.
        matroska: whether the file is an MKV or WebM, which count milliseconds.
        live: whether the source is live.
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
        """Number of times that did not increase, and were moved behind the one before."""

    @property
    def last_seconds(self) -> Fraction:
        """The last picture's time in the source."""
        return self.start_seconds + self._last * self.tick

    def append(self, seconds: Fraction) -> tuple[int, range]:
        """Add a picture.

        Args:
            seconds: its time in the source.

        Returns:
            The picture's ticks, and the ticks at which the one before is to be written once more,
            because it lasts longer than an MP4 can say at once.
        """
        before, ticks = self._last, round((seconds - self.start_seconds) / self.tick)
        if ticks <= before:
            self.repaired += 1
            ticks = before + 1
        self._last = ticks
        sane = before >= 0 and ticks - before <= _MAX_REPEATS * _MAX_DURATION
        between = range(before + _MAX_DURATION, ticks, _MAX_DURATION)
        return ticks, between if sane and not self._matroska else range(0)

    def duration_until(self, seconds: Fraction, ticks: int) -> int:
        """The duration of a picture at `ticks` that ends at this time in the source, in ticks."""
        return round((seconds - self.start_seconds) / self.tick) - ticks


def clamp_duration(ticks: int) -> int:
    """The nearest duration that a file can store."""
    return min(max(1, ticks), _MAX_DURATION)
