"""A network's own input of the frame's normalised RGB: its order of colours, or its luma.

Engines, kernels and graphs always take normalised RGB. A network that takes something else gets a
1×1 convolution in front, which any engine compiles like the other layers. With zeros outside the
picture in both, padding stays what it was in training.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, fx, nn

from stream_cam.config import Channels
from stream_cam.errors import ModelError, StreamCamError, UsageError, first_line, unknown_name

__all__ = ["INPUT_COLOR", "color_layer", "detect_channels", "normalisation", "prepend"]

INPUT_COLOR = "input_color"
"""The name of the layer in a backbone."""

_LUMA = (0.299, 0.587, 0.114)
"""Y of R, G and B (ITU-R BT.601), as OpenCV's `COLOR_BGR2GRAY` and Pillow's mode L have it."""
_MATRICES: dict[Channels, tuple[tuple[float, float, float], ...] | None] = {
    "rgb": None,
    "bgr": ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0)),
    "gray": (_LUMA,),
}
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

Triple = tuple[float, float, float]


def color_layer(channels: Channels) -> nn.Conv2d | None:
    """(N, 3, H, W) normalised RGB → the network's own channels; None where they are RGB."""
    if channels not in _MATRICES:
        raise unknown_name("channels", channels, tuple(_MATRICES))
    matrix = _MATRICES[channels]
    if matrix is None:
        return None
    layer = nn.Conv2d(3, len(matrix), 1, bias=False)
    layer.weight = nn.Parameter(torch.tensor(matrix)[:, :, None, None], requires_grad=False)
    return layer.eval()


def detect_channels(
    network: nn.Module, probe: Tensor, name: str, channels: Channels | None
) -> tuple[Channels, object]:
    """The network's channels, and its output for `probe`.

    Args:
        probe: (1, 3, H, W) normalised RGB.
        channels: None tries RGB and then luma; luma first if the first convolution takes one
            channel.

    Raises:
        ModelError: the network takes none of them.
    """
    tried: list[Channels] = [channels] if channels else ["rgb", "gray"]
    first = next((each for each in network.modules() if isinstance(each, nn.Conv2d)), None)
    if first is not None and first.in_channels == 1:
        tried.reverse()
    errors = list[ModelError]()
    for one in tried:
        layer = color_layer(one)
        own = probe if layer is None else layer(probe)
        try:
            return one, network(own)
        except StreamCamError:
            raise
        except Exception as exc:
            size = "×".join(str(side) for side in own.shape[1:])
            error = ModelError(f"{name} does not take a {size} picture: {first_line(exc)}")
            error.__cause__ = exc
            errors.append(error)
    raise errors[0]


def prepend(layer: nn.Conv2d | None, backbone: fx.GraphModule) -> fx.GraphModule:
    """The same backbone, with `layer` between its input and everything that reads it."""
    if layer is None:
        return backbone
    graph = backbone.graph
    picture = next(node for node in graph.nodes if node.op == "placeholder")
    backbone.add_submodule(INPUT_COLOR, layer)
    with graph.inserting_after(picture):
        own = graph.call_module(INPUT_COLOR, (picture,))
    picture.replace_all_uses_with(own, delete_user_cb=lambda user: user is not own)
    graph.lint()
    backbone.recompile()
    return backbone


def normalisation(
    channels: Channels,
    mean: Sequence[float] | float | None = None,
    std: Sequence[float] | float | None = None,
    input_scale: str | None = None,
) -> tuple[Triple, Triple]:
    """Mean and standard deviation for R, G and B in 0..1, of those in the network's own terms.

    Args:
        channels: the network's; `mean` and `std` are in their order, one number is for all.
        mean: default: ImageNet's; 0 for one channel, or if `std` or `input_scale` is given.
        std: likewise; default 1 where the mean's is 0.
        input_scale: `0..1` or `0..255`, the values that `mean` and `std` are for.

    Raises:
        UsageError: a wrong number of values, or one that is not possible.
    """
    if input_scale not in (None, "0..1", "0..255"):
        raise unknown_name("input scale", input_scale, ("0..1", "0..255"))
    if mean is None and std is None and input_scale is None and channels != "gray":
        return _IMAGENET
    divisor = 255.0 if input_scale == "0..255" else 1.0
    means = _three("mean", 0.0 if mean is None else mean, channels)
    stds = _three("std", 1.0 if std is None else std, channels)
    if min(stds) <= 0.0:
        raise UsageError(f"std is a number above 0 for each channel, got {min(stds):g}")
    red, green, blue = (value / divisor for value in means)
    red_std, green_std, blue_std = (value / divisor for value in stds)
    return (red, green, blue), (red_std, green_std, blue_std)


def _three(name: str, given: Sequence[float] | float, channels: Channels) -> list[float]:
    """For R, G and B, of one number or of one for each channel."""
    try:
        values = [float(given)] if isinstance(given, (int, float)) else [float(v) for v in given]
    except (TypeError, ValueError):
        values = []
    allowed = (1,) if channels == "gray" else (1, 3)
    if len(values) not in allowed or not all(map(_is_finite, values)):
        raise UsageError(
            f"{name} is a finite number, one for each channel of {channels} or one for all, got "
            f"{given!r}"
        )
    values = values * 3 if len(values) == 1 else values
    return values[::-1] if channels == "bgr" else values


def _is_finite(value: float) -> bool:
    return abs(value) < float("inf")
