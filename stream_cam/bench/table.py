"""Figures as tables: for a terminal, and as Markdown."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Literal

from stream_cam.bench.machine import busy, described
from stream_cam.bench.result import GROUP_TITLES, GROUPS, BenchResult, Group, Row, size_text

_PIPE_COLUMNS = 200
_LEFT = ("", "what", "engine", "on", "input", "mode", "timed")
_COLUMNS: dict[Group, tuple[str, ...]] = {
    "engine": ("engine", "on", "batch", "input", "mode"),
    "stage": ("what", "engine", "on"),
    "kernel": ("what", "on"),
    "peer": ("what", "engine", "on"),
}
_FIGURES = ("n", "p50 ms", "p90 ms", "p99 ms", "spread", "images/s", "timed")


def print_result(result: BenchResult) -> None:
    """Everything, on stdout."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(highlight=False, width=None if sys.stdout.isatty() else _PIPE_COLUMNS)
    for line in header(result):
        console.print(escape(line), soft_wrap=True)
    for group, rows in _groups(result.rows):
        table = Table(
            title=_title(group, rows), title_justify="left", title_style="bold", box=None,
            pad_edge=False,
        )  # fmt: skip
        for column in (*_COLUMNS[group], *_FIGURES):
            timed = column == "timed"
            justify: Literal["left", "right"]
            justify = "left" if column in _LEFT else "right"
            table.add_column(
                column,
                justify=justify,
                no_wrap=not timed,
                overflow="fold",
            )
        for row in rows:
            table.add_row(*map(escape, _cells(group, row)))
        console.print()
        console.print(table)
    console.print()
    for line in footer(result):
        console.print(escape(line), soft_wrap=True)


def markdown(result: BenchResult) -> str:
    """Everything, as Markdown."""
    lines = [f"- {line}" for line in header(result)]
    for group, rows in _groups(result.rows):
        columns = (*_COLUMNS[group], *_FIGURES)
        rule = ["---" if column in _LEFT else "---:" for column in columns]
        lines += ["", f"## {_title(group, rows)}", "", _md(columns), _md(rule)]
        lines += [_md(_cells(group, row)) for row in rows]
    lines += ["", *(f"- {line}" for line in footer(result))]
    return "\n".join(lines) + "\n"


def header(result: BenchResult) -> list[str]:
    """What was measured, on what, how."""
    network = result.network
    return [
        *described(result.machine),
        f"network: {network['model']}, {network['n_classes']} classes, weights "
        f"{network['weights']} ({network['weights_sha256']}); frames: {result.source}",
        f"command: {result.command} ({result.seconds:.0f} s)",
    ]


def footer(result: BenchResult) -> list[str]:
    """How to read it, and what is not in it."""
    said = [
        "spread: (p90 − p10) / p50. images/s: calls one after the other, not waited for where they "
        "can be queued. Every engine was compared with its network in float32 before it was timed."
    ]
    if what := busy(result.machine):
        said.append(f"{what}: only ratios within this run mean something")
    return said + [f"left out: {one['what']}: {one['why']}" for one in result.left_out]


def milliseconds(value_ms: float) -> str:
    """Three digits that count."""
    if value_ms >= 100:
        return f"{value_ms:.0f}"
    return f"{value_ms:.1f}" if value_ms >= 10 else f"{value_ms:.3g}"


def _groups(rows: Sequence[Row]) -> list[tuple[Group, list[Row]]]:
    found = [(group, [row for row in rows if row.subject.group == group]) for group in GROUPS]
    return [(group, its) for group, its in found if its]


def _title(group: Group, rows: Sequence[Row]) -> str:
    frames = {row.subject.frame_hw for row in rows if row.subject.frame_hw}
    size = "".join(f", frames of {wide}x{high}" for high, wide in frames if len(frames) == 1)
    return f"{GROUP_TITLES[group]}{size}"


def _cells(group: Group, row: Row) -> list[str]:
    subject = row.subject
    cells = {
        "what": subject.name,
        "engine": f"{subject.engine} {subject.precision}".strip(),
        "on": subject.device,
        "batch": str(subject.batch),
        "input": size_text(subject.input_hw),
        "mode": subject.mode,
        "n": str(row.n),
        "p50 ms": milliseconds(row.p50_ms),
        "p90 ms": milliseconds(row.p90_ms),
        "p99 ms": milliseconds(row.p99_ms),
        "spread": f"{row.spread:.0%}",
        "images/s": f"{row.images_per_second:.{0 if row.images_per_second >= 100 else 1}f}",
        "timed": row.region,
    }
    return [cells[column] for column in (*_COLUMNS[group], *_FIGURES)]


def _md(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"
