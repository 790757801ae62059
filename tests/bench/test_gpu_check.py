"""scripts/gpu_check.py: both stages on the simulated GPU, and what is left of a check that ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import gpu_cache
import gpu_check
import gpu_tests
import pytest
from gpu_records import Records, read_records
from gpu_summary import is_good, write_summary
from gpu_tool_steps import profiled
from support.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "scripts"
DEADLINE_SECONDS = 300.0

HIDE = """
import sys

MISSING = {
    "av", "tyro", "openvino", "tensorrt", "tensorrt_rtx", "torch_tensorrt", "nncf", "platformdirs",
    "starlette", "uvicorn", "websockets", "torchcam", "pytorch_grad_cam",
}


class Hidden:
    def __init__(self, finder):
        self._finder = finder

    def __getattr__(self, name):
        return getattr(self._finder, name)

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in MISSING:
            return self._finder.find_spec(name, path, target)


sys.meta_path[:] = [Hidden(finder) for finder in sys.meta_path]
"""


def check(bare: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Runs the script where the packages above are missing."""
    path = os.pathsep.join(filter(None, [str(bare), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, str(SCRIPTS / "gpu_check.py"), *options]
    return subprocess.run(
        [*command, "--device", "simulated", "--short", "--limit-scale", "4"],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
    )


def test_both_stages_run_to_their_end_on_a_bare_machine(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(HIDE, encoding="utf-8")
    first, second = tmp_path / "first", tmp_path / "second"
    done = check(tmp_path, "--stage", "first", "--out", str(first))
    assert done.returncode == 0, done.stdout + done.stderr
    names = ["correct", "frames", "kernels", "machine", "ncu", "sweeps", "tests"]
    files = {each.name for each in first.iterdir()}
    assert files == {"summary.md", *(f"{name}.jsonl" for name in names)}
    found = {name: read_records(first / f"{name}.jsonl") for name in names}
    assert sum(one.get("good", False) for one in found["correct"]) >= 15
    rows = {one["row"]["name"] for records in found.values() for one in records if "row" in one}
    assert {"PCIe, up", "overlay 160x120", "overlay smooth 160x120", "choice", "maps"} <= rows
    assert {"network", "graph", "graph, on device", "network, benchmark off", "stem, fused"} <= rows
    assert [one["outcome"] for one in found["tests"] if "test" in one] == ["skipped"]
    assert "Simulated on a CPU" in (first / "summary.md").read_text("utf-8")

    Records(first / "kernels.jsonl").add(end="kernels", state="killed", seconds=1.0)
    done = check(tmp_path, "--stage", "second", "--out", str(second), "--after", str(first))
    assert done.returncode == 0, done.stdout + done.stderr
    again = read_records(second / "again.jsonl")
    assert again[-1]["end"] == "again: kernels"
    assert len(again) == len(found["kernels"])
    assert is_good(read_records(second / "ring.jsonl"))
    assert len(list(second.iterdir())) == 8
    assert "torchcam" in (second / "summary.md").read_text("utf-8")


STAND_IN = """
import os, subprocess, sys, time

NO_GPU = 3


class Settings:
    def __init__(self, **_):
        pass


def steps():
    return {}


def run_step(name, settings, records):
    records.add(check=name, good=True, pid=os.getpid())
    if name == "hangs":
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        print("said before it hung", flush=True)
        records.add(check="child", good=True, pid=child.pid)
        time.sleep(600)
    return 1 if name == "fails" else 0
"""

DRIVER = """
import argparse, sys
from pathlib import Path

folder, scripts, *names = sys.argv[1:]
sys.path.insert(0, scripts)
import gpu_check

sys.path.insert(0, folder)
out = Path(folder) / "out"
out.mkdir()
options = argparse.Namespace(
    out=out, stage="first", device="simulated", short=True, after=None, triton_cache=None,
    limit_scale=1.0,
)
scratch = Path(folder) / "scratch"
scratch.mkdir()
limits = {"hangs": float(names.pop())}
steps = [gpu_check.Step(name, limits.get(name, 60.0)) for name in names]
sys.exit(gpu_check._Check(options, scratch).run(steps))
"""


def has_ended(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state == "Z"


def driver(folder: Path, *names: str, limit: float) -> subprocess.Popen[str]:
    """Runs steps of a stand-in: `hangs` starts a process and never ends."""
    (folder / "gpu_steps.py").write_text(STAND_IN, encoding="utf-8")
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(folder), str(SCRIPTS), *names, str(limit)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_a_killed_step_keeps_its_results_and_the_next_one_runs(tmp_path: Path) -> None:
    with driver(tmp_path, "hangs", "fails", "works", limit=10.0) as process:
        said, _ = process.communicate(timeout=DEADLINE_SECONDS)
    assert process.returncode == 1, said
    *results, end = read_records(tmp_path / "out" / "hangs.jsonl")
    assert [one["check"] for one in results] == ["hangs", "child"]
    assert (end["state"], end["code"]) == ("killed", None)
    assert "said before it hung" in end["tail"]
    for one in results:
        wait_until(partial(has_ended, one["pid"]), DEADLINE_SECONDS)
    assert read_records(tmp_path / "out" / "fails.jsonl")[-1]["state"] == "failed"
    assert is_good(read_records(tmp_path / "out" / "works.jsonl"))
    summary = (tmp_path / "out" / "summary.md").read_text("utf-8")
    assert "| hangs | killed |" in summary
    assert "| works | done |" in summary


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_with_the_driver_its_step_ends(tmp_path: Path, number: int) -> None:
    file = tmp_path / "out" / "hangs.jsonl"
    with driver(tmp_path, "works", "hangs", limit=300.0) as process:
        wait_until(lambda: len(read_records(file)) == 2, DEADLINE_SECONDS)
        process.send_signal(number)
        process.communicate(timeout=DEADLINE_SECONDS)
    for one in read_records(file)[:2]:
        wait_until(partial(has_ended, one["pid"]), DEADLINE_SECONDS)
    files = {each.name for each in (tmp_path / "out").iterdir()}
    assert files == {"works.jsonl", "hangs.jsonl", "summary.md"}
    if number == signal.SIGTERM:
        assert read_records(file)[-1]["state"] == "killed"


def test_a_folder_with_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "old.json").touch()
    done = check(tmp_path, "--stage", "first", "--out", str(tmp_path))
    assert done.returncode == 2
    assert "holds files; give an empty folder" in done.stderr


def test_the_stages_fit_into_their_time_and_files() -> None:
    first, rest = (
        sum(step.limit_seconds for step in gpu_check.plan(stage, None))
        for stage in ("first", "second")
    )
    assert gpu_check.START_SECONDS + first <= 330
    assert gpu_check.START_SECONDS + gpu_check._AGAIN_SECONDS + rest <= 370


def test_half_a_line_is_no_record(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    Records(path).add(check="whole", good=True)
    with path.open("a", encoding="utf-8") as file:
        file.write('{"check": "hal')
    assert read_records(path) == [{"check": "whole", "good": True}]


def row(name: str, **more: Any) -> dict[str, Any]:
    figures = {f"{one}_ms": 0.005 for one in ("p20", "p50", "p80", "p99")}
    given = {"name": name, "engine": "", "precision": "", "batch": 1, "input_hw": None}
    given |= {"device": "cuda:0"}
    given |= {"group": "kernel", "mode": "graph", "n": 300, "images_per_second": 1.0, "region": ""}
    return {**given, **figures, **more}


def test_the_summary_says_which_goals_are_met(tmp_path: Path) -> None:
    network = {"engine": "fused", "precision": "fp16", "input_hw": [224, 224], "group": "stage"}
    records = Records(tmp_path / "rows.jsonl")
    records.add(row=row("overlay 1920x1080"))
    records.add(row=row("preprocess 1920x1080", p50_ms=0.0071))
    records.add(row=row("graph, 3 slots", images_per_second=3500.0, **network))
    records.add(check="maps", good=False, why="differs")
    text = write_summary(tmp_path, "first")
    assert "| overlay | ≤ 6 µs | 5 µs | met |" in text
    assert "| preprocess | ≤ 6 µs | 7.1 µs | missed |" in text
    assert "| three slots | ≥ 3000 frames/s | 3.5e+03 frames/s | met |" in text
    assert "| host to host, p99 | ≤ 1 ms | - | not measured |" in text
    assert "- maps: differs" in text


def test_ncu_figures_have_their_units() -> None:
    said = [
        "==PROF== Connected to process 7",
        '"ID","Kernel Name","gpu__time_duration.sum","launch__registers_per_thread"',
        '"","","ns","register/thread"',
        '"0","_overlay_kernel","5,120","117"',
    ]
    (kernel,) = profiled(said)
    assert kernel["gpu__time_duration.sum"] == "5,120 ns"
    assert kernel["launch__registers_per_thread"] == "117 register/thread"
    assert profiled(["==PROF== nothing"]) == []


def test_a_carried_cache_holds_its_own_paths(tmp_path: Path) -> None:
    kernel = tmp_path / "there" / "ABC"
    kernel.mkdir(parents=True)
    (kernel / "k.cubin").touch()
    group = {"child_paths": {"k.cubin": "/gone/ABC/k.cubin"}}
    (kernel / "__grp__k.json").write_text(json.dumps(group), encoding="utf-8")
    gpu_cache.move_paths(tmp_path / "there")
    moved = json.loads((kernel / "__grp__k.json").read_text(encoding="utf-8"))
    assert moved == {"child_paths": {"k.cubin": str(kernel / "k.cubin")}}


def test_tests_that_run_on_a_gpu_are_found() -> None:
    found = {path.name for path in gpu_tests.files_with_gpu_tests(ROOT / "tests")}
    assert {"test_gpu_graphs.py", "test_gpu_engines.py", "test_overlay_kernel.py"} <= found
    assert "test_uri.py" not in found


@pytest.mark.parametrize("outcome", ["failed", "not collected"])
def test_a_failed_test_is_a_fault(tmp_path: Path, outcome: str) -> None:
    records = Records(tmp_path / "tests.jsonl")
    records.add(test="a", outcome="passed", good=True)
    records.add(end="tests", state="done", seconds=1.0)
    assert is_good(read_records(records.path))
    records.add(test="b", outcome=outcome, good=False, why="it differs")
    assert not is_good(read_records(records.path))
