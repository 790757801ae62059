"""Clocks that stand still until a test moves them on."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from datetime import datetime, timedelta

from stream_cam.sinks.video import retention
from stream_cam.sources.reconnecting import MonotonicClock

DEADLINE_SECONDS = 20.0
"""Nothing here takes a second on a quiet machine; the deadline finds hangs."""


NOON = datetime(2026, 11, 22, 12)


class ManualSystemClock(retention.SystemClock):
    """Noon."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> datetime:
        return NOON + timedelta(seconds=self.seconds)

    def monotonic_ns(self) -> int:
        return round((100 + self.seconds) * 1e9)


class NoJitter(random.Random):
    """No jitter."""

    def uniform(self, a: float, b: float) -> float:
        return 1.0


class ManualClock(MonotonicClock):
    """Waiters wait until the test moves it on, or until their condition holds."""

    def __init__(self) -> None:
        self._now = 1000.0
        self._waits: list[tuple[threading.Condition, float]] = []
        self._news = threading.Condition()

    def now(self) -> float:
        return self._now

    def wait_for(
        self, changed: threading.Condition, ready: Callable[[], bool], timeout: float | None
    ) -> bool:
        wait = (changed, float("inf") if timeout is None else self._now + timeout)
        while not ready():
            if self._now >= wait[1]:
                return False
            with self._news:
                self._waits.append(wait)
                self._news.notify_all()
            try:
                assert changed.wait(DEADLINE_SECONDS), "nobody moved the clock on"
            finally:
                with self._news:
                    self._waits.remove(wait)
        return True

    def advance(self, seconds: float) -> None:
        self._now += seconds
        with self._news:
            waits = list(self._waits)
        for changed, _ in waits:
            with changed:
                changed.notify_all()

    def pass_wait(self, low: float, high: float | None = None) -> float:
        """Once somebody waits for that many seconds (`low` to `high`), lets them pass."""
        high = low if high is None else high

        def found() -> list[float]:
            waits = [at - self._now for _, at in self._waits]
            return [wait for wait in waits if low - 1e-6 <= wait <= high + 1e-6]

        with self._news:
            assert self._news.wait_for(found, DEADLINE_SECONDS), (
                f"nobody waits {low:g}..{high:g} s: {[at - self._now for _, at in self._waits]}"
            )
            seconds = found()[0]
        self.advance(seconds)
        return seconds

    def wait_for_waiter(self) -> None:
        with self._news:
            assert self._news.wait_for(lambda: self._waits, DEADLINE_SECONDS), "nobody waits"
