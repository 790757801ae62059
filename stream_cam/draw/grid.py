"""The grid: the frame made smaller, and beside it each map on a panel of its own."""

from __future__ import annotations

import numpy as np

from stream_cam.cam.panels import panel_hw, panel_image
from stream_cam.config import N_PREDICTIONS
from stream_cam.draw.hud import draw_caption, draw_hud
from stream_cam.draw.layout import Layout, Scene
from stream_cam.frame import BgrImage

_COLUMNS = 3


def draw_grid(scene: Scene) -> BgrImage:
    """Frame and maps in rows of three; without an explanation the maps' cells are black."""
    grid, explanation = _Grid(scene.image_bgr, scene.n_maps), scene.explanation
    if explanation is None:
        return grid.picture
    canvas = grid.cell(0).copy()
    if scene.settings.look.hud:
        draw_hud(grid.cell(0), explanation, scene.status, scene.settings.look.colormap)
    for number, target in enumerate(explanation.targets):
        cell = grid.cell(number + 1)
        cell[:] = scene.draw_map(number, canvas)
        if scene.settings.look.hud:
            draw_caption(cell, target, scene.status)
    return grid.picture


class _Grid:
    """A black picture with cells of the panels' size, the frame in the first one."""

    def __init__(self, image: BgrImage, n_maps: int) -> None:
        self._height, self._width = panel_hw((image.shape[0], image.shape[1]))
        n_cells = 1 + n_maps
        rows, self._columns = -(-n_cells // _COLUMNS), min(n_cells, _COLUMNS)
        self.picture: BgrImage = np.zeros(
            (rows * self._height, self._columns * self._width, 3), np.uint8
        )
        panel_image(image, self.cell(0))

    def cell(self, number: int) -> BgrImage:
        """The part of the picture that is a cell, to write to."""
        row, column = divmod(number, self._columns)
        y, x = row * self._height, column * self._width
        return self.picture[y : y + self._height, x : x + self._width]


TOP5 = Layout("top5", draw_grid, n_maps=N_PREDICTIONS, panels=True)
