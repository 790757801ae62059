"""Convolutions in 8-bit integers, as TensorRT has them: simulated by PyTorch, and marked for it.

Symmetric around zero: an input has one scale, weights have one for each output channel (Wu et al.,
"Integer Quantization for Deep Learning Inference", arXiv:2004.09602). Zero stays zero, so padding
costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stream_cam.engine.typed_net import TypedNet, arithmetic

LARGEST = 127
"""The integer of the largest value; its negative becomes -127."""


@torch.library.custom_op(
    "stream_cam::int8_convolution",
    mutates_args=(),
    schema=(
        "(Tensor batch, Tensor weight, Tensor? bias, float input_scale, int[] stride, "
        "int[] padding, int[] dilation, int groups) -> Tensor"
    ),
)
def int8_convolution(
    batch: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    input_scale: float,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
) -> Tensor:
    """A convolution of the rounded values; TensorRT computes in the integers themselves.

    Args:
        batch: (N, C, H, W), float32; float16 for an export.
        weight: (K, C / groups, h, w) of the same type: integers times `weight_scales`.
        input_scale: the value of one integer step of the inputs.
    """
    rounded = torch.fake_quantize_per_tensor_affine(batch, input_scale, 0, -LARGEST - 1, LARGEST)
    return F.conv2d(rounded, weight, bias, stride, padding, dilation, groups)


@int8_convolution.register_fake
def _(batch: Tensor, weight: Tensor, bias: Tensor | None, input_scale: float, *form: Any) -> Tensor:
    return F.conv2d(batch, weight, bias, *form)


def weight_scales(weight: Tensor) -> Tensor:
    """(K,) float32: a step of the integers for each output channel of (K, C, h, w)."""
    largest = weight.detach().float().abs().amax((1, 2, 3))
    # A channel of zeros is zeros at any scale, but TensorRT wants one above zero.
    return torch.where(largest > 0, largest, 1.0) / LARGEST


def _rounded_to_steps(weight: Tensor) -> Tensor:
    """Weights rounded to integers times `weight_scales`; a second rounding changes nothing."""
    scales = weight_scales(weight)
    zeros = torch.zeros_like(scales, dtype=torch.int32)
    exact = weight.detach().float()
    rounded = torch.fake_quantize_per_channel_affine(exact, scales, zeros, 0, -LARGEST, LARGEST)
    return rounded.to(weight.dtype)


class Int8Convolution(nn.Module):
    """A convolution whose inputs and weights are rounded to 8 bits, unless it is switched off.

    Args:
        convolution: one that `quantizable` has.
        largest: of its inputs, without their sign; larger ones are cut off.
    """

    weight: Tensor

    def __init__(self, convolution: nn.Conv2d, largest: float) -> None:
        super().__init__()
        self.convolution = convolution
        self.register_buffer("weight", _rounded_to_steps(convolution.weight))
        self.input_scale = (largest or 1.0) / LARGEST
        self.is_int8 = True

    def forward(self, batch: Tensor) -> Tensor:
        one = self.convolution
        result: Tensor = (
            int8_convolution(
                *(batch, self.weight, one.bias, self.input_scale),
                *(list(one.stride), one.padding, list(one.dilation), one.groups),
            )
            if self.is_int8
            else one(batch)
        )
        return result


def quantizable(backbone: nn.Module) -> dict[str, nn.Conv2d]:
    """The convolutions, by their names, that have a form in integers."""
    return {
        name: module
        for name, module in backbone.named_modules()
        if isinstance(module, nn.Conv2d)
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
    }


def largest_inputs(typed: TypedNet, frames: Iterable[Tensor]) -> dict[str, float]:
    """The largest input, without its sign, that each `quantizable` convolution gets.

    Args:
        frames: (N, 3, H, W) float32 each, on the network's device.
    """
    largest: dict[str, Tensor] = {}

    def watched(name: str, convolution: nn.Conv2d) -> torch.utils.hooks.RemovableHandle:
        def note(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            here = inputs[0].abs().max()
            largest[name] = torch.maximum(largest[name], here) if name in largest else here

        return convolution.register_forward_pre_hook(note)

    hooks = [watched(*one) for one in quantizable(typed.backbone).items()]
    try:
        with torch.inference_mode(), arithmetic(typed.weight.device.type, "fp32"):
            for frame in frames:
                typed(frame)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: float(value) for name, value in largest.items()}


def replace_by_int8(typed: TypedNet, largest: Mapping[str, float]) -> dict[str, Int8Convolution]:
    """Replaces the named convolutions by integer ones, in place.

    Args:
        largest: by name, some of the result of `largest_inputs`.
    """
    convolutions = quantizable(typed.backbone)
    put = {}
    for name, value in largest.items():
        put[name] = Int8Convolution(convolutions[name], value)
        typed.backbone.set_submodule(name, put[name])
    return put
