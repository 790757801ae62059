"""A start with a kept engine: the real command imports no PyTorch and draws the same picture."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("openvino", reason="kept engines on a CPU are OpenVINO's")

SECONDS = 180.0
RUN = """
import os, sys
from stream_cam.cli import main
code = main()
packages = {name.partition(".")[0] for name in sys.modules}
print("packages:", *sorted(packages - set(sys.stdlib_module_names)), flush=True)
os._exit(code)
"""
ALLOWED = {
    *("PIL", "av", "cv2", "docstring_parser", "filelock", "lazy_loader", "numpy", "openvino"),
    *("openvino_telemetry", "cython_runtime"),
    *("platformdirs", "rich", "safetensors", "stream_cam", "typeguard", "typing_extensions"),
    *("tyro", "pygments", "markdown_it", "mdurl", "backports", "packaging", "shtab", "colorama"),
}
"""The packages that a start with a kept engine may import. Another one costs every user time."""


def start(folder: Path, *arguments: str) -> tuple[str, set[str]]:
    """What the command printed, and the packages that it imported."""
    done = subprocess.run(
        [sys.executable, "-c", RUN, "run", *arguments, "--overwrite"],
        cwd=folder,
        env={**os.environ, "STREAM_CAM_ENGINES": str(folder / "engines")},
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stderr
    printed, _, packages = done.stdout.rpartition("packages:")
    return printed, {name for name in packages.split() if not name.startswith("_")}


def test_next_start_imports_no_torch_and_draws_the_same(tmp_path: Path) -> None:
    picture = np.random.default_rng(3).integers(0, 256, (90, 120, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "in.png"), picture)
    _, imported = start(tmp_path, "in.png", "first.png", "--weights", "demo")
    assert "torch" in imported
    again, imported = start(tmp_path, "in.png", "again.png", "--weights", "demo")
    assert imported <= ALLOWED
    assert "openvino on cpu" in again
    assert (tmp_path / "first.png").read_bytes() == (tmp_path / "again.png").read_bytes()
    # A class by its name, and an option that asks for another engine.
    _, imported = start(tmp_path, "in.png", "named.png", "--weights", "demo", "--target", "heart")
    assert "torch" not in imported
    eager, imported = start(
        tmp_path, "in.png", "eager.png", "--weights", "demo", "--engine", "eager"
    )
    assert "torch" in imported
    assert "eager on cpu" in eager
