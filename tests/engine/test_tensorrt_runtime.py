"""How buffers are passed to TensorRT, with a TensorRT that only records its calls."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from support.toy_engine import toy_net
from torch import Tensor

from stream_cam.engine import tensorrt
from stream_cam.engine.backends import machines_for
from stream_cam.engine.base import EngineInfo
from stream_cam.engine.builder import EngineRequest
from stream_cam.engine.calibration import Calibration
from stream_cam.engine.int8_net import Int8Convolution, replace_by_int8
from stream_cam.engine.machine import TensorRt
from stream_cam.engine.manifest import Figures, Manifest
from stream_cam.engine.options import Batch
from stream_cam.engine.quantize import Quantizers
from stream_cam.engine.store import EngineStore
from stream_cam.engine.tensorrt import TensorRtBuilder
from stream_cam.engine.tensorrt_runtime import TensorRtSession, _shapes, pack, unpack
from stream_cam.engine.typed_net import TypedNet
from stream_cam.errors import EngineError

STREAM = 4711
INFO = EngineInfo(
    "tensorrt", "cpu", "fp16", (2, 3, 8, 8), (2, 5), (2, 4, 2, 2), 1, batch=Batch(1, 2, 4)
)
TRT = SimpleNamespace(float32="float32")


class Context:
    """An execution context that only remembers."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.fails_at = ""

    def _told(self, *call: Any) -> bool:
        self.calls.append(call)
        return str(call[0]) != self.fails_at

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        return self._told("shape", name, shape)

    def set_tensor_address(self, name: str, address: int) -> bool:
        return self._told("address", name, address)

    def execute_async_v3(self, stream: int) -> bool:
        return self._told("execute", stream)


@pytest.fixture
def capturing(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """PyTorch's CUDA without CUDA; its one element says whether a graph is being captured."""
    state = [False]
    stream = SimpleNamespace(cuda_stream=STREAM)
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: stream)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: state[0])
    return state


@pytest.fixture
def context() -> Context:
    return Context()


@pytest.fixture
def session(context: Context, capturing: list[bool]) -> TensorRtSession:
    return TensorRtSession(context, INFO, SimpleNamespace(last_error="out of luck"))


def buffers(n_frames: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    return torch.zeros(n_frames, 3, 8, 8), torch.zeros(n_frames, 5), torch.zeros(n_frames, 4, 2, 2)


def test_buffers_are_bound_once(session: TensorRtSession, context: Context) -> None:
    first, second = buffers(), buffers()
    for each in (first, first, second):
        session(*each)
    names = ("batch", "logits", "features")
    addresses = [
        [("address", name, tensor.data_ptr()) for name, tensor in zip(names, each, strict=True)]
        for each in (first, second)
    ]
    run = ("execute", STREAM)
    shape = ("shape", "batch", (2, 3, 8, 8))
    assert context.calls == [shape, *addresses[0], run, run, *addresses[1], run]


def test_more_or_fewer_frames_set_the_shape(session: TensorRtSession, context: Context) -> None:
    for n_frames in (2, 4, 1):
        session(*buffers(n_frames))
    shapes = [call[2] for call in context.calls if call[0] == "shape"]
    assert shapes == [(2, 3, 8, 8), (4, 3, 8, 8), (1, 3, 8, 8)]


def test_a_first_call_is_not_captured(
    session: TensorRtSession, context: Context, capturing: list[bool]
) -> None:
    kept = buffers()
    capturing[0] = True
    with pytest.raises(RuntimeError, match="with 2 frames before its call is captured"):
        session(*kept)
    assert ("execute", STREAM) not in context.calls
    capturing[0] = False
    session(*kept)
    capturing[0] = True
    session(*kept)
    session(*buffers())
    with pytest.raises(RuntimeError, match="with 4 frames"):
        session(*buffers(4))


@pytest.mark.parametrize("step", ["shape", "address", "execute"])
def test_refusals_of_tensorrt_carry_its_reason(
    session: TensorRtSession, context: Context, step: str
) -> None:
    context.fails_at = step
    with pytest.raises(EngineError, match="out of luck"):
        session(*buffers())


def test_refused_buffers_are_not_taken_for_bound(
    session: TensorRtSession, context: Context
) -> None:
    kept = buffers()
    context.fails_at = "address"
    with pytest.raises(EngineError):
        session(*kept)
    context.fails_at = ""
    session(*kept)
    assert sum(call[0] == "address" for call in context.calls) == 1 + 3


class Engine:
    """An engine's description of itself."""

    def __init__(self, frames: int, names: tuple[str, ...] = ("batch", "features", "logits")):
        self._names = names
        self._shapes = {"batch": (3, 8, 8), "logits": (5,), "features": (4, 2, 2)}
        self._frames = frames
        self.dtype = "float32"
        self.num_io_tensors = len(names)

    def get_tensor_name(self, index: int) -> str:
        return self._names[index]

    def get_tensor_dtype(self, name: str) -> str:
        return self.dtype

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (self._frames, *self._shapes[name])

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, ...]]:
        return [(size, 3, 8, 8) for size in (1, 2, 4)]


