"""Convolutions in integers for TensorRT: their choice and ranges, as PyTorch simulates them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from support.int8_parts import small_calibration, small_net
from torch import Tensor, nn

from stream_cam.engine import quantize_layers
from stream_cam.engine.base import ignore_progress
from stream_cam.engine.calibration import Calibration, read_calibration
from stream_cam.engine.int8_net import (
    Int8Convolution,
    largest_inputs,
    quantizable,
    replace_by_int8,
    weight_scales,
)
from stream_cam.engine.quantize import Quantizers
from stream_cam.engine.quantize_layers import LayerQuantizer
from stream_cam.engine.typed_net import TypedNet
from stream_cam.engine.verify import GATES, Comparison
from stream_cam.errors import EngineError
from stream_cam.model.camnet import CamNet, build_network, load_parameters
from stream_cam.model.weights import load_weights
from stream_cam.sources import open_source


@pytest.fixture(scope="module")
def net() -> CamNet:
    return small_net()


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    return small_calibration()


def rounded(values: Tensor, scale: Tensor | float, least: int = -127) -> Tensor:
    """The integers, as float64: halves go to the even one."""
    return (values.double() / scale).round().clamp(least, 127)


@pytest.mark.parametrize(
    ("stride", "padding", "dilation", "groups", "bias"),
    [(1, 1, 1, 1, True), (2, 0, 1, 1, False), (1, 2, 2, 4, True)],
)
def test_it_is_a_convolution_of_integers(
    stride: int, padding: int, dilation: int, groups: int, bias: bool
) -> None:
    """Sums of integers, exact, each output channel with its own scale."""
    torch.manual_seed(0)
    form = (stride, padding, dilation, groups)
    convolution = nn.Conv2d(8, 6 * groups, 3, *form, bias=bias).requires_grad_(False)
    convolution.weight.mul_(torch.rand(6 * groups, 1, 1, 1))
    weight, added = convolution.weight, convolution.bias
    batch = 3 * torch.randn(2, 8, 9, 11)
    layer = Int8Convolution(convolution, 4.0)
    got, scale = layer(batch), 4.0 / 127
    scales = weight_scales(weight)
    weights = rounded(weight, scales.double().reshape(-1, 1, 1, 1))
    assert weights.abs().amax((1, 2, 3)).eq(127).all()
    inputs = rounded(batch, scale, -128)
    assert inputs.min() == -128
    expected = F.conv2d(inputs, weights, None, *form) * (scale * scales.double()[:, None, None])
    if added is not None:
        expected += added.double()[:, None, None]
    assert got.dtype == torch.float32
    # Rounding the weights again, as TensorRT does, gives the same integers; in fp16 too.
    for same in (layer.weight, layer.weight.half()):
        again = rounded(same, weight_scales(same).double().reshape(-1, 1, 1, 1))
        assert torch.equal(again, weights)
    # A value on the edge of two integers may go to the other one: one step times one weight.
    assert (got - expected).abs().max() <= 1.01 * scale * weight.abs().max()
    assert (got - expected).abs().median() < 1e-5


def test_dead_channels_and_layers_have_scales_too() -> None:
    weight = torch.randn(3, 2, 3, 3)
    weight[1] = 0
    scales = weight_scales(weight)
    assert (scales > 0).all()
    assert scales[0] == weight[0].abs().max() / 127
    convolution = nn.Conv2d(2, 3, 3)
    convolution.weight.data.copy_(weight)
    layer = Int8Convolution(convolution, 0.0)
    with torch.inference_mode():
        assert torch.equal(layer(torch.zeros(1, 2, 5, 5)), convolution(torch.zeros(1, 2, 5, 5)))


def test_it_can_be_switched_off() -> None:
    torch.manual_seed(0)
    layer = Int8Convolution(nn.Conv2d(2, 3, 3), 3.0)
    batch = torch.randn(1, 2, 5, 5)
    with torch.inference_mode():
        assert not torch.equal(layer(batch), layer.convolution(batch))
        layer.is_int8 = False
        assert torch.equal(layer(batch), layer.convolution(batch))


def test_padding_that_is_not_zeros_stays_as_it_is() -> None:
    backbone = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(4, 4, 3, padding="same"),
        nn.ConvTranspose2d(4, 4, 3),
        nn.Conv2d(4, 4, 3, padding=1),
    )
    assert list(quantizable(backbone)) == ["3"]


def test_ranges_are_the_largest_inputs_of_all_frames(net: CamNet, calibration: Calibration) -> None:
    typed = TypedNet(net, "fp32")
    names = list(quantizable(typed.backbone))
    found = largest_inputs(typed, calibration.calibrating)
    assert list(found) == names
    assert len(found) == 3
    frames = torch.cat(calibration.calibrating)
    assert found[names[0]] == frames.abs().max()
    with torch.inference_mode():
        after = F.relu(typed.backbone.get_submodule(names[0])(frames))
    assert found[names[1]] == pytest.approx(float(after.max()), rel=1e-5)
    before = largest_inputs(typed, calibration.calibrating[:1])
    assert all(before[name] <= found[name] for name in names)
    # Nothing is left that watches.
    assert not any(module._forward_pre_hooks for module in typed.modules())


def test_the_chosen_layers_are_in_integers_and_the_rest_in_fp16(
    net: CamNet, calibration: Calibration
) -> None:
    stages: list[str] = []
    quantizer = LayerQuantizer(net, calibration)
    typed = quantizer.quantize("cpu", stages.append)
    assert stages[0] == "quantising"
    assert stages[1].startswith("quantising (try 1, worst map 0.99")
    layers = int8_layers(typed)
    assert len(layers) == 3
    assert {layer.convolution.weight.dtype for layer in layers.values()} == {torch.float16}
    largest = largest_inputs(TypedNet(net, "fp32"), calibration.calibrating)
    assert {n: layer.input_scale * 127 for n, layer in layers.items()} == pytest.approx(largest)
    # The ranges are measured only once.
    again = quantizer.quantize("cpu", stages.append)
    assert again is not typed
    assert list(int8_layers(again)) == list(layers)
    assert len(stages) == 2


def int8_layers(typed: TypedNet) -> dict[str, Int8Convolution]:
    named = typed.backbone.named_modules()
    return {name: module for name, module in named if isinstance(module, Int8Convolution)}


def figures_of(net: CamNet, typed: TypedNet, frames: tuple[Tensor, ...]) -> Any:
    """In float32, as it was simulated."""
    simulated = TypedNet(net, "fp32")
    replace_by_int8(
        simulated, {n: 127 * layer.input_scale for n, layer in int8_layers(typed).items()}
    )
    comparison = Comparison(net, frames[0].shape, frames)
    engine = quantize_layers._Simulated("small", simulated, "cpu", frames[0].shape)
    return comparison.figures(engine)


def test_layers_go_back_until_the_gate_holds(
    net: CamNet, calibration: Calibration, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a stricter gate than the network reaches with every layer in integers."""
    stages: list[str] = []
    monkeypatch.setattr(quantize_layers, "GATE_MARGIN", 0.009)
    typed = LayerQuantizer(net, calibration).quantize("cpu", stages.append)
    assert 0 < len(int8_layers(typed)) < 3
    worst = [float(stage.split("map ")[1].split(",")[0]) for stage in stages[1:]]
    # All, then each layer's return alone, then one after the other.
    assert len(worst) == 1 + 3 + (3 - len(int8_layers(typed)))
    assert worst[0] < 0.999 <= worst[-1]


