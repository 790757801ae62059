"""Networks go through torch-tensorrt into TensorRT-RTX's builder, which needs no GPU.

Calls that need a GPU are replaced: torch-tensorrt asks for its capability, its number and its
memory, and loads the built engine.
"""

from __future__ import annotations

import importlib
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType
from typing import Any

import pytest
import torch
from support.networks import untrained
from torch import Tensor

from stream_cam.engine import tensorrt_convert
from stream_cam.engine.int8_net import quantizable, replace_by_int8
from stream_cam.engine.machine import TensorRt, installed_tensorrt
from stream_cam.engine.options import Batch
from stream_cam.engine.tensorrt_log import tensorrt_log
from stream_cam.engine.typed_net import TypedNet
from stream_cam.errors import EngineError
from stream_cam.model.camnet import CamNet

pytestmark = pytest.mark.needs_tensorrt_rtx

N_CLASSES = 1000
GIBIBYTE = 2**30

Output = tuple[str, tuple[int, ...], str]
"""Name, shape and type of a tensor."""


@dataclass
class Built:
    """The input of TensorRT-RTX's builder, and its result."""

    inputs: list[Output] = field(default_factory=list)
    outputs: list[Output] = field(default_factory=list)
    convolutions: set[str] = field(default_factory=set)
    """Their data types."""
    profiles: list[list[tuple[int, ...]]] = field(default_factory=list)
    tf32: bool = True
    is_interrupted: bool = False
    """By Ctrl-C, when it begins."""
    is_cancelled: bool = False
    steps: dict[str, tuple[Tensor, Tensor, Tensor]] = field(default_factory=dict)
    """Each convolution in integers, by its name: the step of its inputs, the steps of its weights,
    and the weights that become integers."""
    blob: bytes = b""


Convert = Callable[..., Built]


@pytest.fixture(scope="module")
def flavour() -> TensorRt:
    try:
        version("torch-tensorrt-rtx")
    except PackageNotFoundError:
        pytest.skip("torch-tensorrt-rtx is not installed (pip install -e '.[tensorrt-rtx]')")
    return installed_tensorrt()


@pytest.fixture
def trt(flavour: TensorRt, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """TensorRT-RTX as if there were a GPU, as far as building goes."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (8, 9))
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda *_: (8 * GIBIBYTE, 8 * GIBIBYTE))
    return importlib.import_module(flavour.module)


@pytest.fixture
def convert(flavour: TensorRt, trt: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Convert:
    def converted(
        net: CamNet | TypedNet, precision: str, batch: Batch, built: Built | None = None
    ) -> Built:
        built = built or Built()
        typed = net if isinstance(net, TypedNet) else TypedNet(net, precision)
        with monkeypatch.context() as patches:
            builder = trt.Builder
            patches.setattr(trt, "Builder", lambda log: WatchedBuilder(builder(log), trt, built))
            patches.setattr(trt, "Runtime", lambda log: UnloadingRuntime())
            built.blob = tensorrt_convert.convert(
                typed, "it", (224, 224), batch, flavour, for_this_gpu=False
            )
        return built

    return converted


class WatchedBuilder:
    """TensorRT's builder, which records its input."""

    def __init__(self, builder: Any, trt: ModuleType, built: Built) -> None:
        self._builder, self._trt, self._built = builder, trt, built
        self._profiles: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._builder, name)

    def create_optimization_profile(self) -> Any:
        self._profiles.append(self._builder.create_optimization_profile())
        return self._profiles[-1]

    def build_serialized_network(self, network: Any, config: Any) -> Any:
        built = self._built
        built.inputs = [told(network.get_input(i)) for i in range(network.num_inputs)]
        built.outputs = [told(network.get_output(i)) for i in range(network.num_outputs)]
        layers = [network.get_layer(i) for i in range(network.num_layers)]
        built.convolutions = {
            layer.get_output(0).dtype.name
            for layer in layers
            if layer.type == self._trt.LayerType.CONVOLUTION
        }
        built.steps = dict(_steps(network, layers, self._trt))
        built.profiles = [
            [tuple(shape) for shape in profile.get_shape("batch")] for profile in self._profiles
        ]
        built.tf32 = config.get_flag(self._trt.BuilderFlag.TF32)
        if built.is_interrupted:
            signal.raise_signal(signal.SIGINT)
        engine = self._builder.build_serialized_network(network, config)
        built.is_cancelled = engine is None
        return engine


