"""The options of the benchmark."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

from stream_cam.config.model import Device, ModelConfig, ModuleConfig
from stream_cam.config.values import size_hw


@dataclass(frozen=True)
class BenchConfig:
    """The rows that are measured, and the files for the figures."""

    engines: tuple[str, ...] = ()
    """Engines, such as `eager`, or `openvino:bf16` for one of its precisions.
    Default: all that this machine can run."""
    batch: tuple[int, ...] = (1, 8)
    """Images in one call of the network."""
    shape: tuple[str, ...] = ()
    """Width x height of the network's input in pixels, such as 384x224.
    Default: the size that the weights were trained for."""
    model: str = "resnet18"
    """A torchvision classifier that averages its last features over their plane."""
    weights: str = "demo"
    """imagenet (downloaded once), demo (shipped, resnet18), or a checkpoint file.
    With --module its own parameters, or a checkpoint file."""
    checkpoint_key: str | None = None
    """The name of one network in a checkpoint that holds several, such as state_dict_ema."""
    device: Device = "auto"
    """The device of the engines; auto lets each engine take its fastest device."""
    frame: str = "1280x720"
    """Width x height of the drawn frames in pixels; they are used without --source."""
    source: str | None = None
    """A video file to decode and explain; default: drawn scenes, encoded as H.264."""
    peers: bool = False
    """Also time torch-cam and pytorch-grad-cam on the same frames
    (pip install 'stream-cam[bench]')."""
    file: bool = True
    """Also run a whole file as `stream-cam run` does, several frames at once."""
    samples: int = 200
    """Most timed calls for one row; p99 is shown from 200 on."""
    seconds: float = 10.0
    """Most time for all calls of one row, in seconds; slow rows then have fewer calls."""
    budget: float | None = None
    """Begin no measurement after this time, in seconds; the rest is listed as left out.
    Engines are then timed one after the other, not in turns, and no file is run."""
    json: Path | None = None
    """Write all figures and samples to this JSON file."""
    plot: Path | None = None
    """Draw the distributions into this .svg file."""
    compare: tuple[Path, Path] | None = None
    """Measure nothing; show which rows became slower from the first JSON file to the second."""
    tolerance: float = 0.1
    """With --compare: end with exit code 1 if a median grew by more than this share, from 0 up,
    and by more than the noise of the two files."""
    own: ModuleConfig = field(default_factory=ModuleConfig)

    @property
    def network(self) -> ModelConfig:
        """The network's options; the demo's weights are no default for a module."""
        own = self.own.module is not None and self.weights == "demo"
        weights = "auto" if own else self.weights
        return ModelConfig(self.model, weights, self.checkpoint_key, own=self.own)

    def __post_init__(self) -> None:
        _ = self.network
        if not self.batch or min(self.batch) < 1:
            raise ValueError(f"--batch is a number of images from 1, got {list(self.batch)}")
        for shape in self.shape:
            size_hw(shape, "--shape", 10, 9999)
        size_hw(self.frame, "--frame", 64, 7680)
        if self.plot is not None and self.plot.suffix.lower() != ".svg":
            raise ValueError(f"--plot is a file in .svg, got {self.plot}")
        if self.samples < 1:
            raise ValueError(f"--samples is a number of calls from 1, got {self.samples}")
        for name in ("seconds", "budget"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"--{name} is a time in seconds above 0, got {value:g}")
        if not 0 <= self.tolerance < math.inf:
            raise ValueError(f"--tolerance is a share from 0, got {self.tolerance:g}")
