"""scripts/gpu_check.py where only PyTorch is, and when its time is over."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from support.bench_parts import NETWORK, result, row
from support.waiting import wait_until

from stream_cam.bench.result import BenchResult
from stream_cam.config import BenchConfig

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "gpu_check.py"
DEADLINE_SECONDS = 300.0

HIDE = """
import sys

MISSING = {
    "av", "tyro", "openvino", "tensorrt", "tensorrt_rtx", "torch_tensorrt", "nncf", "platformdirs",
    "starlette", "uvicorn", "websockets",
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


def test_bare_machine_runs_it_to_the_end(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(HIDE, encoding="utf-8")
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path}
    hidden = subprocess.run(
        [sys.executable, "-c", "import av"], env=environment, capture_output=True, text=True
    )
    assert "No module named 'av'" in hidden.stderr
    out = tmp_path / "out"
    options = ["--device", "cpu", "--batch", "1", "2", "--shape", "64x64", "64x32"]
    options += ["--more-batches", "4", "--engines", "eager", "openvino"]
    options += ["--frame", "96x64", "--samples", "2", "--budget", "280", "--out", str(out)]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *options],
        env=environment,
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = BenchResult.read(out / "bench.json")
    measured = [r.subject for r in found.rows if r.subject.group == "engine"]
    assert [(each.engine, each.batch, each.input_hw) for each in measured] == [
        *(("eager", 1, (64, 64)), ("eager", 1, (32, 64))),
        *(("eager", 2, (64, 64)), ("eager", 2, (32, 64))),
        ("eager", 4, (64, 64)),
    ]
    assert {"preprocess", "frame"} <= {r.subject.name for r in found.rows}
    left_out = {one["what"]: one["why"] for one in found.left_out}
    assert "OpenVINO cannot be imported" in left_out["openvino:fp32, a frame's stages"]
    assert "PyAV cannot be imported" in left_out["decode"]
    assert "| eager fp32 | cpu | 2 | 64×32 | launch |" in (out / "bench.md").read_text("utf-8")
    assert "</svg>" in (out / "bench.svg").read_text("utf-8")
    tests = (out / "tests.txt").read_text("utf-8")
    assert "error" not in tests.lower()
    assert "no CUDA GPU" in tests or "passed" in tests


@pytest.fixture
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu_check", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_spent_budget_keeps_the_figures_and_names_the_gaps(
    script: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ended = threading.Event()
    codes: list[int] = []

    def end(code: int) -> None:
        codes.append(code)
        ended.set()

    def hangs(config: BenchConfig, command: str, *, on_result: Any, **_: Any) -> BenchResult:
        on_result(result(row()))
        assert ended.wait(DEADLINE_SECONDS)
        return result(row())

    monkeypatch.setattr(script.os, "_exit", end)
    monkeypatch.setattr(script, "run_bench", hangs)
    script.measured(BenchConfig(), tmp_path, budget_seconds=0.01, started=0.0)
    assert codes == [1]
    assert "left out: the part in progress, and all after it" in capsys.readouterr().out


