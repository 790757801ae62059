"""On a machine with a GPU: all GPU tests, and every engine measured, in one call and in time.

    python scripts/gpu_check.py --out FOLDER [--budget 450] [--device cuda]

Runs the tests that are marked `needs_gpu` or `needs_tensorrt`, then measures the kernels at three
sizes beside a copy and plain torch, the stages of a 1920×1080 frame and the whole frame as one
graph beside torch-cam and pytorch-grad-cam where they are installed, and each engine that the
machine can run at batch 1 and 8, 224×224 and 384×224, as launched and as a CUDA graph; last, as far
as the time allows, the fastest engine at other powers of two up to 128.
FOLDER gets tests.txt, bench.json, bench.svg and bench.md. They are complete after each part, so an
interrupted check keeps its results. The first time on a machine, compiling alone takes minutes: run
it once with --skip-bench and once with --skip-tests, which reuses the compiled kernels.

Needs PyTorch, torchvision, OpenCV, safetensors, rich, pytest and hypothesis (some of the kernels'
tests), and a C compiler and Python's headers for Triton. It needs nothing else of stream-cam's
dependencies.

Ends with 1 if a test failed, or the time did not suffice, or, without --skip-bench, nothing was
measured, or on a GPU a kernel or a whole frame's graph was left out.
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

# On that machine nothing is installed: the checkout is put on the path first.
from stream_cam.bench.command import save  # noqa: E402
from stream_cam.bench.recorder import NO_TIME  # noqa: E402
from stream_cam.bench.result import BenchResult, write_text  # noqa: E402
from stream_cam.bench.run import GRAPHS, run_bench  # noqa: E402
from stream_cam.bench.table import markdown  # noqa: E402
from stream_cam.bench.timing import Budget  # noqa: E402
from stream_cam.config import BenchConfig  # noqa: E402
from stream_cam.errors import StreamCamError, first_line  # noqa: E402

_TESTS_SHARE = 0.5
"""Share of the budget for the tests."""
_GRACE_SHARE = 0.1
"""Share of the budget reserved for a build or a row that has begun when the rest is spent."""
_LAST_WORDS_SECONDS = 30.0
"""For pytest's report when its time is over; a kernel that is being compiled is finished first."""
MARKS = "needs_gpu or needs_tensorrt"
"""Markers of the tests, for pytest's -m."""
_NO_TESTS_RAN = 5
"""pytest's exit code."""


def main() -> int:
    started = time.monotonic()
    options = _options()
    options.out.mkdir(parents=True, exist_ok=True)
    import torch

    if options.device == "cuda" and not torch.cuda.is_available():
        print("gpu_check: no CUDA GPU is usable here: give --device cpu, or see nvidia-smi")
        return 1
    share = 1.0 if options.skip_bench else _TESTS_SHARE
    good = options.skip_tests or tests_pass(options.out, options.budget * share)
    if options.skip_bench:
        return 0 if good else 1
    try:
        config = BenchConfig(
            engines=tuple(options.engines),
            batch=tuple(options.batch),
            shape=tuple(options.shape),
            device=options.device,
            frame=options.frame,
            peers=options.peers,
            samples=options.samples,
            seconds=options.seconds,
        )
    except ValueError as error:
        print(f"gpu_check: {error}")
        return 2
    more = tuple(options.more_batches)
    return 0 if measured(config, options.out, options.budget, started, more) and good else 1


def files_with_gpu_tests(folder: Path) -> list[Path]:
    """Test files for pytest. Other files import packages that need not be installed here."""
    # The fixture run_kernel runs a test once more, on the GPU.
    signs = ("mark.needs_gpu", "mark.needs_tensorrt", "run_kernel")
    found = [
        path
        for path in sorted(folder.rglob("test_*.py"))
        if any(sign in path.read_text(encoding="utf-8") for sign in signs)
    ]
    # Those of the benchmark compile most, and compute-sanitizer is slow: they come last.
    return sorted(found, key=lambda path: ("sanitizer" in path.name, "bench" in path.name))


