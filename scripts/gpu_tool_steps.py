"""Steps of `gpu_check.py`: the machine, NVIDIA's tools, and the tests.

python scripts/gpu_tool_steps.py launch cuda      the kernels, for Nsight Compute
"""

from __future__ import annotations

import csv
import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
for place in (ROOT, ROOT / "tests", ROOT / "scripts"):
    if str(place) not in sys.path:
        sys.path.insert(0, str(place))

import torch  # noqa: E402
from gpu_records import Records, read_records  # noqa: E402
from gpu_steps import FULL_HD, Ground, Settings  # noqa: E402
from support.nvidia_tools import find_tool  # noqa: E402
from torch import Tensor  # noqa: E402

from stream_cam.bench.graph_capture import capture_graph  # noqa: E402
from stream_cam.bench.kernel_timing import PerItemTimer  # noqa: E402
from stream_cam.bench.machine import describe_machine  # noqa: E402
from stream_cam.bench.result import Row, Subject  # noqa: E402
from stream_cam.bench.timing import Call, CudaTimer, HostTimer, TimedCall, measure  # noqa: E402

STEPS = ("machine", "ncu", "tests", "sanitizer")
MARKS = "(needs_gpu or needs_tensorrt) and not slow_gpu"
"""Markers of the tests that the first stage runs, for pytest's -m."""
ALL_MARKS = "needs_gpu or needs_tensorrt or slow_gpu"
PROFILED = "regex:_(overlay|preprocess|maps|choice)_kernel"
_LAUNCHED = (
    *("overlay, vectors", "overlay, smooth, alpha by heat"),
    *("preprocess, 224, float16, NCHW", "preprocess, 288, float16, NCHW", "maps"),
)
_QUERY = (
    "name,driver_version,pstate,clocks.sm,clocks.max.sm,clocks.mem,power.draw,power.limit,"
    "temperature.gpu,pcie.link.gen.current,pcie.link.width.current"
)
_COPIED_BYTES = 256 << 20
_SMALL_NODES = 200


def machine(ground: Ground) -> None:
    """Versions, clocks, PCIe both ways, copies on the device, and a graph's gap between kernels."""
    settings = ground.settings
    facts = {"device": settings.device, **describe_machine(), "command": settings.command}
    ground.records.add(machine=facts)
    program = find_tool("nvidia-smi")
    if program is not None:
        done = subprocess.run(
            [program, f"--query-gpu={_QUERY}", "--format=csv"],
            capture_output=True, text=True, timeout=10, check=False,
        )  # fmt: skip
        ground.records.add(nvidia_smi=done.stdout.strip())
    n_bytes = _COPIED_BYTES if ground.is_cuda else 1 << 20
    host, device = ground.gpu.host(n_bytes), ground.gpu.memory(n_bytes)
    other = ground.gpu.memory(n_bytes)
    for name, copy, moved in (
        ("PCIe, up", lambda: device.copy_(host, non_blocking=True), n_bytes),
        ("PCIe, down", lambda: host.copy_(device, non_blocking=True), n_bytes),
        ("copy on the device", lambda: other.copy_(device), 2 * n_bytes),
    ):
        _record_rate(ground, name, copy, moved)
    small = torch.zeros(32, device=ground.gpu.device)
    _record_gap(ground, small)


