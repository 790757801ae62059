"""Steady maps: a filter over time and a hold on the shown class, so that the picture is calm.

A map and its range (the values drawn as cold and as hot) follow the frames' maps through a
low-pass that hurries when much has changed, as the 1 € filter does (Casiez, Roussel, Vogel, CHI
2012): the filtered y goes towards the frame's x by

    dy/dt = (x − y) · (1 + β·e²) / τ,    e = max |x − y| / (max x − min x),    β = 4.

For an x that stays, that has a closed solution: after Δt the share that is left of x − y is

    E / √(1 + β·e²·(1 − E²)),    E = exp(−Δt / τ),

so that τ is in seconds of the scene, at any frame rate. Small changes see a first-order low-pass:
1 − 1/e of them is there after τ, and the white noise of a still scene changes the filtered map
√(2 − k) / k times less from frame to frame than the raw one, k = 1 − E (at 30 frames/s and
τ = 0.3 s: 13 times). After a jump to another place that is as hot, the new one is hotter than the
old one from 0.25·τ on, and from 0.7·τ if its map is a third as strong.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from stream_cam.config import LookConfig
from stream_cam.frame import Contrast, Explanation, Features, FloatArray, Prediction

_LEAST_GAP_SECONDS = 1.0
"""Maps this far apart are of two scenes, unless the user asked for longer memories."""
ROUNDING_SECONDS = 1e-6
"""Times are multiples of a frame's duration in floating point: 0.1 + 0.5 may exceed 0.6."""

HURRY = 4.0
"""β above."""

_Values = npt.NDArray[np.float64]


def gap_seconds(look: LookConfig) -> float:
    """Maps this far apart are of two scenes, in seconds."""
    return max(_LEAST_GAP_SECONDS, look.smooth, look.hold)


class SteadyMaps:
    """Makes explanations of successive frames calm; not for two threads at once.

        steady, look = SteadyMaps(), LookConfig(smooth=0.3, hold=0.5)
        for frame in source:
            explanation = explainer.explain(frame, keep_features=True)
            picture_bgr = draw_overlay(frame, steady.update(explanation, look), look)

    It keeps the filtered maps and the shown class. Both times come with each update, and may
    change from one to the next: the maps and the class go on from where they are.
    """

    def __init__(self) -> None:
        self._held = _HeldClass()
        self._maps: dict[tuple[int, Contrast | None], _SmoothMap] = {}
        self._place: object = None
        self._given: Explanation | None = None
        self._answer: Explanation | None = None

    def update(
        self, explanation: Explanation, look: LookConfig, seconds: float | None = None
    ) -> Explanation:
        """The explanation with its class held and its maps and ranges filtered.

        With both times 0 it comes back as it is. Predictions and logits stay the frame's own. The
        same explanation again, drawn on a further frame, gives the same answer and counts once.
        After a gap, a jump back in time, or on frames of another size, maps start anew.

        Args:
            explanation: the next frame's.
            look: `smooth` is the filter's time constant; 0: maps and ranges are the frame's own.
                `hold` is how long another class must have been the best one, in every explanation,
                before it is shown; 0: at once. Classes asked for are never exchanged.
            seconds: when its frame is from, on any clock; default: the frame's presentation time,
                or for a bare picture when it was explained.

        Raises:
            ValueError: a class is to be held and the explanation has no features.
        """
        if self._answer is None or explanation is not self._given:
            now = _time_of(explanation) if seconds is None else seconds
            self._given = explanation
            held = self._with_held(explanation, look, now)
            self._answer = self._smoothed(held, look, now)
        return self._answer

    def _with_held(self, explanation: Explanation, look: LookConfig, now: float) -> Explanation:
        if not look.hold:
            self._held.forget()
            return explanation
        features = explanation.features
        if features is None:
            raise ValueError("to hold a class, explain with keep_features=True")
        if explanation.n_locked:
            self._held.forget()
            return explanation
        shown = self._held.update(explanation.predictions[0], look, now)
        return _with_first(explanation, features, shown)

    def _smoothed(self, explanation: Explanation, look: LookConfig, now: float) -> Explanation:
        if not look.smooth:
            return explanation
        place = explanation.region, explanation.frame_size_hw, explanation.cams.shape[1:]
        if place != self._place:
            self._maps.clear()
            self._place = place
        self._maps = {
            key: kept
            for key, kept in self._maps.items()
            if abs(now - kept.seconds) <= gap_seconds(look)
        }
        values = np.stack(
            [
                self._filtered((target.index, explanation.contrast), cam, look.smooth, now)
                for target, cam in zip(explanation.targets, explanation.cams, strict=True)
            ]
        ).astype(np.float32)
        cams = np.ascontiguousarray(values[:, 2:]).reshape(explanation.cams.shape)
        return replace(explanation, cams=cams, ranges=values[:, :2])

    def _filtered(
        self, key: tuple[int, Contrast | None], cam: FloatArray, smooth_seconds: float, now: float
    ) -> _Values:
        """Filtered range and map of a class, as `_values_of` lays them out."""
        new, kept = _values_of(cam), self._maps.get(key)
        if np.isnan(new).all():
            return new if kept is None else kept.values
        if kept is not None:
            left = _share_left(new, kept.values, now - kept.seconds, smooth_seconds)
            mixed = new + left * (kept.values - new)
            new = np.where(np.isnan(kept.values), new, np.where(np.isnan(new), kept.values, mixed))
        self._maps[key] = _SmoothMap(new, now)
        return new


