"""How far a file reaches, and how far its header says that it does."""

from __future__ import annotations

from fractions import Fraction
from typing import Any, Final

import av
from av.container import InputContainer

_TABLES: Final = frozenset({"mov,mp4,m4a,3gp,3g2,mj2", "avi"})
"""These formats say how long each stream is."""
_HEADERS: Final = _TABLES | {"matroska,webm", "flv", "asf"}
"""FFmpeg guesses the length of other formats from their last packets: that is no evidence."""
_SLACK_SECONDS: Final = 1.0
_SLACK_SHARE: Final = 0.05


class TruncationCheck:
    """Finds out whether a file's end is missing: it is where the header promises more.

    Where the header speaks of the whole file, sound that goes on to its end is enough.
    """

    def __init__(self, container: InputContainer, stream: av.VideoStream) -> None:
        base = stream.time_base or Fraction(0)
        self._own = container.format.name in _TABLES and bool(stream.duration)
        self.header_seconds = duration_seconds(container, stream)
        """The length that the header promises; None: it says nothing."""
        if container.format.name not in _HEADERS:
            self.header_seconds = None
        # A track's length counts from its first picture, a file's from 0.
        self._begin = (stream.start_time or 0) * base if self._own else Fraction(0)
        self._stream = stream
        self._others_end = self._pictures_end = Fraction(0)
        self._longest = Fraction(0)
        """That any picture lasted longer than it said: the last one may as well."""
        self._n_pictures = 0
        self._last_duration = Fraction(0)

    def add_packet(self, packet: av.Packet[Any]) -> None:
        """Counts a packet of any stream; those of the pictures are left to `add_picture`."""
        if packet.stream is not self._stream and packet.pts is not None:
            end = (packet.pts + (packet.duration or 0)) * Fraction(packet.time_base or 0)
            self._others_end = max(self._others_end, end)

    def add_picture(self, begin: Fraction, duration: Fraction) -> None:
        """Counts a picture, in the order in which they are shown."""
        if self._n_pictures:
            self._longest = max(self._longest, begin - self._pictures_end)
        self._n_pictures += 1
        self._pictures_end, self._last_duration = begin + duration, duration

    @property
    def pictures_seconds(self) -> float:
        """When the last picture ends, as far as it says how long it lasts."""
        return float(self._pictures_end - self._begin)

    @property
    def is_truncated(self) -> bool:
        """Whether more is missing than the last picture may last."""
        if self.header_seconds is None or not self._n_pictures:
            return False
        if self._n_pictures == 1 and not self._last_duration:
            return False  # nothing says how long it lasts
        end = self._pictures_end if self._own else max(self._pictures_end, self._others_end)
        missing = self.header_seconds - float(end - self._begin)
        slack = max(_SLACK_SECONDS, _SLACK_SHARE * self.header_seconds, 2 * float(self._longest))
        return missing > slack


def duration_seconds(container: InputContainer, stream: av.VideoStream) -> float | None:
    """How long a file's pictures last, or else the whole file; None: that is not known."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    if container.duration:
        return float(container.duration / av.time_base)
    return None
