"""The parts that all int8 quantizers share: the gate to stay within, and each one made once.

An integer layer needs to know how large its values become, so an int8 engine is made from frames
of the scene to be watched. With all layers in integers, maps miss the gate of `verify`
(docs/engines.md). Other frames show which layers may stay integers: NNCF finds them for OpenVINO
(`quantize_nncf`), PyTorch for TensorRT (`quantize_layers`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any, TypeVar, cast

from stream_cam.engine.base import Engine, OnStage
from stream_cam.engine.calibration import Calibration
from stream_cam.engine.manifest import Figures
from stream_cam.engine.verify import GATES, Comparison, overall
from stream_cam.model.camnet import CamNet

logger = logging.getLogger(__name__)

T = TypeVar("T")

GATE_MARGIN = 0.001
"""The distance to keep from the gate: its frames are not all that there will be."""
RANKING_FRAMES = 32
"""The frames with the worst maps, which show the cost of each layer."""


class Quantizers:
    """The quantizers of one network for one calibration; each is made once, on demand."""

    def __init__(self, net: CamNet, calibration: Calibration) -> None:
        self._net = net
        self._calibration = calibration
        self._made: dict[object, Any] = {}

    def get(self, kind: Callable[[CamNet, Calibration], T]) -> T:
        """The quantizer of a kind, such as `NncfQuantizer`."""
        if kind not in self._made:
            self._made[kind] = kind(self._net, self._calibration)
        return cast("T", self._made[kind])


class GateMetric:
    """How far an engine is within the int8 gate; at least `GATE_MARGIN` is demanded."""

    best = 1.0 - (GATES["int8"].least_correlation or 0.0)
    """A perfect engine's figure."""

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
        self._on_stage(f"quantising (try {self._n_tried}, {_summary(figures)})")
        logger.info("try %d of %d frames: %s", self._n_tried, len(frames), figures)
        return _gate_margin(figures), [_gate_margin(overall([frame])) for frame in frames]


def _gate_margin(figures: Figures) -> float:
    """The distance to the nearer limit of the gate; negative beyond it."""
    gate = GATES["int8"]
    assert gate.least_correlation is not None
    assert gate.least_agreement is not None
    return min(
        figures.cam_correlation - gate.least_correlation,
        figures.top1_agreement - gate.least_agreement,
    )


def _summary(figures: Figures) -> str:
    return f"worst map {figures.cam_correlation:.4f}, best class {figures.top1_agreement:.1%}"
