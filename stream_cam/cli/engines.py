"""`stream-cam engines`: lists the stored engines, and removes those of no use here."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Sequence
from typing import Any, Literal

from stream_cam.cli.options import EnginesCommand
from stream_cam.engine.backends import machines_for
from stream_cam.engine.inventory import StoredEngine, list_engines, prune
from stream_cam.engine.store import EngineStore
from stream_cam.uri import json_text

_COLOURS = {"usable": "green", "outdated": "yellow", "foreign": "yellow", "damaged": "red"}
_PIPE_COLUMNS = 200


def engines_command(command: EnginesCommand) -> None:
    """Prints the stored engines; with --prune, after removing those of no use here."""
    store = EngineStore()
    stored = list_engines(store, machines_for)
    removed, freed_bytes = prune(store, stored, machines_for) if command.prune else ([], 0)
    left = [engine for engine in stored if engine not in removed]
    if command.json:
        print(json_text(_as_json(store, left, removed, freed_bytes), indent=2))
        return
    if left:
        _print_table(left)
    print(f"{len(left)} kept in {store.folder}, {_megabytes(left):.0f} MB")
    if command.prune:
        print(f"{len(removed)} removed, {freed_bytes / 1e6:.0f} MB freed")


def _print_table(stored: Sequence[StoredEngine]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in ("name", "model", "precision", "input", "at once", "MB", "ms", "built"):
        justify: Literal["left", "right"] = "right" if name in ("MB", "ms") else "left"
        table.add_column(name, justify=justify, no_wrap=True)
    table.add_column("status", overflow="fold")
    for engine in stored:
        status = f"[{_COLOURS[engine.status]}]{engine.status}[/]"
        why = f": {escape(engine.why)}" if engine.why else " here"
        table.add_row(escape(engine.path.name), *map(escape, _cells(engine)), status + why)
    width = None if sys.stdout.isatty() else _PIPE_COLUMNS
    Console(highlight=False, width=width).print(table)


def _cells(engine: StoredEngine) -> list[str]:
    size = f"{engine.size_bytes / 1e6:.0f}"
    manifest = engine.manifest
    if manifest is None:
        return ["?", "?", "?", "?", size, "?", "?"]
    options = manifest.key.options
    return [
        manifest.key.model,
        manifest.key.precision,
        manifest.key.input_text,
        options.get("batch") or options.get("NUM_STREAMS") or "1",
        size,
        f"{manifest.latency_p50_ms:.3g}",
        time.strftime("%Y-%m-%d %H:%M", time.localtime(manifest.built_unix_seconds)),
    ]


def _as_json(
    store: EngineStore, left: list[StoredEngine], removed: list[StoredEngine], freed_bytes: int
) -> dict[str, Any]:
    return {
        "folder": str(store.folder),
        "engines": [{**dataclasses.asdict(engine), "path": str(engine.path)} for engine in left],
        "removed": [engine.path.name for engine in removed],
        "freed_bytes": freed_bytes,
    }


def _megabytes(stored: Sequence[StoredEngine]) -> float:
    return sum(engine.size_bytes for engine in stored) / 1e6
