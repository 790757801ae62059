"""Explanations, made of a network's results."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypedDict

import numpy as np

from stream_cam.cam.geometry import FitPlan
from stream_cam.config import N_PREDICTIONS, Activation
from stream_cam.draw.layouts import MapStyle
from stream_cam.frame import (
    BgrImage,
    Drawn,
    Explanation,
    FloatArray,
    Frame,
    Prediction,
    image_of,
    probabilities_of,
)
from stream_cam.settings import SettingsSnapshot

if TYPE_CHECKING:
    from stream_cam.explain.graph.slot import Results


def best_predictions(
    logits: FloatArray, labels: Sequence[str], activation: Activation = "softmax"
) -> tuple[Prediction, ...]:
    """The five best classes, best first; fewer if the network has fewer."""
    probabilities = probabilities_of(logits, activation)
    n_best = min(N_PREDICTIONS, logits.size)
    best = np.argpartition(-logits, n_best - 1)[:n_best]
    best = best[np.argsort(-logits[best], kind="stable")]
    return _predictions(labels, best.tolist(), probabilities[best].tolist())


def explanation_of(
    results: Results,
    labels: Sequence[str],
    frame: BgrImage | Frame,
    plan: FitPlan,
    settings: SettingsSnapshot,
    activation: Activation = "softmax",
) -> Explanation:
    """The explanation of a frame that a graph has explained and drawn."""
    shown, best = results.probability, results.best_probability
    if activation != "softmax":  # the device's are softmax
        probabilities = probabilities_of(results.logits, activation)
        shown, best = probabilities[results.classes].tolist(), probabilities[results.best].tolist()
    targets = _predictions(labels, results.classes, shown)
    style = MapStyle.of(settings.look, len(targets))
    return Explanation(
        logits=results.logits,
        predictions=_predictions(labels, results.best, best),
        targets=targets,
        cams=results.cams,
        region=plan.region,
        frame_size_hw=plan.frame_hw,
        **times_of(frame),
        several=len(targets) > 1 or bool(settings.targets),
        n_locked=len(settings.targets),
        ranges=results.ranges if settings.look.smooth > 0.0 else None,
        drawn=Drawn(image_of(frame), style, results.pictures),
        activation=activation,
    )


def _predictions(
    labels: Sequence[str], classes: Sequence[int], probabilities: Sequence[float]
) -> tuple[Prediction, ...]:
    pairs = zip(classes, probabilities, strict=True)
    return tuple(Prediction(labels[index], index, probability) for index, probability in pairs)


class Times(TypedDict):
    """The fields of an explanation that say when."""

    frame_index: int
    pts_seconds: float
    captured_ns: int
    explained_ns: int


def times_of(frame: BgrImage | Frame) -> Times:
    """The frame's times, with the present as the time of its explanation."""
    source = frame if isinstance(frame, Frame) else None
    return {
        "frame_index": source.index if source else 0,
        "pts_seconds": source.pts_seconds if source else 0.0,
        "captured_ns": source.captured_ns if source else 0,
        "explained_ns": time.monotonic_ns(),
    }