def shapes(engine: Engine, batch: Batch) -> Any:
    return _shapes(TRT, engine, batch)  # type: ignore[arg-type]


def test_an_engine_tells_its_shapes() -> None:
    expected = (INFO.input_shape, INFO.logits_shape, INFO.features_shape)
    assert shapes(Engine(-1), Batch(1, 2, 4)) == expected
    assert shapes(Engine(2), Batch(2, 2, 2)) == expected


@pytest.mark.parametrize(
    ("engine", "batch", "expected"),
    [
        (Engine(-1, ("batch", "output0", "output1")), Batch(1, 2, 4), "not this network's"),
        (Engine(-1, ("batch", "logits")), Batch(1, 2, 4), "not this network's"),
        (Engine(-1), Batch(1, 4, 4), r"takes \[1, 2, 4\] frames, not 1..4..4"),
        (Engine(1), Batch(2, 2, 2), "not 2 frames"),
        (Engine(-1), Batch(2, 2, 2), "not 2 frames"),
    ],
)
def test_another_engine_is_refused(engine: Engine, batch: Batch, expected: str) -> None:
    with pytest.raises(EngineError, match=expected):
        shapes(engine, batch)


def test_an_engine_of_another_type_is_refused() -> None:
    engine = Engine(-1)
    engine.dtype = "float16"
    with pytest.raises(EngineError, match="not this network's"):
        shapes(engine, Batch(1, 2, 4))


@pytest.mark.parametrize("kernels", [b"", b"compiled for this GPU"])
def test_unpack_reverses_pack(kernels: bytes) -> None:
    assert unpack(pack(b"engine", kernels)) == (b"engine", kernels)


@pytest.mark.parametrize("blob", [b"", b"\x01", pack(b"engine", b"")[:-1], pack(b"", b"kernels")])
def test_truncated_blobs_are_refused(blob: bytes) -> None:
    with pytest.raises(EngineError, match="no TensorRT engine"):
        unpack(blob)


def test_the_key_holds_all_that_matters(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"tensorrt": "10.9.0.34", "flavour": "tensorrt", "torch_tensorrt": "2.14.0"}
    hardware = {"gpu": "a", "sm": "9.0", "driver": "580.1"}
    flavour = SimpleNamespace(versions=lambda: dict(versions), is_rtx=False)
    monkeypatch.setattr(tensorrt, "installed_tensorrt", lambda: flavour)
    monkeypatch.setattr(tensorrt, "gpu_hardware", lambda device: dict(hardware))

    def digest(**options: Any) -> str:
        fingerprint = options.pop("fingerprint", "abc")
        input_hw = options.pop("input_hw", (64, 64))
        options = {"device": "cuda:0", "precision": "fp16", **options}
        return TensorRtBuilder(
            EngineRequest(toy_net(), fingerprint, input_hw, **options)
        ).key.digest()

    digests = [
        digest(),
        digest(precision="fp32"),
        digest(batch=Batch(1, 1, 8)),
        digest(batch=Batch(1, 8, 8)),
        digest(batch=Batch(8, 8, 8)),
        digest(fingerprint="abd"),
        digest(input_hw=(64, 96)),
    ]
    for parts in (versions, hardware):
        for name, value in parts.items():
            parts[name] = value + "x"
            digests.append(digest())
            parts[name] = value
    assert len(set(digests)) == len(digests) == 13
    assert digest() == digests[0]


def test_rtx_is_refused_at_once_on_hopper(monkeypatch: pytest.MonkeyPatch) -> None:
    rtx = TensorRt("tensorrt_rtx", "torch-tensorrt-rtx")
    hardware = {"gpu": "NVIDIA H200", "sm": "9.0", "driver": "580.1"}
    monkeypatch.setattr(tensorrt, "installed_tensorrt", lambda: rtx)
    monkeypatch.setattr(tensorrt, "gpu_hardware", lambda device: hardware)
    request = EngineRequest(toy_net(), "abc", (64, 64), "cuda:0", "fp16")
    with pytest.raises(EngineError, match=r"does not support NVIDIA H200 .* --engine fused"):
        TensorRtBuilder(request)
    monkeypatch.setattr(TensorRt, "versions", lambda self: {"tensorrt": "1.7"})
    hardware["sm"] = "8.9"
    assert TensorRtBuilder(request).key.hardware["sm"] == "8.9"


