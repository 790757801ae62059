"""What is to be timed: verified cases with what their rows say, measured together in turns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from stream_cam.bench.result import Row, Subject
from stream_cam.bench.timing import Case, Effort, Timed, measure
from stream_cam.engine.manifest import Figures


@dataclass(frozen=True)
class Planned:
    """One case, ready to be timed."""

    case: Case
    region: str
    """What lies between the start and the end of the time, without whose clock it is."""
    verification: Figures | None = None


Plan = Mapping[Subject, Planned]


def timed_rows(
    plan: Plan,
    effort: Effort,
    *,
    on_turn: Callable[[list[Row]], None] | None = None,
    on_error: Callable[[Subject, RuntimeError], None] | None = None,
) -> list[Row]:
    """Times all, in turns.

    Args:
        on_turn: gets the rows so far, after each turn.
        on_error: gets what failed, which is then left out; default: raised.
    """

    def rows(timed: Mapping[Subject, Timed]) -> list[Row]:
        return [
            Row.of(
                subject,
                f"{plan[subject].region}; {plan[subject].case.clock.name}",
                one,
                plan[subject].verification,
            )
            for subject, one in timed.items()
        ]

    cases = {subject: planned.case for subject, planned in plan.items()}
    told = None if on_turn is None else lambda timed: on_turn(rows(timed))
    return rows(measure(cases, effort, on_turn=told, on_error=on_error))
