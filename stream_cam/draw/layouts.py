"""Layouts: what a viewer sees of a frame and its explanation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np

from stream_cam.cam.panels import panel_hw, panel_image
from stream_cam.config import N_PREDICTIONS, Layout, LookConfig
from stream_cam.draw.hud import HudStatus, draw_caption, draw_hud
from stream_cam.explain.explainer import Explainer
from stream_cam.frame import BgrImage, Explanation, Frame

_PANEL_COLUMNS = 3
"""Of the `top5` layout: the frame and five maps, in two rows."""


class Renderer:
    """Makes finished pictures of frames and explanations; not for two threads at once.

    Args:
        explainer: whose explanations are drawn.
        layout: `overlay`, `side`, `heatmap` or `top5`.
        hud: draw labels, bars and rates.
        n_targets: classes chosen by the user; of several, each gets a panel with its own map.
    """

    def __init__(
        self,
        explainer: Explainer,
        layout: Layout = "overlay",
        *,
        hud: bool = True,
        n_targets: int = 1,
    ) -> None:
        self._explainer = explainer
        self._n_targets = n_targets
        self.look = replace(explainer.look, layout=layout, hud=hud)
        """How it draws; may be replaced between two pictures."""
        self.cam = True
        """Whether maps are drawn; without, the frame stands where the map would be."""
        self.divider = 0.0
        """So much of the picture, from the left, is left without its map."""

    @property
    def layout(self) -> Layout:
        return self.look.layout

    @property
    def n_maps(self) -> int:
        """How many maps an explanation must hold to be drawn."""
        return self.n_maps_of(self.layout, self._n_targets)

    def n_maps_of(self, layout: Layout, n_targets: int) -> int:
        """The same for another layout, and another number of classes chosen by the user."""
        wanted = max(N_PREDICTIONS if layout == "top5" else 1, n_targets)
        return min(wanted, len(self._explainer.labels))

    def show(self, look: LookConfig, *, cam: bool, n_targets: int, divider: float = 0.0) -> None:
        """Draws so from the next picture on."""
        self.look, self.cam, self._n_targets = look, cam, max(1, n_targets)
        self.divider = divider

    def render(
        self, frame: Frame, explanation: Explanation | None, status: HudStatus | None = None
    ) -> BgrImage:
        """One finished picture, (H, W, 3) uint8 BGR; its size depends on the layout.

        Without an explanation (live video before the first one) the frame stands where the map
        would be, so that the picture keeps its size; into that a map fades that becomes too old.
        """
        image = frame.image_bgr
        status = status or HudStatus()
        if explanation is None:
            return self._unexplained(image)
        if self.layout == "top5" or len(explanation.cams) > 1:
            return self._panels(image, explanation, status)
        drawn = self._drawn(image, explanation, status)
        picture = drawn[0] if drawn else self._mapped(image, explanation, 0, status.map_opacity)
        if self.cam and self.layout in ("overlay", "heatmap"):
            _divide(picture, image, self.divider)
        if self.look.hud:
            draw_hud(picture, explanation, status)
        if self.layout == "side":
            return np.hstack([image, picture])
        return picture

    def _mapped(
        self, image: BgrImage, explanation: Explanation, target: int, opacity: float
    ) -> BgrImage:
        """The image with a map on it, or the map alone, in a new array."""
        if opacity == 0.0 or not self.cam:
            return image.copy()
        if self.layout != "heatmap":
            return self._explainer.overlay(
                image, explanation, target=target, opacity=opacity, look=self.look
            )
        heat = self._explainer.heatmap(image, explanation, target=target, look=self.look)
        cv2.addWeighted(heat, opacity, image, 1.0 - opacity, 0.0, heat)
        return heat

    def _drawn(
        self, image: BgrImage, explanation: Explanation, status: HudStatus
    ) -> Sequence[BgrImage] | None:
        """The maps as a GPU has drawn them with the explanation, if that is how they look now."""
        if explanation.drawn is None:
            return None
        panels = self.layout == "top5" or len(explanation.cams) > 1
        drawn = explanation.drawn.take(image, self.look, panels)
        return drawn if self.cam and status.map_opacity == 1.0 else None

    def _unexplained(self, image: BgrImage) -> BgrImage:
        if self.n_maps > 1:
            return _Panels(image, self.n_maps).picture
        return np.hstack([image, image]) if self.layout == "side" else image

    def _panels(self, image: BgrImage, explanation: Explanation, status: HudStatus) -> BgrImage:
        panels = _Panels(image, len(explanation.cams))
        small = panels.view(0).copy()
        drawn = self._drawn(image, explanation, status)
        if self.look.hud:
            draw_hud(panels.view(0), explanation, status)
        for number, target in enumerate(explanation.targets):
            view = panels.view(number + 1)
            if drawn:
                view[:] = drawn[number]
            else:
                view[:] = self._mapped(small, explanation, number, status.map_opacity)
            if self.look.hud:
                draw_caption(view, target, status)
        return panels.picture


def _divide(picture: BgrImage, image: BgrImage, divider: float) -> None:
    """Before and after: the frame itself up to the divider, then a line."""
    width = image.shape[1]
    column = round(divider * width)
    if column > 0:
        picture[:, :column] = image[:, :column]
        thick = max(1, width // 640)
        picture[:, max(0, column - thick) : column + thick] = 255


class _Panels:
    """The frame made smaller in the first cell of a black grid, and room for its maps."""

    def __init__(self, image: BgrImage, n_maps: int) -> None:
        self._height, self._width = panel_hw((image.shape[0], image.shape[1]))
        n_cells = 1 + n_maps
        rows, self._columns = -(-n_cells // _PANEL_COLUMNS), min(n_cells, _PANEL_COLUMNS)
        self.picture: BgrImage = np.zeros(
            (rows * self._height, self._columns * self._width, 3), np.uint8
        )
        panel_image(image, self.view(0))

    def view(self, cell: int) -> BgrImage:
        """The part of the picture that is a cell, to write to."""
        row, column = divmod(cell, self._columns)
        y, x = row * self._height, column * self._width
        return self.picture[y : y + self._height, x : x + self._width]
