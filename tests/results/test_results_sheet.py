"""The contact sheet: the best moments, in order of time, and no empty cell."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from stream_cam.errors import SinkError
from stream_cam.frame import BgrImage, Explanation, Frame, Prediction, Region, Truth
from stream_cam.results.sheet import SheetSink
from stream_cam.sinks.base import Picture

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


def sheet_of(path: Path, moments: list[Picture], n_moments: int = 6) -> None:
    with SheetSink(path, n_moments, captions=False) as sink:
        for picture in moments:
            assert sink.write(picture)


def test_best_moment_of_each_time_a_class_is_shown_in_order_of_time(tmp_path: Path) -> None:
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
    assert cells(path, 3) == [10, 20, 30]


def test_each_class_comes_before_a_second_moment_of_another(tmp_path: Path) -> None:
    path = tmp_path / "sheet.png"
    seen = [("star", 0.9), ("heart", 0.4), ("star", 0.8), ("heart", 0.3), ("cross", 0.1)]
    pictures = [moment(name, p, n, 10 * (n + 1)) for n, (name, p) in enumerate(seen)]
    sheet_of(path, pictures, 3)
    assert cells(path, 3) == [10, 20, 50]


def test_long_videos_keep_a_bounded_number_of_candidates(tmp_path: Path) -> None:
    path = tmp_path / "sheet.png"
    pictures = [moment(f"class {n % 50}", n / 1000, n, n // 4) for n in range(1000)]
    with SheetSink(path, 4, captions=False) as sink:
        for picture in pictures:
            sink.write(picture)
        assert len(sink._moments) == 36
    assert cells(path, 2) == [249] * 4


def test_captions_are_below_the_pictures(tmp_path: Path) -> None:
    path = tmp_path / "sheet.jpg"
    with SheetSink(path) as sink:
        sink.write(moment("star", 0.5, 3723, 10))
        sink.write(moment("heart", 0.9, 3730, 20))
    sheet = cv2.imread(str(path))
    assert sheet is not None
    height = CELL_WIDTH * 36 // 64
    assert sheet.shape[0] > height
    assert sheet.shape[1] == 2 * CELL_WIDTH
    assert sheet[: height - 4].max() < 30
    assert sheet[height:, : CELL_WIDTH // 2].max() > 200
    assert sheet[height:, -CELL_WIDTH // 4 :].max() > 200


def test_frames_with_nothing_in_them_can_be_left_out(tmp_path: Path) -> None:
    star = moment("star", 0.9, 0, 10)
    frame = Frame(np.zeros((36, 64, 3), np.uint8), 0, 0, Fraction(1), 0)
    empty = Picture(star.image_bgr, frame, star.explanation)
    for only in (True, False):
        with SheetSink(tmp_path / f"{only}.png", only_with_truth=only) as sink:
            sink.write(empty)
    assert [entry.name for entry in tmp_path.iterdir()] == ["False.png"]


def test_sizes_that_change_share_one_grid(tmp_path: Path) -> None:
    path, other = tmp_path / "sheet.png", moment("heart", 0.9, 1, 20)
    wide = Picture(np.full((10, 64, 3), 20, np.uint8), other.frame, other.explanation)
    sheet_of(path, [moment("star", 0.5, 0, 10), wide])
    assert cells(path, 2) == [10, 20]


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


def test_captions_of_pictures_are_their_names(tmp_path: Path) -> None:
    """Two pictures that differ in nothing but their name have two captions."""
    sheets = []
    for name in ("cat.jpg", "dog.jpg", None, None):
        path = tmp_path / "sheet.png"
        shown = moment("cat", 0.5, 1, 100)
        with SheetSink(path) as sink:
            frame = replace(shown.frame, name=name)
            sink.write(Picture(shown.image_bgr, frame, shown.explanation))
        sheets.append(path.read_bytes())
    assert len({*sheets}) == 3
