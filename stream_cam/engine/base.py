"""What every engine is: a network compiled for one device, shape and precision."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor

OnStage = Callable[[str], None]
"""Gets what is being done, in a few words."""


def ignore_progress(stage: str) -> None:
    """The `OnStage` of those who do not want to know."""


@dataclass(frozen=True, slots=True)
class Batch:
    """How many frames an engine takes at once."""

    least: int = 1
    best: int = 1
    """What it is tuned for."""
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
            ValueError: it is none of these.
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
class EngineInfo:
    """What an engine was made for."""

    name: str
    """tensorrt, inductor, openvino, eager."""
    device: str
    """cpu or cuda:N: where its tensors live."""
    precision: str
    """fp32, bf16, fp16 or int8 (in part): what it computes in; what goes in and out is float32."""
    input_shape: tuple[int, int, int, int]
    """(N, 3, H, W) of the normalised batch, with N = `batch.best`."""
    logits_shape: tuple[int, int]
    features_shape: tuple[int, int, int, int]
    parallel: int
    """How many sessions may run at once to good effect."""
    batch: Batch = field(default=Batch(), repr=False)
    """Which N it takes."""
    threads: str = field(default="", repr=False, compare=False)
    """How many threads it computes on, and whether they are pinned; empty: PyTorch's."""

    @property
    def way_out(self) -> str:
        """What to give on the command line where it fails."""
        return way_out(self.name, self.precision)


def way_out(name: str, precision: str) -> str:
    """What to give on the command line where an engine fails, or cannot be built."""
    if precision == "int8":
        return "--precision auto"
    others = {"tensorrt": "--engine inductor", "eager": "--device cpu"}
    return others.get(name, "--engine eager")


class Session(Protocol):
    """One thread's use of an engine."""

    def __call__(self, batch: Tensor, logits: Tensor, features: Tensor) -> None:
        """Runs the network once, allocating nothing.

        On a CUDA device the work is put into the current stream of the engine's device, and the
        call returns before it is done: nothing synchronises. (PyTorch's own engines take what
        they need between layers from its caching allocator, which after the first calls asks the
        driver for nothing.) A caller that owns the stream and the buffers may capture the call in
        a CUDA graph, after three calls on that stream with buffers of the same N. The stream
        should not be the default one: TensorRT synchronises there.

        Args:
            batch: (N, 3, H, W) float32 contiguous, normalised RGB, on the engine's device, with
                an N that `EngineInfo.batch` has.
            logits: (N, n_classes) float32 contiguous, on the same device, written.
            features: (N, C, h, w) float32 contiguous, on the same device, written.

        Raises:
            ValueError: on CUDA, buffers of another device, shape, type or layout. OpenVINO's
                session believes what it is given.
        """
        ...


class Engine(Protocol):
    @property
    def info(self) -> EngineInfo: ...

    def session(self) -> Session:
        """A new session; sessions of one engine may run in different threads at once."""
        ...
