"""What every engine is: a network compiled for one device, shape and precision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What an engine was made for."""

    name: str
    """openvino, eager, …"""
    device: str
    """cpu or cuda:N: where its tensors live."""
    precision: str
    """fp32, bf16, fp16 or int8: what it computes in; what goes in and out is float32."""
    input_shape: tuple[int, int, int, int]
    """(N, 3, H, W) of the normalised batch."""
    logits_shape: tuple[int, int]
    features_shape: tuple[int, int, int, int]
    parallel: int
    """How many sessions may run at once to good effect."""


class Session(Protocol):
    """One thread's use of an engine."""

    def __call__(self, batch: Tensor, logits: Tensor, features: Tensor) -> None:
        """Runs the network once, allocating nothing.

        Args:
            batch: (N, 3, H, W) contiguous, normalised RGB, on the engine's device.
            logits: (N, n_classes) contiguous, written.
            features: (N, C, h, w) contiguous, written.
        """
        ...


class Engine(Protocol):
    @property
    def info(self) -> EngineInfo: ...

    def session(self) -> Session:
        """A new session; sessions of one engine may run in different threads at once."""
        ...
