"""Engines on a GPU, timed as launched and as graphs; run by scripts/gpu_check.py."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from support.bench_parts import CorruptingEngine
from support.networks import untrained

from stream_cam.bench.engines import BoundSession, EngineVariant, open_engine
from stream_cam.bench.frames import scene_frames
from stream_cam.bench.graph_capture import capture_graph
from stream_cam.bench.plan import time_rows
from stream_cam.bench.run import run_bench
from stream_cam.bench.stages import FrameStages
from stream_cam.bench.timing import CudaTimer, Sampling
from stream_cam.config import BenchConfig
from stream_cam.engine.verify import GATES
from stream_cam.errors import EngineError
from stream_cam.explain.explainer import Explainer
from stream_cam.model.camnet import CamNet

pytestmark = pytest.mark.needs_gpu


@pytest.fixture(autouse=True)
def _gpu() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA GPU")


@pytest.fixture(scope="module")
def net() -> CamNet:
    return CamNet.from_module(untrained("resnet18", 13), name="resnet18", probe_hw=(64, 64))


def bound(net: CamNet, batch: int, *, graph: bool) -> BoundSession:
    engine = open_engine(net, "abc", EngineVariant("eager", "fp32"), (64, 64), batch, "cuda")
    return BoundSession(engine, capture_graph if graph else None)


@pytest.mark.parametrize("batch", [1, 3])
def test_replay_on_new_input_equals_the_launch_and_leaves_no_poison(
    net: CamNet, batch: int
) -> None:
    launched, replayed = (bound(net, batch, graph=graph) for graph in (False, True))
    for seed in range(3):
        images = torch.randn(batch, 3, 64, 64, generator=torch.Generator().manual_seed(seed))
        for made in (launched, replayed):
            made.fill(images)
            made.logits.fill_(torch.nan)
            made.features.fill_(torch.nan)
            made.call()
        torch.cuda.synchronize()
        assert torch.isfinite(replayed.features).all()
        for got, expected in zip(
            (replayed.logits, replayed.features), (launched.logits, launched.features), strict=True
        ):
            # The same kernels on the same numbers; cuDNN may choose others for another stream.
            assert (got - expected).abs().max() <= 1e-2 * expected.abs().max()


def test_replay_of_a_wrong_engine_is_refused(net: CamNet) -> None:
    engine = open_engine(net, "abc", EngineVariant("eager", "fp32"), (64, 64), 1, "cuda")

    def much_louder(before: object, logits: torch.Tensor, features: torch.Tensor) -> None:
        features.mul_(1.5)

    with pytest.raises(EngineError, match="not the network"):
        BoundSession(CorruptingEngine(engine, much_louder), capture_graph).verify(net)


SYNCHRONISES = """
import torch
from support.bench_parts import CorruptingEngine
from support.networks import untrained
from stream_cam.bench.engines import BoundSession, EngineVariant, open_engine
from stream_cam.bench.graph_capture import capture_graph
from stream_cam.errors import EngineError
from stream_cam.model.camnet import CamNet

net = CamNet.from_module(untrained("resnet18", 13), name="resnet18", probe_hw=(64, 64))
engine = open_engine(net, "abc", EngineVariant("eager", "fp32"), (64, 64), 1, "cuda")

def asks(before, logits, features):
    torch.cuda.synchronize()

stream = torch.cuda.current_stream()
try:
    BoundSession(CorruptingEngine(engine, asks), capture_graph)
except EngineError as error:
    print("told:", error)
assert torch.cuda.current_stream() == stream
"""


def test_call_that_synchronises_cannot_be_captured() -> None:
    """In a process of its own: PyTorch 2.11's generator stays as in a capture that fails."""
    tests = Path(__file__).resolve().parents[1]
    code = f"import sys\nsys.path[:0] = [{str(tests)!r}, {str(tests.parent)!r}]\n{SYNCHRONISES}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert "told: it cannot be captured in a graph" in done.stdout, done.stdout + done.stderr
    assert done.returncode == 0, done.stderr


def test_events_time_the_gpu_work() -> None:
    left = torch.randn(4096, 4096, device="cuda")
    clock = CudaTimer()
    clock.time_ms(lambda: left @ left)
    once, often = clock.time_ms(lambda: left @ left), clock.time_ms(lambda: left @ left, 20)
    assert 0 < once < often


def test_copies_are_of_pinned_memory_as_in_a_run() -> None:
    explainer = Explainer.from_module(
        untrained("resnet18", 13),
        engine="eager",
        device="cuda",
        precision="fp32",
        input_size=64,
    )
    net = CamNet.from_module(untrained("resnet18", 13), name="own")
    made = FrameStages(explainer, net, scene_frames("96x64", 3))
    assert all(one.is_pinned() for one in (made._batch, made._logits, made._features))
    rows = {row.subject.name for row in time_rows(made.plan(), Sampling(2, 10.0, 1, 1))}
    assert {"upload", "download"} <= rows


@pytest.mark.slow_gpu
def test_timed_engines_passed_their_gate() -> None:
    config = BenchConfig(batch=(1, 2), shape=("64x64",), frame="96x64", samples=4, device="cuda")
    found = run_bench(config, "c")
    for row in found.rows:
        if row.verification is not None:
            assert GATES[row.subject.precision].failures(row.verification) == []
    modes = {row.subject.mode for row in found.rows if row.subject.group == "engine"}
    assert modes == {"launch", "graph"}, found.left_out
    names = {row.subject.name for row in found.rows if row.subject.group == "stage"}
    assert {"preprocess", "upload", "network", "download", "cam+overlay", "frame"} <= names
    # The kernels need Triton, which need not be here.
    if not any("triton" in one["why"].lower() for one in found.left_out):
        assert {"graph", "graph, pinned", "graph, on device"} <= names, found.left_out
        kernels = {row.subject.name for row in found.rows if row.subject.group == "kernel"}
        assert {"copy", "overlay 1920x1080", "preprocess 1920x1080"} <= kernels
        assert {"maps+overlay 1920x1080", "choice", "maps", "filter"} <= kernels
    assert found.machine["gpus"]
