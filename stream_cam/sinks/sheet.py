"""A contact sheet: the most certain moment of each of several classes, in one picture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from stream_cam.errors import SinkError
from stream_cam.frame import BgrImage
from stream_cam.sinks.base import Picture, Sink
from stream_cam.whole import write_whole

_CELL_WIDTH = 640
_COLUMNS = {1: 1, 2: 2, 3: 3, 4: 2, 6: 3}
"""Moments → columns; of five moments, the four best are shown, so that no cell stays empty."""


@dataclass(slots=True)
class _Moment:
    probability: float
    pts_seconds: float
    image_bgr: BgrImage


class SheetSink(Sink):
    """Keeps the best picture of each shown class, and writes the sheet on closing.

    Args:
        path: a picture file; replaced if it is there.
        n_moments: at most so many of the classes shown most certainly; in order of time on the
            sheet. A number for which there is a grid: 1 to 4, or 6.
    """

    def __init__(self, path: Path, n_moments: int = 6) -> None:
        self.path = path
        self.name = str(path)
        self._n_moments = n_moments
        self._moments: dict[str, _Moment] = {}

    def write(self, picture: Picture) -> bool:
        explanation = picture.explanation
        if explanation is None or not picture.frame.truth:
            return True
        best = explanation.targets[0]
        kept = self._moments.get(best.label)
        if kept is None or best.probability > kept.probability:
            height, width = picture.image_bgr.shape[:2]
            size = (_CELL_WIDTH, max(1, round(height * _CELL_WIDTH / width)))
            small = np.asarray(
                cv2.resize(picture.image_bgr, size, interpolation=cv2.INTER_AREA), np.uint8
            )
            time = picture.frame.pts_seconds
            self._moments[best.label] = _Moment(best.probability, time, small)
        return True

    def close(self) -> None:
        if not self._moments:
            return
        best = sorted(self._moments.values(), key=lambda moment: -moment.probability)
        count = max(n for n in _COLUMNS if n <= min(len(best), self._n_moments))
        chosen = sorted(best[:count], key=lambda moment: moment.pts_seconds)
        cells = [moment.image_bgr for moment in chosen]
        ok, data = cv2.imencode(".png", _grid(cells))
        if not ok:
            raise SinkError(f"{self.path} cannot be encoded")
        try:
            write_whole(self.path, data.tobytes())
        except OSError as error:
            raise SinkError(f"{self.path} cannot be written: {error.strerror}") from error


def _grid(cells: list[BgrImage]) -> BgrImage:
    height, width = cells[0].shape[:2]
    columns = _COLUMNS[len(cells)]
    rows = len(cells) // columns
    sheet = np.zeros((rows * height, columns * width, 3), np.uint8)
    for number, cell in enumerate(cells):
        row, column = divmod(number, columns)
        sheet[row * height : (row + 1) * height, column * width : (column + 1) * width] = cell
    return sheet
