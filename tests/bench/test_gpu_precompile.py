"""Kernels compiled without a GPU are found in the cache by another process, in another folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="no Triton for this system")

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_SECONDS = 300.0

LAUNCH = """
import sys
from pathlib import Path

import gpu_cache
import gpu_precompile
import torch
from triton.runtime import cache as triton_cache

from stream_cam.cam import class_maps

cache, log, *carried = map(Path, sys.argv[1:])
if carried:
    triton_cache.triton_key = lambda: "that of another Python"
    gpu_cache.carry(cache, carried[0])
gpu_cache.count_kernels(log)
gpu_precompile.compile_only([90, 80])
gpu_precompile.compute_by_references()
features, weight = torch.randn(1, 19, 3, 5), torch.randn(11, 19)
classes, scaled = torch.tensor([[10]]), torch.full((1, 1, 3, 5), torch.nan)
class_maps.class_maps(features, weight, classes, scaled=scaled, cams=torch.zeros(1, 1, 3, 5))
assert float(scaled.min()) == 0.0 and float(scaled.max()) == 1.0
if not carried:
    gpu_precompile.write_manifest(cache, [90, 80])
found = gpu_cache.report(log)
print(found["hits"], found["misses"], sum(found["missed"].values()))
"""


def launch(cache: Path, log: Path, *carried: Path) -> str:
    """Launches a kernel for two GPUs that are not here; how many were found, and compiled."""
    places = [str(ROOT), str(ROOT / "scripts"), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, "-c", LAUNCH, str(cache), str(log), *map(str, carried)],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, places)),
            "TRITON_CACHE_DIR": str(cache),
        },
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_carried_cache_is_hit_where_another_python_is(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    assert launch(here, tmp_path / "1.jsonl") == "0 2 2"
    assert len(list(here.glob("*/*.cubin"))) == 2
    moved = tmp_path / "moved"
    shutil.move(here, moved)
    assert launch(moved, tmp_path / "2.jsonl", there) == "2 0 0"
