"""The grid: the frame made smaller, and beside it each map on a panel of its own."""

from __future__ import annotations

import numpy as np

from stream_cam.cam.panels import panel_hw, panel_image
from stream_cam.config import N_PREDICTIONS
from stream_cam.draw.hud import draw_caption
from stream_cam.draw.layout import Layout, Scene, label_picture
from stream_cam.frame import BgrImage

_COLUMNS = 3


def draw_grid(scene: Scene) -> BgrImage:
    """Frame and maps in rows of three; without an explanation the maps' cells are black."""
    grid, explanation = _Grid(scene.image_bgr, scene.n_maps), scene.explanation
    if explanation is None:
        return grid.picture
    for number in range(len(explanation.targets)):
        grid.cell(number + 1)[:] = scene.draw_map(number, grid.cell(0))
    return grid.picture


def _label_frame(picture: BgrImage, scene: Scene) -> None:
    label_picture(_Grid(scene.image_bgr, scene.n_maps, picture).cell(0), scene)


def _caption_maps(picture: BgrImage, scene: Scene) -> None:
    grid = _Grid(scene.image_bgr, scene.n_maps, picture)
    if scene.explanation is None:
        return
    for number in range(len(scene.explanation.targets)):
        draw_caption(grid.cell(number + 1), scene.explanation.shown(number), scene.status)


class _Grid:
    """A picture with cells of the panels' size; a new one is black, with the frame in the first."""

    def __init__(self, image: BgrImage, n_maps: int, picture: BgrImage | None = None) -> None:
        self._height, self._width = panel_hw((image.shape[0], image.shape[1]))
        n_cells = 1 + n_maps
        rows, self._columns = -(-n_cells // _COLUMNS), min(n_cells, _COLUMNS)
        if picture is not None:
            self.picture = picture
            return
        shape = rows * self._height, self._columns * self._width, 3
        self.picture = np.zeros(shape, np.uint8)
        panel_image(image, self.cell(0))

    def cell(self, number: int) -> BgrImage:
        """The part of the picture that is a cell, to write to."""
        row, column = divmod(number, self._columns)
        y, x = row * self._height, column * self._width
        return self.picture[y : y + self._height, x : x + self._width]


TOP5 = Layout("top5", draw_grid, _label_frame, _caption_maps, n_maps=N_PREDICTIONS, panels=True)
