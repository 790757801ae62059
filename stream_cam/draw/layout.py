"""The specification of a layout, and the scene that a layout draws."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2

from stream_cam.config import LayoutName
from stream_cam.draw.hud import HudStatus, draw_hud
from stream_cam.draw.overlay import draw_heatmap, draw_overlay
from stream_cam.frame import BgrImage, Explanation
from stream_cam.settings import SettingsSnapshot


def label_picture(picture_bgr: BgrImage, scene: Scene) -> None:
    """Draws the HUD on the whole picture, in place."""
    if scene.explanation is not None:
        draw_hud(picture_bgr, scene.explanation, scene.status, scene.settings.look.colormap)


@dataclass(frozen=True)
class Layout:
    """One layout: the size of its picture, how it is drawn, and the maps that it needs."""

    name: LayoutName
    draw: Callable[[Scene], BgrImage]
    """Makes the picture without labels, (H, W, 3) uint8. Its size depends on the frame's size and
    the number of maps alone, so that a video keeps its size before the first map."""
    label: Callable[[BgrImage, Scene], None] = label_picture
    """Draws the HUD on such a picture, in place."""
    caption: Callable[[BgrImage, Scene], None] | None = None
    """Draws the names of maps that stand side by side, in place. None: there is one map."""
    n_maps: int = 1
    """The least number of maps of one frame. Several targets need more: a layout of one map then
    gives way to the grid, any other draws them all."""
    panels: bool = False
    """Each map is drawn on a smaller copy of the frame; else the first map on the frame."""
    map_only: bool = False
    """The map is drawn alone, without the frame under it."""
    has_divider: bool = False
    """The divider's left side shows the frame without its map."""


@dataclass(frozen=True)
class Scene:
    """Everything that a layout draws of one frame."""

    image_bgr: BgrImage
    """(H, W, 3) uint8: the frame; layouts leave it as it is."""
    explanation: Explanation | None
    """None before the first explanation of live video."""
    n_maps: int
    settings: SettingsSnapshot
    status: HudStatus
    layout: Layout
    pictures_bgr: Sequence[BgrImage] | None = None
    """The maps as a GPU has drawn them already, each on its canvas."""

    def draw_map(self, number: int, canvas_bgr: BgrImage) -> BgrImage:
        """One map on its canvas, in an array that may be written to.

        Args:
            number: which of the explanation's maps.
            canvas_bgr: the frame, or a smaller copy of it.
        """
        if self.pictures_bgr is not None:
            return self.pictures_bgr[number]
        explanation, opacity, look = self.explanation, self.status.map_opacity, self.settings.look
        if explanation is None or opacity == 0.0 or not self.settings.cam:
            return canvas_bgr.copy()
        if not self.layout.map_only:
            return draw_overlay(canvas_bgr, explanation, look, target=number, opacity=opacity)
        heat = draw_heatmap(canvas_bgr, explanation, look, target=number)
        cv2.addWeighted(heat, opacity, canvas_bgr, 1.0 - opacity, 0.0, heat)
        return heat
