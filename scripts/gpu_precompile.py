"""Fills a Triton cache for GPUs that are not here, so that their minutes go into measuring.

    python scripts/gpu_precompile.py --cache FOLDER [--architectures 90] [--tests]

Needs the Triton that the machine with the GPU has, such as `pip install triton==3.6.0` in an
environment of its own; the keys of the cache hold its version. The steps of `gpu_check.py` run on
the simulated GPU at their full sizes. There each launch compiles its kernel for each
architecture, and then computes by the kernel's reference. With `--tests` the kernels' tests run so
too.

On that machine `scripts/gpu_check.py --triton-cache FOLDER` says how many kernels were found.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import inspect
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
for place in (ROOT, ROOT / "tests", ROOT / "scripts"):
    if str(place) not in sys.path:
        sys.path.insert(0, str(place))

import triton  # noqa: E402
from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.runtime import driver  # noqa: E402
from triton.runtime.cache import triton_key  # noqa: E402
from triton.runtime.jit import JITFunction  # noqa: E402

import gpu_cache  # noqa: E402  isort: skip

LAUNCHERS = {
    "preprocess": ("preprocess",),
    "preprocess_nv12": ("preprocess_nv12",),
    "class_choice": ("choose_classes",),
    "class_maps": ("class_maps", "scale_maps"),
    "smooth_maps": ("smooth_maps",),
    "overlay": ("overlay",),
    "overlay_nv12": ("overlay_nv12",),
}
"""Modules of `stream_cam.cam` and their functions that launch kernels."""
_STEPS = ("correct", "kernels", "frames", "sweeps", "kernels4k", "batches")
"""Steps of gpu_check.py that launch kernels."""


_ARCHITECTURES = "STREAM_CAM_ARCHITECTURES"
"""Environment variable for the tests' processes."""


class AbsentGpus:
    """Stands in for Triton's driver: one GPU of each architecture, on which nothing runs."""

    def __init__(self, architectures: Sequence[int]) -> None:
        self.architectures = architectures
        self.current = 0

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.architectures[self.current], 32)

    def get_current_device(self) -> int:
        return self.current

    def get_current_stream(self, device: int) -> int:
        return 0


def compile_only(architectures: Sequence[int]) -> None:
    """From now on each launch in this process compiles for these, and launches nothing."""
    gpus, run = AbsentGpus(architectures), JITFunction.run
    driver.set_active(gpus)

    def compiled(self: Any, *arguments: Any, grid: Any, warmup: bool, **options: Any) -> None:
        for place in range(len(architectures)):
            gpus.current = place
            run(self, *arguments, grid=grid, warmup=True, **options)

    JITFunction.run = compiled


def compute_by_references() -> None:
    """Makes each launcher compile, and then compute by its reference."""
    for name, functions in LAUNCHERS.items():
        module = importlib.import_module(f"stream_cam.cam.{name}")
        for function in functions:
            launcher = getattr(module, function)
            both = compiling(launcher, _reference(module, function))
            _replace_everywhere(launcher, both)


def compiling(launch: Callable[..., None], reference: Callable[..., None]) -> Callable[..., None]:
    """A launcher that compiles its kernels, and computes by the reference."""

    @functools.wraps(launch)
    def both(*arguments: Any, **named: Any) -> None:
        launch(*arguments, **named)
        reference(*arguments, **named)

    return both


def _reference(module: Any, function: str) -> Callable[..., None]:
    if function == "scale_maps":
        from stream_cam.cam.reference import scale_cam

        def scaled_maps(maps: Any, *, scaled: Any, ranges: Any = None, relu: bool = False) -> None:
            scaled.copy_(scale_cam(maps, relu=relu, ranges=ranges))

        return scaled_maps
    reference: Callable[..., None] = getattr(module, f"{function}_reference")
    return reference


def _replace_everywhere(old: object, new: object) -> None:
    """In all modules that have imported it."""
    for module in list(sys.modules.values()):
        for name, value in list(getattr(module, "__dict__", {}).items()):
            if value is old:
                setattr(module, name, new)


