"""Fixtures of all tests, and hooks: required markers and leak checks."""

from __future__ import annotations

import os

# Before torch is imported: where workers share the processor (pytest -n), its threads would spin
# for cores that other workers have.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"

import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from support.kernel_runner import RunKernel, interpreter, interpreter_problem, run_on_gpu
from support.leak_check import adopt_orphans, check_for_leaks
from support.required_markers import pytest_configure, pytest_runtest_makereport

import stream_cam  # noqa: F401  (before any test module imports PyAV: import_order.py)

__all__ = ["pytest_configure", "pytest_runtest_makereport"]

with suppress(ImportError):  # where only TensorRT's conversion is tested there is none
    import hypothesis

    # How long an example takes says something of the machine, not of the code.
    hypothesis.settings.register_profile(
        "untimed",
        deadline=None,
        # scripts/gpu_check.py: the kernels that these examples need were compiled before.
        derandomize="STREAM_CAM_SAME_EXAMPLES" in os.environ,
    )
    hypothesis.settings.load_profile("untimed")

# A shell's background job ignores Ctrl-C, and so would every program that the tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

adopt_orphans()

ROOT = Path(__file__).resolve().parent.parent

VideoMaker = Callable[..., Path]


_SLOW_KINDS = frozenset(
    f"needs_{kind}"
    for kind in ("chromium", "firefox", "webkit", "rtsp_server", "display", "strace", "nginx")
)
_SLOW_MODULES = frozenset(
    [
        "accounting", "batch", "bench", "bench_graphs", "bench_peers", "build", "chaos",
        "choice_kernels", "cli", "cluster_nodes", "compute_sanitizer", "demo_model", "end_to_end",
        "engine", "gpu_check", "gpu_precompile", "reconnecting", "kernel_budget", "nv12_kernels",
        "overlay_kernel", "peers", "pipes", "preprocess_kernel", "quantize", "quantize_layers",
        "recording", "session_watching", "sources_http_stills", "sources_protocols", "steady",
        "verify", "web_server",
    ]
)  # fmt: skip
"""Real engine builds, whole commands, kernels in the interpreter: each over ten seconds alone."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        kinds = {mark.name for mark in item.iter_markers()}
        if _SLOW_KINDS & kinds or item.path.stem.removeprefix("test_") in _SLOW_MODULES:
            item.add_marker("slow")


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    """Where pytest-timeout is missing (a lent GPU machine) its ini options mean nothing."""
    if not pluginmanager.hasplugin("timeout"):
        parser.addini("timeout", "seconds that a test may take; pytest-timeout is not installed")


@pytest.fixture(autouse=True, scope="session")
def _session_leaves_nothing() -> Iterator[None]:
    with check_for_leaks():
        yield


@pytest.fixture(autouse=True)
def _test_leaves_nothing() -> Iterator[None]:
    with check_for_leaks():
        yield


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real footage next to the checkout; skips where there is none."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real footage in {folder}")
    return folder


@pytest.fixture(scope="session")
def ffprobe() -> str:
    """The ffprobe program; skips where it is not installed."""
    program = shutil.which("ffprobe")
    if program is None:
        pytest.skip("ffprobe is not installed (apt-get install ffmpeg)")
    return program


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three seconds of numbered pictures with half a second more of a tone, and a title."""
    from support.recordings import write_clip  # PyAV is not everywhere where GPUs are tested

    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    write_clip(path)
    return path


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights of an untrained ResNet18 with four classes."""
    from safetensors.torch import save_file

    from stream_cam.model.camnet import build_network

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_file(build_network("resnet18", 4).state_dict(), path)
    return path


@pytest.fixture
def unprivileged() -> Iterator[None]:
    """File permissions hold inside the test, also when root runs it."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a megabyte."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1M", "tmpfs", str(place)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield place
    # Lazily: pytest's report of an exception may hold its frames, and those a container.
    subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.fixture(scope="session")
def interpreted() -> Iterator[RunKernel]:
    """Runs Triton kernels in the interpreter; skips where there is no Triton."""
    pytest.importorskip("triton", reason="no Triton for this system")
    if problem := interpreter_problem():
        pytest.skip(problem)
    with interpreter() as run:
        yield run


@pytest.fixture(params=["interpreter", pytest.param("gpu", marks=pytest.mark.needs_gpu)])
def run_kernel(request: pytest.FixtureRequest) -> RunKernel:
    """Runs Triton kernels in the interpreter, and once more on the GPU if there is one."""
    if request.param == "interpreter":
        run: RunKernel = request.getfixturevalue("interpreted")
        return run
    if not torch.cuda.is_available():
        pytest.skip("no CUDA GPU")
    return run_on_gpu


@pytest.fixture
def make_video(tmp_path: Path) -> VideoMaker:
    """Writes a small video with PyAV: `make_video("a.mp4", n_frames=5)`."""
    # Not at the top: GPU tests also run where PyAV is not installed (scripts/gpu_check.py).
    from support.videos import write_video

    # PyAV may be missing where only the network is tested.

    def make(name: str, **options: Any) -> Path:
        return write_video(tmp_path / name, **options)

    return make
