"""How much time a live source leaves between its frames, as measured."""

from __future__ import annotations

from collections import deque
from typing import Final

_RECENT: Final = 5
_MISSED: Final = 3
"""A source is quiet when so many frames in a row could have come and did not."""
_QUIET_SECONDS: Final = 1.0
"""No source is called quiet sooner."""
_LONGEST_SECONDS: Final = 60.0
"""No source is waited for longer."""


class FrameInterval:
    """The longest of the last five intervals between frames.

    The announced rate says nothing: FFmpeg invents 25 fps for MJPEG, and a camera may give a frame
    every three seconds. All times are seconds of the caller's monotonic clock.
    """

    def __init__(self) -> None:
        self._intervals: deque[float] = deque(maxlen=_RECENT)
        self._last: float | None = None
        self._silences = 0

    def received(self, now: float) -> None:
        """A frame has come."""
        if self._last is not None:
            self._intervals.append(now - self._last)
            self._silences = 0
        self._last = now

    def interrupted(self, *, silent: bool = False) -> None:
        """The time until the next frame is no interval.

        Args:
            silent: the connection was given up because nothing came.
        """
        if silent and self._last is not None:
            self._silences += 1
        self._last = None

    def quiet_seconds(self, patience_seconds: float) -> float:
        """After so long without a frame the last one is no longer shown as live.

        Args:
            patience_seconds: the answer before an interval was measured.
        """
        if not self._intervals:
            return patience_seconds
        return max(_QUIET_SECONDS, _MISSED * max(self._intervals))

    def patience_seconds(self, least: float) -> float:
        """After so long without a frame the connection is given up.

        A source that gives one frame and then nothing may be slow: it gets twice the time on each
        further connection, until its interval was measured.
        """
        wait = least * 2.0 ** min(self._silences, 9)
        if self._intervals:
            wait = max(wait, _MISSED * max(self._intervals))
        return max(least, min(wait, _LONGEST_SECONDS))
