"""Engines agree with each other, and the store never returns a wrong engine."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from support.networks import untrained
from support.toy_engine import ToyBuilder, toy_net
from torch import nn

from stream_cam.config import Device, EngineName, Precision
from stream_cam.engine import EngineOptions, check_buildable, load_engine, open_builder, typed_net
from stream_cam.engine.backends import BACKENDS, Backend
from stream_cam.engine.base import Engine
from stream_cam.engine.builder import EngineRequest
from stream_cam.engine.calibration import Calibration
from stream_cam.engine.eager import EagerEngine
from stream_cam.engine.inductor import InductorEngine
from stream_cam.engine.machine import TensorRt
from stream_cam.engine.openvino import OpenVinoBuilder
from stream_cam.engine.options import Batch
from stream_cam.engine.prepare import load_or_build
from stream_cam.engine.quantize import Quantizers
from stream_cam.engine.quantize_layers import LayerQuantizer
from stream_cam.engine.quantize_nncf import NncfQuantizer
from stream_cam.engine.selection import _warn_once
from stream_cam.engine.store import EngineStore
from stream_cam.engine.typed_net import arithmetic
from stream_cam.engine.verify import compare, verify
from stream_cam.errors import EngineError, GateError, UnsuitableEngineError, UsageError
from stream_cam.model.camnet import CamNet


@pytest.fixture(scope="module")
def net() -> CamNet:
    module = untrained("resnet18", 13)
    return CamNet.from_module(module, name="resnet18", probe_hw=(64, 64))


def openvino_engine(
    net: CamNet, fingerprint: str, input_hw: tuple[int, int], *, store: EngineStore, **options: Any
) -> Engine:
    return load_or_build(
        OpenVinoBuilder(EngineRequest(net, fingerprint, input_hw, **options)), store
    ).engine


def eager_engine(net: CamNet, **options: Any) -> EagerEngine:
    return EagerEngine(EngineRequest(net, "abc", (64, 64), **options))


def inductor_engine(net: CamNet, batch: Batch | None = None) -> InductorEngine:
    return InductorEngine(EngineRequest(net, "abc", (64, 64), batch=batch or Batch()))


def run(engine: Engine, batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    logits = torch.full(engine.info.logits_shape, torch.nan)
    features = torch.full(engine.info.features_shape, torch.nan)
    engine.session()(batch, logits, features)
    return logits, features


def test_the_options_are_those_of_the_table() -> None:
    """A new engine needs its module, its entry in the table, and its name in `config`."""
    names = [backend.name for backend in BACKENDS]
    assert ["auto", *names] == list(get_args(EngineName))
    kinds = {kind for backend in BACKENDS for kind in backend.precisions}
    assert {"auto", *kinds} == set(get_args(Device))
    precisions = {
        one for backend in BACKENDS for several in backend.precisions.values() for one in several
    }
    assert {"auto", *precisions} == set(get_args(Precision))


@pytest.mark.parametrize("backend", BACKENDS, ids=lambda backend: backend.name)
def test_a_backend_is_stored_or_made_at_every_start(backend: Backend) -> None:
    assert (backend.make is None) != (backend.builder is None)
    assert (backend.machines is None) == (backend.builder is None)
    has_int8 = any("int8" in precisions for precisions in backend.precisions.values())
    assert has_int8 == (backend.require_int8 is not None)


@pytest.mark.parametrize("parallel", [1, 2])
@pytest.mark.parametrize("input_hw", [(64, 64), (96, 160)])
def test_openvino_equals_eager_to_1e_3(
    net: CamNet, input_hw: tuple[int, int], parallel: int, tmp_path: Path
) -> None:
    openvino = openvino_engine(net, "abc", input_hw, parallel=parallel, store=EngineStore(tmp_path))
    eager = load_engine(net, "abc", input_hw, EngineOptions("eager", "cpu"))
    assert openvino.info.input_shape == eager.info.input_shape == (1, 3, *input_hw)
    assert openvino.info.features_shape == eager.info.features_shape
    for seed in range(3):
        batch = torch.randn(1, 3, *input_hw, generator=torch.Generator().manual_seed(seed))
        for got, expected in zip(run(openvino, batch), run(eager, batch), strict=True):
            assert (got - expected).abs().max() <= 1e-3 * expected.abs().max()


def test_bfloat16_is_near_to_eager_where_the_processor_has_it(net: CamNet, tmp_path: Path) -> None:
    import openvino

    store = EngineStore(tmp_path)
    if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        with pytest.raises(EngineError, match="give --precision fp32"):
            openvino_engine(net, "abc", (64, 64), precision="bf16", store=store)
        return
    full = openvino_engine(net, "abc", (64, 64), store=store)
    brief = openvino_engine(net, "abc", (64, 64), precision="bf16", store=store)
    eager = load_engine(net, "abc", (64, 64), EngineOptions("eager", "cpu"))
    assert (full.info.precision, brief.info.precision) == ("fp32", "bf16")
    batch = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(5))
    for exact, got, expected in zip(
        run(full, batch), run(brief, batch), run(eager, batch), strict=True
    ):
        far = (got - expected).abs().max()
        # Half a unit in the last of bfloat16's eight bits is 2e-3; twenty layers add up.
        assert far <= 3e-2 * expected.abs().max()
        assert not torch.equal(got, exact)


def test_bfloat16_is_refused_where_it_is_not(
    net: CamNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "stream_cam.engine.openvino_runtime.openvino_capabilities", lambda core: ["FP32", "INT8"]
    )
    with pytest.raises(EngineError, match=r"no bfloat16 arithmetic.*--precision fp32"):
        openvino_engine(net, "abc", (64, 64), precision="bf16", store=EngineStore(tmp_path))
    with pytest.raises(EngineError, match="no bfloat16 arithmetic"):
        load_engine(net, "abc", (64, 64), EngineOptions(precision="bf16", device="cpu"))
    with pytest.raises(EngineError, match="the eager engine has no bf16"):
        load_engine(
            net, "abc", (64, 64), EngineOptions(engine="eager", precision="bf16", device="cpu")
        )


def test_a_session_follows_new_buffers(net: CamNet, tmp_path: Path) -> None:
    engine = openvino_engine(net, "abc", (64, 64), store=EngineStore(tmp_path))
    session = engine.session()
    outputs = []
    for seed in (1, 2, 1):
        batch = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(seed))
        logits = torch.full(engine.info.logits_shape, torch.nan)
        features = torch.full(engine.info.features_shape, torch.nan)
        session(batch, logits, features)
        outputs.append(logits)
    assert torch.equal(outputs[0], outputs[2])
    assert not torch.equal(outputs[0], outputs[1])


def test_second_load_comes_from_the_store(
    net: CamNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = torch.randn(1, 3, 64, 64)
    first = run(openvino_engine(net, "abc", (64, 64), store=EngineStore(tmp_path)), batch)

    def not_again(*_: Any) -> None:
        raise AssertionError("converted again although it is in the store")

    monkeypatch.setattr("stream_cam.engine.openvino._convert", not_again)
    second = run(openvino_engine(net, "abc", (64, 64), store=EngineStore(tmp_path)), batch)
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    with pytest.raises(EngineError, match="converted again"):
        openvino_engine(net, "other weights", (64, 64), store=EngineStore(tmp_path))


def test_a_damaged_kept_engine_is_built_again(
    net: CamNet, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    batch = torch.randn(1, 3, 64, 64)
    store = EngineStore(tmp_path)
    first = run(openvino_engine(net, "abc", (64, 64), store=store), batch)
    blob = next(tmp_path.glob("*/engine.blob"))
    data = bytearray(blob.read_bytes())
    data[len(data) // 2] ^= 0xFF
    blob.write_bytes(data)
    second = run(openvino_engine(net, "abc", (64, 64), store=store), batch)
    assert torch.equal(first[0], second[0])
    assert "checksum" in caplog.text


def test_cuda_without_a_gpu_names_the_option(net: CamNet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(EngineError, match="--device cpu"):
        load_engine(net, "abc", (64, 64), EngineOptions("eager", "cuda"))
    with pytest.raises(EngineError, match="--engine eager"):
        load_engine(net, "abc", (64, 64), EngineOptions("openvino", "cuda"))


def test_an_input_too_small_for_the_network_says_so() -> None:
    deep = nn.Sequential(
        nn.Conv2d(3, 4, 33), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    )
    net = CamNet.from_module(deep, name="deep", probe_hw=(64, 64))
    with pytest.raises(EngineError, match="--input-size"):
        load_engine(net, "abc", (32, 32), EngineOptions("eager", "cpu"))


def test_auto_falls_back_and_says_why(
    net: CamNet, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise EngineError("OpenVINO cannot be imported: pip install openvino")

    monkeypatch.setattr("stream_cam.engine.openvino.OpenVinoBuilder", broken)
    engine = load_engine(net, "abc", (64, 64), EngineOptions(device="cpu"))
    assert engine.info.name == "eager"
    assert "pip install openvino" in caplog.text
    with pytest.raises(EngineError, match="pip install openvino"):
        load_engine(net, "abc", (64, 64), EngineOptions("openvino", "cpu"))


Found = dict[str, EngineError | Engine]


@pytest.fixture
def a_gpu(monkeypatch: pytest.MonkeyPatch) -> Found:
    """A pretended GPU, where each engine works or raises."""
    works = eager_engine(toy_net())
    found: Found = {"tensorrt": works, "fused": works, "inductor": works, "eager": works}

    def opened(backend: Backend, request: EngineRequest) -> Engine:
        assert request.device == "cuda:3"
        outcome = found.get(f"{backend.name} {request.precision}", found[backend.name])
        if isinstance(outcome, EngineError):
            raise outcome
        return outcome

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    monkeypatch.setattr("stream_cam.engine.load._open", opened)
    _warn_once.cache_clear()
    return found


def test_auto_on_a_gpu_falls_back_with_one_line(
    a_gpu: Found, caplog: pytest.LogCaptureFixture
) -> None:
    load_engine(toy_net(), "abc", (64, 64), EngineOptions())
    assert caplog.messages == []
    a_gpu["tensorrt"] = EngineError("torch-tensorrt is not installed: pip install it")
    load_engine(toy_net(), "abc", (64, 64), EngineOptions(precision="fp16"))
    (line,) = caplog.messages
    assert "slower fused engine in fp16 (tensorrt: torch-tensorrt is not installed" in line
    caplog.clear()
    a_gpu["fused"] = UnsuitableEngineError("for networks of another kind")
    a_gpu["inductor"] = EngineError("no C compiler")
    load_engine(toy_net(), "abc", (64, 64), EngineOptions())
    (line,) = caplog.messages
    assert "slower eager engine in fp16 (tensorrt: " in line
    assert line.endswith("; inductor: no C compiler)")
    a_gpu["eager"] = EngineError("it differs")
    with pytest.raises(EngineError, match="it differs"):
        load_engine(toy_net(), "abc", (64, 64), EngineOptions())


def test_auto_on_a_gpu_is_fp16_or_where_maps_do_not_survive_that_fp32(
    a_gpu: Found, caplog: pytest.LogCaptureFixture
) -> None:
    fp32 = eager_engine(toy_net())
    a_gpu["tensorrt fp32"] = fp32
    assert load_engine(toy_net(), "abc", (64, 64), EngineOptions("tensorrt")) is a_gpu["tensorrt"]
    a_gpu["tensorrt"] = EngineError("correlation 0.9, at least 0.9995 is asked for")
    assert load_engine(toy_net(), "abc", (64, 64), EngineOptions("tensorrt")) is fp32
    (line,) = caplog.messages
    assert "slower tensorrt engine in fp32 (tensorrt: correlation 0.9, at least" in line


def test_a_build_of_minutes_is_announced(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("STREAM_CAM_ENGINES", str(tmp_path))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    monkeypatch.setattr("stream_cam.engine.load._builder", lambda *_: ToyBuilder())
    load_engine(toy_net(), "abc", (64, 64), EngineOptions("tensorrt"))
    (line,) = caplog.messages
    assert line.startswith("TensorRT builds the engine for this GPU, once")
    load_engine(toy_net(), "abc", (64, 64), EngineOptions("tensorrt"))
    assert len(caplog.messages) == 1, "it is kept"


def test_auto_does_not_repeat_a_precision_that_failed_its_gate(
    a_gpu: Found, caplog: pytest.LogCaptureFixture
) -> None:
    fp32 = eager_engine(toy_net())
    a_gpu["tensorrt fp16"] = GateError("correlation 0.9, at least 0.9995 is asked for")
    a_gpu["fused"] = a_gpu["inductor fp16"] = a_gpu["eager fp16"] = EngineError("must not be tried")
    a_gpu["tensorrt fp32"] = fp32
    assert load_engine(toy_net(), "abc", (64, 64), EngineOptions()) is fp32
    assert "must not be tried" not in caplog.text
    # An explicit precision comes from any engine that passes.
    a_gpu["inductor fp16"] = works = eager_engine(toy_net())
    assert load_engine(toy_net(), "abc", (64, 64), EngineOptions(precision="fp16")) is works


@pytest.mark.parametrize(
    ("precision", "flavour", "expected"),
    [
        ("bf16", TensorRt("tensorrt", "torch-tensorrt"), "engines in bf16 are for CPUs: the GPU"),
        ("int8", None, "needs the tensorrt engine (torch-tensorrt is not installed: pip"),
        ("int8", TensorRt("tensorrt_rtx", "torch-tensorrt-rtx"), "(TensorRT-RTX has no conv"),
        ("int8", TensorRt("tensorrt", "torch-tensorrt"), None),
    ],
)
def test_auto_takes_the_cpu_for_precisions_that_the_gpu_lacks(
    a_gpu: Found,
    precision: Any,
    flavour: TensorRt | None,
    expected: str | None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    asked: list[tuple[str, str]] = []
    if flavour is not None:
        monkeypatch.setattr("stream_cam.engine.backends.installed_tensorrt", lambda: flavour)
        monkeypatch.setattr(TensorRt, "versions", lambda _: {})

    def opened(backend: Backend, request: EngineRequest) -> Engine:
        asked.append((backend.name, request.device))
        return eager_engine(toy_net())

    monkeypatch.setattr("stream_cam.engine.load._open", opened)
    load_engine(toy_net(), "abc", (64, 64), EngineOptions(precision=precision))
    if expected is None:
        assert asked == [("tensorrt", "cuda:3")]
        assert caplog.messages == []
        return
    assert asked == [("openvino", "cpu")]
    (line,) = caplog.messages
    assert expected in line
    assert line.endswith(": the GPU is not used")


def test_a_backend_gets_the_quantizer_that_is_its_own(
    a_gpu: Found, monkeypatch: pytest.MonkeyPatch
) -> None:
    trt = TensorRt("tensorrt", "torch-tensorrt")
    monkeypatch.setattr("stream_cam.engine.backends.installed_tensorrt", lambda: trt)
    monkeypatch.setattr(TensorRt, "versions", lambda _: {})
    given: list[Any] = []
    for builder, kind in (
        ("tensorrt.TensorRtBuilder", LayerQuantizer),
        ("openvino.OpenVinoBuilder", NncfQuantizer),
    ):
        monkeypatch.setattr(
            f"stream_cam.engine.{builder}",
            lambda request, kind=kind: given.append(request.quantizers.get(kind)),
        )
    net, frames = toy_net(), tuple(torch.zeros(2, 1, 3, 64, 64))
    quantizers = Quantizers(net, Calibration(frames, frames))
    monkeypatch.setattr("stream_cam.engine.quantize_nncf.nncf_version", lambda: "3.4")
    for device in ("auto", "cpu"):
        options = EngineOptions(device=device, precision="int8")
        open_builder(net, "abc", (64, 64), options, quantizers)
    assert [type(quantizer) for quantizer in given] == [LayerQuantizer, NncfQuantizer]


def test_missing_quantizers_are_found_before_anything_slow(
    a_gpu: Found, monkeypatch: pytest.MonkeyPatch
) -> None:
    rtx = TensorRt("tensorrt_rtx", "torch-tensorrt-rtx")
    monkeypatch.setattr("stream_cam.engine.backends.installed_tensorrt", lambda: rtx)
    for quantizing in (True, False):
        with pytest.raises(EngineError, match="RTX has no convolutions in int8"):
            check_buildable(EngineOptions("tensorrt", "auto", "int8"), quantizing=quantizing)
    with pytest.raises(UsageError, match="one frame at a time: --batch"):
        check_buildable(EngineOptions(precision="int8", batch=Batch(1, 8, 32)))
    with pytest.raises(UsageError, match="the inductor engine is not built ahead"):
        check_buildable(EngineOptions("inductor", "cuda", "int8"), quantizing=True)
    trt = TensorRt("tensorrt", "torch-tensorrt")
    monkeypatch.setattr("stream_cam.engine.backends.installed_tensorrt", lambda: trt)
    monkeypatch.setattr(TensorRt, "versions", lambda _: {})
    check_buildable(EngineOptions(precision="int8", batch=Batch(1, 8, 32)), quantizing=True)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried"), "free its memory, or give --device"),
        (torch.AcceleratorError("CUDA error: no kernel image", 209), "give --device cpu, and see"),
        (RuntimeError("cuDNN error: CUDNN_STATUS_NOT_INITIALIZED"), "give --device cpu, and see"),
    ],
)
def test_a_gpu_that_fails_is_an_engines_error(
    error: RuntimeError, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> None:
        raise error

    net = toy_net()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    monkeypatch.setattr(typed_net.TypedNet, "to", fails)
    with pytest.raises(EngineError, match=expected):
        load_engine(net, "abc", (64, 64), EngineOptions("eager"))
    monkeypatch.undo()
    # Nor is it the input's fault if it happens in the network.
    monkeypatch.setattr(CamNet, "forward", fails)
    with pytest.raises(EngineError, match=expected):
        load_engine(net, "abc", (64, 64), EngineOptions("eager", "cpu"))


@pytest.mark.parametrize("name", ["tensorrt", "fused", "inductor", "eager"])
def test_an_engine_asked_for_by_name_never_falls_back(
    a_gpu: Found, name: Any, caplog: pytest.LogCaptureFixture
) -> None:
    a_gpu[name] = EngineError("does not work")
    with pytest.raises(EngineError, match="does not work"):
        load_engine(toy_net(), "abc", (64, 64), EngineOptions(name))
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            {"precision": "bf16", "device": "cuda"},
            "--precision fp32 or fp16, or --engine openvino --device cpu",
        ),
        (
            {"precision": "fp16", "device": "cpu"},
            "--precision fp32 or bf16; fp16 is for GPUs",
        ),
        (
            {"precision": "int8", "engine": "eager", "device": "cuda"},
            "fp32 or fp16, or --engine tensorrt, or --engine openvino --device cpu",
        ),
        ({"precision": "int8", "engine": "eager", "device": "cpu"}, "fp32, or --engine openvino"),
        ({"precision": "fp16", "engine": "eager", "device": "cpu"}, "--precision fp32; fp16"),
        ({"engine": "tensorrt", "device": "cpu"}, "tensorrt engine runs on GPUs"),
        ({"engine": "inductor", "device": "cpu"}, "inductor engine runs on GPUs"),
        ({"engine": "openvino", "device": "cuda"}, "openvino engine runs on the CPU"),
    ],
)
def test_options_that_contradict_each_other_name_the_way_out(
    a_gpu: Found, options: dict[str, Any], expected: str
) -> None:
    with pytest.raises(EngineError, match=expected):
        load_engine(toy_net(), "abc", (64, 64), EngineOptions(**options))


@pytest.mark.parametrize("name", ["tensorrt", "fused", "inductor"])
def test_gpu_engines_without_a_gpu_name_their_needs(
    net: CamNet, name: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(EngineError, match="needs an NVIDIA GPU with its driver"):
        load_engine(net, "abc", (64, 64), EngineOptions(name))


def test_a_batch_gives_the_same_as_single_frames(net: CamNet) -> None:
    engine = eager_engine(net, batch=Batch(1, 2, 4))
    one = eager_engine(net).session()
    session = engine.session()
    assert engine.info.input_shape == (2, 3, 64, 64)
    for n_frames in (1, 3, 4):
        batch = torch.randn(n_frames, 3, 64, 64)
        logits = torch.full((n_frames, 13), torch.nan)
        features = torch.full((n_frames, 512, 2, 2), torch.nan)
        session(batch, logits, features)
        for place in range(n_frames):
            alone = torch.empty(1, 13), torch.empty(1, 512, 2, 2)
            one(batch[place, None], *alone)
            # Another number of frames is summed in another order.
            for got, expected in zip((logits, features), alone, strict=True):
                assert (got[place] - expected[0]).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda b, x, f: (b.double(), x, f), "batch is .* got .* torch.float64"),
        (lambda b, x, f: (b, x[:, :-1], f), r"logits is \(2, 13\) .* got \(2, 12\)"),
        (lambda b, x, f: (b, x, f.transpose(2, 3)), "features is .* not contiguous"),
        (lambda b, x, f: (b, x.to("meta"), f), "logits is .* on cpu .* on meta"),
        (lambda b, x, f: (b[:1], x, f), r"logits is \(1, 13\) .* got \(2, 13\)"),
        (lambda b, x, f: (torch.cat([b, b]), x, f), "takes 1..2..3 frames at once, got 4"),
    ],
)
def test_buffers_that_do_not_fit_are_refused(net: CamNet, spoil: Any, expected: str) -> None:
    session = eager_engine(net, batch=Batch(1, 2, 3)).session()
    fitting = torch.zeros(2, 3, 64, 64), torch.empty(2, 13), torch.empty(2, 512, 2, 2)
    session(*fitting)
    with pytest.raises(ValueError, match=expected):
        session(*spoil(*fitting))
    session(*fitting)


def test_half_precision_keeps_the_invariant(net: CamNet) -> None:
    """Its head is float32: the maps' means plus bias are the logits to float32's rounding."""
    engine = eager_engine(net, precision="fp16")
    assert engine.info.precision == "fp16"
    logits, features = run(engine, torch.randn(1, 3, 64, 64))
    maps = torch.einsum("ck,khw->chw", net.weight.double(), features[0].double())
    torch.testing.assert_close(
        logits[0].double(), maps.mean((1, 2)) + net.bias.double(), rtol=1e-5, atol=1e-5
    )
    assert torch.equal(features, features.half().float())
    figures = compare(engine, net)
    # Half a unit in the last of fp16's eleven bits is 2.4e-4; twenty layers add up.
    assert 1e-5 < figures.cam_difference < 5e-3


def test_full_precision_on_a_gpu_is_not_tf32() -> None:
    cudnn: Any = torch.backends.cudnn

    def now() -> tuple[str, str, bool]:
        # The last one raises where the two ways to set it disagree.
        return cudnn.conv.fp32_precision, cudnn.rnn.fp32_precision, cudnn.allow_tf32

    before = now()
    assert before[0] == "tf32"
    exact = ("none", "none", False)
    with arithmetic("cuda:0", "fp32"):
        assert now() == exact
        with arithmetic("cuda:0", "fp32"):
            assert now() == exact
        assert now() == exact
    assert now() == before
    for untouched in (("cpu", "fp32"), ("cuda:0", "fp16")):
        with arithmetic(*untouched):
            assert now() == before
    cudnn.conv.fp32_precision = "ieee"
    try:
        with arithmetic("cuda:0", "fp32"):
            assert cudnn.conv.fp32_precision == "ieee"
        assert (cudnn.conv.fp32_precision, cudnn.rnn.fp32_precision) == ("ieee", before[1])
    finally:
        cudnn.conv.fp32_precision = "tf32"


@pytest.mark.needs_compiler
def test_inductor_equals_the_network() -> None:
    if shutil.which("g++") is None:
        pytest.skip("no C++ compiler (apt-get install g++)")
    engine = inductor_engine(toy_net(), Batch(2, 2, 2))
    verify(engine, toy_net())
    other = inductor_engine(untrained_toy(), Batch(2, 2, 2))
    verify(other, untrained_toy())
    verify(engine, toy_net())


def test_inductor_names_the_missing_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_compiler(*_: Any, **__: Any) -> None:
        try:
            raise RuntimeError("Failed to find C compiler.\nPlease specify one")
        except RuntimeError as error:
            raise ValueError("backend failed") from error

    monkeypatch.setattr(torch, "compile", no_compiler)
    with pytest.raises(
        EngineError, match=r"toy \(Failed to find C compiler.\).*apt-get install g\+\+ python3-dev"
    ):
        inductor_engine(toy_net())
    with pytest.raises(EngineError, match=r"one number of frames, got --batch 1\.\.4\.\.8"):
        inductor_engine(toy_net(), Batch(1, 4, 8))


@pytest.mark.parametrize(
    ("text", "batch", "shown"),
    [
        ("1", Batch(), "1"),
        ("8", Batch(8, 8, 8), "8"),
        ("1..32", Batch(1, 32, 32), "1..32..32"),
        ("1..8..32", Batch(1, 8, 32), "1..8..32"),
    ],
)
def test_batches_are_read_as_they_are_shown(text: str, batch: Batch, shown: str) -> None:
    assert Batch.parse(text) == batch == Batch.parse(str(batch))
    assert str(batch) == shown


@pytest.mark.parametrize("text", ["", "0", "8..1", "1..64..32", "1..2..3..4", "-1", "1-8", "1.."])
def test_other_batches_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"8, 1\.\.32 or 1\.\.8\.\.32"):
        Batch.parse(text)


def untrained_toy() -> CamNet:
    """A network of the toy network's class and shape, with other weights."""
    net = toy_net()
    for parameter in net.parameters():
        parameter.mul_(-1.5)
    return net
