"""Predictions as rows: one a frame, in JSON Lines or CSV, written as they come.

Version 1 of the schema; in CSV the lists are columns of their own (`top1_label`, `box_x0`, …):

    v                 1
    frame             position of the frame in its source, from 0
    time              seconds, the frame's presentation time
    explained_frame   the frame that the rest is of: the same one, or an earlier one where live
                      frames come faster than the network runs
    label, index, probability
                      the class whose map is shown; softmax over all classes
    peak              [x, y] in frame pixels: the middle of the map's highest cell
    box               [x0, y0, x1, y1] in frame pixels: the region at the peak hotter than half;
                      null where the map has no relief
    top               the five best classes: {"label", "index", "probability"}, best first
"""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any, Final

from stream_cam.errors import SinkError
from stream_cam.frame import Explanation, Frame, Prediction
from stream_cam.results.hot import hot_box
from stream_cam.sinks.base import Picture, Sink

VERSION: Final = 1
_N_TOP: Final = 5
_BOX: Final = ("box_x0", "box_y0", "box_x1", "box_y1")
_PREDICTION: Final = ("label", "index", "probability")


class PredictionsSink(Sink):
    """Writes a row a frame; each row is in the file as a whole as soon as it is written.

    Args:
        path: `.jsonl` or `.csv`; replaced if it is there.
    """

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self._path = path
        self._file: io.RawIOBase | None = None

    def write(self, picture: Picture) -> bool:
        if picture.explanation is None:
            return True
        row = row_of(picture.frame, picture.explanation)
        as_csv = self._path.suffix.lower() == ".csv"
        try:
            if self._file is None:
                # Unbuffered: a row is one write, so that a kill leaves whole rows.
                self._file = self._path.open("wb", buffering=0)
                if as_csv:
                    self._file.write(_csv_line(list(_flat(row))))
            text = _csv_line(list(_flat(row).values())) if as_csv else _json_line(row)
            self._file.write(text)
        except OSError as error:
            raise SinkError(f"{self.name} cannot be written: {error.strerror}") from error
        return True

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def row_of(frame: Frame, explanation: Explanation) -> dict[str, Any]:
    """One row, as it is in JSON."""
    box = hot_box(explanation)
    return {
        "v": VERSION,
        "frame": frame.index,
        "time": round(frame.pts_seconds, 6),
        "explained_frame": explanation.frame_index,
        **_as_json(explanation.targets[0]),
        "peak": [round(value, 1) for value in explanation.peak_xy()],
        "box": None if box is None else [round(value, 1) for value in box],
        "top": [_as_json(prediction) for prediction in explanation.predictions[:_N_TOP]],
    }


def _as_json(prediction: Prediction) -> dict[str, Any]:
    return {
        "label": prediction.label,
        "index": prediction.index,
        "probability": round(prediction.probability, 6),
    }


def _json_line(row: dict[str, Any]) -> bytes:
    return (json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n").encode()


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    """The row as columns, always the same ones."""
    lists = ("peak", "box", "top")
    columns = {name: value for name, value in row.items() if name not in lists}
    columns |= dict(zip(("peak_x", "peak_y"), row["peak"], strict=True))
    columns |= dict(zip(_BOX, row["box"] or [""] * 4, strict=True))
    for place in range(_N_TOP):
        best = row["top"][place] if place < len(row["top"]) else dict.fromkeys(_PREDICTION, "")
        columns |= {f"top{place + 1}_{name}": best[name] for name in _PREDICTION}
    return columns


def _csv_line(values: list[Any]) -> bytes:
    line = io.StringIO()
    csv.writer(line).writerow(values)
    return line.getvalue().encode()
