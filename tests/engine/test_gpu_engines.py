"""Promises of every engine for GPUs: the network's maps, in a graph, in threads, never stale.

Nothing of TensorRT is needed: its engines are skipped where it is not installed.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from support.networks import untrained
from torch import Tensor

from stream_cam.engine import Batch, Engine, EngineOptions, load_engine, open_builder
from stream_cam.engine.base import Session
from stream_cam.engine.builder import EngineRequest
from stream_cam.engine.calibration import Calibration
from stream_cam.engine.machine import installed_tensorrt
from stream_cam.engine.prepare import load_or_build
from stream_cam.engine.quantize import Quantizers
from stream_cam.engine.verify import compare, verify
from stream_cam.errors import EngineError
from stream_cam.model.camnet import CamNet

HW = (64, 64)
DEADLINE_SECONDS = 120.0
SLEEP_CYCLES = 1_000_000_000
"""About half a second on a GPU; a call that does not wait returns long before."""
TOLERANCE = {"fp32": 1e-3, "fp16": 1e-2, "int8": 0.08}
"""Shares of the largest value: the gates of docs/engines.md. int8 has another gate; its value is
twice that of PyTorch's simulation, and half the difference between two frames."""


def marked(name: str, precision: str) -> object:
    needs = pytest.mark.needs_tensorrt if name == "tensorrt" else pytest.mark.needs_gpu
    return pytest.param((name, precision), marks=needs, id=f"{name}-{precision}")


ALL = [
    marked(name, each)
    for name in ("eager", "fused", "inductor", "tensorrt")
    for each in ("fp32", "fp16")
] + [marked("tensorrt", "int8")]
HALF = [marked(name, "fp16") for name in ("eager", "fused", "inductor", "tensorrt")]


def require(name: str, precision: str = "fp16") -> None:
    """Skips where an engine lacks something, and names it."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA GPU")
    if name == "inductor" and not (shutil.which("gcc") or shutil.which("cc")):
        pytest.skip("no C compiler, which Triton needs (apt-get install gcc)")
    if name == "tensorrt":
        try:
            flavour = installed_tensorrt()
            if precision == "int8":
                flavour.require_int8()
        except EngineError as error:
            pytest.skip(str(error))


@pytest.fixture(scope="module")
def net() -> CamNet:
    return CamNet.from_module(untrained("resnet18", 13), name="resnet18", probe_hw=HW)


@pytest.fixture(scope="module")
def other_net() -> CamNet:
    return CamNet.from_module(untrained("resnet18", 13, seed=1), name="other", probe_hw=HW)


@pytest.fixture(scope="module", autouse=True)
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An empty store for this module's engines."""
    folder = tmp_path_factory.mktemp("engines")
    with pytest.MonkeyPatch.context() as patches:
        patches.setenv("STREAM_CAM_ENGINES", str(folder))
        yield folder


def made(net: CamNet, name: str, precision: str, batch: Batch | None = None) -> Engine:
    require(name, precision)
    if precision == "int8":
        quantized(net, batch)
    return load_engine(
        net,
        net.fingerprint(),
        HW,
        EngineOptions(name, "cuda", precision, batch=batch or Batch()),  # type: ignore[arg-type]
    )


def quantized(net: CamNet, batch: Batch | None = None) -> None:
    """Builds TensorRT's int8 engine, so that it is kept."""
    images = [frames(seed) for seed in range(24)]
    builder = open_builder(
        *(net, net.fingerprint(), HW),
        EngineOptions(device="cuda", precision="int8", batch=batch or Batch()),
        Quantizers(net, Calibration(tuple(images[:12]), tuple(images[12:]))),
    )
    load_or_build(builder)


@pytest.fixture(scope="module", params=ALL)
def engine(request: pytest.FixtureRequest, net: CamNet) -> Engine:
    return made(net, *request.param)


@dataclass
class Buffers:
    batch: Tensor
    logits: Tensor
    features: Tensor

    @classmethod
    def of(cls, engine: Engine, n_frames: int | None = None) -> Buffers:
        info = engine.info
        shapes = (info.input_shape, info.logits_shape, info.features_shape)
        return cls(
            *(torch.empty(n_frames or info.batch.best, *s[1:], device=info.device) for s in shapes)
        )

    def run(self, session: Session) -> None:
        session(self.batch, self.logits, self.features)

    def poison(self) -> None:
        self.logits.fill_(torch.nan)
        self.features.fill_(torch.nan)


