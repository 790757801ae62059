"""Log lines about outages of a source: each reason is logged once."""

from __future__ import annotations

import logging
from typing import Final

from stream_cam.errors import SourceError, SourceErrorKind

logger = logging.getLogger(__name__)

_SHORT_CONNECTIONS: Final = 3
"""After this many short connections in a row, one line is logged for all."""


class OutageLog:
    """Logs outages and recoveries; the same reason is logged once an outage.

    If the connections do not last, that is logged once, and after it only new reasons.

    Args:
        name: of the source, secrets redacted.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._logged: SourceErrorKind | None = None
        self._logged_flapping = self._logged_key_frame = False

    def connected(self, attempts: int) -> None:
        """The first frame of the run has come."""
        if attempts > 1:
            logger.warning("%s is there", self._name)

    def recovered(self, away_seconds: float) -> None:
        """A frame has come after an outage."""
        log = logger.debug if self._logged_flapping else logger.warning
        log("%s is back after %.1f s", self._name, away_seconds)
        if not self._logged_flapping:
            self._logged = None

    def proved(self) -> None:
        """The connection has lasted."""
        self._logged_flapping = self._logged_key_frame = False
        self._logged = None

    def failed(self, failure: SourceError, wait_seconds: float, short_connections: int) -> None:
        """An attempt or a connection has failed; `short_connections` in a row did not last."""
        news = failure.kind != self._logged
        log, self._logged = (logger.warning if news else logger.debug), failure.kind
        if short_connections < _SHORT_CONNECTIONS or self._logged_flapping:
            log("%s; waiting for it, trying again in %.1f s", failure, wait_seconds)
            return
        self._logged_flapping = True
        logger.warning(
            "%s: %d connections did not last: %s; trying again in %.1f s, then less and less often",
            self._name,
            short_connections,
            failure,
            wait_seconds,
        )

    def awaits_key_frame(self) -> None:
        """Video comes that cannot be decoded yet."""
        if not self._logged_key_frame:
            self._logged_key_frame = True
            logger.warning("%s sends video; waiting for a key frame", self._name)