def test_the_layer_that_costs_most_goes_back_first(
    net: CamNet, calibration: Calibration, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = largest_inputs(TypedNet(net, "fp32"), calibration.calibrating)
    spoilt = list(found)[1]
    # As if one frame had had a value a hundred times larger than all others.
    wrong = {**found, spoilt: 100 * found[spoilt]}
    monkeypatch.setattr(quantize_layers, "largest_inputs", lambda *_: wrong)
    typed = LayerQuantizer(net, calibration).quantize("cpu", ignore_progress)
    assert set(int8_layers(typed)) == set(found) - {spoilt}


def test_a_network_that_needs_every_layer_in_fp16_is_refused(
    net: CamNet, calibration: Calibration, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantize_layers, "GATE_MARGIN", 0.01)  # nothing but the network itself
    with pytest.raises(EngineError, match=r"small cannot be int8.*give --precision fp16"):
        LayerQuantizer(net, calibration).quantize("cpu", ignore_progress)


def test_frames_and_settings_are_its_identity(net: CamNet, calibration: Calibration) -> None:
    first, *others = calibration.validating
    brighter = replace(calibration, validating=(first + 1e-6, *others))
    swapped = Calibration(calibration.validating, calibration.calibrating)
    found = [
        str(LayerQuantizer(net, frames).identity) for frames in (calibration, brighter, swapped)
    ]
    assert len(set(found)) == 3
    assert "'frames': '12+12'" in found[0]
    quantizers = Quantizers(net, calibration)
    assert quantizers.get(LayerQuantizer) is quantizers.get(LayerQuantizer)


def test_the_demo_model_survives_int8() -> None:
    """ResNet18 with trained weights, at half their own side for the time's sake."""
    side = 128
    weights = load_weights("demo", "resnet18")
    module = build_network("resnet18", weights.n_classes)
    load_parameters(module, weights.state_dict, weights.name)
    net = CamNet.from_module(module, name="resnet18")
    source = open_source("demo://shapes?size=192x128&fps=10&seconds=5&seed=7")
    calibration = read_calibration(source, weights, "stretch", side, ignore_progress)
    typed = LayerQuantizer(net, calibration).quantize("cpu", ignore_progress)
    layers = int8_layers(typed)
    assert 10 <= len(layers) <= 20
    figures = figures_of(net, typed, calibration.validating)
    assert figures.cam_correlation >= 0.991
    assert GATES["int8"].failures(figures) == []
    # It is not in float32 after all.
    assert figures.cam_difference > 1e-3


def test_only_named_convolutions_are_replaced(net: CamNet) -> None:
    typed = TypedNet(net, "fp32")
    first = next(iter(quantizable(typed.backbone)))
    put = replace_by_int8(typed, {first: 2.54})
    assert int8_layers(typed) == put
    assert put[first].input_scale == pytest.approx(0.02)