def test_without_tensorrt_or_a_gpu_there_is_no_machine_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(TensorRt, "versions", lambda self: {})
    monkeypatch.setattr(
        "stream_cam.engine.machine.installed_tensorrt", lambda: TensorRt("tensorrt", "t")
    )
    with pytest.raises(EngineError, match="no CUDA GPU is usable"):
        machines_for("tensorrt")


def test_a_machine_has_each_of_its_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["small", "large"]
    flavour = SimpleNamespace(versions=lambda: {"tensorrt": "10.9"})
    monkeypatch.setattr("stream_cam.engine.machine.installed_tensorrt", lambda: flavour)
    monkeypatch.setattr("stream_cam.engine.machine._driver", lambda: "580.1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(
        torch.cuda,
        "get_device_properties",
        lambda gpu: SimpleNamespace(name=names[gpu.index], major=9, minor=gpu.index),
    )
    assert machines_for("tensorrt") == [
        ({"tensorrt": "10.9"}, {"gpu": "small", "sm": "9.0", "driver": "580.1"}),
        ({"tensorrt": "10.9"}, {"gpu": "large", "sm": "9.1", "driver": "580.1"}),
    ]


class Library(ModuleType):
    """As much of TensorRT's module as is used; it takes every engine but `foreign`."""

    float32 = "float32"

    class ILogger:
        ERROR, INTERNAL_ERROR = "error", "internal error"

    class DynamicShapesKernelSpecializationStrategy:
        EAGER = "eager"

    def __init__(self) -> None:
        super().__init__("tensorrt_of_these_tests")
        self.contexts: list[Context] = []
        self.taken_kernels: list[bytes] = []
        self.context_of: Callable[[], Context | None] = Context

    def Runtime(self, log: Any) -> Any:
        def deserialize(blob: bytes) -> Any:
            if blob == b"foreign":
                log.log("error", "made for another GPU\nand more")
                return None
            return LoadedEngine(self)

        return SimpleNamespace(deserialize_cuda_engine=deserialize)


class LoadedEngine(Engine):
    def __init__(self, library: Library) -> None:
        super().__init__(-1)
        self._library = library

    def create_runtime_config(self) -> SimpleNamespace:
        def deserialize(kernels: bytes) -> bool:
            self._library.taken_kernels.append(kernels)
            return True

        cache = SimpleNamespace(deserialize=deserialize, serialize=lambda: b"kernels")
        return SimpleNamespace(create_runtime_cache=lambda: cache, set_runtime_cache=lambda c: True)

    def create_execution_context(self, *config: SimpleNamespace) -> Context | None:
        for each in config:
            assert each.dynamic_shapes_kernel_specialization_strategy == "eager"
        context = self._library.context_of()
        if context is not None:
            self._library.contexts.append(context)
        return context


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch, capturing: list[bool]) -> Library:
    library = Library()
    monkeypatch.setitem(sys.modules, library.__name__, library)
    return library


class Flavour(TensorRt):
    """The plain library; the RTX one has kernels to keep."""

    rtx = False

    @property
    def is_rtx(self) -> bool:
        return self.rtx

    def versions(self) -> dict[str, str]:
        return {}


@pytest.fixture(params=[False, True], ids=["tensorrt", "tensorrt_rtx"])
def builder(
    request: pytest.FixtureRequest, library: Library, monkeypatch: pytest.MonkeyPatch
) -> TensorRtBuilder:
    flavour = Flavour(library.__name__, "torch-tensorrt")
    monkeypatch.setattr(Flavour, "rtx", request.param)
    monkeypatch.setattr(tensorrt, "installed_tensorrt", lambda: flavour)
    monkeypatch.setattr(tensorrt, "gpu_hardware", lambda device: {"gpu": "a", "sm": "8.9"})
    monkeypatch.setattr(tensorrt, "convert", lambda *_, **options: b"engine")
    wanted = EngineRequest(toy_net(), "abc", (8, 8), "cpu", "fp16", batch=Batch(1, 2, 4))
    return TensorRtBuilder(wanted)


def test_a_new_engine_and_its_revival(builder: TensorRtBuilder, library: Library) -> None:
    engine, blob = builder.compile()
    assert engine.info == INFO
    assert unpack(blob) == (b"engine", b"kernels" if Flavour.rtx else b"")
    if Flavour.rtx:
        # Its kernels are compiled by a call with each number of frames.
        shapes = [call[2][0] for call in library.contexts[0].calls if call[0] == "shape"]
        assert shapes == [1, 2, 4]
    assert builder.deserialize(blob).info == INFO
    assert library.taken_kernels == ([b"kernels"] if Flavour.rtx else [])
    engine.session()(*buffers())
    assert library.contexts[-1].calls[-1] == ("execute", STREAM)


