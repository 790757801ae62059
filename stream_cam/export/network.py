"""The module that is written: an input, the network, its logits and the maps of all classes."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from stream_cam.config import Channels
from stream_cam.errors import ModelError
from stream_cam.model.camnet import CamNet
from stream_cam.model.input_color import INPUT_COLOR
from stream_cam.model.weights import Weights

Inside = Literal["nothing", "normalisation", "resizing"]
"""The steps before the network that are written with it."""
OUTPUTS = ("logits", "maps")
_PLACES: dict[Channels, tuple[int, ...]] = {"rgb": (0, 1, 2), "bgr": (2, 1, 0), "gray": (0,)}
"""Each channel's place among red, green and blue."""
_CUBIC = -0.5
"""The parameter a of Keys' cubic, as in PyTorch's antialiased resizing."""


@dataclass(frozen=True)
class ExportedInput:
    """The input of a written network."""

    inside: Inside
    size_hw: tuple[int, int]
    """Of the network, in pixels."""
    channels: Channels
    """Without preprocessing: those of the network; else rgb."""
    mean: tuple[float, ...]
    """For each channel, for values in 0..1."""
    std: tuple[float, ...]

    @property
    def name(self) -> str:
        return "input" if self.inside == "nothing" else "picture"

    @property
    def shape(self) -> tuple[int | str, ...]:
        """With names for the sides that may change from call to call."""
        if self.inside == "nothing":
            return ("batch", 1 if self.channels == "gray" else 3, *self.size_hw)
        if self.inside == "normalisation":
            return ("batch", *self.size_hw, 3)
        return ("batch", "height", "width", 3)

    def example(self) -> Tensor:
        """An input of this kind for two pictures."""
        if self.inside == "nothing":
            return torch.zeros(2, *(int(side) for side in self.shape[1:]))
        height, width = self.size_hw
        grown = 3 if self.inside == "resizing" else 0  # no side must look like a constant
        return torch.zeros(2, height + grown, width + 2 * grown, 3, dtype=torch.uint8)

    def __str__(self) -> str:
        sides = ", ".join({"batch": "N", "height": "H", "width": "W"}.get(s, s) if isinstance(
            s, str) else str(s) for s in self.shape)  # fmt: skip
        if self.inside == "nothing":
            return f"input ({sides}) float32, normalised {self.channels}"
        return f"picture ({sides}) uint8, rgb"


class ExportedNetwork(nn.Module):
    """The input → logits (N, n_classes), maps (N, n_classes, h, w), float32.

    Raises:
        ModelError: the maps' weights depend on the picture: the head is not linear.
    """

    mean: Tensor
    std: Tensor
    weight: Tensor
    bias: Tensor

    def __init__(self, net: CamNet, weights: Weights, size_hw: tuple[int, int], inside: Inside):
        super().__init__()
        if getattr(net, "head", None) is not None:
            raise ModelError(
                f"{net.name} cannot be exported with its maps: its head is not one linear layer, "
                "so that they need a derivative at each picture; export one with a linear head"
            )
        own: Channels = net.channels if inside == "nothing" else "rgb"
        places = _PLACES[own]
        self.input = ExportedInput(
            inside,
            size_hw,
            own,
            tuple(weights.mean[place] for place in places),
            tuple(weights.std[place] for place in places),
        )
        self.backbone = net.backbone if inside != "nothing" else _without_color(net.backbone)
        self.is_bicubic = weights.interpolation == "bicubic"
        self.register_buffer("mean", 255 * torch.tensor(weights.mean))
        self.register_buffer("std", 255 * torch.tensor(weights.std))
        self.register_buffer("weight", net.weight.detach().clone())
        self.register_buffer("bias", net.bias.detach().clone())
        self.eval()

    def forward(self, given: Tensor) -> tuple[Tensor, Tensor]:
        features = self.backbone(given if self.input.inside == "nothing" else self._prepared(given))
        logits = F.linear(features.mean((2, 3)), self.weight, self.bias)
        return logits, F.conv2d(features, self.weight[:, :, None, None])

    def _prepared(self, pictures: Tensor) -> Tensor:
        """(N, H, W, 3) uint8 RGB → (N, 3, h, w) normalised."""
        planes = pictures.float().permute(0, 3, 1, 2)
        if self.input.inside == "resizing":
            height, width = self.input.size_hw
            rows = _resizing(planes.shape[2], height, bicubic=self.is_bicubic)
            columns = _resizing(planes.shape[3], width, bicubic=self.is_bicubic)
            planes = (rows @ planes @ columns.T).clamp(0.0, 255.0)
        return (planes - self.mean[:, None, None]) / self.std[:, None, None]


def _resizing(n_inputs: int, n_outputs: int, *, bicubic: bool) -> Tensor:
    """(n_outputs, n_inputs): PyTorch's antialiased resizing as a matrix.

    Its own operation is not used: runtimes read it without its antialiasing (OpenVINO 2026.4).
    """
    inputs, outputs = torch.arange(n_inputs), torch.arange(n_outputs)
    # In whole numbers: twice the distance, in pixels of an axis with n_inputs · n_outputs of them.
    distance = (2 * inputs + 1) * n_outputs - (2 * outputs[:, None] + 1) * (inputs[-1] + 1)
    wide = 2 * (inputs[-1] + 1).clamp(min=n_outputs)
    x = distance.abs().float() / wide.float()
    weights = _cubic(x) if bicubic else (1.0 - x).clamp(min=0.0)
    return weights / weights.sum(1, keepdim=True)


def _cubic(x: Tensor) -> Tensor:
    a = _CUBIC
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))


def _without_color(backbone: nn.Module) -> nn.Module:
    """The backbone without the layer that makes its channels of RGB."""
    if getattr(backbone, INPUT_COLOR, None) is None:
        return backbone
    assert isinstance(backbone, fx.GraphModule)
    own = copy.deepcopy(backbone)
    node = next(each for each in own.graph.nodes if each.target == INPUT_COLOR)
    node.replace_all_uses_with(node.args[0])
    own.graph.erase_node(node)
    own.delete_all_unused_submodules()
    own.recompile()
    return own