def main() -> int:
    options = _options()
    cache = options.cache.resolve()
    cache.mkdir(parents=True, exist_ok=True)
    os.environ["TRITON_CACHE_DIR"] = str(cache)
    os.environ["TRITON_STORE_BINARY_ONLY"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        log = scratch / "kernels.jsonl"
        gpu_cache.count_kernels(log)
        compile_only(options.architectures)
        started = time.monotonic()
        _run_steps(scratch, options.steps)
        if options.tests:
            _run_tests(options.architectures)
        found = gpu_cache.report(log)
    n_kernels = write_manifest(cache, options.architectures)
    n_bytes = sum(path.stat().st_size for path in cache.rglob("*") if path.is_file())
    print(
        f"{n_kernels} kernels in {cache}, {n_bytes / 1e6:.1f} MB; "
        f"{found['misses']} compiled, {time.monotonic() - started:.0f} s"
    )
    return 0


def write_manifest(cache: Path, architectures: Sequence[int]) -> int:
    """Says with which Triton a cache was filled; the number of its kernels."""
    n_kernels = len(list(cache.glob("*/*.cubin")))
    manifest = {
        "triton": triton.__version__,
        "key": triton_key(),
        "python": sys.version.split()[0],
        "architectures": list(architectures),
        "kernels": n_kernels,
    }
    (cache / gpu_cache.MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    return n_kernels


def _run_steps(scratch: Path, names: Sequence[str]) -> None:
    import gpu_steps
    from gpu_records import Records, read_records

    steps = gpu_steps.steps()
    compute_by_references()
    import support.simulated_gpu as simulated

    from stream_cam.explain.graph.cuda_device import TritonKernels

    simulated.ReferenceKernels = TritonKernels  # type: ignore[assignment,misc]
    import stream_cam.bench.kernels as bench_kernels

    # Where the device is the CPU these are taken in place of the launchers.
    for name in ("overlay_nv12", "preprocess_nv12"):
        setattr(bench_kernels, f"{name}_reference", getattr(bench_kernels, name))
    for name in names:
        records = Records(scratch / f"{name}.jsonl")
        settings = gpu_steps.Settings("simulated", False, scratch, None, "")
        print(f"step {name}", flush=True)
        steps[name](gpu_steps.Ground(settings, records))
        for one in read_records(records.path):
            if one.get("good") is False:
                print(f"  {one.get('check') or one.get('left_out')}: {one.get('why')}")


def _run_tests(architectures: Sequence[int]) -> None:
    """Runs the kernels' tests as on a GPU; this module is their plugin."""
    files = [
        str(path)
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        if "run_kernel" in path.read_text(encoding="utf-8")
    ]
    command = [sys.executable, "-m", "pytest", "-q", "-m", "needs_gpu and not slow_gpu"]
    command += ["-k", "gpu", "-p", "gpu_precompile", "-p", "no:cacheprovider"]
    command += ["-n", str(os.cpu_count()), *files]
    places = [str(ROOT), str(ROOT / "scripts"), os.environ.get("PYTHONPATH", "")]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, places)),
        "STREAM_CAM_SAME_EXAMPLES": "1",
        _ARCHITECTURES: " ".join(map(str, architectures)),
    }
    subprocess.run(command, cwd=ROOT, env=environment, check=False)


def pytest_configure() -> None:
    """In each process of the tests: launches on a GPU compile, and compute on the CPU."""
    import support.kernel_runner
    import support.kernel_worker as worker
    import torch

    gpu_cache.install()
    compile_only([int(one) for one in os.environ[_ARCHITECTURES].split()])
    for name in LAUNCHERS:
        importlib.import_module(f"stream_cam.cam.{name}")
    compute_by_references()
    torch.cuda.is_available = lambda: True
    runner: Any = support.kernel_runner
    runner.call = lambda module, name, blob, device: worker.call(module, name, blob, "cpu")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=inspect.getdoc(sys.modules[__name__]))
    parser.add_argument("--cache", type=Path, required=True, help="folder for the cache")
    parser.add_argument("--architectures", type=int, nargs="+", default=[90])
    parser.add_argument("--steps", nargs="*", default=list(_STEPS), choices=_STEPS)
    parser.add_argument("--tests", action="store_true", help="the kernels of the GPU tests too")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