def _steps(
    network: Any, layers: list[Any], trt: ModuleType
) -> Iterator[tuple[str, tuple[Tensor, Tensor, Tensor]]]:
    kind = trt.LayerType
    makers = {layer.get_output(0).name: layer for layer in layers}

    def before(layer: Any, index: int) -> Any:
        return makers.get(layer.get_input(index).name)

    def value(layer: Any) -> Tensor:
        assert layer.type == kind.CONSTANT
        layer.__class__ = trt.IConstantLayer
        return torch.from_numpy(layer.weights.copy())

    for layer in layers:
        if layer.type != kind.CONVOLUTION or layer.get_input(1) is None:
            continue
        pairs = []
        for index in (0, 1):
            dequantize = before(layer, index)
            if dequantize is None or dequantize.type != kind.DEQUANTIZE:
                break
            quantize = before(dequantize, 0)
            assert quantize.type == kind.QUANTIZE
            assert quantize.get_output(0).dtype == trt.DataType.INT8
            steps = value(before(quantize, 1))
            assert torch.equal(steps, value(before(dequantize, 1)))
            pairs.append((steps, quantize))
        else:
            (inputs, _), (weights, quantize) = pairs
            quantize.__class__ = trt.IQuantizeLayer
            assert quantize.axis == 0, "one scale for each output channel"
            yield layer.name, (inputs, weights, value(before(quantize, 0)))


class UnloadingRuntime:
    """Gives back the engine that it is given."""

    def deserialize_cuda_engine(self, engine: Any) -> UnloadedEngine:
        return UnloadedEngine(bytes(memoryview(engine)))


@dataclass
class UnloadedEngine:
    blob: bytes

    def get_aliased_input_tensor(self, name: str) -> None:
        return None

    def serialize(self) -> bytes:
        return self.blob


def told(tensor: Any) -> Output:
    return tensor.name, tuple(tensor.shape), tensor.dtype.name


def weight_bytes(net: CamNet, precision: str) -> int:
    """Bytes of the convolutions in the precision, and of the linear layer in float32."""
    each = 2 if precision == "fp16" else 4
    kernels = sum(p.numel() for p in net.backbone.parameters() if p.dim() == 4)
    return each * kernels + 4 * (net.weight.numel() + net.bias.numel())


def network(name: str) -> CamNet:
    return CamNet.from_module(untrained(name, N_CLASSES), name=name, probe_hw=(64, 64))


@pytest.mark.parametrize(
    ("name", "precision", "batch"),
    [
        ("resnet18", "fp16", Batch()),
        ("resnet18", "fp32", Batch()),
        ("resnet18", "fp16", Batch(1, 8, 32)),
        ("resnet50", "fp16", Batch()),
    ],
)
def test_the_builder_makes_an_engine_of_the_network(
    convert: Convert, trt: ModuleType, name: str, precision: str, batch: Batch
) -> None:
    net = network(name)
    built = convert(net, precision, batch)
    frames = 1 if batch.is_fixed else -1
    assert built.inputs == [("batch", (frames, 3, 224, 224), "FLOAT")]
    assert built.outputs == [
        ("logits", (frames, N_CLASSES), "FLOAT"),
        ("features", (frames, net.n_channels, 7, 7), "FLOAT"),
    ]
    assert built.convolutions == {"HALF" if precision == "fp16" else "FLOAT"}
    assert not built.tf32
    sizes = (batch.least, batch.best, batch.most)
    profile = [tuple((n, 3, 224, 224) for n in sizes)]
    assert [tuple(shapes) for shapes in built.profiles] == ([] if batch.is_fixed else profile)
    # All weights are in it, once; the rest is its plan.
    least = weight_bytes(net, precision)
    assert least <= len(built.blob) <= 1.1 * least
    for output in (b"logits", b"features"):
        assert output in built.blob
    assert is_of_this_build(trt, built.blob)
    assert not is_of_this_build(trt, b"x" * 1000)


