"""Two files of figures, compared row by row: slower, faster, or not told apart."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from stream_cam.bench.machine import busy_warning
from stream_cam.bench.result import BenchResult, Row, Subject
from stream_cam.bench.table import PIPE_COLUMNS, milliseconds, percent
from stream_cam.errors import BenchError

Verdict = Literal["slower", "faster", "same", "not told apart", "too few calls"]
_COLOURS = {"slower": "red", "faster": "green", "not told apart": "yellow"}
_PARTS = 10
"""Parts of a row's samples, in the order of time; each has its own median."""
_MIN_CALLS = 20
"""A row with fewer calls is not judged."""


@dataclass(frozen=True)
class Change:
    """One subject in both files."""

    old: Row
    new: Row
    tolerance: float

    @property
    def ratio(self) -> float:
        """New median by old median: above 1 is slower."""
        return median(self.new) / median(self.old)

    @property
    def verdict(self) -> Verdict:
        """Slower or faster only beyond the tolerance and beyond both rows' own variation."""
        if min(self.old.n, self.new.n) < _MIN_CALLS:
            return "too few calls"
        factor = max(self.ratio, 1 / self.ratio)
        if factor <= 1 + self.tolerance:
            return "same"
        before, after = medians_range(self.old), medians_range(self.new)
        overlap = before[0] <= after[1] and after[0] <= before[1]
        if overlap or factor <= 1 + max(self.old.drift or 0.0, self.new.drift or 0.0):
            return "not told apart"
        return "slower" if self.ratio > 1 else "faster"


def median(row: Row) -> float:
    return float(np.median(row.samples_ms))


def medians_range(row: Row) -> tuple[float, float]:
    """The lowest and the highest median of the parts of a row, in ms.

    A short repetition could find any of them, so two rows whose ranges overlap are not told apart.
    """
    parts = max(1, min(_PARTS, row.n // 5))
    medians = [float(np.median(part)) for part in np.array_split(np.array(row.samples_ms), parts)]
    return min(medians), max(medians)


def noise(row: Row) -> str:
    """Half of `medians_range` as a share of the median, for people; a dash for too few calls."""
    if row.n < _MIN_CALLS:
        return "-"
    low, high = medians_range(row)
    return f"±{(high - low) / 2 / median(row):.0%}"


@dataclass(frozen=True)
class Comparison:
    changes: tuple[Change, ...]
    only_old: tuple[Subject, ...]
    only_new: tuple[Subject, ...]
    warnings: tuple[str, ...]
    """Reasons why a ratio may not be due to the code."""

    @property
    def slower(self) -> tuple[Change, ...]:
        return self.with_verdict("slower")

    def with_verdict(self, *verdicts: Verdict) -> tuple[Change, ...]:
        return tuple(change for change in self.changes if change.verdict in verdicts)


def compare(old: BenchResult, new: BenchResult, tolerance: float) -> Comparison:
    """Pairs the rows of equal subjects.

    Raises:
        BenchError: no subject is in both.
    """
    before = {row.subject: row for row in old.rows}
    after = {row.subject: row for row in new.rows}
    changes = tuple(
        Change(before[subject], row, tolerance)
        for subject, row in after.items()
        if subject in before
    )
    if not changes:
        raise BenchError("the two files have no figure in common, so there is nothing to compare")
    return Comparison(
        changes,
        tuple(subject for subject in before if subject not in after),
        tuple(subject for subject in after if subject not in before),
        tuple(_warnings(old, new)),
    )


def print_comparison(comparison: Comparison) -> None:
    """Prints a table, the largest ratio first."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_COLUMNS)
    for warning in comparison.warnings:
        console.print(f"[yellow]{escape(warning)}[/]", soft_wrap=True)
    table = Table(box=None, pad_edge=False)
    for column in ("", "old p50 ms", "new p50 ms", "ratio", "drift", "noise", ""):
        table.add_column(column, justify="right" if column else "left", no_wrap=True)
    for change in sorted(comparison.changes, key=lambda change: -change.ratio):
        old, new = change.old, change.new
        table.add_row(
            escape(f"{old.subject.group}: {old.subject}"),
            milliseconds(median(old)),
            milliseconds(median(new)),
            f"{change.ratio:.2f}",
            f"{percent(old.drift)} / {percent(new.drift)}",
            f"{noise(old)} / {noise(new)}",
            f"[{_COLOURS.get(change.verdict, 'dim')}]{change.verdict}[/]",
        )
    console.print(table)
    for where, subjects in (("old", comparison.only_old), ("new", comparison.only_new)):
        for subject in subjects:
            console.print(escape(f"only in the {where} file: {subject.group}: {subject}"))
    ratios = [math.log(change.ratio) for change in comparison.changes]
    mean = math.exp(sum(ratios) / len(ratios))
    unclear = len(comparison.with_verdict("not told apart", "too few calls"))
    print(
        f"{len(ratios)} compared, {len(comparison.slower)} slower, {unclear} not told apart; "
        f"geometric mean {mean:.2f}. drift and noise: old / new, within each file. A change counts "
        f"beyond the tolerance, the drift, and the ranges of medians that the noise is of"
    )


def _warnings(old: BenchResult, new: BenchResult) -> list[str]:
    said = []
    machines = [_identity(one.machine) for one in (old, new)]
    if differs := _difference(*machines):
        said.append(f"different machines, so ratios do not compare the code: {differs}")
    if differs := _difference(old.network, new.network):
        said.append(f"different networks: {differs}")
    if old.source != new.source:
        said.append(f"different frames: {old.source} / {new.source}")
    if differs := _difference(old.machine.get("versions", {}), new.machine.get("versions", {})):
        said.append(f"other versions: {differs}")
    for where, one in (("old", old), ("new", new)):
        if what := busy_warning(one.machine):
            said.append(f"in the {where} file {what}")
    return said


def _identity(machine: Mapping[str, Any]) -> dict[str, Any]:
    names = ("cpu", "cpu_cores", "cpu_governor", "torch_threads")
    gpus = [gpu.get("name") for gpu in machine.get("gpus", [])]
    return {**{name: machine.get(name) for name in names}, "gpus": ", ".join(map(str, gpus))}


def _difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name} {old.get(name, 'none')} / {new.get(name, 'none')}"
        for name in dict.fromkeys([*old, *new])
        if old.get(name) != new.get(name)
    )
