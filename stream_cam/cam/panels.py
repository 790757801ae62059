"""The frame made smaller, for layouts that show several maps of it."""

from __future__ import annotations

import cv2
import numpy as np

from stream_cam.frame import BgrImage

_SCALE = 0.5
_MIN_SIDE = 160
"""Panels of small frames are not made so small that their labels cannot be read."""


def panel_hw(frame_hw: tuple[int, int]) -> tuple[int, int]:
    """Height and width of a frame's panels."""
    scale = _scale(frame_hw)
    return max(1, round(frame_hw[0] * scale)), max(1, round(frame_hw[1] * scale))


def panel_image(image: BgrImage, out: BgrImage) -> None:
    """Writes the frame, made smaller, to an array of `panel_hw`."""
    if _scale((image.shape[0], image.shape[1])) == 1.0:
        out[:] = image
        return
    size = (out.shape[1], out.shape[0])
    out[:] = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def _scale(frame_hw: tuple[int, int]) -> float:
    return min(1.0, max(_SCALE, _MIN_SIDE / min(frame_hw)))
