"""Waits between attempts, and how long a frame may take, without any clock."""

from __future__ import annotations

from support.manual_clock import NoJitter

from stream_cam.sources.backoff import Backoff
from stream_cam.sources.frame_interval import FrameInterval


def test_waits_double_until_a_connection_has_lasted() -> None:
    backoff = Backoff(NoJitter())
    waits = []
    for start in (0.0, 100.0, 200.0):
        for second in range(10):  # one frame a second, for 9 s
            backoff.received(start + second)
        waits.append(backoff.failed("lost"))
    assert waits == [0.5, 1.0, 2.0]
    assert backoff.short_connections == 3
    backoff.received(300.0)
    backoff.received(310.0)
    assert (backoff.failures, backoff.short_connections) == (0, 0)
    assert backoff.failed("lost") == 0.5


def test_attempts_that_give_no_frame_are_no_short_connections() -> None:
    backoff = Backoff(NoJitter())
    assert [backoff.failed("refused") for _ in range(7)] == [0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0]
    assert backoff.short_connections == 0
    assert backoff.failed("authentication") == 10.0


def test_quiet_is_three_times_the_longest_of_the_last_intervals() -> None:
    interval = FrameInterval()
    assert interval.quiet_seconds(5.0) == 5.0
    for now in (0.0, 0.5, 3.0):
        interval.received(now)
    assert interval.quiet_seconds(5.0) == 7.5
    for now in (3.04, 3.08, 3.12, 3.16, 3.2):
        interval.received(now)
    assert interval.quiet_seconds(5.0) == 1.0


def test_outage_is_no_interval() -> None:
    interval = FrameInterval()
    for now in (0.0, 0.5):
        interval.received(now)
    interval.interrupted()
    interval.received(100.0)
    assert interval.quiet_seconds(5.0) == 1.5
    assert interval.patience_seconds(5.0) == 5.0


def test_patience_grows_while_each_connection_gives_one_frame() -> None:
    interval = FrameInterval()
    found = []
    for start in (0.0, 100.0, 200.0, 300.0, 400.0):
        interval.received(start)
        found.append(interval.patience_seconds(5.0))
        interval.interrupted(silent=True)
    assert found == [5.0, 10.0, 20.0, 40.0, 60.0]
    interval.received(500.0)
    interval.received(512.0)
    assert interval.patience_seconds(5.0) == 36.0
