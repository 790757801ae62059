"""An engine on order (`EngineRequest`), and the builders of those that the store keeps."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

from stream_cam.config import Precision
from stream_cam.engine.base import Engine, OnStage
from stream_cam.engine.manifest import EngineKey
from stream_cam.engine.options import Batch
from stream_cam.engine.quantize import Quantizers
from stream_cam.model.camnet import CamNet


@dataclass(frozen=True)
class EngineRequest:
    """One network, and the engine that is wanted of it; nothing is left to choose."""

    net: CamNet
    """On the CPU in float32."""
    fingerprint: str
    """Its parameters' and its graph's, for the store (`CamNet.fingerprint`)."""
    input_hw: tuple[int, int]
    """Height and width of the input in pixels."""
    device: str = "cpu"
    """cpu or cuda:N."""
    precision: Precision = "fp32"
    parallel: int = 1
    """How many frames will be explained at once."""
    batch: Batch = field(default_factory=Batch)
    quantizers: Quantizers | None = None
    """For a new int8 engine; None: the newest one that the store has."""


class EngineBuilder(Protocol):
    """Builds one engine that the store keeps, and reads it back."""

    key: EngineKey
    can_build: bool
    """False: only a stored engine will do (int8 without frames)."""
    net: CamNet
    frames: tuple[Tensor, ...]
    """(1, 3, H, W) each: frames for its verification, besides those that every engine gets."""

    def compile(self, on_stage: OnStage = ...) -> tuple[Engine, bytes]:
        """A new engine, and the blob of which `deserialize` makes it again."""
        ...

    def deserialize(self, blob: bytes) -> Engine:
        """The engine of a blob.

        Raises:
            EngineError: the library does not accept it.
        """
        ...
