"""Regions of time: of the host's clock, or of a GPU's between two events; calls that take turns."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, TypeVar

Call = Callable[[], object]
Key = TypeVar("Key")
Span = tuple[float, float]
"""Seconds at which a call began and ended."""

LEAST_WARM_UPS = 2
_NEARLY_ALL = 0.9
"""Of a call, beside which others run."""
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
    """Timed calls of one case, at most."""
    seconds: float = 10.0
    """All timed calls of one case together; it ends earlier when it has its samples."""
    warm_ups: int = 10
    """Untimed calls before the first; fewer if they take longer than one turn may."""
    turns: int = 10
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
    beside: tuple[Call, ...] = ()
    """Calls that run at the same time, each on a thread of its own, on the host's clock."""


@dataclass(frozen=True)
class Timed:
    """What was measured of one case."""

    samples_ms: tuple[float, ...]
    """One call each, in the order of time."""
    calls_per_second: float
    """Calls given one after the other, without waiting for each where they can be queued; of calls
    at the same time all together."""


@dataclass
class _Taken:
    """What is measured of one case so far."""

    samples_ms: list[float] = field(default_factory=list)
    n_calls: float = 0.0
    seconds: float = 0.0
    """That `n_calls` took: of calls at the same time less than all samples together."""
    is_over: bool = False

    def timed(self) -> Timed:
        return Timed(tuple(self.samples_ms), self.n_calls / self.seconds if self.seconds else 0.0)


def measure(
    cases: Mapping[Key, Case],
    effort: Effort,
    *,
    on_turn: Callable[[Mapping[Key, Timed]], None] | None = None,
    on_error: Callable[[Key, RuntimeError], None] | None = None,
) -> dict[Key, Timed]:
    """Times all cases, in turns.

    A slow case takes fewer calls a turn than a fast one, so that all are spread over all turns.

    Args:
        on_turn: gets what was measured so far, after each turn.
        on_error: gets the case that failed, which is then left out; default: raised.
    """
    taken = {key: _Taken() for key in cases}
    turns = min(effort.turns, effort.samples)
    for turn in range(turns):
        n_calls = _share(effort.samples, turn, turns)
        for key, case in cases.items():
            if key not in taken or taken[key].is_over:
                continue
            try:
                _warm_up(case, effort.settle if turn else effort.warm_ups, effort.seconds / turns)
                _take(case, n_calls, effort.seconds / turns, taken[key])
            except RuntimeError as error:
                if on_error is None:
                    raise
                del taken[key]
                on_error(key, error)
                continue
            taken[key].is_over = sum(taken[key].samples_ms) >= effort.seconds * 1e3
        if on_turn is not None:
            on_turn({key: one.timed() for key, one in taken.items()})
    for key, one in taken.items():
        if cases[key].clock.queues:
            one.n_calls = min(_BURST, len(one.samples_ms))
            one.seconds = cases[key].clock.time_ms(cases[key].call, int(one.n_calls)) / 1e3
    return {key: one.timed() for key, one in taken.items()}


def _share(total: int, turn: int, turns: int) -> int:
    return total * (turn + 1) // turns - total * turn // turns


def _warm_up(case: Case, n_calls: int, seconds: float) -> None:
    spent_ms = 0.0
    for number in range(n_calls):
        if number >= LEAST_WARM_UPS and spent_ms >= seconds * 1e3:
            return
        spent_ms += _one(case)
        for call in case.beside:
            call()


def _take(case: Case, n_calls: int, seconds: float, taken: _Taken) -> None:
    """One turn: calls until there are enough, or the time is over; one at least."""
    if case.beside:
        spans = _at_once((case.call, *case.beside), n_calls, seconds)
        samples_ms, n_done, spent = overlapping(spans)
        taken.n_calls += n_done
        taken.seconds += spent
    else:
        samples_ms = [_one(case)]
        while len(samples_ms) < n_calls and sum(samples_ms) < seconds * 1e3:
            samples_ms.append(_one(case))
        taken.n_calls += len(samples_ms)
        taken.seconds += sum(samples_ms) / 1e3
    taken.samples_ms += samples_ms


def _one(case: Case) -> float:
    if case.before is not None:
        case.before()
    return case.clock.time_ms(case.call)


def _at_once(calls: Sequence[Call], n_calls: int, seconds: float) -> list[list[Span]]:
    """Each call again and again on a thread of its own, all begun together."""
    gate = threading.Barrier(len(calls))
    each = max(2, -(-n_calls // len(calls)))

    def again(call: Call) -> list[Span]:
        spans: list[Span] = []
        gate.wait()
        begun = time.perf_counter()
        while len(spans) < each and (len(spans) < 2 or spans[-1][1] - begun < seconds):
            started = time.perf_counter()
            call()
            spans.append((started, time.perf_counter()))
        return spans

    with ThreadPoolExecutor(len(calls), "bench") as pool:
        return list(pool.map(again, calls))


def overlapping(spans: Sequence[Sequence[Span]]) -> tuple[list[float], float, float]:
    """What calls at the same time took, as far as all threads were at work.

    The first and the last call of a thread may run alone, and faster than in a run. Such a call
    counts as far as it lies beside the others; it is no sample unless nearly all of it does.

    Args:
        spans: of each thread its calls, in the order of time.

    Returns:
        Latencies in ms in the order of time; calls that were done, in shares; the seconds of it.
    """
    begin, end = max(each[0][0] for each in spans), min(each[-1][1] for each in spans)
    every = sorted(span for each in spans for span in each)
    shares = [
        max(0.0, min(last, end) - max(first, begin)) / max(last - first, 1e-9)
        for first, last in every
    ]
    beside = [span for span, share in zip(every, shares, strict=True) if share >= _NEARLY_ALL]
    samples_ms = [1e3 * (last - first) for first, last in beside or every]
    return samples_ms, sum(shares), max(0.0, end - begin)
