"""Layouts with one map as large as the frame: overlay, heatmap, side."""

from __future__ import annotations

import numpy as np

from stream_cam.draw.layout import Layout, Scene, label_picture
from stream_cam.frame import BgrImage


def _draw_map(scene: Scene) -> BgrImage:
    picture = scene.draw_map(0, scene.image_bgr)
    if scene.explanation is not None and scene.settings.cam and scene.layout.has_divider:
        _divide(picture, scene.image_bgr, scene.settings.divider)
    return picture


def _divide(picture: BgrImage, image: BgrImage, divider: float) -> None:
    """Puts the frame itself left of the divider, and a white line between; in place."""
    width = image.shape[1]
    column = round(divider * width)
    if column > 0:
        picture[:, :column] = image[:, :column]
        thick = max(1, width // 640)
        picture[:, max(0, column - thick) : column + thick] = 255


def _draw_side(scene: Scene) -> BgrImage:
    return np.hstack([scene.image_bgr, _draw_map(scene)])


def _label_side(picture: BgrImage, scene: Scene) -> None:
    label_picture(picture[:, scene.image_bgr.shape[1] :], scene)


OVERLAY = Layout("overlay", _draw_map, has_divider=True)
HEATMAP = Layout("heatmap", _draw_map, map_only=True, has_divider=True)
SIDE = Layout("side", _draw_side, _label_side)
