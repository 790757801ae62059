"""Frames for an int8 engine: read from a source, and prepared as `run` prepares them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from stream_cam.cam.cpu import CpuPreprocessor
from stream_cam.config import Fit
from stream_cam.engine.base import OnStage
from stream_cam.errors import UsageError
from stream_cam.frame import Frame
from stream_cam.model.fingerprint import fingerprint
from stream_cam.model.weights import Weights
from stream_cam.sources import Source

MOST_FRAMES = 300
LEAST_FRAMES = 20


@dataclass(frozen=True, eq=False)
class Calibration:
    """Frames of the scene to be watched, as inputs of the network.

    All are (1, 3, H, W) float32, normalised RGB.
    """

    calibrating: tuple[Tensor, ...]
    """Give the ranges."""
    validating: tuple[Tensor, ...]
    """Others: decide which layers stay in floating point, and verify the engine."""

    @cached_property
    def identity(self) -> Mapping[str, str]:
        """For an engine's key."""
        frames = (*self.calibrating, *self.validating)
        return {
            "frames": f"{len(self.calibrating)}+{len(self.validating)}",
            "frames_sha256": fingerprint({f"{i:06}": frame for i, frame in enumerate(frames)}),
        }


def read_calibration(
    source: Source, weights: Weights, fit: Fit, input_size: int, on_stage: OnStage
) -> Calibration:
    """Every n-th frame of a file, up to 300; they calibrate and validate in turns.

    Args:
        source: not yet entered.
        input_size: side of the network's input in pixels.

    Raises:
        UsageError: the source does not end, or has too few frames.
        SourceError: it cannot be read.
    """
    if source.health is not None:
        raise _endless("a camera or stream")
    kept: list[Tensor] = []
    step = 1
    prepare = _Preparation(weights, fit, input_size)
    with source:
        if source.info.live:
            raise _endless(source.info.name)
        for index, frame in enumerate(source):
            if index % 50 == 0:
                on_stage(f"reading frame {index} for")
            if index % step:
                continue
            # Their number is known only at the end.
            if len(kept) == MOST_FRAMES:
                del kept[1::2]
                step *= 2
            if index % step == 0:
                kept.append(prepare(frame))
    if len(kept) < LEAST_FRAMES:
        raise UsageError(
            f"--calibrate {source.info.name} has {len(kept)} frames; at least {LEAST_FRAMES} are "
            "needed: give a longer video or more pictures"
        )
    return Calibration(tuple(kept[::2]), tuple(kept[1::2]))


def _endless(name: str) -> UsageError:
    return UsageError(
        f"--calibrate is read to its end, which {name} does not have: give a video file or a "
        "folder of pictures"
    )


class _Preparation:
    """Frames of any sizes to network inputs."""

    def __init__(self, weights: Weights, fit: Fit, input_size: int) -> None:
        self._weights = weights
        self._fit: Fit = fit
        self._input_size = input_size
        self._preprocessor: CpuPreprocessor | None = None

    def __call__(self, frame: Frame) -> Tensor:
        """(1, 3, H, W) float32, normalised RGB."""
        height, width = frame.image_bgr.shape[:2]
        if self._preprocessor is None or self._preprocessor.plan.frame_hw != (height, width):
            weights = self._weights
            plan = weights.plan(self._fit, (height, width), self._input_size)
            self._preprocessor = CpuPreprocessor(
                plan, weights.mean, weights.std, weights.interpolation
            )
        out = np.empty((3, *self._preprocessor.plan.input_hw), np.float32)
        self._preprocessor(frame.image_bgr, out)
        return torch.from_numpy(out)[None]
