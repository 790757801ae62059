"""Figures as tables, for a terminal or as Markdown."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

from stream_cam.bench.machine import busy_warning, machine_lines
from stream_cam.bench.result import (
    GROUP_TITLES,
    GROUPS,
    NOT_HERE,
    BenchResult,
    Group,
    Row,
    size_text,
)
from stream_cam.bench.timing import MIN_WARM_UPS
from stream_cam.config import Precision

PIPE_COLUMNS = 200
_LEFT = ("", "what", "engine", "on", "input", "mode", "timed")
_COLUMNS: dict[Group, tuple[str, ...]] = {
    "engine": ("engine", "on", "batch", "input", "mode"),
    "stage": ("what", "engine", "on"),
    "kernel": ("what", "on"),
    "peer": ("what", "engine", "on"),
}
PRECISIONS = [name for name in get_args(Precision) if name != "auto"]
_FIGURES = ("n", "p50 ms", "p90 ms", "p99 ms", "spread", "images/s", "timed")


def print_result(result: BenchResult, *, verbose: bool = False) -> None:
    """Prints all figures."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_COLUMNS)
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
    for file in result.files:
        console.print()
        print_throughput(file)
    console.print()
    for line in footer(result, verbose=verbose):
        console.print(escape(line), soft_wrap=True)


def markdown(result: BenchResult) -> str:
    """All figures as Markdown."""
    lines = [f"- {line}" for line in header(result)]
    for group, rows in _groups(result.rows):
        columns = (*_COLUMNS[group], *_FIGURES)
        rule = ["---" if column in _LEFT else "---:" for column in columns]
        lines += ["", f"## {_title(group, rows)}", "", _md(columns), _md(rule)]
        lines += [_md(_cells(group, row)) for row in rows]
    lines += ["", *(f"- {line}" for line in footer(result, verbose=True))]
    return "\n".join(lines) + "\n"


def header(result: BenchResult) -> list[str]:
    """Lines above the tables: the machine, the network, the method and the command."""
    network = result.network
    return [
        *machine_lines(result.machine),
        f"network: {network['model']}, {network['n_classes']} classes, weights "
        f"{network['weights']} ({network['weights_sha256']}); frames: {result.source}",
        *method_lines(result.method),
        f"command: {result.command} ({result.seconds:.0f} s)",
    ]


def method_lines(method: Mapping[str, Any]) -> list[str]:
    """The method as lines of text; none for a file without it."""
    if not method:
        return []
    at_once = "all rows of a table" if method["in_turns"] else "the rows of one engine"
    return [
        f"method: at most {method['samples']} calls or {method['seconds']:g} s a row, in "
        f"{method['turns']} turns, {at_once} in turns; untimed: {method['warm_ups']} calls before "
        f"the first turn (fewer, {MIN_WARM_UPS} at least, if they take longer than a turn), "
        f"{method['settle']} before each further one",
        f"threads: {'; '.join(f'{name}: {said}' for name, said in method['threads'].items())}; "
        f"this process: {method['pinning']}",
    ]


def footer(result: BenchResult, *, verbose: bool = False) -> list[str]:
    """Lines below the tables: how to read them, and which rows were left out.

    Args:
        verbose: one line for each row left out, also for features that this machine lacks.
    """
    said = [
        "spread: (p90 − p10) / p50. images/s: calls one after the other, not waited for where they "
        "can be queued; of several streams all together, while p50 is one frame's. -: too few "
        "calls (p50 from 5, p90 from 20, p99 from 200). Every engine was compared with its network "
        "in float32 before it was timed."
    ]
    if what := busy_warning(result.machine):
        said.append(f"{what}: only ratios within this run mean something")
    told = [one for one in result.left_out if verbose or one.get("kind") != NOT_HERE]
    said += [f"left out: {one['what']}: {one['why']}" for one in told]
    missing = [one["what"] for one in result.left_out if one.get("kind") == NOT_HERE]
    if missing and not verbose:
        said.append(
            f"left out: {len(missing)} that this machine or their engine does not have "
            f"({', '.join(_shortened(missing))}); --verbose gives each reason"
        )
    return said


def _shortened(missing: Sequence[str]) -> list[str]:
    """`tensorrt` for all of its precisions, `openvino:fp16`, `openvino:fp32 batch 8`."""
    parts = [what.split(", ") for what in missing]
    specs = [
        f"{spec} {rest[0]}" if rest and rest[0].startswith("batch") else spec
        for spec, *rest in parts
    ]
    engines = [spec.partition(":")[0] for spec in specs if " " not in spec]
    whole = {engine for engine in engines if engines.count(engine) == len(PRECISIONS)}
    named = [spec.partition(":")[0] if spec.partition(":")[0] in whole else spec for spec in specs]
    return list(dict.fromkeys(named))


def milliseconds(value_ms: float | None) -> str:
    """Three significant digits."""
    if value_ms is None:
        return "-"
    if value_ms >= 100:
        return f"{value_ms:.0f}"
    return f"{value_ms:.1f}" if value_ms >= 10 else f"{value_ms:.3g}"


def percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.0%}"


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
        "spread": percent(row.spread),
        "images/s": f"{row.images_per_second:.{0 if row.images_per_second >= 100 else 1}f}",
        "timed": row.region,
    }
    return [cells[column] for column in (*_COLUMNS[group], *_FIGURES)]


def _md(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def print_throughput(file: Mapping[str, Any]) -> None:
    """Prints the figures of `stream_cam.bench.throughput.file_throughput`."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_COLUMNS)
    said = f"{file['frames']} frames, {file['engine']}, {file['parallel']} explained at once"
    console.print(Text(f"whole file through `run`: {file['video']}, {said}", style="bold italic"))
    table = Table(box=None, pad_edge=False)
    for column in ("", "frames/s", "ms of a core a frame"):
        table.add_column(column, justify="left" if not column else "right")
    for name, stage in file["alone"].items():
        table.add_row(f"{name} alone", f"{stage['fps']:.1f}", f"{stage['core_ms']:.1f}")
    table.add_row("run, all at once", f"{file['run_fps']:.1f}", "")
    console.print(table)
    if file["explain_p50_ms"] is not None:
        console.print(
            f"explaining one frame takes {milliseconds(file['explain_p50_ms'])} ms (p50) while "
            f"{file['parallel']} are explained at once"
        )
    console.print(
        f"run reaches {file['of_slowest']:.0%} of its slowest stage ({file['slowest']}), and "
        f"{file['of_what_cores_allow']:.0%} of the {file['cores_allow_fps']:.1f} frames/s that "
        f"{file['n_cores']} cores allow for all stages together"
    )
