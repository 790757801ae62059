"""Decides which cameras' frames the network sees next. Pure: time is passed in, nothing runs here.

A camera offers that it has a frame; the frame itself is taken when its turn comes, so it is the
newest one. One frame of a camera is in a batch, and one camera waits at most once.

Fair shares are start-time fair queueing (Goyal et al., SIGCOMM 1996, §2): each turn moves a
camera's virtual time on by 1/weight, and the lowest virtual time is served first. A camera that
was away starts at the present virtual time: it is owed nothing for the time it had no frames.

A batch is formed only of frames that wait already, and only where its measured cost explains more
frames a second than single frames do and its oldest frame is still within the latency limit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_GAIN = 1.05
"""A batch must explain this many times as many frames a second: costs vary by a few percent."""
_RETURN_SECONDS = 0.002
"""How long a served camera has to offer its next frame before one of less right is served."""
_NEWEST_SHARE = 0.1
"""Weight of a new measurement in a size's cost."""


@dataclass(frozen=True, slots=True)
class Batch:
    """The decision: which cameras' frames are next, or when to ask again."""

    cameras: tuple[str, ...] = ()
    wait_seconds: float | None = None
    """Without cameras: when the next one is due; None: when a camera offers a frame."""


@dataclass(slots=True)
class _Camera:
    weight: float
    interval_seconds: float
    """At least this long from turn to turn."""
    virtual: float
    waiting_since: float | None = None
    """The capture time of the frame that waits."""
    due: float = 0.0
    returns_until: float = 0.0
    """Until then it may offer its next frame without losing its place."""
    turns: int = 0


class BatchCosts:
    """How long the network takes for batches of each size, as measured.

    Args:
        seconds: by batch size; the sizes are the ladder, and hold 1.
    """

    def __init__(self, seconds: Mapping[int, float]) -> None:
        if 1 not in seconds or any(size < 1 for size in seconds):
            raise ValueError(f"costs are of batch sizes from 1, got {sorted(seconds)}")
        if not all(value > 0.0 for value in seconds.values()):
            raise ValueError(f"costs are times above 0 s, got {dict(seconds)}")
        self._seconds = dict(sorted(seconds.items()))

    @property
    def sizes(self) -> Sequence[int]:
        """The ladder, from 1."""
        return tuple(self._seconds)

    def seconds(self, size: int) -> float:
        """For a batch of a size of the ladder."""
        return self._seconds[size]

    def record(self, size: int, seconds: float) -> None:
        """A batch of this size has taken so long."""
        self._seconds[size] += _NEWEST_SHARE * (seconds - self._seconds[size])

    def best_size(self, waiting: int, seconds_left: float) -> int:
        """The size with the most frames a second, of those that fit; 1 where none is better.

        Args:
            waiting: frames that wait.
            seconds_left: until the oldest of them is beyond the latency limit.
        """
        best, rate = 1, _GAIN / self._seconds[1]
        for size, seconds in self._seconds.items():
            fits = size <= waiting and seconds <= seconds_left
            if size > 1 and fits and size / seconds > rate:
                best, rate = size, size / seconds
        return best


class Scheduler:
    """Which cameras' newest frames form the next batch.

    Args:
        costs: of each batch size.
        limit_seconds: from a frame's capture to its explanation, where batches are concerned.
    """

    def __init__(self, costs: BatchCosts, limit_seconds: float) -> None:
        if not limit_seconds > 0.0:
            raise ValueError(f"the latency limit is a time above 0 s, got {limit_seconds:g}")
        self.costs = costs
        self._limit_seconds = limit_seconds
        self._cameras: dict[str, _Camera] = {}
        self._virtual = 0.0

    def add(self, camera: str, *, weight: float = 1.0, rate: float | None = None) -> None:
        """A camera joins.

        Args:
            weight: its share of the network, relative to the other cameras'.
            rate: explained frames a second at most; None: as many as its share allows.
        """
        if camera in self._cameras:
            raise ValueError(f"the camera {camera} is here already")
        if not weight > 0.0 or (rate is not None and not rate > 0.0):
            raise ValueError(f"weight and rate are above 0, got {weight} and {rate}")
        interval = 0.0 if rate is None else 1.0 / rate
        self._cameras[camera] = _Camera(weight, interval, self._virtual)

    def remove(self, camera: str) -> None:
        """A camera leaves, with the frame that waits."""
        self._cameras.pop(camera, None)

    def turns(self, camera: str) -> int:
        """How many turns it had."""
        return self._cameras[camera].turns

    def offer(self, camera: str, captured: float) -> None:
        """The camera has a frame. A second offer changes nothing: the newest frame is taken.

        Args:
            captured: the time of the frame's capture.
        """
        one = self._cameras[camera]
        if one.waiting_since is None:
            one.waiting_since = captured
            one.virtual = max(one.virtual, self._virtual)

    def withdraw(self, camera: str) -> None:
        """The camera's frame is gone."""
        if camera in self._cameras:
            self._cameras[camera].waiting_since = None

    def done(self, cameras: Sequence[str], now: float) -> None:
        """The network has explained these cameras' frames."""
        for name in cameras:
            if name in self._cameras:
                self._cameras[name].returns_until = now + _RETURN_SECONDS

    def next(self, now: float) -> Batch:
        """The next batch, whose cameras wait no more; or the time at which one is due."""
        waiting = {
            name: one for name, one in self._cameras.items() if one.waiting_since is not None
        }
        due = [name for name, one in waiting.items() if one.due <= now]
        if not due:
            if not waiting:
                return Batch()
            return Batch(wait_seconds=min(one.due for one in waiting.values()) - now)
        due.sort(key=self._order)
        awaited = self._awaited(self._cameras[due[0]].virtual, now)
        if awaited is not None:
            return Batch(wait_seconds=awaited)
        chosen = due[: self._size(due, now)]
        self._virtual = max(self._virtual, self._cameras[chosen[0]].virtual)
        for name in chosen:
            self._take(self._cameras[name], now)
        return Batch(tuple(chosen))

    def _awaited(self, virtual: float, now: float) -> float | None:
        """Seconds to wait for a camera that was just served and has more right than `virtual`.

        Without it a camera of twice the weight would never have two turns in a row.
        """
        until = [
            one.returns_until
            for one in self._cameras.values()
            if one.waiting_since is None and one.virtual < virtual and one.due <= now
        ]
        latest = max(until, default=now)
        return latest - now if latest > now else None

    def _order(self, name: str) -> tuple[float, float, str]:
        one = self._cameras[name]
        return one.virtual, one.waiting_since or 0.0, name

    def _size(self, due: Sequence[str], now: float) -> int:
        """The largest batch that is worth it, whose own frames keep the latency limit."""
        for count in range(len(due), 1, -1):
            oldest = min(self._cameras[name].waiting_since or 0.0 for name in due[:count])
            size = self.costs.best_size(count, oldest + self._limit_seconds - now)
            if size == count:
                return size
        return 1

    def _take(self, one: _Camera, now: float) -> None:
        one.waiting_since = None
        one.virtual += 1.0 / one.weight
        # By the grid of its rate, so that a turn that is a little late does not lower the rate.
        following = one.due + one.interval_seconds
        one.due = following if following > now else now + one.interval_seconds
        one.turns += 1