def frames(seed: int, n_frames: int = 1) -> Tensor:
    return torch.randn(n_frames, 3, *HW, generator=torch.Generator().manual_seed(seed))


def assert_is_of(buffers: Buffers, net: CamNet, batch: Tensor, precision: str) -> None:
    with torch.inference_mode():
        expected = net(batch)
    for got, wanted in zip((buffers.logits, buffers.features), expected, strict=True):
        assert not torch.isnan(got).any()
        assert (got.cpu() - wanted).abs().max() <= TOLERANCE[precision] * wanted.abs().max()


def test_it_passes_its_gate(engine: Engine, net: CamNet) -> None:
    assert engine.info.device == f"cuda:{torch.cuda.current_device()}"
    figures = verify(engine, net)
    print(f"\n{engine.info.name} {engine.info.precision}: {figures}")


def test_logits_are_the_maps_means_plus_bias(engine: Engine, net: CamNet) -> None:
    buffers, session = Buffers.of(engine), engine.session()
    with torch.cuda.stream(torch.cuda.Stream()):  # type: ignore[no-untyped-call]
        buffers.batch.copy_(frames(0))
        buffers.run(session)
        features = buffers.features.cpu().double()
        logits = buffers.logits.cpu().double()
    pooled = features.mean((2, 3)) @ net.weight.double().T + net.bias.double()
    # The head is float32 at every precision; TF32 would differ by 1e-3.
    assert (logits - pooled).abs().max() <= 1e-5 * logits.abs().max()


def test_a_graph_replays_on_new_input_and_leaves_nothing_stale(engine: Engine, net: CamNet) -> None:
    buffers, session = Buffers.of(engine), engine.session()
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    with torch.cuda.stream(stream):
        buffers.batch.copy_(frames(0))
        for _ in range(3):
            buffers.run(session)
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
        buffers.run(session)
    for seed in (1, 2, 1):
        with torch.cuda.stream(stream):
            buffers.batch.copy_(frames(seed))
            buffers.poison()
            graph.replay()
        stream.synchronize()
        assert_is_of(buffers, net, frames(seed), engine.info.precision)


def test_a_session_waits_for_nothing(engine: Engine) -> None:
    buffers, session = Buffers.of(engine), engine.session()
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    with torch.cuda.stream(stream):
        for _ in range(3):
            buffers.run(session)
        stream.synchronize()
        reserved_bytes = torch.cuda.memory_reserved()
        torch.cuda._sleep(SLEEP_CYCLES)  # type: ignore[no-untyped-call]
        buffers.run(session)
        assert not stream.query(), "the session waited for the stream"
        assert torch.cuda.memory_reserved() == reserved_bytes
    stream.synchronize()


def test_a_session_follows_new_buffers(engine: Engine, net: CamNet) -> None:
    session = engine.session()
    with torch.cuda.stream(torch.cuda.Stream()):  # type: ignore[no-untyped-call]
        for seed in (1, 2, 1):
            buffers = Buffers.of(engine)
            buffers.poison()
            buffers.batch.copy_(frames(seed))
            buffers.run(session)
            assert_is_of(buffers, net, frames(seed), engine.info.precision)


def test_buffers_elsewhere_are_refused(engine: Engine) -> None:
    buffers, session = Buffers.of(engine), engine.session()
    device = engine.info.device
    with pytest.raises(ValueError, match=f"batch is .* on {device} .* on cpu"):
        session(buffers.batch.cpu(), buffers.logits, buffers.features)
    with pytest.raises(ValueError, match=f"features is .* on {device} .* on cpu"):
        session(buffers.batch, buffers.logits, buffers.features.cpu())
    with pytest.raises(ValueError, match=r"got .* torch\.float16"):
        session(buffers.batch.half(), buffers.logits, buffers.features)


@pytest.mark.parametrize("name", ["eager", "fused", "inductor", "tensorrt"])
def test_another_gpu_s_buffers_are_refused(name: str, net: CamNet) -> None:
    """Not marked: STREAM_CAM_REQUIRE=gpu asks for one GPU, not for two."""
    if torch.cuda.device_count() < 2:
        pytest.skip("fewer than two CUDA GPUs")
    buffers, session = Buffers.of(engine := made(net, name, "fp16")), engine.session()
    with pytest.raises(ValueError, match="on cuda:1"):
        session(buffers.batch.to("cuda:1"), buffers.logits, buffers.features)
    with torch.cuda.device(1):
        buffers.batch.copy_(frames(3))
        buffers.run(session)
        torch.cuda.synchronize(0)
    assert_is_of(buffers, net, frames(3), "fp16")


