"""The map of a frame between two explained ones: both maps, interpolated in time.

A cross-fade of two maps leaves an object's heat at both of its places, and the hotter one may be
where the object is not. So both maps are moved first: the earlier one by a share t of the way from
its hot region to the later one's, the later one back by 1 − t; then they are mixed,

    M(t) = (1 − t) · shift(A, t·d) + t · shift(B, −(1 − t)·d).

They are moved only if that makes the two more alike; else nothing has moved, and they fade.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from stream_cam.frame import Explanation, FloatArray, Frame

_HOT = 0.5
"""Share of a map's range above which a cell belongs to its hot region."""


def interpolate(before: Explanation, after: Explanation, frame: Frame) -> Explanation:
    """The explanation of a frame between two that were explained.

    The targets' probabilities are mixed too. Predictions and logits are those of the nearer one,
    with the targets' mixed probabilities.
    Where the two show other classes, or maps of other frame sizes, all is the nearer one's.

    Args:
        before, after: captured before and after the frame, or with it; `before` first.
    """
    span = after.captured_ns - before.captured_ns
    if span <= 0 or frame.captured_ns <= before.captured_ns:
        return before
    if frame.captured_ns >= after.captured_ns:
        return after
    share = (frame.captured_ns - before.captured_ns) / span
    nearer = before if share < 0.5 else after
    if not _show_the_same(before, after):
        return replace(nearer, drawn=None)
    maps = [_between(one, other, share) for one, other in zip(before.cams, after.cams, strict=True)]
    ranges = (1.0 - share) * _ranges(before) + share * _ranges(after)
    targets = tuple(
        replace(one, probability=(1.0 - share) * one.probability + share * other.probability)
        for one, other in zip(before.targets, after.targets, strict=True)
    )
    mixed = {target.index: target for target in targets}
    return replace(
        nearer,
        # A picture would show two figures for one class otherwise.
        predictions=tuple(mixed.get(one.index, one) for one in nearer.predictions),
        targets=targets,
        cams=np.stack(maps),
        ranges=ranges.astype(np.float32),
        captured_ns=frame.captured_ns,
        explained_ns=after.explained_ns,
        between_frames=(before.frame_index, after.frame_index),
        features=None,
        drawn=None,
    )


def _show_the_same(one: Explanation, other: Explanation) -> bool:
    return (
        [target.index for target in one.targets] == [target.index for target in other.targets]
        and one.contrast == other.contrast
        and all(one.others(n) == other.others(n) for n in range(len(one.targets)))
        and one.cams.shape == other.cams.shape
        and one.region == other.region
        and one.frame_size_hw == other.frame_size_hw
        and bool(np.isfinite(one.cams).all() and np.isfinite(other.cams).all())
    )


def _ranges(explanation: Explanation) -> FloatArray:
    """(n_targets, 2): the values drawn as cold and as hot."""
    if explanation.ranges is not None:
        return explanation.ranges
    flat = explanation.cams.reshape(len(explanation.cams), -1)
    return np.stack([flat.min(axis=1), flat.max(axis=1)], axis=1)


def _between(one: FloatArray, other: FloatArray, share: float) -> FloatArray:
    """(h, w) float32."""
    step = _step_xy(one, other)
    if step is None:
        return (1.0 - share) * one + share * other
    forward = _shifted(one, share * step[0], share * step[1])
    back = _shifted(other, (share - 1.0) * step[0], (share - 1.0) * step[1])
    return (1.0 - share) * forward + share * back


def _step_xy(one: FloatArray, other: FloatArray) -> tuple[float, float] | None:
    """How far the hot region moves, in cells; None if the maps are not more alike for it."""
    first, second = _hot_middle_xy(one), _hot_middle_xy(other)
    if first is None or second is None:
        return None
    step = second[0] - first[0], second[1] - first[1]
    moved = _shifted(one, *step)
    if float(np.abs(moved - other).mean()) >= float(np.abs(one - other).mean()):
        return None
    return step


def _hot_middle_xy(cam: FloatArray) -> tuple[float, float] | None:
    """The hot region's centre of mass, in cells; None for a map without relief."""
    low, high = float(cam.min()), float(cam.max())
    if not high > low:
        return None
    weight = np.maximum((cam - low) / (high - low) - _HOT, 0.0)
    rows, columns = np.mgrid[: cam.shape[0], : cam.shape[1]]
    total = float(weight.sum())
    return float((columns * weight).sum()) / total, float((rows * weight).sum()) / total


def _shifted(cam: FloatArray, right: float, down: float) -> FloatArray:
    """Moved by a number of cells, bilinear; the edge's values move in."""
    matrix = np.array([[1.0, 0.0, right], [0.0, 1.0, down]])
    size = (cam.shape[1], cam.shape[0])
    moved = cv2.warpAffine(
        np.ascontiguousarray(cam, np.float32), matrix, size,
        flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE,
    )  # fmt: skip
    return np.asarray(moved, np.float32)
