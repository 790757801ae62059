"""A contact sheet: the best moments in one picture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import numpy as np

from stream_cam.atomic_files import write_atomic
from stream_cam.draw.hud import captioned
from stream_cam.errors import SinkError
from stream_cam.frame import BgrImage
from stream_cam.results.time_text import time_text
from stream_cam.sinks.base import Picture, Sink

_CELL_WIDTH: Final = 640
_COLUMNS: Final = {1: 1, 2: 2, 3: 3, 4: 2, 6: 3, 8: 4, 9: 3, 12: 4}
"""Moments → columns; of five moments, the four best are shown, so that no cell stays empty."""
_MOST_KEPT: Final = 36
"""Candidates in memory, 25 MB of 16:9 cells, however long the video is."""


@dataclass(slots=True)
class _Moment:
    label: str
    probability: float
    pts_seconds: float
    when: str
    """Its time in a video, or the picture's name."""
    image_bgr: BgrImage


class SheetSink(Sink):
    """Keeps the most certain frame of each span of a class; draws the sheet on closing.

    Each class's best moment comes before a second one of the same class, then the more certain
    before the less; on the sheet they are in order of time.

    Args:
        path: a picture file; replaced if it is there.
        n_moments: at most so many; a number for which there is a grid: 1 to 4, 6, 8, 9 or 12.
        captions: write time or name, label and probability below each.
        only_with_truth: leave out frames of which the source says that nothing is in them.
    """

    def __init__(
        self,
        path: Path,
        n_moments: int = 12,
        *,
        captions: bool = True,
        only_with_truth: bool = False,
    ) -> None:
        self.path = path
        self.name = str(path)
        self._n_moments = n_moments
        self._captions = captions
        self._only_with_truth = only_with_truth
        self._current: _Moment | None = None
        self._moments: list[_Moment] = []

    def write(self, picture: Picture) -> bool:
        explanation = picture.explanation
        if explanation is None or (self._only_with_truth and not picture.frame.truth):
            return True
        shown, current = explanation.targets[0], self._current
        if current is not None and current.label != shown.label:
            self._settle(current)
            current = None
        if current is None or shown.probability > current.probability:
            height, width = picture.image_bgr.shape[:2]
            size = (_CELL_WIDTH, max(1, round(height * _CELL_WIDTH / width)))
            small = cv2.resize(picture.image_bgr, size, interpolation=cv2.INTER_AREA)
            seconds = picture.frame.pts_seconds
            when = picture.frame.name or time_text(seconds)
            self._current = _Moment(
                shown.label, shown.probability, seconds, when, np.asarray(small, np.uint8)
            )
        return True

    def _settle(self, moment: _Moment) -> None:
        """Keeps the moment of a class that has ended."""
        self._moments = _best_first([*self._moments, moment])[:_MOST_KEPT]

    def close(self) -> None:
        if self._current is None:
            return
        best = _best_first([*self._moments, self._current])
        count = max(n for n in _COLUMNS if n <= min(len(best), self._n_moments))
        chosen = sorted(best[:count], key=lambda moment: moment.pts_seconds)
        # A picture of another size, after a reconnection, is squeezed into the grid.
        height = chosen[0].image_bgr.shape[0]
        cells = [self._cell(moment, height) for moment in chosen]
        ok, data = cv2.imencode(self.path.suffix, _grid(cells))
        if not ok:
            raise SinkError(f"{self.path} cannot be encoded")
        try:
            write_atomic(self.path, data.tobytes())
        except OSError as error:
            raise SinkError(f"{self.path} cannot be written: {error.strerror}") from error

    def _cell(self, moment: _Moment, height: int) -> BgrImage:
        image = moment.image_bgr
        if image.shape[0] != height:
            image = np.asarray(cv2.resize(image, (_CELL_WIDTH, height)), np.uint8)
        if not self._captions:
            return image
        right = f"{100 * moment.probability:.0f} %"
        return captioned(image, f"{moment.when}  {moment.label}", right)


def _best_first(moments: list[_Moment]) -> list[_Moment]:
    ordered = sorted(moments, key=lambda moment: -moment.probability)
    seen: set[str] = set()
    firsts: list[_Moment] = []
    others: list[_Moment] = []
    for moment in ordered:
        (others if moment.label in seen else firsts).append(moment)
        seen.add(moment.label)
    return firsts + others


def _grid(cells: list[BgrImage]) -> BgrImage:
    height, width = cells[0].shape[:2]
    columns = _COLUMNS[len(cells)]
    rows = len(cells) // columns
    sheet = np.zeros((rows * height, columns * width, 3), np.uint8)
    for number, cell in enumerate(cells):
        row, column = divmod(number, columns)
        sheet[row * height : (row + 1) * height, column * width : (column + 1) * width] = cell
    return sheet
