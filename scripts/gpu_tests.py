"""Runs the tests that need a GPU, and records each outcome at once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from gpu_records import Records

_SIGNS = ("mark.needs_gpu", "mark.needs_tensorrt", "run_kernel")
"""The fixture run_kernel runs a test once more, on the GPU."""
_WHY_CHARACTERS = 3000


def files_with_gpu_tests(folder: Path) -> list[Path]:
    """Test files for pytest. Others import packages that need not be installed there."""
    return [
        path
        for path in sorted(folder.rglob("test_*.py"))
        if any(sign in path.read_text(encoding="utf-8") for sign in _SIGNS)
    ]


def run(command: Sequence[str], records: Records) -> int:
    """Runs pytest in this process; its exit code."""
    return int(pytest.main(list(command), plugins=[_Recorder(records)]))


class _Recorder:
    def __init__(self, records: Records) -> None:
        self._records = records

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.when == "call" or report.outcome != "passed":
            self._add(report, report.outcome)

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed:
            self._add(report, "not collected")

    def _add(self, report: Any, outcome: str) -> None:
        why = report.longrepr[-1] if isinstance(report.longrepr, tuple) else report.longreprtext
        record = {"test": report.nodeid, "outcome": outcome, "good": outcome in _GOOD}
        seconds = round(getattr(report, "duration", 0.0), 2)
        self._records.add(**record, seconds=seconds, why=str(why)[-_WHY_CHARACTERS:])


_GOOD = ("passed", "skipped")
