from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_cam.config import CaptureConfig
from stream_cam.queues import EndOfStream, Handoff

DEADLINE_SECONDS = 10.0


def _join(*threads: threading.Thread) -> None:
    for thread in threads:
        thread.join(DEADLINE_SECONDS)
        assert not thread.is_alive()


def _start(work: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def _take_all(handoff: Handoff[int]) -> list[int]:
    taken = []
    try:
        while True:
            taken.append(handoff.take(DEADLINE_SECONDS))
    except EndOfStream:
        return taken


def test_handoff_keeps_the_order_and_loses_nothing() -> None:
    handoff: Handoff[int] = Handoff(3)
    taken: list[int] = []
    taker = _start(lambda: taken.extend(_take_all(handoff)))
    for item in range(1000):
        assert handoff.put(item)
    handoff.close()
    _join(taker)
    assert taken == list(range(1000))
    assert handoff.dropped == 0


def test_lossless_put_waits_while_it_is_full() -> None:
    handoff: Handoff[int] = Handoff(2)
    handoff.put(0)
    handoff.put(1)
    put = threading.Event()

    def give() -> None:
        handoff.put(2)
        put.set()

    giver = _start(give)
    assert not put.wait(0.05)
    assert handoff.take() == 0
    assert put.wait(DEADLINE_SECONDS)
    _join(giver)
    assert [handoff.take(), handoff.take()] == [1, 2]


def test_drop_oldest_never_waits_and_counts() -> None:
    handoff: Handoff[int] = Handoff(2, drop_oldest=True)
    for item in range(5):
        assert handoff.put(item)
    handoff.close()
    assert handoff.dropped == 3
    assert _take_all(handoff) == [3, 4]


def test_newest_frame_slot_holds_only_the_newest() -> None:
    slot: Handoff[int] = Handoff(1, drop_oldest=True)
    slot.put(1)
    slot.put(2)
    assert slot.take() == 2
    with pytest.raises(TimeoutError):
        slot.take(0.0)
    assert slot.dropped == 1


def test_close_lets_what_waits_be_taken() -> None:
    handoff: Handoff[int] = Handoff(4)
    handoff.put(1)
    handoff.put(2)
    handoff.close()
    assert _take_all(handoff) == [1, 2]
    with pytest.raises(EndOfStream):
        handoff.take(0.0)


def test_abort_drops_what_waits_and_turns_givers_away() -> None:
    handoff: Handoff[int] = Handoff(4)
    handoff.put(1)
    handoff.abort()
    with pytest.raises(EndOfStream):
        handoff.take()
    assert not handoff.put(2)
    handoff.close()
    with pytest.raises(EndOfStream):
        handoff.take()


@pytest.mark.parametrize("drop_oldest", [False, True])
def test_abort_of_a_dropping_or_waiting_handoff_refuses_puts(drop_oldest: bool) -> None:
    handoff: Handoff[int] = Handoff(1, drop_oldest=drop_oldest)
    handoff.put(1)
    handoff.abort()
    assert not handoff.put(2)
    assert handoff.dropped == 0


def test_abort_wakes_everyone_who_waits() -> None:
    full: Handoff[int] = Handoff(1)
    full.put(0)
    empty: Handoff[int] = Handoff(1)
    answers: list[object] = []

    def take() -> None:
        with pytest.raises(EndOfStream):
            empty.take()
        answers.append("taker")

    threads = [_start(lambda: answers.append(full.put(1))) for _ in range(3)]
    threads += [_start(take) for _ in range(3)]
    full.abort()
    empty.abort()
    _join(*threads)
    assert sorted(map(str, answers)) == ["False"] * 3 + ["taker"] * 3


def test_take_times_out_and_can_be_tried_again() -> None:
    handoff: Handoff[int] = Handoff(1)
    with pytest.raises(TimeoutError):
        handoff.take(0.01)
    handoff.put(7)
    assert handoff.take(0.01) == 7


@pytest.mark.parametrize("n_givers", [1, 4])
def test_many_threads_hand_over_each_item_once(n_givers: int) -> None:
    handoff: Handoff[tuple[int, int]] = Handoff(3)
    taken: list[list[tuple[int, int]]] = [[] for _ in range(4)]

    def take(mine: list[tuple[int, int]]) -> None:
        try:
            while True:
                mine.append(handoff.take(DEADLINE_SECONDS))
        except EndOfStream:
            pass

    def give(giver: int) -> None:
        for item in range(200):
            assert handoff.put((giver, item))

    takers = [_start(lambda mine=mine: take(mine)) for mine in taken]  # type: ignore[misc]
    givers = [_start(lambda giver=giver: give(giver)) for giver in range(n_givers)]  # type: ignore[misc]
    _join(*givers)
    handoff.close()
    _join(*takers)
    everything = [item for mine in taken for item in mine]
    assert sorted(everything) == [(g, i) for g in range(n_givers) for i in range(200)]
    for mine in taken:  # each taker sees each giver's items in order
        for giver in range(n_givers):
            seen = [item for who, item in mine if who == giver]
            assert seen == sorted(seen)


def test_dropping_under_load_counts_exactly() -> None:
    slot: Handoff[int] = Handoff(1, drop_oldest=True)
    taken: list[int] = []
    taker = _start(lambda: taken.extend(_take_all(slot)))
    for item in range(5000):
        slot.put(item)
    slot.close()
    _join(taker)
    assert taken == sorted(set(taken))
    assert taken[-1] == 4999
    assert len(taken) + slot.dropped == 5000


def test_a_handoff_that_holds_nothing_is_refused() -> None:
    """Its giver would wait for ever."""
    with pytest.raises(ValueError, match="one item at least"):
        Handoff(0)
    with pytest.raises(ValueError, match="--queue-frames is a number of frames from 1, got 0"):
        CaptureConfig(queue_frames=0)


@settings(deadline=None, max_examples=300)
@given(
    capacity=st.integers(1, 4),
    steps=st.lists(st.sampled_from(["put", "put", "take", "close", "abort"]), max_size=30),
    counted=st.sampled_from([lambda number: True, lambda number: number % 3 > 0]),
)
def test_dropping_handoff_behaves_as_its_model(
    capacity: int, steps: list[str], counted: Callable[[int], bool]
) -> None:
    handoff: Handoff[int] = Handoff(capacity, drop_oldest=True, counts=counted)
    model: list[int] = []
    offered: list[int] = []
    taken: list[int] = []
    dropped: list[int] = []
    left: list[int] = []
    closed, aborted = False, False
    for number, step in enumerate(steps):
        if step == "put":
            assert handoff.put(number) is not aborted
            offered.append(number)
            (left if aborted else model).append(number)
            if len(model) > capacity:
                dropped.append(model.pop(0))
        elif step == "take":
            if model:
                taken.append(model.pop(0))
                assert handoff.take(0.0) == taken[-1]
            else:
                with pytest.raises(EndOfStream if closed or aborted else TimeoutError):
                    handoff.take(0.0)
        elif step == "close":
            handoff.close()
            closed = True
        else:
            handoff.abort()
            aborted = True
            left += model
            model = []

    def count(numbers: list[int]) -> int:
        return sum(map(counted, numbers))

    assert handoff.offered == count(offered)
    assert handoff.taken == count(taken)
    assert handoff.dropped == count(dropped)
    assert handoff.abandoned == count(left)
    assert count(offered) == count(taken) + count(dropped) + count(left) + count(model)


def test_lossless_handoff_counts_who_was_turned_away_while_waiting() -> None:
    full: Handoff[int] = Handoff(2)
    full.put(0)
    full.put(1)
    assert full.take() == 0
    full.put(2)
    answers: list[bool] = []
    giver = _start(lambda: answers.append(full.put(3)))
    full.abort()
    _join(giver)
    assert answers == [False]
    assert (full.offered, full.taken, full.dropped, full.abandoned) == (4, 1, 0, 3)