def _record_rate(ground: Ground, name: str, copy: Call, n_bytes: int) -> None:
    timer = CudaTimer() if ground.is_cuda else HostTimer()
    timed = measure({name: TimedCall(copy, timer)}, ground.sampling)[name]
    rate = n_bytes / sorted(timed.samples_ms)[len(timed.samples_ms) // 2] / 1e6
    subject = Subject("kernel", name, "", ground.gpu.device, "", 1, None, None, "launch")
    region = f"{n_bytes / 1e6:.0f} MB at {rate:.1f} GB/s"
    ground.rows([Row.of(subject, region, timed)], gigabytes_per_second=round(rate, 2))


def _record_gap(ground: Ground, small: Tensor) -> None:
    """The time of one tiny kernel in a row of them, in one graph."""

    def work() -> None:
        for _ in range(_SMALL_NODES):
            small.add_(1.0)

    call = capture_graph(work, ground.gpu.device) if ground.is_cuda else work
    timer = PerItemTimer(CudaTimer() if ground.is_cuda else HostTimer(), _SMALL_NODES)
    timed = measure({0: TimedCall(call, timer)}, ground.sampling)[0]
    name = "tiny kernel in a graph"
    subject = Subject("kernel", name, "", ground.gpu.device, "", 1, None, None, "graph")
    ground.rows([Row.of(subject, f"add to 32 numbers, a share of {_SMALL_NODES} nodes", timed)])


def ncu(ground: Ground) -> None:
    """Nsight Compute's figures of each kernel."""
    program = find_tool("ncu")
    if program is None:
        ground.leave_out("ncu", "Nsight Compute is not installed", is_fault=ground.is_cuda)
        return
    log = ground.settings.scratch / "ncu.csv"
    command = [program, "--set", "full", "--clock-control", "none", "--csv", "--page", "raw"]
    command += ["--kernel-name", PROFILED, "--log-file", str(log)]
    device = "cuda" if ground.is_cuda else "cpu"
    command += [sys.executable, str(Path(__file__)), "launch", device]
    done = subprocess.run(command, env=_environment(), check=False)
    found = profiled(log.read_text(encoding="utf-8", errors="replace").splitlines())
    for kernel in found:
        ground.records.add(ncu=kernel.pop("Kernel Name", "?"), metrics=kernel)
    if done.returncode or not found:
        ground.leave_out("ncu", f"it ended with {done.returncode}, {len(found)} kernels profiled")


def profiled(lines: Iterable[str]) -> list[dict[str, str]]:
    """The kernels in `ncu --csv --page raw`: a row of names, a row of units, a row a launch."""
    table = [line for line in lines if line.startswith('"')]
    rows = list(csv.DictReader(table))
    if not rows:
        return []
    units, *launches = rows
    return [
        {name: f"{value} {units.get(name) or ''}".strip() for name, value in one.items() if value}
        for one in launches
    ]


def tests(ground: Ground) -> None:
    """The tests that need a GPU, without the long ones; each outcome is a record."""
    import gpu_tests

    before = [] if ground.settings.after is None else _earlier(ground.settings.after)
    passed = ground.settings.scratch / "passed"
    passed.write_text("\n".join(before), encoding="utf-8")
    os.environ.update(_environment())
    os.environ |= {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "STREAM_CAM_SAME_EXAMPLES": "1"}
    os.environ["STREAM_CAM_PASSED_TESTS"] = str(passed)
    os.chdir(ROOT)
    command = ["-q", "--tb=short", "-m", MARKS, "-p", "no:cacheprovider"]
    command += ["--continue-on-collection-errors", f"--basetemp={ground.settings.scratch / 'tmp'}"]
    command += ["-p", "gpu_pytest"]
    if importlib.util.find_spec("pytest_timeout"):
        command += ["-p", "pytest_timeout"]
    if importlib.util.find_spec("xdist") and not ground.is_short:
        n_workers = min(8, os.cpu_count() or 1)
        command += ["-p", "xdist.plugin", "-n", str(n_workers), "--dist", "loadfile"]
    files = gpu_tests.files_with_gpu_tests(ROOT / "tests")
    if ground.is_short:
        files = [path for path in files if path.name == "test_graph_capture.py"]
    code = gpu_tests.run(command + [str(path) for path in files], ground.records)
    ground.records.add(pytest=int(code), command=command)


def _earlier(after: Path) -> list[str]:
    """The tests that passed in the first stage; all others are run again."""
    found = read_records(after / "tests.jsonl")
    return [one["test"] for one in found if one.get("outcome") == "passed"]


def sanitizer(ground: Ground) -> None:
    """compute-sanitizer on one kernel each: memory, and races."""
    program = find_tool("compute-sanitizer")
    if program is None:
        ground.leave_out("sanitizer", "it is not installed", is_fault=ground.is_cuda)
        return
    script = ROOT / "tests" / "support" / "sanitizer_cases.py"
    device = "cuda" if ground.is_cuda else "cpu"
    for tool, case in (("memcheck", "overlay"), ("racecheck", "choice")):
        options = ["--report-api-errors", "no"] if tool == "memcheck" else []
        done = subprocess.run(
            [program, "--tool", tool, *options, "--error-exitcode", "9", sys.executable,
             str(script), case, device],
            env={**_environment(), "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        )  # fmt: skip
        good = done.returncode == 0 and "done" in done.stdout.splitlines()
        why = None if good else done.stdout[-3000:]
        ground.records.add(check=f"{tool}, {case}", good=good, why=why)


def _environment() -> dict[str, str]:
    """For processes: modules of the tests, the scripts and the package."""
    places = [str(ROOT), str(ROOT / "tests"), str(ROOT / "scripts")]
    earlier = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([*places, *([earlier] if earlier else [])])}


def launch(device: str) -> None:
    """The kernels, at 1920×1080."""
    import gpu_cache
    from gpu_kernel_steps import _checks

    gpu_cache.install()
    place = Path(os.devnull)
    settings = Settings("cuda" if device == "cuda" else "simulated", False, place, None, "")
    ground = Ground(settings, Records(place))
    assert ground.size(FULL_HD) == FULL_HD
    wanted = (
        "overlay, vectors",
        "overlay, smooth, alpha by heat",
        "preprocess, 224, float16, NCHW",
    )
    checks: dict[str, Callable[[], Any]] = {
        name: check for name, check in _checks(ground).items() if name in (*wanted, "maps")
    }
    for check in checks.values():
        check()


if __name__ == "__main__":
    launch(sys.argv[2])
