"""What all int8 engines have in common: frames to be made from, and a gate to stay within.

An integer layer needs to know how large its values become, so such an engine is made from frames of
what the network will see. Quantised throughout, maps miss the gate of `verify` (docs/engines.md);
which layers may stay integers is found out on other frames, for OpenVINO by NNCF
(`quantize_nncf`), for TensorRT by PyTorch (`quantize_layers`).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from torch import Tensor

from stream_cam.engine.base import Engine, OnStage
from stream_cam.engine.manifest import EngineKey, Figures
from stream_cam.engine.store import EngineStore
from stream_cam.engine.verify import GATES, Comparison, overall
from stream_cam.errors import EngineError
from stream_cam.model.camnet import CamNet
from stream_cam.model.fingerprint import fingerprint

if TYPE_CHECKING:
    from stream_cam.engine.quantize_layers import LayerQuantizer
    from stream_cam.engine.quantize_nncf import NncfQuantizer

logger = logging.getLogger(__name__)

SPARE = 0.001
"""By how much the gate is to be passed: its frames are not all that there will be."""
RANKING_FRAMES = 32
"""The frames with the worst maps, on which it is found out what each layer costs."""


@dataclass(frozen=True, eq=False)
class Calibration:
    """Frames of what the network will see, prepared as it will see them.

    All are (1, 3, H, W) float32, normalised RGB.
    """

    calibrating: tuple[Tensor, ...]
    """Give the ranges."""
    validating: tuple[Tensor, ...]
    """Others: decide which layers stay in floating point, and are what the engine is verified
    with."""

    @cached_property
    def identity(self) -> Mapping[str, str]:
        """For an engine's key."""
        frames = (*self.calibrating, *self.validating)
        return {
            "frames": f"{len(self.calibrating)}+{len(self.validating)}",
            "frames_sha256": fingerprint({f"{i:06}": frame for i, frame in enumerate(frames)}),
        }


class Quantizers:
    """Of one network, for one calibration; each is made when a backend asks for it, and once."""

    def __init__(self, net: CamNet, calibration: Calibration) -> None:
        self._net = net
        self._calibration = calibration

    @cached_property
    def nncf(self) -> NncfQuantizer:
        """OpenVINO's.

        Raises:
            EngineError: NNCF is not installed.
        """
        from stream_cam.engine.quantize_nncf import NncfQuantizer

        return NncfQuantizer(self._net, self._calibration)

    @cached_property
    def layers(self) -> LayerQuantizer:
        """TensorRT's."""
        from stream_cam.engine.quantize_layers import LayerQuantizer

        return LayerQuantizer(self._net, self._calibration)


class GateMetric:
    """How far an engine is within the int8 gate: what must not fall below `SPARE`."""

    best = 1.0 - (GATES["int8"].least_correlation or 0.0)
    """What a perfect engine has."""

    def __init__(self, comparison: Comparison, on_stage: OnStage) -> None:
        self.comparison = comparison
        self._on_stage = on_stage
        self._n_tried = 0

    def __call__(
        self, engine: Engine, numbers: Iterable[int] | None = None
    ) -> tuple[float, list[float]]:
        """For all frames with these numbers (default: all there are), and for each."""
        chosen = range(len(self.comparison)) if numbers is None else list(numbers)
        frames = self.comparison.each(engine, chosen)
        figures = overall(frames)
        self._n_tried += 1
        self._on_stage(f"quantising (try {self._n_tried}, {_in_words(figures)})")
        logger.info("try %d of %d frames: %s", self._n_tried, len(frames), figures)
        return _within(figures), [_within(overall([frame])) for frame in frames]


def how_to_make(arguments: str) -> str:
    """In words, with further arguments of `stream-cam build`."""
    return (
        f"`stream-cam build {arguments} --precision int8 --calibrate clip.mp4` makes one, with a "
        "video or pictures of what it will see"
    )


def calibrated(key: EngineKey, at_once: str, arguments: str, store: EngineStore) -> EngineKey:
    """The key of the int8 engine that is kept for the same use, whatever it was calibrated with.

    Args:
        key: without a calibration.
        at_once: what it is for, as `one frame at a time`.
        arguments: of `stream-cam build`, to make one.

    Raises:
        EngineError: there is none.
    """
    found = store.calibrated(key)
    if found is not None:
        return found
    height, width = key.input_shape[2:]
    if height != width:
        raise EngineError(
            f"int8 engines are built for square inputs, not for {key.input_text}: give --fit "
            "stretch, crop or letterbox"
        )
    others = [replace(manifest.key, calibration={}) for _, manifest in store.manifests()]
    differing = [one.difference(key) for one in others if one != key and one.same_purpose(key)]
    raise EngineError(
        f"no int8 engine of {key.model} {key.input_text} for {at_once} is kept here"
        f"{f', only of {differing[0]}' if differing else ''}: {how_to_make(arguments)}"
    )


def _within(figures: Figures) -> float:
    """The distance to the nearer limit of the gate; negative beyond it."""
    gate = GATES["int8"]
    assert gate.least_correlation is not None
    assert gate.least_agreement is not None
    return min(
        figures.cam_correlation - gate.least_correlation,
        figures.top1_agreement - gate.least_agreement,
    )


def _in_words(figures: Figures) -> str:
    return f"worst map {figures.cam_correlation:.4f}, best class {figures.top1_agreement:.1%}"