@pytest.mark.parametrize("batch", [Batch(), Batch(1, 8, 32)], ids=str)
def test_int8_reaches_the_builder_but_not_rtx(convert: Convert, batch: Batch) -> None:
    """TensorRT-RTX has no convolutions in integers; TensorRT, which has, needs a GPU to build."""
    typed = TypedNet(network("resnet18"), "fp16")
    largest = {name: 1.0 + index for index, name in enumerate(quantizable(typed.backbone))}
    stays = "network.layer1.0.conv2"
    del largest[stays]
    layers = replace_by_int8(typed, largest)
    built = Built()
    with pytest.raises(EngineError, match=r"cannot build it \(.*dtype == myelinTypeFloat"):
        convert(typed, "int8", batch, built)
    assert built.outputs[0] == ("logits", (1 if batch.is_fixed else -1, N_CLASSES), "FLOAT")
    assert built.convolutions == {"HALF"}, "what follows a convolution is in fp16"
    assert len(built.steps) == len(layers) == 19
    for name, layer in layers.items():
        ((inputs, steps, weights),) = [
            found for told, found in built.steps.items() if f"backbone.{name}/" in told
        ]
        assert inputs.item() == pytest.approx(largest[name] / 127)
        assert torch.equal(weights, layer.weight.flatten())
        expected = layer.convolution.weight.float().abs().amax((1, 2, 3)) / 127
        torch.testing.assert_close(steps, expected, rtol=1e-3, atol=0)


def is_of_this_build(trt: ModuleType, blob: bytes) -> bool:
    """By its header, which is all that can be read without a GPU."""
    _, problems = trt.Runtime(tensorrt_log(trt)).get_engine_validity(blob)
    return not problems


def test_weights_are_in_the_engine(convert: Convert) -> None:
    """Another network of the same shape is another engine; the same one twice is as long."""
    first = convert(network("resnet18"), "fp16", Batch())
    second = network("resnet18")
    second.backbone.get_parameter("network.layer4.1.conv2.weight").mul_(2)
    changed = convert(second, "fp16", Batch())
    assert len(first.blob) == len(changed.blob)
    different = sum(a != b for a, b in zip(first.blob[::7], changed.blob[::7], strict=True))
    # That layer's 2.36 million weights are a fifth of all; doubling changes one byte of two.
    assert different > 0.05 * len(first.blob[::7])


def test_ctrl_c_ends_the_build(convert: Convert) -> None:
    before = signal.getsignal(signal.SIGINT)
    built = Built(is_interrupted=True)
    with pytest.raises(KeyboardInterrupt):
        convert(network("resnet18"), "fp16", Batch(), built)
    assert built.is_cancelled, "it was built to its end"
    assert signal.getsignal(signal.SIGINT) is before
    interpreter = importlib.import_module("torch_tensorrt.dynamo.conversion").TRTInterpreter
    assert interpreter._populate_trt_builder_config.__name__ == "_populate_trt_builder_config"


def test_a_build_that_fails_is_one_line_and_leaves_nothing_changed(
    flavour: TensorRt, trt: ModuleType
) -> None:
    if torch.cuda.is_available():
        pytest.skip("for this GPU, it would succeed")
    net = network("resnet18")
    with pytest.raises(EngineError, match=r"cannot build resnet18 \(.*CUDA"):
        tensorrt_convert.convert(
            TypedNet(net, "fp16"), net.name, (224, 224), Batch(), flavour, for_this_gpu=True
        )
    interpreter = importlib.import_module("torch_tensorrt.dynamo.conversion").TRTInterpreter
    assert interpreter._populate_trt_builder_config.__name__ == "_populate_trt_builder_config"
