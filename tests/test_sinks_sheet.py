"""The contact sheet: the best moment of each class, in order of time, and no empty cell."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from stream_cam.errors import SinkError
from stream_cam.frame import BgrImage, Explanation, Frame, Prediction, Region, Truth
from stream_cam.sinks.base import Picture
from stream_cam.sinks.sheet import SheetSink

CELL_WIDTH = 640


def moment(label: str, probability: float, second: int, level: int) -> Picture:
    """A plain picture of a grey level, shown as a class of some probability."""
    image: BgrImage = np.full((36, 64, 3), level, np.uint8)
    shown = Prediction(label, 0, probability)
    frame = Frame(image, second, second, Fraction(1), 0, (Truth(label, (0, 0, 1, 1)),))
    explanation = Explanation(
        logits=np.zeros(2, np.float32),
        predictions=(shown,),
        targets=(shown,),
        cams=np.zeros((1, 7, 7), np.float32),
        region=Region(0, 0, 64, 36),
        frame_size_hw=(36, 64),
        frame_index=second,
        pts_seconds=float(second),
        captured_ns=0,
        explained_ns=0,
    )
    return Picture(image, frame, explanation)


def cells(path: Path, columns: int) -> list[int]:
    """The grey level of each cell, row by row."""
    sheet = cv2.imread(str(path))
    assert sheet is not None
    assert sheet.shape[1] == columns * CELL_WIDTH
    assert sheet.shape[0] % (CELL_WIDTH * 36 // 64) == 0
    centres = sheet[CELL_WIDTH * 36 // 128 :: CELL_WIDTH * 36 // 64, CELL_WIDTH // 2 :: CELL_WIDTH]
    return [int(level) for level in centres[..., 0].ravel()]


def sheet_of(path: Path, moments: list[Picture]) -> None:
    with SheetSink(path) as sink:
        for picture in moments:
            assert sink.write(picture)


def test_best_moment_of_each_class_in_order_of_time(tmp_path: Path) -> None:
    path = tmp_path / "sheet.png"
    sheet_of(
        path,
        [
            moment("star", 0.5, 0, 10),
            moment("heart", 0.9, 1, 20),
            moment("star", 0.8, 2, 30),
            moment("star", 0.7, 3, 40),
        ],
    )
    assert cells(path, 2) == [20, 30]


@pytest.mark.parametrize(
    ("n_classes", "columns", "n_shown"),
    [(1, 1, 1), (3, 3, 3), (4, 2, 4), (5, 2, 4), (6, 3, 6), (9, 3, 6)],
)
def test_no_cell_is_empty_and_the_least_certain_are_left_out(
    tmp_path: Path, n_classes: int, columns: int, n_shown: int
) -> None:
    path = tmp_path / "sheet.png"
    pictures = [moment(f"class {n}", 0.95 - n / 20, n, 10 * (n + 1)) for n in range(n_classes)]
    sheet_of(path, pictures)
    assert cells(path, columns) == [10 * (n + 1) for n in range(n_shown)]
    assert [entry.name for entry in tmp_path.iterdir()] == ["sheet.png"]


def test_nothing_shown_writes_nothing(tmp_path: Path) -> None:
    sheet_of(tmp_path / "sheet.png", [])
    assert not list(tmp_path.iterdir())


def test_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SinkError, match=r"sheet\.png cannot be written"):
        sheet_of(tmp_path / "absent" / "sheet.png", [moment("star", 0.5, 0, 10)])
