"""Handoffs between the stages of the pipeline, and a gate that keeps threads in order."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

WaitFor = Callable[[threading.Condition, Callable[[], bool], float | None], bool]
"""`threading.Condition.wait_for`, or a test's function in its place."""


class EndOfStream(Exception):
    """Nothing more will come through a handoff."""


class Handoff(Generic[T]):
    """Passes items from one thread to another, with bounded memory.

    Lossless: `put` waits while `capacity` items wait. With `drop_oldest`, `put` never waits: the
    oldest waiting item makes room and is counted; an object that waits already changes nothing.
    Capacity 1 with `drop_oldest` is the slot of live video, in which the newest frame wins. The
    giver may change `drop_oldest` before its first `put`.

    No item is lost uncounted: offered = taken + dropped + left + those that wait.

    Args:
        capacity: items that may wait, from 1.
        counts: which items the counters count; default: all.
    """

    def __init__(
        self,
        capacity: int,
        *,
        drop_oldest: bool = False,
        wait_for: WaitFor = threading.Condition.wait_for,
        counts: Callable[[T], bool] = lambda item: True,
    ) -> None:
        if capacity < 1:
            raise ValueError(f"a handoff holds one item at least, got a capacity of {capacity}")
        self._items: deque[T] = deque()
        self._capacity = capacity
        self.drop_oldest = drop_oldest
        self._changed = threading.Condition()
        self._wait_for = wait_for
        self._closed = False
        self._aborted = False
        self._woken = False
        self._counts = counts
        self.offered = 0
        self.taken = 0
        self.dropped = 0
        """Items that made room for newer ones."""
        self.abandoned = 0
        """Items that still waited at an abort, or came after it."""

    def put(self, item: T) -> bool:
        """Hands an item over; False if the taker is gone, so the giver may stop."""
        with self._changed:
            if not self.drop_oldest:
                self._changed.wait_for(lambda: len(self._items) < self._capacity or self._aborted)
            elif len(self._items) >= self._capacity:
                if self._items[-1] is item:
                    return not self._aborted  # it waits already
                self.dropped += self._counts(self._items.popleft())
            self.offered += self._counts(item)
            if self._aborted:
                self.abandoned += self._counts(item)
                return False
            self._items.append(item)
            self._changed.notify_all()
            return True

    def take(self, timeout: float | None = None) -> T:
        """The next item.

        Raises:
            EndOfStream: the giver has closed and everything was taken, or the handoff was aborted.
            TimeoutError: nothing came within `timeout` seconds, or `wake` was called.
        """
        with self._changed:
            ready = self._wait_for(
                self._changed,
                lambda: bool(self._items) or self._closed or self._aborted or self._woken,
                timeout,
            )
            woken, self._woken = self._woken, False
            if not ready or (woken and not (self._items or self._closed or self._aborted)):
                raise TimeoutError
            if self._aborted or not self._items:
                raise EndOfStream
            item = self._items.popleft()
            self.taken += self._counts(item)
            self._changed.notify_all()
            return item

    def wait(self) -> None:
        """Returns when an item waits, which is not taken yet.

        Raises:
            EndOfStream: no item will come.
        """
        with self._changed:
            self._changed.wait_for(lambda: bool(self._items) or self._closed or self._aborted)
            if self._aborted or not self._items:
                raise EndOfStream

    def wake(self) -> None:
        """Ends a `take` that waits, or else the next one, with a TimeoutError unless an item waits:
        the taker has something else to look at."""
        with self._changed:
            self._woken = True
            self._changed.notify_all()

    @property
    def is_aborted(self) -> bool:
        return self._aborted

    def close(self) -> None:
        """The giver has no more; waiting items can still be taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def abort(self) -> None:
        """The end for both sides, now: waiting items are left, givers and takers return."""
        with self._changed:
            self._aborted = True
            self.abandoned += sum(map(self._counts, self._items))
            self._items.clear()
            self._changed.notify_all()


class OrderedGate:
    """Lets threads pass in the order of their tickets, whichever of them comes first.

    ticket = gate.join()        in the order in which they shall pass
    with ticket: ...            on threads of their own
    """

    def __init__(self) -> None:
        self._n_joined = 0
        self._next = 0
        self._passed: set[int] = set()
        self._changed = threading.Condition()

    def join(self) -> Ticket:
        """A ticket behind all others; its holder must pass it on."""
        with self._changed:
            self._n_joined += 1
            return Ticket(self, self._n_joined - 1)

    def _await(self, place: int) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._next >= place)

    def _pass(self, place: int) -> None:
        with self._changed:
            self._passed.add(place)
            while self._next in self._passed:
                self._passed.remove(self._next)
                self._next += 1
            self._changed.notify_all()


class Ticket:
    """One place in the order of a gate."""

    def __init__(self, gate: OrderedGate, place: int) -> None:
        self._gate, self._place = gate, place
        self._is_over = False

    def __enter__(self) -> None:
        self._gate._await(self._place)

    def __exit__(self, *_: object) -> None:
        self.pass_on()

    def pass_on(self) -> None:
        """Lets the next one pass after all before this one, entered or not; waits for nobody."""
        if not self._is_over:
            self._is_over = True
            self._gate._pass(self._place)
