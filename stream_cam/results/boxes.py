"""The box around a map's hot region."""

from __future__ import annotations

import cv2
import numpy as np

from stream_cam.cam.cpu import scale_cam
from stream_cam.frame import Explanation

_FINE = 16
"""Points along a cell's side: a box is exact to a sixteenth of a cell."""


def hot_box(
    explanation: Explanation, target: int = 0, threshold: float = 0.5
) -> tuple[float, float, float, float] | None:
    """The box around the connected region at the map's peak that is hotter than a threshold.

    Args:
        explanation: of the frame.
        target: which of its maps.
        threshold: of the heat, 0..1: the map scaled by its own minimum and maximum, upsampled
            bilinearly.

    Returns:
        Left, top, right, bottom in frame pixels; None where the map has no relief, or where its
        peak lies outside of the frame.
    """
    heat = scale_cam(explanation.cams[target])
    if not heat.any():
        return None
    height, width = heat.shape
    fine = cv2.resize(heat, (width * _FINE, height * _FINE), interpolation=cv2.INTER_LINEAR)
    peak = np.unravel_index(int(fine.argmax()), fine.shape)
    _, regions, boxes, _ = cv2.connectedComponentsWithStats((fine >= threshold).astype(np.uint8))
    left, top, wide, high = (int(side) for side in boxes[regions[peak]][:4])
    region, (frame_h, frame_w) = explanation.region, explanation.frame_size_hw
    per_x = (region.x1 - region.x0) / fine.shape[1]
    per_y = (region.y1 - region.y0) / fine.shape[0]
    x0, x1 = (region.x0 + per_x * at for at in (left, left + wide))
    y0, y1 = (region.y0 + per_y * at for at in (top, top + high))
    x0, x1 = max(0.0, x0), min(float(frame_w), x1)
    y0, y1 = max(0.0, y0), min(float(frame_h), y1)
    return (x0, y0, x1, y1) if x1 > x0 and y1 > y0 else None
