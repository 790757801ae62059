"""Timers and turns, with timers that the test moves on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

import pytest

from stream_cam.bench.timing import (
    Budget,
    CudaTimer,
    HostTimer,
    Measurement,
    Sampling,
    TimedCall,
    concurrent_samples,
    measure,
)


class ManualTimer:
    """A timer for calls whose length the test sets."""

    name = "held"

    def __init__(self, *, is_asynchronous: bool = False) -> None:
        self.is_asynchronous = is_asynchronous
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


def test_host_timer_counts_the_time_between() -> None:
    ticks = iter([1_000_000, 4_500_000])
    assert HostTimer(lambda: next(ticks)).time_ms(lambda: None) == 3.5


def test_cuda_timer_brackets_the_calls_and_waits_for_their_end() -> None:
    log: list[str] = []
    timer = CudaTimer(lambda: Event(log))
    assert timer.time_ms(lambda: log.append("call"), 2) == 3.0
    assert log == ["record", "call", "call", "record", "synchronize"]


def test_calls_take_turns_after_warming_up() -> None:
    timer = ManualTimer()
    timed_calls = {name: TimedCall(timer.call(name, 1.0), timer) for name in "ab"}
    timed = measure(timed_calls, Sampling(samples=4, seconds=1.0, warm_ups=3, turns=2, settle=1))
    assert "".join(timer.log) == "aaaaabbbbbaaabbb"
    assert timed["a"].samples_ms == (1.0,) * 4
    assert timed["a"].calls_per_second == 1000.0


def test_samples_that_do_not_divide_evenly_are_all_taken() -> None:
    timer = ManualTimer()
    timed = measure({"a": TimedCall(timer.call("a", 1.0), timer)}, Sampling(samples=7, turns=4))
    assert len(timed["a"].samples_ms) == 7


def test_slow_calls_end_with_their_time() -> None:
    timer = ManualTimer()
    sampling = Sampling(samples=100, seconds=1.0, warm_ups=10, turns=2)
    timed = measure({"a": TimedCall(timer.call("a", 300.0), timer)}, sampling)
    # Two a turn reach the half second; warm-ups too end with a turn's time, after two at least.
    assert len(timed["a"].samples_ms) == 4
    assert len(timer.log) == 2 + 2 + 1 + 2


def test_a_slow_case_is_in_every_turn_and_leaves_a_fast_one_its_calls() -> None:
    timer = ManualTimer()
    timed_calls = {
        "slow": TimedCall(timer.call("s", 50.0), timer),
        "fast": TimedCall(timer.call("f", 1.0), timer),
    }
    timed = measure(timed_calls, Sampling(samples=40, seconds=1.0, warm_ups=0, turns=10, settle=0))
    assert "".join(timer.log) == "ssffff" * 10
    assert (len(timed["slow"].samples_ms), len(timed["fast"].samples_ms)) == (20, 40)


def test_a_case_of_which_one_call_is_longer_than_a_turn_ends_with_its_time() -> None:
    timer = ManualTimer()
    timed_calls = {
        "slow": TimedCall(timer.call("s", 400.0), timer),
        "fast": TimedCall(timer.call("f", 1.0), timer),
    }
    timed = measure(timed_calls, Sampling(samples=10, seconds=1.0, warm_ups=0, turns=10, settle=0))
    assert "".join(timer.log) == "sfsfsf" + 7 * "f"
    assert len(timed["fast"].samples_ms) == 10


def test_figures_so_far_are_told_after_each_turn() -> None:
    timer, told = ManualTimer(), list[int]()

    def on_turn(timed: Mapping[str, Measurement]) -> None:
        told.append(len(timed["a"].samples_ms))
        assert timed["a"].calls_per_second == pytest.approx(1000.0)

    timed_calls = {"a": TimedCall(timer.call("a", 1.0), timer)}
    measure(timed_calls, Sampling(samples=6, turns=3), on_turn=on_turn)
    assert told == [2, 4, 6]


def test_a_case_that_fails_leaves_the_others() -> None:
    timer, failed = ManualTimer(), dict[str, str]()

    def fails() -> None:
        raise RuntimeError("no memory")

    timed_calls = {"bad": TimedCall(fails, timer), "good": TimedCall(timer.call("g", 1.0), timer)}
    sampling = Sampling(samples=4, turns=2)
    timed = measure(
        timed_calls, sampling, on_error=lambda key, error: failed.update({key: str(error)})
    )
    assert failed == {"bad": "no memory"}
    assert list(timed) == ["good"]
    with pytest.raises(RuntimeError, match="no memory"):
        measure(timed_calls, sampling)


def test_calls_at_the_same_time_are_counted_together_and_each_has_its_own_latency() -> None:
    # Two threads: 0.1 s a call beside the other. The first call of the one begins alone, the last
    # one of the other is half alone, and faster.
    first = [(0.0, 0.1), (0.1, 0.2), (0.2, 0.3)]
    second = [(0.05, 0.15), (0.15, 0.25), (0.25, 0.32)]
    samples_ms, n_done, seconds = concurrent_samples([first, second])
    assert samples_ms == pytest.approx([100.0] * 4)
    assert seconds == pytest.approx(0.25)
    assert n_done == pytest.approx(0.5 + 2 + 2 + 0.05 / 0.07)
    samples_ms, n_done, seconds = concurrent_samples([[(0.0, 0.1), (0.1, 0.2)]] * 2)
    assert samples_ms == pytest.approx([100.0] * 4)
    assert n_done / seconds == pytest.approx(20.0)  # a second; one after the other would be 10
    samples_ms, *nothing = concurrent_samples([[(0.0, 0.1), (0.1, 0.2)], [(0.3, 0.4), (0.4, 0.5)]])
    assert samples_ms == pytest.approx([100.0] * 4)
    assert nothing == [0.0, 0.0]


def test_streams_really_are_called_at_the_same_time() -> None:
    """Each call waits for the other: one after the other they would never end."""
    both = threading.Barrier(2)

    def call() -> None:
        both.wait(30.0)

    timed = measure(
        {"a": TimedCall(call, concurrent=(call,))},
        Sampling(samples=8, seconds=60.0, warm_ups=0, turns=2, settle=0),
    )["a"]
    assert 4 <= len(timed.samples_ms) <= 8
    assert timed.calls_per_second > 0


def test_setup_is_not_in_the_time_of_a_call() -> None:
    timer = ManualTimer()
    timed_call = TimedCall(timer.call("a", 1.0), timer, setup=timer.call("before", 50.0))
    timed = measure({"a": timed_call}, Sampling(samples=3, warm_ups=2, turns=1))
    assert timed["a"].samples_ms == (1.0,) * 3
    assert timer.log == ["before", "a"] * 5


def test_calls_that_queue_are_counted_in_one_region() -> None:
    timer = ManualTimer(is_asynchronous=True)
    timed = measure({"a": TimedCall(timer.call("a", 2.0), timer)}, Sampling(samples=5, warm_ups=0))
    assert timed["a"].calls_per_second == 500.0
    assert len(timer.log) == 5 + 4 + 5  # samples, settling in four further turns, the region


def test_budget_is_spent_with_time_and_never_without_a_limit() -> None:
    now = 0.0
    limited, unlimited = Budget(2.0, lambda: now), Budget(None, lambda: now)
    assert not limited.is_spent
    now = 2.0
    assert limited.is_spent
    assert limited.spent_seconds == 2.0
    assert not unlimited.is_spent


def test_nothing_to_measure_is_no_error() -> None:
    assert measure({}, Sampling()) == {}


@pytest.mark.parametrize("turns", [1, 8])
def test_one_sample_is_enough(turns: int) -> None:
    timer = ManualTimer()
    timed = measure({"a": TimedCall(timer.call("a", 1.0), timer)}, Sampling(samples=1, turns=turns))
    assert timed["a"].samples_ms == (1.0,)
