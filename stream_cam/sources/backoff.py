"""How long a reconnecting source waits between its attempts."""

from __future__ import annotations

import random
from typing import Final

from stream_cam.errors import SourceErrorKind

LONGEST_WAIT_SECONDS: Final = 10.0
_SHORTEST_WAIT_SECONDS: Final = 0.5
_JITTER: Final = (0.75, 1.25)
_PROVEN_SECONDS: Final = 10.0
"""A connection that has given frames for so long has proved itself."""


class Backoff:
    """Waits that double from 0.5 s to 10 s until a connection has proved itself.

    One frame proves nothing: a server that accepts, gives a frame and closes would be asked
    twice a second for ever. All times are seconds of the caller's monotonic clock.
    """

    def __init__(self, jitter: random.Random) -> None:
        self._jitter = jitter
        self._connected_at: float | None = None
        self.failures = 0
        """Failures since a connection last proved itself."""
        self.short_connections = 0
        """Those of them that had given a frame."""

    def received(self, now: float) -> None:
        """A frame has come."""
        if self._connected_at is None:
            self._connected_at = now
        if now - self._connected_at >= _PROVEN_SECONDS:
            self.failures = self.short_connections = 0

    def failed(self, kind: SourceErrorKind) -> float:
        """An attempt or a connection has failed; returns the wait before the next one."""
        wait = min(_SHORTEST_WAIT_SECONDS * 2.0 ** min(self.failures, 9), LONGEST_WAIT_SECONDS)
        self.failures += 1
        self.short_connections += self._connected_at is not None
        self._connected_at = None
        if kind == "authentication":
            wait = LONGEST_WAIT_SECONDS  # cameras lock users out who try too often
        return min(wait * self._jitter.uniform(*_JITTER), LONGEST_WAIT_SECONDS)
