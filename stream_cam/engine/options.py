"""The options of an engine: which one, where it runs, and how many frames it takes."""

from __future__ import annotations

import re
from dataclasses import dataclass

from stream_cam.config import Device, EngineName, ModelConfig, Precision


@dataclass(frozen=True, slots=True)
class Batch:
    """How many frames an engine takes at once."""

    least: int = 1
    best: int = 1
    """The number that it is tuned for."""
    most: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.least <= self.best <= self.most:
            raise ValueError(
                "a batch is 8, 1..32 or 1..8..32 frames (least..best..most), got "
                f"{self.least}..{self.best}..{self.most}"
            )

    @classmethod
    def parse(cls, text: str) -> Batch:
        """`8`: always eight; `1..32`: from 1 to 32, best at 32; `1..8..32`: best at 8.

        Raises:
            ValueError: the text has another form.
        """
        if not re.fullmatch(r"\d{1,4}(\.\.\d{1,4}){0,2}", text):
            raise ValueError(f"a batch is 8, 1..32 or 1..8..32 frames, got {text!r}")
        sizes = [int(size) for size in text.split("..")]
        return cls(sizes[0], sizes[len(sizes) // 2], sizes[-1])

    @property
    def is_fixed(self) -> bool:
        return self.least == self.most

    @property
    def sizes(self) -> tuple[int, ...]:
        """Least, best and most, each once."""
        return tuple(sorted({self.least, self.best, self.most}))

    def __str__(self) -> str:
        return str(self.best) if self.is_fixed else f"{self.least}..{self.best}..{self.most}"


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """Which engine is wanted; `auto` leaves the choice to `load_engine`."""

    engine: EngineName = "auto"
    """auto takes the fastest that works here, and logs the reason why a faster one does not."""
    device: Device = "auto"
    """auto takes CUDA if it is there and an engine for it has the precision."""
    precision: Precision = "auto"
    """fp16 is for GPUs, bf16 for OpenVINO on processors that have it, int8 for OpenVINO and
    TensorRT with an engine that was built before. auto is fp32 on CPUs and fp16 on GPUs, or fp32
    there if the network's maps do not survive fp16."""
    parallel: int = 1
    """How many frames will be explained at once; 1 has the lowest latency."""
    batch: Batch = Batch()
    """How many frames the network takes at once, on GPUs."""

    @classmethod
    def from_config(
        cls, model: ModelConfig, *, parallel: int = 1, batch: Batch | None = None
    ) -> EngineOptions:
        """The engine of the command line's options."""
        return cls(model.engine, model.device, model.precision, parallel, batch or Batch())
