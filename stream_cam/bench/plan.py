"""Rows to be timed: verified calls with their regions, measured together in turns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from stream_cam.bench.result import Row, Subject
from stream_cam.bench.timing import Measurement, Sampling, TimedCall, measure
from stream_cam.engine.manifest import Figures


@dataclass(frozen=True)
class PlannedRow:
    """One row, ready to be timed."""

    timed_call: TimedCall
    region: str
    """The work between the start and the end of the time, without the timer's name."""
    verification: Figures | None = None


Plan = Mapping[Subject, PlannedRow]


def time_rows(
    plan: Plan,
    sampling: Sampling,
    *,
    on_turn: Callable[[list[Row]], None] | None = None,
    on_error: Callable[[Subject, RuntimeError], None] | None = None,
) -> list[Row]:
    """Times all rows, in turns.

    Args:
        on_turn: gets the rows so far, after each turn.
        on_error: gets a failed row, which is then left out; default: the error is raised.
    """

    def rows(timed: Mapping[Subject, Measurement]) -> list[Row]:
        return [
            Row.of(
                subject,
                f"{plan[subject].region}; {plan[subject].timed_call.timer.name}",
                one,
                plan[subject].verification,
            )
            for subject, one in timed.items()
        ]

    timed_calls = {subject: planned.timed_call for subject, planned in plan.items()}
    told = None if on_turn is None else lambda timed: on_turn(rows(timed))
    return rows(measure(timed_calls, sampling, on_turn=told, on_error=on_error))
