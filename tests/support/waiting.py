"""Waiting, by polling, for events in other processes and browsers."""

from __future__ import annotations

import time
from collections.abc import Callable

DEADLINE_SECONDS = 20.0
_LOOK_SECONDS = 0.005


def wait_until(
    true: Callable[[], object],
    deadline_seconds: float = DEADLINE_SECONDS,
    look_seconds: float = _LOOK_SECONDS,
) -> None:
    """Polls until it is true; fails after the deadline."""
    until = time.monotonic() + deadline_seconds
    while not true():
        assert time.monotonic() < until, "nothing happened in time"
        time.sleep(look_seconds)
