"""The things that weights bring along besides their tensors; needs no PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from stream_cam.cam.geometry import FitPlan, plan_fit
from stream_cam.config import Fit

Triple = tuple[float, float, float]
Interpolation = Literal["bilinear", "bicubic"]


@dataclass(frozen=True)
class Preprocessing:
    """How a picture becomes the input that the network was trained on."""

    mean: Triple = (0.485, 0.456, 0.406)
    """For red, green and blue in 0..1."""
    std: Triple = (0.229, 0.224, 0.225)
    """For red, green and blue in 0..1."""
    input_size: int = 224
    """Side of the square input in pixels."""
    resize_size: int | None = None
    """The short side before torchvision crops the middle, in pixels; None: the input size."""
    interpolation: Interpolation = "bilinear"


@dataclass(frozen=True, eq=False, kw_only=True)
class WeightsInfo:
    """Labels, normalisation and origin of weights."""

    labels: tuple[str, ...]
    """One for each class; `not X` and `X` for a network with one logit."""
    mean: Triple
    """For red, green and blue in 0..1."""
    std: Triple
    """For red, green and blue in 0..1."""
    input_size: int
    """Side of the square input in pixels."""
    resize_size: int | None
    """The short side before torchvision crops the middle, in pixels; None: the input size."""
    interpolation: Interpolation
    n_classes: int
    """Rows of the linear layer. 1: the probability of `X` is the sigmoid of the only logit."""
    name: str
    """`imagenet (ResNet18_Weights.IMAGENET1K_V1)`, `demo`, or the file's name."""
    sha256: str
    """A hash over all tensors' names, types, shapes and bytes; the first 16 hex digits."""
    arch: str | None
    """The network these are of, where the file says so."""
    file: Path | None = None
    """The file that they were read from; None: a network of the caller's."""

    def plan(self, fit: Fit, frame_hw: tuple[int, int], input_size: int) -> FitPlan:
        """How a frame of this size becomes a network input with this side."""
        resize_size = self.resize_size
        if resize_size is not None and input_size != self.input_size:
            resize_size = round(resize_size * input_size / self.input_size)
        return plan_fit(fit, frame_hw, input_size, resize_size)
