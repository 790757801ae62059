"""The summary of a check: which steps were done, which goals are met, what failed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpu_records import read_records

SUMMARY = "summary.md"
_MOST_FAULTS = 40


@dataclass(frozen=True)
class Goal:
    """A figure of a row, and its limit."""

    title: str
    row: str
    """As `row_name` has it."""
    field: str
    limit: float
    unit: str
    scale: float = 1.0
    is_least: bool = False
    """The figure should be at least the limit; else at most."""


GOALS = (
    Goal("overlay", "overlay 1920x1080", "p50_ms", 6.0, "µs", 1e3),
    Goal("preprocess", "preprocess 1920x1080", "p50_ms", 6.0, "µs", 1e3),
    Goal("network, fused", "network fused:fp16 224×224 graph", "p50_ms", 150.0, "µs", 1e3),
    Goal("device to device", "graph, on device fused:fp16 224×224", "p50_ms", 180.0, "µs", 1e3),
    Goal("host to host, median", "graph fused:fp16 224×224", "p50_ms", 0.7, "ms"),
    Goal("host to host, p99", "graph fused:fp16 224×224", "p99_ms", 1.0, "ms"),
    Goal(
        title="three slots",
        row="graph, 3 slots fused:fp16 224×224",
        field="images_per_second",
        limit=3000.0,
        unit="frames/s",
        is_least=True,
    ),
)
"""As docs/gpu.md states them."""


def is_good(records: Sequence[dict[str, Any]]) -> bool:
    """Whether a step came to its end, and nothing in it failed."""
    ends = [one for one in records if "end" in one]
    return bool(ends) and all(one["state"] == "done" for one in ends) and not _faults(records)


def row_name(row: dict[str, Any]) -> str:
    """Such as `network fused:fp16 224×224 graph`, or `overlay 1920x1080`."""
    parts = [row["name"], f"{row['engine']}:{row['precision']}".strip(":")]
    if row["batch"] > 1:
        parts.append(f"batch {row['batch']}")
    if row["input_hw"]:
        parts.append("×".join(map(str, reversed(row["input_hw"]))))
    if row["group"] == "engine":
        parts.append(row["mode"])
    return " ".join(filter(None, parts))


def write_summary(out: Path, stage: str, command: str = "") -> str:
    """Writes `summary.md` from all files of a folder, and returns its text."""
    found = {path.stem: read_records(path) for path in sorted(out.glob("*.jsonl"))}
    text = _summary(found, stage, command)
    (out / SUMMARY).write_text(text, encoding="utf-8")
    return text


def _summary(found: dict[str, list[dict[str, Any]]], stage: str, command: str) -> str:
    everything = [record for records in found.values() for record in records]
    machines = [one["machine"] for one in everything if "machine" in one]
    facts = [f"- {name}: {value}" for one in machines[:1] for name, value in one.items() if value]
    parts = [f"# GPU check, stage {stage}\n"]
    if command:
        parts.append(f"    {command}\n")
    parts += [*facts, "", *_step_table(found), ""]
    # A step's rows tell the device too, in a check without the step `machine`.
    devices = {one["row"]["device"] for one in everything if "row" in one}
    if "cpu" in devices:
        parts.append("Simulated on a CPU: these times say nothing about a GPU, and meet no goal.")
    else:
        parts += _goal_table(everything)
    parts += ["", *_row_table(everything)]
    parts += ["", *_fault_list(everything)]
    left_out = [f"- {one['left_out']}: {one['why']}" for one in everything if "left_out" in one]
    if left_out:
        parts += ["", "## Left out\n", *dict.fromkeys(left_out)]
    return "\n".join(parts) + "\n"


def _step_table(found: dict[str, list[dict[str, Any]]]) -> Iterable[str]:
    yield "| step | state | seconds | results | faults | kernels: hits | misses | compiled for |"
    yield "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |"
    for name, records in found.items():
        since: list[dict[str, Any]] = []
        for one in records:
            since.append(one)
            if "end" not in one:
                continue
            cache, n_results = one.get("cache", {}), len(since) - 1
            figures = [one["end"], one["state"], one["seconds"], n_results, len(_faults(since))]
            figures += [cache.get("hits", ""), cache.get("misses", "")]
            figures.append(f"{cache['compile_seconds']} s" if cache.get("misses") else "")
            yield f"| {' | '.join(map(str, figures))} |"
            since = []
        if since:
            yield f"| {name} | not ended | | {len(since)} | | | | |"


def _goal_table(everything: Sequence[dict[str, Any]]) -> Iterable[str]:
    rows = {row_name(one["row"]): one["row"] for one in everything if "row" in one}
    yield "| goal | limit | measured | |"
    yield "| --- | ---: | ---: | --- |"
    for goal in GOALS:
        value = rows.get(goal.row, {}).get(goal.field)
        limit = f"{'≥' if goal.is_least else '≤'} {goal.limit:g} {goal.unit}"
        if value is None:
            yield f"| {goal.title} | {limit} | - | not measured |"
            continue
        got = value * goal.scale
        met = got >= goal.limit if goal.is_least else got <= goal.limit
        yield f"| {goal.title} | {limit} | {got:.3g} {goal.unit} | {'met' if met else 'missed'} |"


def _row_table(everything: Sequence[dict[str, Any]]) -> Iterable[str]:
    rows = [one["row"] for one in everything if "row" in one]
    if not rows:
        return
    yield "| row | p50 µs | p20 | p80 | p99 | calls | images/s | region |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |"
    for row in rows:
        times = [row[f"{name}_ms"] for name in ("p50", "p20", "p80", "p99")]
        figures = [row_name(row), *("-" if ms is None else f"{ms * 1e3:.2f}" for ms in times)]
        figures += [row["n"], f"{row['images_per_second']:.0f}", row["region"]]
        yield f"| {' | '.join(map(str, figures))} |"


def _fault_list(everything: Sequence[dict[str, Any]]) -> Iterable[str]:
    faults = _faults(everything)
    yield f"## Faults: {len(faults)}\n"
    for one in faults[:_MOST_FAULTS]:
        what = one.get("test") or one.get("check") or one.get("left_out")
        why = str(one.get("why", "")).strip().splitlines()
        yield f"- {what}: {why[-1] if why else '?'}"


def _faults(records: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return [one for one in records if one.get("good") is False]