def _share_left(new: _Values, kept: _Values, seconds: float, smooth_seconds: float) -> float:
    """The share of the difference between filtered and new values that outlasts some seconds."""
    decay = math.exp(-max(0.0, seconds) / smooth_seconds)
    low, high = new[:2]
    both = np.isfinite(kept) & np.isfinite(new)
    if not (high > low and both.any()):
        return decay
    change = float(np.abs(new[both] - kept[both]).max() / (high - low))
    return decay / math.sqrt(1.0 + HURRY * change**2 * (1.0 - decay**2))


@dataclass(frozen=True, slots=True)
class _SmoothMap:
    """One class's filtered range and map, and when it took in a frame."""

    values: _Values
    seconds: float


class _HeldClass:
    """Which class is shown: another one only after it has been the best for long enough."""

    def __init__(self) -> None:
        self._shown: Prediction | None = None
        self._rival: Prediction | None = None
        self._rival_since = self._seen = 0.0

    def forget(self) -> None:
        self._shown = None

    def update(self, best: Prediction, look: LookConfig, now: float) -> Prediction:
        """The class to show; its probability is of an earlier frame."""
        if self._shown is None or abs(now - self._seen) > gap_seconds(look):
            self._shown, self._rival = best, None
        elif best.index == self._shown.index:
            self._rival = None
        elif self._rival is None or best.index != self._rival.index:
            self._rival, self._rival_since = best, now
        elif now - self._rival_since >= look.hold - ROUNDING_SECONDS:
            self._shown, self._rival = best, None
        self._seen = now
        return self._shown


def _with_first(explanation: Explanation, features: Features, shown: Prediction) -> Explanation:
    """As many maps as before, the shown class's first; it is made if it was not among them."""
    indices = [target.index for target in explanation.targets]
    if indices[0] == shown.index:
        return explanation
    if shown.index in indices:
        cam = explanation.cams[indices.index(shown.index)]
    else:
        cam = features.cam(shown.index)
    others = [n for n, index in enumerate(indices) if index != shown.index][: len(indices) - 1]
    first = replace(shown, probability=explanation.probability(shown.index))
    return replace(
        explanation,
        targets=(first, *(explanation.targets[n] for n in others)),
        cams=np.stack([cam, *explanation.cams[others]]),
    )


def _time_of(explanation: Explanation) -> float:
    if explanation.captured_ns:
        return explanation.pts_seconds
    return explanation.explained_ns / 1e9


def _values_of(cam: FloatArray) -> _Values:
    """Minimum, maximum and cells of a map, (2 + h·w,) float64; NaN for values that are not
    finite."""
    flat = cam.ravel().astype(np.float64)
    finite = flat[np.isfinite(flat)]
    low, high = (finite.min(), finite.max()) if finite.size else (math.nan, math.nan)
    return np.concatenate([[low, high], np.where(np.isfinite(flat), flat, math.nan)])
