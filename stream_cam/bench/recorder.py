"""The result of a benchmark while it is measured: rows, gaps and the time that is left."""

from __future__ import annotations

from collections.abc import Callable

from stream_cam.bench.engines import EngineVariant
from stream_cam.bench.plan import Plan, PlannedRow, time_rows
from stream_cam.bench.result import BenchResult, Row, Subject, size_text
from stream_cam.bench.timing import Budget, Sampling
from stream_cam.errors import EngineError, GateError, first_line

OnStage = Callable[[str], None]
"""Gets the present stage, in a few words."""
OnResult = Callable[[BenchResult], None]
"""Gets the figures so far, after each part."""
NO_TIME = "no time left"
"""First words of the reason why a part was not begun within the budget."""


class Recorder:
    """Times rows, and keeps the result complete after each of them.

    Without a budget all planned rows take turns at the end; with one each is timed at once.
    """

    def __init__(
        self,
        result: BenchResult,
        sampling: Sampling,
        budget: Budget,
        on_stage: OnStage = lambda stage: None,
        on_result: OnResult = lambda result: None,
    ) -> None:
        self.result, self.sampling, self.budget = result, sampling, budget
        self.on_stage = on_stage
        self.in_turns = budget.seconds is None
        self._on_result = on_result
        self._planned: dict[Subject, PlannedRow] = {}
        self._failures: set[tuple[EngineVariant, str]] = set()

    def plan(self, plan: Plan) -> None:
        """Adds rows to those that take turns; with a budget they are timed at once."""
        self._planned.update(plan)
        if not self.in_turns:
            self.measure_planned()

    def measure_planned(self) -> None:
        """Times all planned rows in turns, and reports the figures after each turn."""
        plan, self._planned = self._planned, {}
        result, known = self.result, list(self.result.rows)
        turn = 0

        def on_turn(rows: list[Row]) -> None:
            nonlocal turn
            turn += 1
            self.on_stage(f"timed {len(plan)} rows, turn {turn} of {self.sampling.turns}")
            result.rows = known + rows
            self.report()

        def on_error(subject: Subject, error: RuntimeError) -> None:
            parts = [subject.name, *([f"batch {subject.batch}"] if subject.batch > 1 else [])]
            what = ", ".join([f"{subject.engine}:{subject.precision}", *parts])
            result.leave_out(f"{what}, {size_text(subject.input_hw)}", first_line(error))

        self.on_stage(f"timing {len(plan)} rows in turns")
        result.rows = known + time_rows(plan, self.sampling, on_turn=on_turn, on_error=on_error)
        self.report()

    def report(self) -> None:
        self.result.seconds = round(self.budget.spent_seconds, 3)
        self._on_result(self.result)

    def may_begin(self, what: str) -> bool:
        """Whether there is time for a part; if not, it is left out with that reason."""
        if not self.budget.is_spent:
            return True
        self.result.leave_out(what, f"{NO_TIME} of {self.budget.seconds:g} s")
        return False

    def leave_out(
        self, variant: EngineVariant, what: str, error: Exception, *, opening: bool = False
    ) -> None:
        """Records once for each engine and reason that it was not measured.

        Args:
            opening: the engine could not be opened. A machine without such an engine has no fault.
        """
        why = first_line(error)
        if (variant, why) not in self._failures:
            self._failures.add((variant, why))
            missing = isinstance(error, EngineError) and not isinstance(error, GateError)
            self.result.leave_out(what, why, not_here=opening and missing)
