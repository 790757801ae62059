"""Predictions as rows: one a frame, in JSON Lines, CSV or Parquet.

Version 3 of the schema; in CSV and Parquet the lists are columns of their own
(`top1_label`, `box_x0`, …):

    v                 3
    source            the picture's path as seen from the folder that is read; of a video its name
                      as it was given
    frame             position of the frame in its source, from 0
    time              seconds, the frame's presentation time
    explained_frame   the frame that the rest is of: the same one, or the nearest one that was
                      explained, where live frames come faster than the network runs
    between_frames    [first, last]: the map, its peak and its box are interpolated between the maps
                      of these frames; null where they are explained_frame's own
    method            cam, or grad-cam (head): the network's head is not linear, and the map is
                      Grad-CAM's before its ReLU
    against           the classes that the map is against (--against); empty for a plain map, in CSV
                      and Parquet one text with | between them
    label, index, probability
                      the class whose map is shown; softmax over all classes, or
                      the sigmoid of its own logit (--activation)
    peak              [x, y] in frame pixels: the middle of the map's highest cell
    box               [x0, y0, x1, y1] in frame pixels: the region at the peak hotter than half;
                      null where the map has no relief
    top               the five best classes: {"label", "index", "probability"}, best first
"""

from __future__ import annotations

import csv
import errno
import io
import json
import os
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any, Final

from stream_cam.config import N_PREDICTIONS
from stream_cam.errors import SinkError
from stream_cam.frame import Explanation, Frame, Prediction
from stream_cam.results.boxes import hot_box
from stream_cam.results.paths import part_of
from stream_cam.sinks.base import Picture, Sink
from stream_cam.uri import json_text, printable

VERSION: Final = 3
_BETWEEN: Final = ("between_first", "between_last")
_BOX: Final = ("box_x0", "box_y0", "box_x1", "box_y1")
_PREDICTION: Final = ("label", "index", "probability")
_PREDICTION_TYPES: Final = dict(zip(_PREDICTION, ("string", "int32", "double"), strict=True))
_COLUMN_TYPES: Final[dict[str, str]] = {
    **{
        "v": "int32",
        "source": "string",
        "frame": "int64",
        "time": "double",
        "explained_frame": "int64",
        "between_first": "int64",
        "between_last": "int64",
        "method": "string",
        "against": "string",
    },
    **_PREDICTION_TYPES,
    **dict.fromkeys(("peak_x", "peak_y", *_BOX), "double"),
    **{
        f"top{place}_{name}": kind
        for place in range(1, N_PREDICTIONS + 1)
        for name, kind in _PREDICTION_TYPES.items()
    },
}
_ROWS_AT_ONCE: Final = 10_000


class PredictionsSink(Sink):
    """Writes a row a frame; each row is in the file as a whole as soon as it is written.

    A Parquet file has its index at its end. Until it is closed its rows are in `name.part.jsonl`,
    and they stay there after a kill.

    Args:
        path: `.jsonl`, `.csv` or `.parquet`; replaced if it is there.
        source: its name, for frames that have none of their own.
    """

    def __init__(self, path: Path, source: str = "") -> None:
        self.name = str(path)
        self._source = source
        self._path = path
        self._rows_path = part_of(path) or path
        self._file: io.RawIOBase | None = None

    def write(self, picture: Picture) -> bool:
        if picture.explanation is None:
            return True
        row = row_of(picture.frame, picture.explanation, self._source)
        as_csv = self._path.suffix.lower() == ".csv"
        try:
            if self._file is None:
                # Unbuffered: each row is one write, so that a kill leaves whole rows.
                self._file = self._rows_path.open("wb", buffering=0)
                if as_csv:
                    self._put(_csv_line(list(_flat(row))))
            self._put(_csv_line(list(_flat(row).values())) if as_csv else _json_line(row))
        except OSError as error:
            raise SinkError(f"{self.name} cannot be written: {error.strerror}") from error
        return True

    def _put(self, row: bytes) -> None:
        """Writes the whole row or nothing, also on a full disk."""
        assert self._file is not None
        n_written = self._file.write(row) or 0
        if n_written < len(row):
            if n_written and self._file.seekable():
                self._file.truncate(self._file.seek(-n_written, os.SEEK_CUR))
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def close(self) -> None:
        if self._file is None:
            return
        self._file.close()
        self._file = None
        if self._rows_path != self._path:
            try:
                _write_parquet(self._rows_path, self._path)
                self._rows_path.unlink()
            except OSError as error:
                raise SinkError(
                    f"{self.name} cannot be written: {error.strerror or error}; its rows are in "
                    f"{self._rows_path}"
                ) from error


def row_of(frame: Frame, explanation: Explanation, source: str = "") -> dict[str, Any]:
    """One row, as it is in JSON; `source` is for a frame without a name of its own."""
    box = hot_box(explanation)
    return {
        "v": VERSION,
        "source": printable(frame.name or source),
        "frame": frame.index,
        "time": round(frame.pts_seconds, 6),
        "explained_frame": explanation.frame_index,
        "between_frames": explanation.between_frames,
        "method": explanation.method,
        "against": explanation.other_labels(),
        **_as_json(explanation.targets[0]),
        "peak": [round(value, 1) for value in explanation.peak_xy()],
        "box": None if box is None else [round(value, 1) for value in box],
        "top": [_as_json(prediction) for prediction in explanation.predictions[:N_PREDICTIONS]],
    }


def _as_json(prediction: Prediction) -> dict[str, Any]:
    return {
        "label": prediction.label,
        "index": prediction.index,
        "probability": round(prediction.probability, 6),
    }


def _json_line(row: dict[str, Any]) -> bytes:
    return f"{json_text(row)}\n".encode()


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    """The row as columns, the same ones for each row."""
    lists = ("between_frames", "against", "peak", "box", "top")
    columns = {name: value for name, value in row.items() if name not in lists}
    columns |= dict(zip(_BETWEEN, row["between_frames"] or [None] * 2, strict=True))
    columns["against"] = " | ".join(row["against"])
    columns |= dict(zip(("peak_x", "peak_y"), row["peak"], strict=True))
    columns |= dict(zip(_BOX, row["box"] or [None] * 4, strict=True))
    for place in range(N_PREDICTIONS):
        best = row["top"][place] if place < len(row["top"]) else dict.fromkeys(_PREDICTION)
        columns |= {f"top{place + 1}_{name}": best[name] for name in _PREDICTION}
    return {name: columns[name] for name in _COLUMN_TYPES}


def _write_parquet(rows: Path, path: Path) -> None:
    """Some thousand rows at a time, so that memory does not grow with the video."""
    import pyarrow as pa
    from pyarrow import parquet

    whole = path.with_name(f".{path.name}.part")
    schema = pa.schema([(name, pa.type_for_alias(kind)) for name, kind in _COLUMN_TYPES.items()])
    try:
        with rows.open(encoding="utf-8") as lines, parquet.ParquetWriter(whole, schema) as writer:
            while some := [_flat(json.loads(line)) for line in islice(lines, _ROWS_AT_ONCE)]:
                writer.write_table(pa.Table.from_pylist(some, schema))
        os.replace(whole, path)
    except BaseException:
        with suppress(OSError):
            whole.unlink()
        raise


def _csv_line(values: list[Any]) -> bytes:
    line = io.StringIO()
    csv.writer(line).writerow(values)
    return printable(line.getvalue()).encode()
