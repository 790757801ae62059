"""Which network runs, and how."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal, get_args

Device = Literal["auto", "cpu", "cuda"]
EngineName = Literal["auto", "tensorrt", "inductor", "openvino", "eager"]
Precision = Literal["auto", "fp32", "fp16", "bf16", "int8"]
Fit = Literal["stretch", "crop", "letterbox", "native"]
FITS: Final[tuple[Fit, ...]] = get_args(Fit)
N_PREDICTIONS: Final = 5
"""Best classes that are kept of a frame: in explanations, results and the layout top5."""


@dataclass(frozen=True)
class ModelConfig:
    """Which network looks, and how it is run."""

    model: str = "resnet18"
    """A torchvision classifier that ends in global average pooling and one linear layer."""
    weights: str = "auto"
    """imagenet (downloaded once), demo (shipped: ten drawn shapes), or a checkpoint: a .pth, .pt,
    .ckpt, .th, .bin, .pth.tar or .safetensors file; auto: demo for demo://shapes, imagenet for all
    else."""
    checkpoint_key: str | None = None
    """Which network of a checkpoint that holds several, such as state_dict_ema."""
    labels: Path | None = None
    """A file with the class names: one a line, numbered, CSV, JSON or YAML; default: those in the
    checkpoint."""
    target: tuple[str, ...] = ()
    """The number or label of a class whose map is shown; may be given several times. None: the
    class with the highest logit."""
    engine: EngineName = "auto"
    """What runs the network; auto takes the fastest that works here."""
    device: Device = "auto"
    """Where the network runs; auto takes a CUDA GPU if an engine for it is there."""
    precision: Precision = "auto"
    """auto: fp16 on GPUs, fp32 on CPUs; bf16: faster on processors that have it (`stream-cam
    doctor` says), and the maps differ by up to a hundredth of their range; int8: on CPUs, and on
    GPUs with TensorRT, once it was built with `stream-cam build --precision int8 --calibrate
    clip.mp4`."""
    input_size: int | None = None
    """Side of the network's input in pixels; default: what the weights were made for."""
    fit: Fit = "stretch"
    """How a frame becomes the network's input: stretch the whole frame to a square, crop the
    middle, letterbox, or native (short side to the input size, the shape of the frame kept)."""

    def for_source(self, uri: str) -> ModelConfig:
        """With the weights that `auto` means for this source."""
        if self.weights != "auto":
            return self
        drawn = uri.startswith("demo:") and self.model == "resnet18"
        return replace(self, weights="demo" if drawn else "imagenet")
