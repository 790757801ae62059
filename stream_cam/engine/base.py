"""The parts of every engine: its description, its sessions, the report of its progress."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from stream_cam.engine.options import Batch
from stream_cam.frame import FloatArray

if TYPE_CHECKING:
    from torch import Tensor

OnStage = Callable[[str], None]
"""Gets the name of the work that begins, in a few words."""


def ignore_progress(stage: str) -> None:
    """The `OnStage` that does nothing."""


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """Name, place, precision and shapes of an engine."""

    name: str
    """tensorrt, fused, inductor, openvino, eager."""
    device: str
    """cpu or cuda:N: where its tensors live."""
    precision: str
    """fp32, bf16, fp16 or int8 (in part): its arithmetic. Inputs and outputs are float32."""
    input_shape: tuple[int, int, int, int]
    """(N, 3, H, W) of the normalised batch, with N = `batch.best`."""
    logits_shape: tuple[int, int]
    features_shape: tuple[int, int, int, int]
    parallel: int
    """How many sessions may run at once to good effect."""
    batch: Batch = field(default=Batch(), repr=False)
    """The N that it takes."""
    threads: str = field(default="", repr=False, compare=False)
    """How many threads it computes on, and whether they are pinned; empty: PyTorch's."""

    alternative: str = field(default="--engine eager", repr=False, compare=False)
    """The option to give on the command line where this engine fails; for int8 see `advice`."""

    @property
    def advice(self) -> str:
        """The option to give on the command line where this engine fails, in its precision."""
        return "--precision auto" if self.precision == "int8" else self.alternative


class Session(Protocol):
    """One thread's use of an engine."""

    def __call__(self, batch: Tensor, logits: Tensor, features: Tensor) -> None:
        """Runs the network once, allocating nothing.

        On a CUDA device the work is put into the current stream of the engine's device, and the
        call returns before it is done: nothing synchronises. PyTorch's own engines take memory
        between layers from its caching allocator. After the first calls that one asks the driver
        for nothing. A caller that owns the stream and the buffers may capture the call in a CUDA
        graph, after three calls on that stream with buffers of the same N. The stream should not
        be the default one: TensorRT synchronises there.

        Args:
            batch: (N, 3, H, W) float32 contiguous, normalised RGB, on the engine's device, with
                an N that `EngineInfo.batch` has. Engines on the CPU take NumPy arrays as well
                (`HostSession`).
            logits: (N, n_classes) float32 contiguous, on the same device, written.
            features: (N, C, h, w) float32 contiguous, on the same device, written.

        Raises:
            ValueError: on CUDA, buffers of another device, shape, type or layout. OpenVINO's
                session does not check its buffers.
        """
        ...


class HostSession(Protocol):
    """A session of an engine on the CPU, with the caller's NumPy arrays."""

    def __call__(self, batch: FloatArray, logits: FloatArray, features: FloatArray) -> None:
        """As `Session`, with arrays of the same shapes."""
        ...


class Engine(Protocol):
    @property
    def info(self) -> EngineInfo: ...

    def session(self) -> Session:
        """A new session; sessions of one engine may run in different threads at once."""
        ...
