"""Tiles as JPEG, each in the width that it is shown in; encoded once for all viewers."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass

import cv2

from stream_cam.cameras.tile import Tile
from stream_cam.cameras.wall_picture import shrunk

_STEP = 80
"""Widths are rounded up to this: viewers with windows of nearly one size share a picture."""
_SMALLEST, _LARGEST = 160, 1920
_KEPT_WIDTHS = 4


@dataclass(frozen=True, slots=True)
class TileJpeg:
    """One picture of a tile, as all viewers with tiles of this size get it."""

    number: int
    """Counts the tile's pictures from 1."""
    jpeg: bytes
    label: str | None
    """The class whose map it shows; None: it shows none."""
    probability: float


class TileJpegs:
    """The newest JPEG of one tile in each width that is asked for; any thread.

    Args:
        tile: its newest picture.
        quality: 1..100.
    """

    def __init__(self, tile: Tile, quality: int) -> None:
        self._tile, self._quality = tile, quality
        self._lock = threading.Lock()
        self._kept: OrderedDict[int, TileJpeg] = OrderedDict()
        self.encoded = 0
        """How many pictures were encoded."""

    def jpeg(self, width: int) -> TileJpeg | None:
        """The newest picture, about as wide as asked, never enlarged; None before the first one."""
        width = min(_LARGEST, max(_SMALLEST, -(-width // _STEP) * _STEP))
        with self._lock:
            number, picture = self._tile.shown, self._tile.newest
            if picture is None:
                return None
            kept = self._kept.get(width)
            if kept is not None and kept.number == number:
                return kept
            image = shrunk(picture.labelled(False), 10 * width, width)
            coded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, self._quality])[1]
            best = picture.explanation.targets[0] if picture.explanation is not None else None
            label, probability = (best.label, best.probability) if best else (None, 0.0)
            found = TileJpeg(number, coded.tobytes(), label, round(probability, 4))
            self.encoded += 1
            self._kept[width] = found
            self._kept.move_to_end(width)
            if len(self._kept) > _KEPT_WIDTHS:
                self._kept.popitem(last=False)
            return found
