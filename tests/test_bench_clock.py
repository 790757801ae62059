"""Regions of time and turns, with clocks that the test holds."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from stream_cam.bench.clock import Budget, Case, CudaClock, Effort, HostClock, measure


class HeldClock:
    """A clock for cases whose calls take what the test says."""

    name = "held"

    def __init__(self, *, queues: bool = False) -> None:
        self.queues = queues
        self.now_ms = 0.0
        self.log: list[str] = []

    def call(self, name: str, took_ms: float) -> Callable[[], None]:
        def run() -> None:
            self.log.append(name)
            self.now_ms += took_ms

        return run

    def time_ms(self, call: Callable[[], object], n_calls: int = 1) -> float:
        started = self.now_ms
        for _ in range(n_calls):
            call()
        return self.now_ms - started


class Event:
    """A CUDA event that logs; the GPU's time is the number of the log's entries, in ms."""

    def __init__(self, log: list[str]) -> None:
        self._log = log
        self.at_ms = 0.0

    def record(self) -> None:
        self._log.append("record")
        self.at_ms = float(len(self._log))

    def synchronize(self) -> None:
        self._log.append("synchronize")

    def elapsed_time(self, other: Event) -> float:
        return other.at_ms - self.at_ms


def test_host_clock_counts_what_lies_between() -> None:
    ticks = iter([1_000_000, 4_500_000])
    assert HostClock(lambda: next(ticks)).time_ms(lambda: None) == 3.5


def test_cuda_clock_brackets_the_calls_and_waits_for_their_end() -> None:
    log: list[str] = []
    clock = CudaClock(lambda: Event(log))
    assert clock.time_ms(lambda: log.append("call"), 2) == 3.0
    assert log == ["record", "call", "call", "record", "synchronize"]


def test_cases_take_turns_after_warming_up() -> None:
    clock = HeldClock()
    cases = {name: Case(clock.call(name, 1.0), clock) for name in "ab"}
    timed = measure(cases, Effort(samples=4, seconds=1.0, warm_ups=3, turns=2, settle=1))
    assert "".join(clock.log) == "aaaaabbbbbaaabbb"
    assert timed["a"].samples_ms == (1.0,) * 4
    assert timed["a"].calls_per_second == 1000.0


def test_samples_that_do_not_divide_evenly_are_all_taken() -> None:
    clock = HeldClock()
    timed = measure({"a": Case(clock.call("a", 1.0), clock)}, Effort(samples=7, turns=4))
    assert len(timed["a"].samples_ms) == 7


def test_slow_calls_end_with_their_time() -> None:
    clock = HeldClock()
    effort = Effort(samples=100, seconds=1.0, warm_ups=10, turns=2)
    timed = measure({"a": Case(clock.call("a", 300.0), clock)}, effort)
    # Two a turn reach the half second; two warm-ups at least, four until the second is over.
    assert len(timed["a"].samples_ms) == 4
    assert len(clock.log) == 4 + 2 + 1 + 2


def test_single_turns_end_for_all_when_the_slowest_has_used_its_time() -> None:
    clock = HeldClock()
    cases = {"slow": Case(clock.call("s", 400.0), clock), "fast": Case(clock.call("f", 1.0), clock)}
    timed = measure(cases, Effort(samples=50, seconds=1.0, warm_ups=0, turns=50, settle=0))
    assert "".join(clock.log) == "sfsfsf"
    assert len(timed["fast"].samples_ms) == 3


def test_what_comes_before_a_call_is_not_in_its_time() -> None:
    clock = HeldClock()
    case = Case(clock.call("a", 1.0), clock, before=clock.call("before", 50.0))
    timed = measure({"a": case}, Effort(samples=3, warm_ups=2, turns=1))
    assert timed["a"].samples_ms == (1.0,) * 3
    assert clock.log == ["before", "a"] * 5


def test_calls_that_queue_are_counted_in_one_region() -> None:
    clock = HeldClock(queues=True)
    timed = measure({"a": Case(clock.call("a", 2.0), clock)}, Effort(samples=5, warm_ups=0))
    assert timed["a"].calls_per_second == 500.0
    assert len(clock.log) == 5 + 3 + 5  # samples, settling in three further turns, the region


def test_budget_is_spent_with_time_and_never_without_a_limit() -> None:
    now = 0.0
    limited, unlimited = Budget(2.0, lambda: now), Budget(None, lambda: now)
    assert not limited.is_spent
    now = 2.0
    assert limited.is_spent
    assert limited.spent_seconds == 2.0
    assert not unlimited.is_spent


def test_nothing_to_measure_is_no_error() -> None:
    assert measure({}, Effort()) == {}


@pytest.mark.parametrize("turns", [1, 8])
def test_one_sample_is_enough(turns: int) -> None:
    clock = HeldClock()
    timed = measure({"a": Case(clock.call("a", 1.0), clock)}, Effort(samples=1, turns=turns))
    assert timed["a"].samples_ms == (1.0,)
