"""The raw maps of a run in one NumPy file, to work on with other tools.

    cams          (n, h, w) float16: the shown class's map M_c of each frame, before any scaling
    class_index   (n,) int32
    source_index  (n,) int32
    frame         (n,) int64: the frame's position in its source, from 0
    time          (n,) float64: its presentation time in seconds
    region        (n, 4) float32: x0, y0, x1, y1 in frame pixels, where the map lies
    frame_size    (n, 2) int32: height and width of the frame in pixels
    labels        the class names by `class_index`, of those that occur; others are empty
    sources       by `source_index`, each picture's path as seen from the folder that is read; of a
                  video its name as it was given

To lay a map back: scale it to 0..1 by its own minimum and maximum, resize it bilinearly to
    `region`'s size, put it at (x0, y0), and cut it at the frame's edges.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from stream_cam.errors import SinkError
from stream_cam.sinks.base import Picture, Sink
from stream_cam.uri import printable

_ROW = np.dtype(
    [
        ("class_index", "<i4"),
        ("source_index", "<i4"),
        ("frame", "<i8"),
        ("time", "<f8"),
        ("region", "<f4", 4),
        ("frame_size", "<i4", 2),
    ]
)


class CamsSink(Sink):
    """Writes an `.npz` on closing; until then the maps are on disk, not in memory.

    Args:
        path: replaced if it is there.
        source: its name, for frames that have none of their own.
    """

    def __init__(self, path: Path, source: str = "") -> None:
        self.name = str(path)
        self._source = source
        self._sources: dict[str, int] = {}
        self._path = path
        self._waiting = path.with_name(f".{path.name}.maps")
        self._file: BinaryIO | None = None
        self._rows: list[npt.NDArray[Any]] = []
        self._labels: dict[int, str] = {}

    def write(self, picture: Picture) -> bool:
        explanation = picture.explanation
        if explanation is None:
            return True
        cam, shown, region = explanation.cams[0], explanation.targets[0], explanation.region
        try:
            if self._file is None:
                self._file = self._waiting.open("wb")
                self._shape = cam.shape
            if cam.shape != self._shape:
                raise SinkError(
                    f"{self.name}: maps of {self._shape} and then of {cam.shape} do not go into "
                    "one file; give --fit stretch"
                )
            self._file.write(cam.astype("<f2").tobytes())
        except OSError as error:
            raise SinkError(f"{self.name} cannot be written: {error.strerror}") from error
        self._labels[shown.index] = shown.label
        row = np.zeros((), _ROW)
        row["class_index"], row["frame"] = shown.index, picture.frame.index
        source = printable(picture.frame.name or self._source)
        row["source_index"] = self._sources.setdefault(source, len(self._sources))
        row["time"] = picture.frame.pts_seconds
        row["region"] = region.x0, region.y0, region.x1, region.y1
        row["frame_size"] = explanation.frame_size_hw
        self._rows.append(row)
        return True

    def close(self) -> None:
        if self._file is None:
            return
        file, self._file = self._file, None
        whole = self._path.with_name(f".{self._path.name}.whole.npz")
        try:
            file.close()
            self._save(whole)
            os.replace(whole, self._path)
        except OSError as error:
            whole.unlink(missing_ok=True)
            raise SinkError(f"{self.name} cannot be written: {error.strerror}") from error
        finally:
            self._waiting.unlink(missing_ok=True)

    def _save(self, whole: Path) -> None:
        rows = np.array(self._rows, _ROW)
        shape = (len(rows), *self._shape)
        cams = np.memmap(self._waiting, "<f2", "r", shape=shape) if len(rows) else np.zeros(shape)
        labels = [self._labels.get(n, "") for n in range(max(self._labels, default=-1) + 1)]
        arrays: dict[str, Any] = {name: rows[name] for name in _ROW.names or ()}
        arrays |= {"labels": np.array(labels), "sources": np.array(list(self._sources), str)}
        np.savez(whole, cams=cams, **arrays)
