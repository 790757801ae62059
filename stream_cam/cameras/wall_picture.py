"""All tiles in one picture, for a window or a recording."""

from __future__ import annotations

import math

import cv2
import numpy as np

from stream_cam.cameras.camera import Camera
from stream_cam.cameras.cameras import Cameras
from stream_cam.draw.hud import with_note
from stream_cam.frame import BgrImage

_SIZE_HW = (1080, 1920)
_GAP = 4
_OFF_STATES = ("away", "failed", "ended", "stopped", "waiting", "starting")


def grid(n_tiles: int) -> tuple[int, int]:
    """Rows and columns for so many 16:9 tiles on a 16:9 wall."""
    columns = max(1, math.ceil(math.sqrt(n_tiles)))
    return max(1, math.ceil(n_tiles / columns)), columns


class WallPicture:
    """Draws the wall; used by one thread.

    Args:
        cameras: the tiles, in their order.
        size_hw: of the picture, in pixels.
    """

    def __init__(self, cameras: Cameras, size_hw: tuple[int, int] = _SIZE_HW) -> None:
        self._cameras = cameras
        self._size_hw = size_hw

    def draw(self) -> BgrImage:
        """(H, W, 3) uint8: every camera's newest picture with its name, class and state."""
        height, width = self._size_hw
        wall: BgrImage = np.full((height, width, 3), 16, np.uint8)
        cameras = self._cameras.all
        rows, columns = grid(len(cameras))
        cell_hw = height // rows - _GAP, width // columns - _GAP
        for number, camera in enumerate(cameras):
            row, column = divmod(number, columns)
            y, x = row * (height // rows), column * (width // columns)
            tile = draw_tile(camera, cell_hw)
            top = y + (cell_hw[0] - tile.shape[0]) // 2
            left = x + (cell_hw[1] - tile.shape[1]) // 2
            wall[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
        return wall


def draw_tile(camera: Camera, cell_hw: tuple[int, int]) -> BgrImage:
    """A camera's newest picture inside of a cell, dimmed while the camera is away."""
    picture = camera.tile.newest
    if picture is None:
        image: BgrImage = np.full((*cell_hw, 3), 32, np.uint8)
    else:
        image = shrunk(picture.labelled(False), *cell_hw)
    state = camera.state
    if state in _OFF_STATES:
        image = (image // 2).astype(np.uint8)
    return with_note(image, [" · ".join(_said(camera, state))])


def _said(camera: Camera, state: str) -> list[str]:
    picture = camera.tile.newest
    parts = [camera.name]
    if picture is not None and picture.explanation is not None:
        best = picture.explanation.targets[0]
        parts.append(f"{best.label} {best.probability:.0%}")
    return parts if state == "live" else [camera.name, state]


def shrunk(image_bgr: BgrImage, height: int, width: int) -> BgrImage:
    """The whole picture, in its own shape, in at most this size; never enlarged."""
    scale = min(height / image_bgr.shape[0], width / image_bgr.shape[1], 1.0)
    if scale == 1.0:
        return image_bgr.copy()
    size_wh = (
        max(1, round(image_bgr.shape[1] * scale)),
        max(1, round(image_bgr.shape[0] * scale)),
    )
    return np.asarray(cv2.resize(image_bgr, size_wh, interpolation=cv2.INTER_AREA), np.uint8)
