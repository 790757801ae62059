"""Layouts with one map as large as the frame: overlay, heatmap, side."""

from __future__ import annotations

import numpy as np

from stream_cam.draw.hud import draw_hud
from stream_cam.draw.layout import Layout, Scene
from stream_cam.frame import BgrImage


def _draw_map(scene: Scene) -> BgrImage:
    picture, explanation = scene.draw_map(0, scene.image_bgr), scene.explanation
    if explanation is not None:
        if scene.settings.cam and scene.layout.has_divider:
            _divide(picture, scene.image_bgr, scene.settings.divider)
        if scene.settings.look.hud:
            draw_hud(picture, explanation, scene.status, scene.settings.look.colormap)
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


OVERLAY = Layout("overlay", _draw_map, has_divider=True)
HEATMAP = Layout("heatmap", _draw_map, map_only=True, has_divider=True)
SIDE = Layout("side", _draw_side)