def test_on_a_gpu_kernels_and_graphs_that_are_left_out_fail_the_check(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = replace(NETWORK, group="stage", name="graph, on device", mode="graph")
    whole, no_graph = result(row(), row(graph)), result(row())
    no_kernel, no_fp16 = result(row(graph)), result(row(graph))
    no_kernel.leave_out("kernel overlay nv12 1280×720", "it differs from its reference")
    no_fp16.leave_out(f"eager:fp16, {script.GRAPHS}", "it cannot be captured")
    for found in (whole, no_graph, no_kernel, no_fp16):
        found.leave_out("tensorrt:fp16, a frame's stages", "it is not installed")
    late = result(row(graph))
    late.leave_out("batch 8, 384×224", "no time left of 10 s")

    def good(found: BenchResult, *, gpu: bool) -> bool:
        monkeypatch.setattr("torch.cuda.is_available", lambda: gpu)
        monkeypatch.setattr(script, "run_bench", lambda *arguments, **options: found)
        said: bool = script.measured(BenchConfig(), tmp_path, DEADLINE_SECONDS, time.monotonic())
        return said

    assert good(whole, gpu=True)
    for found in (no_graph, no_kernel, no_fp16, late):
        assert not good(found, gpu=True)
    assert good(no_graph, gpu=False)


def test_without_a_gpu_it_says_so(
    script: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu_check.py", "--out", str(tmp_path / "out")])
    assert script.main() == 1
    assert "no CUDA GPU is usable here" in capsys.readouterr().out


def test_gpu_tests_need_no_package_that_a_gpu_machine_lacks(
    script: ModuleType, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(HIDE, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    files = [str(path) for path in script.files_with_gpu_tests(ROOT / "tests")]
    options = ["--collect-only", "-q", "-m", script.MARKS, "-p", "no:cacheprovider"]
    used = "import stream_cam.engine.store, stream_cam.explain.explainer, stream_cam.bench.run"
    for command in (
        ["-c", used],
        ["scripts/gpu_check.py", "--help"],
        ["-m", "pytest", *options, *files],
    ):
        done = subprocess.run(
            [sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_no_gpu_test_is_left_out(script: ModuleType) -> None:
    collected = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-m", script.MARKS, "tests"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "test_tensorrt_engine_is_read_from_the_store" in collected.stdout
    found = {line.split("::")[0] for line in collected.stdout.splitlines() if "::" in line}
    given = {str(path.relative_to(ROOT)) for path in script.files_with_gpu_tests(ROOT / "tests")}
    assert "tests/cam/test_nv12_kernels.py" in found
    assert found <= given


def test_a_test_that_fails_fails_the_check(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script, "ROOT", tmp_path)
    (tmp_path / "tests").mkdir()
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\nmarkers =\n  needs_gpu: x\n  needs_tensorrt: x\n"
    )
    test = tmp_path / "tests" / "test_gpu.py"
    for body, good in (("pass", True), ("assert False", False)):
        test.write_text(f"import pytest\n\n@pytest.mark.needs_gpu\ndef test_it():\n    {body}\n")
        assert script.tests_pass(tmp_path, DEADLINE_SECONDS) is good
    assert "1 failed" in (tmp_path / "tests.txt").read_text("utf-8")


def test_tests_alone_get_all_the_time(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[float] = []

    def pretend(out: Path, seconds: float) -> bool:
        given.append(seconds)
        return False

    monkeypatch.setattr(script, "tests_pass", pretend)
    said = ["gpu_check.py", "--out", str(tmp_path), "--device", "cpu", "--budget", "77"]
    monkeypatch.setattr(sys, "argv", [*said, "--skip-bench"])
    assert script.main() == 1
    assert given == [77.0]
    assert not (tmp_path / "bench.json").exists()


def test_interrupted_tests_report_their_failures(script: ModuleType, tmp_path: Path) -> None:
    test, hangs = tmp_path / "test_it.py", tmp_path / "hangs"
    test.write_text(
        "import pathlib, time\n"
        "def test_fails():\n    assert 'the reason' == ''\n"
        f"def test_hangs():\n    pathlib.Path({str(hangs)!r}).touch()\n    time.sleep(600)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-m", "pytest", "-q", str(test)],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
    ) as tests:
        wait_until(hangs.exists, DEADLINE_SECONDS)
        said = script._interrupted(tests)
    assert "assert 'the reason' == ''" in said
    assert "1 failed" in said


def test_tests_that_take_too_long_are_stopped(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script, "ROOT", tmp_path)
    (tmp_path / "tests").mkdir()
    # Without a test pytest may be done before we look.
    (tmp_path / "tests" / "test_hangs.py").write_text("import time\ntime.sleep(60)\n")
    assert script.tests_pass(tmp_path, seconds=1e-3) is False
    assert "left out: the tests were stopped" in (tmp_path / "tests.txt").read_text("utf-8")
