"""What the user is told of a source that comes and goes: each thing once."""

from __future__ import annotations

import logging
from typing import Final

from stream_cam.errors import SourceError, SourceErrorKind

logger = logging.getLogger(__name__)

_FLAPS: Final = 3
"""So many short connections in a row are told as one thing."""


class OutageLog:
    """Logs outages and recoveries; the same reason is said once an outage.

    A source whose connections do not last is said to come and go, once, and then only new reasons
    are told.

    Args:
        name: of the source, secrets redacted.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._told: SourceErrorKind | None = None
        self._told_flapping = self._told_key_frame = False

    def connected(self, attempts: int) -> None:
        """The first frame of the run has come."""
        if attempts > 1:
            logger.warning("%s is there", self._name)

    def recovered(self, away_seconds: float) -> None:
        """A frame has come after an outage."""
        log = logger.debug if self._told_flapping else logger.warning
        log("%s is back after %.1f s", self._name, away_seconds)
        if not self._told_flapping:
            self._told = None

    def proved(self) -> None:
        """The connection has lasted."""
        self._told_flapping = self._told_key_frame = False
        self._told = None

    def failed(self, failure: SourceError, wait_seconds: float, short_connections: int) -> None:
        """An attempt or a connection has failed; `short_connections` in a row did not last."""
        news = failure.kind != self._told
        log, self._told = (logger.warning if news else logger.debug), failure.kind
        if short_connections < _FLAPS or self._told_flapping:
            log("%s; waiting for it, trying again in %.1f s", failure, wait_seconds)
            return
        self._told_flapping = True
        logger.warning(
            "%s: %d connections did not last: %s; trying again in %.1f s, then less and less often",
            self._name,
            short_connections,
            failure,
            wait_seconds,
        )

    def awaits_key_frame(self) -> None:
        """Video comes that cannot be decoded yet."""
        if not self._told_key_frame:
            self._told_key_frame = True
            logger.warning("%s sends video; waiting for a key frame", self._name)
