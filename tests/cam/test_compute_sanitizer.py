"""No kernel reads or writes beside its tensors, and none races: NVIDIA's compute-sanitizer says so.

Needs a GPU and the program, which comes with the CUDA toolkit. Other tests check the results in
Triton's interpreter.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from support.kernel_runner import interpreter_problem
from support.nvidia_tools import find_tool

pytest.importorskip("triton", reason="no Triton for this system")

SCRIPT = Path(__file__).resolve().parents[1] / "support" / "sanitizer_cases.py"
FOUND = 9
"""Exit code for findings, which our script never uses itself."""
DEADLINE_SECONDS = 300.0
MEMCHECK = ("--tool", "memcheck", "--report-api-errors", "no")
"""PyTorch probes the driver for optional features; a failing call of ours raises an error."""


def run_sanitizer(
    what: str, *options: str, caching: bool = False
) -> subprocess.CompletedProcess[str]:
    """Runs a part of `sanitizer_cases.py` under the program."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA GPU")
    program = find_tool("compute-sanitizer")
    if program is None:
        pytest.skip("compute-sanitizer is not installed (it comes with the CUDA toolkit)")
    environment = dict(os.environ)
    if not caching:
        # Each tensor has its own allocation, so that no other tensor lies beside it.
        environment["PYTORCH_NO_CUDA_MEMORY_CACHING"] = "1"
    done = subprocess.run(
        [program, "--error-exitcode", str(FOUND), *options, sys.executable, SCRIPT, what, "cuda"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=DEADLINE_SECONDS,
    )
    if "Device not supported" in done.stdout:
        pytest.skip("compute-sanitizer does not support this device")
    return done


def assert_clean(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 0, done.stdout[-8000:]
    assert "done" in done.stdout.splitlines()


@pytest.mark.needs_gpu
@pytest.mark.slow_gpu
def test_a_planted_fault_is_found() -> None:
    done = run_sanitizer("planted", *MEMCHECK)
    assert done.returncode == FOUND, done.stdout[-8000:]
    assert "_behind_kernel" in done.stdout


@pytest.mark.needs_gpu
@pytest.mark.slow_gpu
def test_no_kernel_touches_memory_beside_its_tensors() -> None:
    assert_clean(run_sanitizer("kernels", *MEMCHECK))


@pytest.mark.needs_gpu
@pytest.mark.slow_gpu
def test_whole_frames_as_graphs_touch_no_memory_that_is_not_theirs() -> None:
    # A capture needs the caching allocator.
    assert_clean(run_sanitizer("ring", *MEMCHECK, caching=True))


@pytest.mark.needs_gpu
@pytest.mark.slow_gpu
def test_the_choice_of_classes_does_not_race() -> None:
    assert_clean(run_sanitizer("choice", "--tool", "racecheck"))


@pytest.mark.needs_triton
def test_checked_code_is_right_in_the_interpreter() -> None:
    if problem := interpreter_problem():
        pytest.skip(problem)
    done = subprocess.run(
        [sys.executable, SCRIPT, "kernels", "cpu"],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=DEADLINE_SECONDS,
    )
    assert_clean(done)


def test_the_program_is_found_in_the_toolkits_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "bin" / "compute-sanitizer"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    assert find_tool("compute-sanitizer") == str(program)


@pytest.mark.parametrize(
    ("said", "code", "outcome"),
    [
        ("========= Device not supported", 1, pytest.skip.Exception),
        ("========= ERROR SUMMARY: 1 error", FOUND, AssertionError),
        ("done", 0, None),
        ("it ended before its end", 0, AssertionError),
    ],
)
def test_exit_code_of_the_program_decides(
    said: str,
    code: int,
    outcome: type[BaseException] | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    program = tmp_path / "compute-sanitizer"
    program.write_text(f"#!/bin/sh\necho '{said}'\nexit {code}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    if outcome is None:
        assert_clean(run_sanitizer("kernels", *MEMCHECK))
        return
    with pytest.raises(outcome):
        assert_clean(run_sanitizer("kernels", *MEMCHECK))
