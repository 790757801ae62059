"""Regions of time: of the host's clock, or of a GPU's between two events; calls that take turns."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, TypeVar

Call = Callable[[], object]
Key = TypeVar("Key")

_LEAST_WARM_UPS = 2
_BURST = 50
"""Calls in the one region that a GPU's images a second are counted over, at most."""


class Clock(Protocol):
    """Times one call after the other."""

    name: str
    """As it is shown beside a figure."""
    queues: bool
    """Whether calls return before they are done, so that the next can be given meanwhile."""

    def time_ms(self, call: Call, n_calls: int = 1) -> float:
        """Milliseconds of `n_calls` calls, given without waiting in between."""
        ...


class HostClock:
    """`time.perf_counter_ns` around a call that returns when it is done."""

    name = "host clock"
    queues = False

    def __init__(self, now_ns: Callable[[], int] = time.perf_counter_ns) -> None:
        self._now_ns = now_ns

    def time_ms(self, call: Call, n_calls: int = 1) -> float:
        started = self._now_ns()
        for _ in range(n_calls):
            call()
        return (self._now_ns() - started) / 1e6


class CudaClock:
    """Two CUDA events around a call, on the current stream; the GPU is idle before each region.

    What the host needs to give the call to an idle GPU is therefore in the figure.

    Args:
        new_event: makes an event with timing; default: `torch.cuda.Event`.
    """

    name = "CUDA events"
    queues = True

    def __init__(self, new_event: Callable[[], Any] | None = None) -> None:
        if new_event is None:
            import torch

            new_event = partial(torch.cuda.Event, enable_timing=True)
        self._before, self._after = new_event(), new_event()

    def time_ms(self, call: Call, n_calls: int = 1) -> float:
        self._before.record()
        for _ in range(n_calls):
            call()
        self._after.record()
        self._after.synchronize()
        return float(self._before.elapsed_time(self._after))


class Budget:
    """What is left of the time that everything together may take."""

    def __init__(
        self, seconds: float | None = None, now: Callable[[], float] = time.monotonic
    ) -> None:
        self.seconds = seconds
        self._now = now
        self._started = now()

    @property
    def spent_seconds(self) -> float:
        return self._now() - self._started

    @property
    def left_seconds(self) -> float:
        return math.inf if self.seconds is None else self.seconds - self.spent_seconds

    @property
    def is_spent(self) -> bool:
        return self.left_seconds <= 0.0


@dataclass(frozen=True)
class Effort:
    """How often each call is timed."""

    samples: int = 200
    """Timed calls, at most."""
    seconds: float = 2.0
    """All timed calls of one case together; each turn has one call at least, and no turn begins
    when one of the cases has used its time."""
    warm_ups: int = 10
    """Untimed calls before the first; fewer if they take as long as the timed ones may."""
    turns: int = 4
    """Cases take turns, so that whatever else the machine does meets them all."""
    settle: int = 1
    """Untimed calls at the beginning of each further turn: the others emptied the caches."""


@dataclass(frozen=True)
class Case:
    """Something to be timed."""

    call: Call
    clock: Clock = field(default_factory=HostClock)
    before: Call | None = None
    """Called before each call, untimed."""


@dataclass(frozen=True)
class Timed:
    """What was measured of one case."""

    samples_ms: tuple[float, ...]
    """One call each, in the order of time."""
    calls_per_second: float
    """Calls given one after the other, without waiting for each where they can be queued."""


def measure(cases: Mapping[Key, Case], effort: Effort) -> dict[Key, Timed]:
    """Times all cases, in turns."""
    samples: dict[Key, list[float]] = {key: [] for key in cases}
    turns = min(effort.turns, effort.samples)
    for turn in range(turns):
        if turn and max(map(sum, samples.values()), default=0.0) >= effort.seconds * 1e3:
            break  # for all: they take turns to the end
        n_calls = _share(effort.samples, turn, turns)
        for key, case in cases.items():
            _warm_up(case, effort, effort.settle if turn else effort.warm_ups)
            samples[key] += _sampled(case, n_calls, effort.seconds / turns)
    return {
        key: Timed(tuple(values), _calls_per_second(cases[key], values))
        for key, values in samples.items()
    }


def _share(total: int, turn: int, turns: int) -> int:
    return total * (turn + 1) // turns - total * turn // turns


def _warm_up(case: Case, effort: Effort, n_calls: int) -> None:
    spent_ms = 0.0
    for number in range(n_calls):
        if number >= _LEAST_WARM_UPS and spent_ms >= effort.seconds * 1e3:
            return
        spent_ms += _one(case)


def _sampled(case: Case, n_calls: int, seconds: float) -> list[float]:
    taken_ms = [_one(case)]
    while len(taken_ms) < n_calls and sum(taken_ms) < seconds * 1e3:
        taken_ms.append(_one(case))
    return taken_ms


def _one(case: Case) -> float:
    if case.before is not None:
        case.before()
    return case.clock.time_ms(case.call)


def _calls_per_second(case: Case, samples_ms: list[float]) -> float:
    if not case.clock.queues:
        return 1e3 * len(samples_ms) / sum(samples_ms)
    n_calls = min(_BURST, len(samples_ms))
    return 1e3 * n_calls / case.clock.time_ms(case.call, n_calls)