def tests_pass(out: Path, seconds: float) -> bool:
    """Runs the tests that need a GPU; writes pytest's report to tests.txt and the terminal."""
    marked = [str(path.relative_to(ROOT)) for path in files_with_gpu_tests(ROOT / "tests")]
    command = [sys.executable, "-m", "pytest", "-q", "-rs", "-m", MARKS, *marked]
    # Modules that cannot be imported here hold no test that could run here: they are said, and
    # the others still run.
    command += ["--continue-on-collection-errors", "-p", "no:cacheprovider"]
    command += ["--tb=short", "--durations=15"]
    path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(ROOT)]))
    print(f"tests: {shlex.join(command[1:])}", flush=True)
    # Other people's plugins may warn, and warnings are errors in these tests.
    environment = {**os.environ, "PYTHONPATH": path, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as tests:
        try:
            said, _ = tests.communicate(timeout=seconds)
            good = tests.returncode in (0, _NO_TESTS_RAN)
        except subprocess.TimeoutExpired:
            said = _interrupted(tests)
            said += f"\nleft out: the tests were stopped after {seconds:.0f} s\n"
            good = False
    write_text(out / "tests.txt", said)
    print("\n".join(said.splitlines()[-25:]), flush=True)
    return good


def _interrupted(tests: subprocess.Popen[str]) -> str:
    """Pytest's report after an interrupt: the tests that failed until then, and why."""
    tests.send_signal(signal.SIGINT)
    try:
        return tests.communicate(timeout=_LAST_WORDS_SECONDS)[0]
    except subprocess.TimeoutExpired:
        tests.kill()
        return tests.communicate()[0]


def measured(
    config: BenchConfig,
    out: Path,
    budget_seconds: float,
    started: float,
    more_batches: tuple[int, ...] = (),
) -> bool:
    """Measures, and writes the figures after each part; whether all are there, and in time."""
    found: list[BenchResult] = []

    def keep(result: BenchResult) -> None:
        found[:] = [result]
        save(result, out / "bench.json", out / "bench.svg" if result.rows else None)
        write_text(out / "bench.md", markdown(result))

    def late() -> None:
        print(f"gpu_check: stopped: {budget_seconds:g} s are over; see {out}", flush=True)
        if found:
            found[0].cut_short("the time was over")
            keep(found[0])
            print(markdown(found[0]), flush=True)
        os._exit(1)

    left = max(1.0, budget_seconds - (time.monotonic() - started))
    watchdog = threading.Timer(left, late)
    watchdog.daemon = True
    watchdog.start()
    command = shlex.join(["python", "scripts/gpu_check.py", *sys.argv[1:]])
    try:
        result = run_bench(
            config,
            command,
            on_stage=_said_after(started),
            on_result=keep,
            budget=Budget(max(0.0, left - budget_seconds * _GRACE_SHARE)),
            more_batches=more_batches,
            peers_may_lack=True,
        )
    except StreamCamError as error:
        print(f"gpu_check: {error}")
        return False
    except BaseException as error:
        if found:
            found[0].cut_short(first_line(error))
            keep(found[0])
        raise
    finally:
        watchdog.cancel()
    keep(result)
    print(markdown(result))
    faults = [one for one in result.left_out if one["why"].startswith(NO_TIME)]
    if on_gpu(config):
        faults += [one for one in gpu_faults(result) if one not in faults]
    for one in faults:
        print(f"gpu_check: failed: {one['what']}: {one['why']}")
    return not faults


def on_gpu(config: BenchConfig) -> bool:
    import torch

    return config.device != "cpu" and torch.cuda.is_available()


def gpu_faults(result: BenchResult) -> list[dict[str, str]]:
    """Missing rows that every GPU must have: engines may be missing, kernels and graphs may not."""
    faults = [
        one
        for one in result.left_out
        if one["what"].startswith("kernel") or one["what"].endswith(GRAPHS)
    ]
    names = {row.subject.name for row in result.rows}
    if "graph, on device" not in names and not any(one["what"].endswith(GRAPHS) for one in faults):
        faults.append({"what": GRAPHS, "why": "no engine came so far"})
    return faults


def _said_after(started: float) -> Callable[[str], None]:
    def say(stage: str) -> None:
        print(f"{time.monotonic() - started:5.0f} s  {stage}", flush=True)

    return say


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, required=True, help="folder for what is found")
    parser.add_argument("--budget", type=float, default=450.0, help="for everything, in seconds")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="cuda")
    parser.add_argument("--engines", nargs="*", default=[], help="such as eager, openvino:bf16")
    parser.add_argument("--batch", type=int, nargs="*", default=[1, 8], help="for every engine")
    # The batches that are probably fastest come first.
    parser.add_argument(
        "--more-batches",
        type=int,
        nargs="*",
        choices=[2**power for power in range(11)],
        metavar="POWER_OF_TWO",
        default=[32, 64, 128, 16, 4, 2],
        help="for the fastest engine, if there is time enough",
    )
    parser.add_argument("--shape", nargs="*", default=["224x224", "384x224"])
    parser.add_argument("--frame", default="1920x1080", help="width x height of the frames")
    parser.add_argument(
        "--peers",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="also torch-cam and pytorch-grad-cam, if they are installed",
    )
    parser.add_argument("--samples", type=int, default=300, help="timed calls for one figure")
    parser.add_argument("--seconds", type=float, default=1.0, help="that these may take together")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--skip-tests", action="store_true", help="measure only")
    what.add_argument("--skip-bench", action="store_true", help="run the tests only")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