def test_an_engine_that_does_not_fit_the_gpu_is_refused_with_the_reason(
    builder: TensorRtBuilder,
) -> None:
    with pytest.raises(EngineError, match=r"this GPU \(made for another GPU\)$"):
        builder.deserialize(pack(b"foreign", b""))


def test_no_memory_for_a_session_is_an_error(builder: TensorRtBuilder, library: Library) -> None:
    engine = builder.deserialize(pack(b"engine", b""))
    library.context_of = lambda: None
    with pytest.raises(EngineError, match="smaller --batch"):
        engine.session()


def test_rtx_is_tried_for_this_gpu_and_then_for_all(
    builder: TensorRtBuilder, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[bool] = []

    def convert(*_: Any, for_this_gpu: bool) -> bytes:
        tried.append(for_this_gpu)
        if for_this_gpu:
            raise EngineError("does not build for this GPU")
        return b"engine"

    monkeypatch.setattr(tensorrt, "convert", convert)
    if Flavour.rtx:
        builder.compile()
        assert tried == [True, False]
    else:
        with pytest.raises(EngineError, match="does not build"):
            builder.compile()
        assert tried == [True]


def calibration() -> Calibration:
    frames = torch.randn(24, 1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    return Calibration(tuple(frames[:12]), tuple(frames[12:]))


def int8_builder(store: EngineStore, quantizers: Quantizers | None) -> TensorRtBuilder:
    request = EngineRequest(
        *(toy_net(), "abc", (64, 64)),
        precision="int8",
        batch=Batch(1, 2, 4),
        quantizers=quantizers,
    )
    return TensorRtBuilder(request, store)


def test_int8_is_built_from_frames_and_found_again_without_them(
    builder: TensorRtBuilder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    store = EngineStore(tmp_path)
    quantizers = Quantizers(toy_net(), calibration())
    if Flavour.rtx:
        with pytest.raises(EngineError, match=r"no convolutions in int8.*--precision fp16, or pip"):
            int8_builder(store, quantizers)
        return
    with pytest.raises(
        EngineError, match=r"for 1\.\.2\.\.4 frames at once .*--batch 1\.\.2\.\.4 --prec"
    ):
        int8_builder(store, None)
    converted: list[TypedNet] = []

    def convert(typed: TypedNet, *_: Any, **options: Any) -> bytes:
        converted.append(typed)
        return b"engine"

    monkeypatch.setattr(tensorrt, "convert", convert)
    new = int8_builder(store, quantizers)
    assert new.key.calibration["frames"] == "12+12"
    assert torch.equal(torch.cat(new.frames), torch.cat(calibration().validating))
    stages: list[str] = []
    engine, blob = new.compile(stages.append)
    assert engine.info == replace(INFO, precision="int8")
    assert stages[0] == "quantising"
    assert stages[-1] == "compiling"
    (typed,) = converted
    (layer,) = [module for module in typed.modules() if isinstance(module, Int8Convolution)]
    # The integers that were judged, not those of weights rounded to fp16 before.
    largest = {"network.0": 127 * layer.input_scale}
    judged = replace_by_int8(TypedNet(toy_net(), "fp32"), largest)["network.0"]
    assert torch.equal(layer.weight, judged.weight.half())
    manifest = Manifest(
        new.key, 1.0, 1, 1.0, Figures(0.0, 0.0, 1.0, 0.0, 1.0), len(blob), sha256(blob).hexdigest()
    )
    store.publish(blob, manifest)
    found = int8_builder(store, None)
    assert found.key == new.key
    assert found.deserialize(blob).info == engine.info
    with pytest.raises(EngineError, match="built from frames"):
        found.compile()


def test_a_failed_build_names_another_engine(
    builder: TensorRtBuilder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def convert(*_: Any, **options: Any) -> bytes:
        raise EngineError("TensorRT cannot build it (why)")

    monkeypatch.setattr(tensorrt, "convert", convert)
    with pytest.raises(EngineError, match=r"it \(why\): give --engine inductor$"):
        builder.compile()
    if not Flavour.rtx:
        quantizers = Quantizers(toy_net(), calibration())
        with pytest.raises(EngineError, match=r"it \(why\): give --precision auto$"):
            int8_builder(EngineStore(tmp_path), quantizers).compile()