@pytest.mark.parametrize("which", HALF)
def test_two_engines_work_in_two_threads(
    which: tuple[str, str], net: CamNet, other_net: CamNet
) -> None:
    engines = [(made(each, *which), each) for each in (net, other_net)]
    failures: list[BaseException] = []
    start = threading.Barrier(len(engines))

    def work(engine: Engine, own: CamNet) -> None:
        try:
            session, buffers = engine.session(), Buffers.of(engine)
            with torch.cuda.stream(torch.cuda.Stream()):  # type: ignore[no-untyped-call]
                start.wait(DEADLINE_SECONDS)
                for seed in range(30):
                    buffers.poison()
                    buffers.batch.copy_(frames(seed))
                    buffers.run(session)
                    assert_is_of(buffers, own, frames(seed), which[1])
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=each) for each in engines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_SECONDS)
    assert not failures, failures
    assert not any(thread.is_alive() for thread in threads)


@pytest.mark.parametrize(
    "which", [marked("eager", "fp16"), marked("tensorrt", "fp16"), marked("tensorrt", "int8")]
)
def test_one_engine_takes_batches_of_many_sizes(which: tuple[str, str], net: CamNet) -> None:
    engine = made(net, *which, Batch(1, 4, 8))
    verify(engine, net)
    session = engine.session()
    with torch.cuda.stream(torch.cuda.Stream()):  # type: ignore[no-untyped-call]
        for n_frames in (8, 1, 3):
            buffers = Buffers.of(engine, n_frames)
            buffers.poison()
            buffers.batch.copy_(frames(n_frames, n_frames))
            buffers.run(session)
            assert_is_of(buffers, net, frames(n_frames, n_frames), which[1])


@pytest.mark.parametrize("which", [marked("inductor", "fp16")])
def test_inductor_takes_a_batch(which: tuple[str, str], net: CamNet) -> None:
    engine = made(net, *which, Batch(8, 8, 8))
    assert engine.info.input_shape[0] == 8


@pytest.mark.needs_tensorrt
def test_tensorrt_engine_is_read_from_the_store(
    net: CamNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = made(net, "tensorrt", "fp16")

    def not_again(*_: object, **__: object) -> bytes:
        raise AssertionError("converted again although it is in the store")

    monkeypatch.setattr("stream_cam.engine.tensorrt.convert", not_again)
    second = made(net, "tensorrt", "fp16")
    assert first.info == second.info
    verify(second, net)


@pytest.mark.needs_tensorrt
@pytest.mark.filterwarnings("ignore:The CUDA Graph is empty")
def test_tensorrt_refuses_a_capture_before_its_first_call(net: CamNet) -> None:
    engine = made(net, "tensorrt", "fp16")
    buffers, session = Buffers.of(engine), engine.session()
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream()  # type: ignore[no-untyped-call]
    with (
        pytest.raises(RuntimeError, match="before its call is captured"),
        torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"),
    ):
        buffers.run(session)


@pytest.mark.needs_tensorrt
def test_tensorrt_refuses_blobs_that_are_no_engine(net: CamNet) -> None:
    require("tensorrt")
    from stream_cam.engine.tensorrt import TensorRtBuilder
    from stream_cam.engine.tensorrt_runtime import pack

    builder = TensorRtBuilder(EngineRequest(net, "abc", HW, "cuda:0", "fp16"))
    for blob in (b"", b"short", pack(b"x" * 5000, b"")):
        with pytest.raises(EngineError):
            builder.deserialize(blob)


@pytest.mark.needs_tensorrt
def test_an_int8_engine_computes_in_integers(net: CamNet) -> None:
    """It is as far from the network as integers are, which is farther than fp16."""
    int8, fp16 = (made(net, "tensorrt", precision) for precision in ("int8", "fp16"))
    assert int8.info.precision == "int8"
    assert compare(int8, net).cam_difference > 5 * compare(fp16, net).cam_difference
