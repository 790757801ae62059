"""Triton's cache, carried from a machine without a GPU.

Triton keeps absolute paths in its cache, and takes the bytes of its own library into the keys. So a
copied cache would miss every kernel. Here the paths are written anew, and the key of the
same Triton version is taken over: its compiler is the same for each Python.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

from gpu_records import Records, read_records

MANIFEST = "precompiled.json"
_LOG = "STREAM_CAM_TRITON_LOG"
"""Environment variable: the file that gets a record for each kernel."""
_KEY = "STREAM_CAM_TRITON_KEY"


def carry(source: Path, target: Path) -> None:
    """Copies a cache and makes it the one of this process and those that it starts."""
    shutil.copytree(source, target)
    move_paths(target)
    os.environ["TRITON_CACHE_DIR"] = str(target)
    manifest = target / MANIFEST
    if manifest.is_file():
        os.environ[_KEY] = str(manifest)


def move_paths(cache: Path) -> None:
    """Makes the paths that a cache holds its own ones."""
    for group in cache.glob("*/__grp__*.json"):
        content = json.loads(group.read_text(encoding="utf-8"))
        children = content.get("child_paths", {})
        content["child_paths"] = {name: str(group.parent / name) for name in children}
        group.write_text(json.dumps(content), encoding="utf-8")


def count_kernels(log: Path) -> None:
    """From now on each kernel that Triton takes from its cache or compiles gets a record there."""
    os.environ[_LOG] = str(log)
    install()


def install() -> None:
    """In a process that launches kernels: takes the carried cache's key over, and counts."""
    try:
        import triton
        from triton.runtime import cache
    except Exception:  # it may be missing, or be installed in part
        return
    manifest, log = os.environ.get(_KEY), os.environ.get(_LOG)
    if manifest:
        made = json.loads(Path(manifest).read_text(encoding="utf-8"))
        if made["triton"] == triton.__version__:
            cache.triton_key = lambda: made["key"]
    if log:
        records = Records(Path(log))

        def listen(*, src: Any, times: Any, cache_hit: bool, **_: Any) -> None:
            stages = sum(microseconds for _, microseconds in times.lowering_stages)
            seconds = (times.ir_initialization + stages + times.store_results) / 1e6
            records.add(kernel=src.name, hit=cache_hit, seconds=round(seconds, 3))

        triton.knobs.compilation.listener = listen


def report(log: Path, already: int = 0) -> dict[str, Any]:
    """Hits and misses in a log after so many records, and the kernels that were missed."""
    found = read_records(log)[already:]
    missed = [one for one in found if not one["hit"]]
    return {
        "hits": len(found) - len(missed),
        "misses": len(missed),
        "missed": dict(Counter(one["kernel"] for one in missed)),
        "compile_seconds": round(sum(one["seconds"] for one in missed), 1),
    }
