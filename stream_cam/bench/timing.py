"""Timers for the host's clock and for a GPU's events, and calls that are timed in turns."""

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

MIN_WARM_UPS = 2
_MIN_OVERLAP = 0.9
"""Share of a call during which the others ran."""
_MAX_QUEUED_CALLS = 50
"""Most calls in the region over which a GPU's images a second are counted."""


class Timer(Protocol):
    """Times calls, one after the other."""

    name: str
    """Shown beside a figure."""
    is_asynchronous: bool
    """Whether calls return before they are done, so that the next one can be queued."""

    def time_ms(self, call: Call, n_calls: int = 1) -> float:
        """Milliseconds of `n_calls` calls, without waiting in between."""
        ...


class HostTimer:
    """`time.perf_counter_ns` around a call that returns when it is done."""

    name = "host clock"
    is_asynchronous = False

    def __init__(self, now_ns: Callable[[], int] = time.perf_counter_ns) -> None:
        self._now_ns = now_ns

    def time_ms(self, call: Call, n_calls: int = 1) -> float:
        started = self._now_ns()
        for _ in range(n_calls):
            call()
        return (self._now_ns() - started) / 1e6


class CudaTimer:
    """Two CUDA events around a call, on the current stream. The GPU is idle before each region, so
    the figure includes the host's launch of the call.

    Args:
        new_event: makes an event with timing; default: `torch.cuda.Event`.
    """

    name = "CUDA events"
    is_asynchronous = True

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
    """The time that the whole benchmark may take, and the rest of it."""

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
class Sampling:
    """How often each call is timed."""

    samples: int = 200
    """Most timed calls of one row."""
    seconds: float = 10.0
    """All timed calls of one row together; a row ends earlier when it has its samples."""
    warm_ups: int = 10
    """Untimed calls before the first; fewer if they take longer than one turn may."""
    turns: int = 10
    """Rows take turns, so that other load on the machine affects all alike."""
    settle: int = 1
    """Untimed calls at the start of each further turn, since the others emptied the caches."""


@dataclass(frozen=True)
class TimedCall:
    """A call with its timer."""

    call: Call
    timer: Timer = field(default_factory=HostTimer)
    setup: Call | None = None
    """Called before each call, untimed."""
    concurrent: tuple[Call, ...] = ()
    """Calls that run at the same time, each on a thread of its own, on the host's clock."""


@dataclass(frozen=True)
class Measurement:
    """The figures of one call."""

    samples_ms: tuple[float, ...]
    """One sample a call, in the order of time."""
    calls_per_second: float
    """Calls one after the other, without waiting where they can be queued. Concurrent calls are
    counted together."""


@dataclass
class _Samples:
    """The samples of one call so far."""

    samples_ms: list[float] = field(default_factory=list)
    n_calls: float = 0.0
    seconds: float = 0.0
    """Time of `n_calls`; for concurrent calls less than all samples together."""
    is_over: bool = False

    def timed(self) -> Measurement:
        return Measurement(
            tuple(self.samples_ms), self.n_calls / self.seconds if self.seconds else 0.0
        )


def measure(
    timed_calls: Mapping[Key, TimedCall],
    sampling: Sampling,
    *,
    on_turn: Callable[[Mapping[Key, Measurement]], None] | None = None,
    on_error: Callable[[Key, RuntimeError], None] | None = None,
) -> dict[Key, Measurement]:
    """Times all calls, in turns. A slow call is made less often in a turn than a fast one, so that
    all are spread over all turns.

    Args:
        on_turn: gets the measurements so far, after each turn.
        on_error: gets a call that failed, which is then left out; default: the error is raised.
    """
    taken = {key: _Samples() for key in timed_calls}
    turns = min(sampling.turns, sampling.samples)
    for turn in range(turns):
        n_calls = _calls_in_turn(sampling.samples, turn, turns)
        for key, timed_call in timed_calls.items():
            if key not in taken or taken[key].is_over:
                continue
            try:
                _warm_up(
                    timed_call,
                    sampling.settle if turn else sampling.warm_ups,
                    sampling.seconds / turns,
                )
                _sample(timed_call, n_calls, sampling.seconds / turns, taken[key])
            except RuntimeError as error:
                if on_error is None:
                    raise
                del taken[key]
                on_error(key, error)
                continue
            taken[key].is_over = sum(taken[key].samples_ms) >= sampling.seconds * 1e3
        if on_turn is not None:
            on_turn({key: one.timed() for key, one in taken.items()})
    for key, one in taken.items():
        if timed_calls[key].timer.is_asynchronous:
            one.n_calls = min(_MAX_QUEUED_CALLS, len(one.samples_ms))
            one.seconds = (
                timed_calls[key].timer.time_ms(timed_calls[key].call, int(one.n_calls)) / 1e3
            )
    return {key: one.timed() for key, one in taken.items()}


def _calls_in_turn(total: int, turn: int, turns: int) -> int:
    return total * (turn + 1) // turns - total * turn // turns


def _warm_up(timed_call: TimedCall, n_calls: int, seconds: float) -> None:
    spent_ms = 0.0
    for number in range(n_calls):
        if number >= MIN_WARM_UPS and spent_ms >= seconds * 1e3:
            return
        spent_ms += _time_once(timed_call)
        for call in timed_call.concurrent:
            call()


def _sample(timed_call: TimedCall, n_calls: int, seconds: float, taken: _Samples) -> None:
    """One turn: calls until there are enough or the time is over, at least one."""
    if timed_call.concurrent:
        spans = _run_concurrently((timed_call.call, *timed_call.concurrent), n_calls, seconds)
        samples_ms, n_done, spent = concurrent_samples(spans)
        taken.n_calls += n_done
        taken.seconds += spent
    else:
        samples_ms = [_time_once(timed_call)]
        while len(samples_ms) < n_calls and sum(samples_ms) < seconds * 1e3:
            samples_ms.append(_time_once(timed_call))
        taken.n_calls += len(samples_ms)
        taken.seconds += sum(samples_ms) / 1e3
    taken.samples_ms += samples_ms


def _time_once(timed_call: TimedCall) -> float:
    if timed_call.setup is not None:
        timed_call.setup()
    return timed_call.timer.time_ms(timed_call.call)


def _run_concurrently(calls: Sequence[Call], n_calls: int, seconds: float) -> list[list[Span]]:
    """Repeats each call on its own thread; all threads start together."""
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


def concurrent_samples(spans: Sequence[Sequence[Span]]) -> tuple[list[float], float, float]:
    """Latencies and rate of concurrent calls, while all threads were working.

    The first and the last call of a thread may run alone, and faster than in a run. The rate counts
    the share of such a call that overlaps the others. It is a sample only if nearly all of it
    overlaps.

    Args:
        spans: the calls of each thread, in the order of time.

    Returns:
        Latencies in ms in the order of time; the number of calls, in shares; their seconds.
    """
    begin, end = max(each[0][0] for each in spans), min(each[-1][1] for each in spans)
    every = sorted(span for each in spans for span in each)
    shares = [
        max(0.0, min(last, end) - max(first, begin)) / max(last - first, 1e-9)
        for first, last in every
    ]
    concurrent = [span for span, share in zip(every, shares, strict=True) if share >= _MIN_OVERLAP]
    samples_ms = [1e3 * (last - first) for first, last in concurrent or every]
    return samples_ms, sum(shares), max(0.0, end - begin)
