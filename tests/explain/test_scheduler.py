"""The scheduler's decisions, frame by frame, on a clock that the test moves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import pytest

from stream_cam.explain.scheduler import Batch, BatchCosts, Scheduler

SINGLE = {1: 0.02}
LADDER = {1: 0.020, 2: 0.024, 4: 0.032}


def make_scheduler(
    costs: Mapping[int, float], *cameras: str, limit_seconds: float = 0.25
) -> Scheduler:
    scheduler = Scheduler(BatchCosts(costs), limit_seconds)
    for camera in cameras:
        scheduler.add(camera)
    return scheduler


class Overload:
    """Cameras that offer a new frame at once after each of their turns."""

    def __init__(self, scheduler: Scheduler, cameras: list[str]) -> None:
        self.scheduler, self.cameras, self.now = scheduler, cameras, 0.0
        self.turns: Counter[str] = Counter()
        self.sizes: Counter[int] = Counter()

    def run(self, seconds: float) -> None:
        until = self.now + seconds
        for camera in self.cameras:
            self.scheduler.offer(camera, self.now)
        while self.now < until:
            batch = self.scheduler.next(self.now)
            if not batch.cameras:
                assert batch.wait_seconds is not None
                self.now += batch.wait_seconds
                continue
            self.turns.update(batch.cameras)
            self.sizes[len(batch.cameras)] += 1
            self.now += self.scheduler.costs.seconds(len(batch.cameras))
            self.scheduler.done(batch.cameras, self.now)
            for camera in batch.cameras:
                self.scheduler.offer(camera, self.now)


def test_nothing_waits_is_no_batch() -> None:
    assert make_scheduler(SINGLE, "a").next(0.0) == Batch()


def test_a_camera_waits_at_most_once() -> None:
    scheduler = make_scheduler(SINGLE, "a")
    for moment in range(5):
        scheduler.offer("a", moment / 100)
    assert scheduler.next(0.05).cameras == ("a",)
    assert scheduler.next(0.05) == Batch()


def test_frames_of_equal_right_are_taken_oldest_first() -> None:
    scheduler = make_scheduler(SINGLE, "a", "b", "c")
    for camera, captured in (("b", 0.00), ("c", 0.01), ("a", 0.02)):
        scheduler.offer(camera, captured)
    assert [scheduler.next(0.02).cameras[0] for _ in range(3)] == ["b", "c", "a"]


def test_overload_is_shared_evenly_whatever_the_cameras_rates() -> None:
    names = ["a", "b", "c"]
    show = Overload(make_scheduler(SINGLE, *names), names)
    show.run(30.0)
    assert max(show.turns.values()) - min(show.turns.values()) <= 1


@pytest.mark.parametrize("costs", [SINGLE, {1: 0.02, 2: 0.03}])
def test_weights_divide_the_network(costs: Mapping[int, float]) -> None:
    scheduler = make_scheduler(costs, limit_seconds=10.0)
    for camera, weight in (("a", 3.0), ("b", 1.0), ("c", 1.0), ("d", 1.0)):
        scheduler.add(camera, weight=weight)
    show = Overload(scheduler, ["a", "b", "c", "d"])
    show.run(60.0)
    if len(costs) == 1:
        assert show.turns["a"] == pytest.approx(3 * show.turns["b"], rel=0.02)
    assert show.turns["b"] == pytest.approx(show.turns["c"], rel=0.02)
    assert show.turns["a"] > 1.9 * show.turns["b"]


def test_weight_counts_between_two_cameras_that_take_turns() -> None:
    """Without the moment to return, the heavier one would never have two turns in a row."""
    scheduler = make_scheduler(SINGLE)
    scheduler.add("a", weight=2.0)
    scheduler.add("b")
    turns: Counter[str] = Counter()
    now, last = 0.0, ""
    scheduler.offer("a", now)
    scheduler.offer("b", now)
    for _ in range(300):
        batch = scheduler.next(now)
        if not batch.cameras:
            # The thread of the camera that was served is back before the moment is over.
            scheduler.offer(last, now)
            batch = scheduler.next(now)
        [last] = batch.cameras
        turns[last] += 1
        now += 0.02
        scheduler.done([last], now)
        other = "b" if last == "a" else "a"
        scheduler.offer(other, now)  # it was waiting
    assert turns["a"] == pytest.approx(200, abs=3)


def test_a_camera_that_does_not_return_is_not_awaited_longer() -> None:
    scheduler = make_scheduler(SINGLE)
    scheduler.add("a", weight=10.0)
    scheduler.add("b")
    scheduler.offer("a", 0.0)
    scheduler.offer("b", 0.0)
    assert scheduler.next(0.0).cameras == ("a",)
    scheduler.done(["a"], 0.02)
    assert scheduler.next(0.02).cameras == ("b",)  # equal right until its first turn
    scheduler.done(["b"], 0.04)
    scheduler.offer("b", 0.04)
    assert scheduler.next(0.05).cameras == ("b",)


def test_a_camera_that_was_away_is_owed_nothing() -> None:
    scheduler = make_scheduler(SINGLE, "a", "b")
    alone = Overload(scheduler, ["a"])
    alone.run(600.0)
    both = Overload(scheduler, ["a", "b"])
    both.now = alone.now
    both.run(10.0)
    assert abs(both.turns["a"] - both.turns["b"]) <= 2


def test_a_batch_is_formed_where_it_explains_more() -> None:
    names = [f"camera {number}" for number in range(8)]
    show = Overload(make_scheduler(LADDER, *names), names)
    show.run(10.0)
    assert set(show.sizes) == {4}
    assert max(show.turns.values()) - min(show.turns.values()) <= 1


def test_no_batch_where_it_explains_no_more() -> None:
    names = ["a", "b", "c", "d"]
    show = Overload(make_scheduler({1: 0.020, 2: 0.041, 4: 0.079}, *names), names)
    show.run(10.0)
    assert set(show.sizes) == {1}


def test_a_batch_holds_only_frames_that_wait() -> None:
    scheduler = make_scheduler(LADDER, "a", "b", "c", "d")
    scheduler.offer("a", 0.0)
    assert scheduler.next(0.0).cameras == ("a",)
    for camera in "abc":
        scheduler.offer(camera, 0.02)
    assert len(scheduler.next(0.02).cameras) == 2


def test_a_batch_that_would_break_the_limit_is_not_formed() -> None:
    scheduler = make_scheduler(LADDER, "a", "b", "c", "d", limit_seconds=0.05)
    for camera in "abcd":
        scheduler.offer(camera, 0.0)
    # 28 ms are left: four frames take 32, two take 24.
    assert len(scheduler.next(0.022).cameras) == 2


def test_late_frames_are_explained_one_by_one() -> None:
    scheduler = make_scheduler(LADDER, "a", "b", limit_seconds=0.05)
    scheduler.offer("a", 0.0)
    scheduler.offer("b", 0.0)
    assert len(scheduler.next(1.0).cameras) == 1


def test_a_rate_is_kept_and_the_rest_goes_to_others() -> None:
    scheduler = make_scheduler(SINGLE)
    scheduler.add("slow", rate=5.0)
    scheduler.add("fast")
    show = Overload(scheduler, ["slow", "fast"])
    show.run(20.0)
    assert show.turns["slow"] == pytest.approx(100, abs=2)
    assert show.turns["slow"] + show.turns["fast"] == pytest.approx(1000, abs=25)


def test_a_rate_alone_says_when_to_ask_again() -> None:
    scheduler = make_scheduler(SINGLE)
    scheduler.add("a", rate=4.0)
    scheduler.offer("a", 0.0)
    assert scheduler.next(0.0).cameras == ("a",)
    scheduler.offer("a", 0.02)
    assert scheduler.next(0.02).wait_seconds == pytest.approx(0.23)


def test_a_camera_that_leaves_takes_its_frame_along() -> None:
    scheduler = make_scheduler(SINGLE, "a", "b")
    scheduler.offer("a", 0.0)
    scheduler.remove("a")
    scheduler.remove("a")
    scheduler.withdraw("b")
    assert scheduler.next(0.0) == Batch()


def test_costs_follow_the_measurements() -> None:
    costs = BatchCosts({1: 0.02, 2: 0.05})
    assert costs.best_size(2, 1.0) == 1
    for _ in range(60):
        costs.record(2, 0.022)
    assert costs.best_size(2, 1.0) == 2


@pytest.mark.parametrize("seconds", [{2: 0.1}, {1: 0.0}, {0: 1.0, 1: 1.0}])
def test_wrong_costs_are_refused(seconds: Mapping[int, float]) -> None:
    with pytest.raises(ValueError, match="costs are"):
        BatchCosts(seconds)


def test_wrong_cameras_are_refused() -> None:
    scheduler = make_scheduler(SINGLE, "a")
    with pytest.raises(ValueError, match="here already"):
        scheduler.add("a")
    with pytest.raises(ValueError, match="above 0"):
        scheduler.add("b", weight=0.0)
    with pytest.raises(ValueError, match="latency limit"):
        Scheduler(BatchCosts(SINGLE), 0.0)
