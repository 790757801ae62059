"""Pictures: one, a folder of them, or a glob."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from stream_cam.closing import Closes
from stream_cam.errors import SourceError
from stream_cam.frame import BgrImage, Frame
from stream_cam.sources.base import SourceInfo
from stream_cam.sources.orient import orientation_of_exif, upright
from stream_cam.sources.paths import check_readable, find_pictures, is_pattern
from stream_cam.uri import printable

logger = logging.getLogger(__name__)

# Pictures have no time. One a second is what makes a video of them watchable.
_ONE_SECOND = Fraction(1)
_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD8)})
"""JPEG's marks that stand alone: ITU T.81, table B.1."""


class ImagesSource(Closes):
    """A picture, a folder of pictures or a glob, in natural order; `frame.name` is the file's.

    A picture that cannot be decoded is an error if it is the only one; among several it is
    skipped, logged and counted in `corrupt_frames`.
    """

    def __init__(self, place: str) -> None:
        self._place = place
        self._paths = find_pictures(place) if is_pattern(place) or os.path.isdir(place) else [place]
        self._frames: Iterator[Frame] | None = None
        self._first: Frame | None = None
        self._info: SourceInfo | None = None
        self.corrupt_frames = 0

    @property
    def info(self) -> SourceInfo:
        if self._info is None:
            raise ValueError("the source is not open; use it in a with-statement")
        return self._info

    def __enter__(self) -> ImagesSource:
        self._frames = self._read()
        self._first = next(self._frames, None)
        if self._first is None:
            raise SourceError(
                f"none of the {len(self._paths)} pictures of {self._place} can be decoded; "
                f"the first is {self._paths[0]}"
            )
        self._info = SourceInfo(
            name=printable(self._place),
            size_hw=self._first.size_hw,
            fps=None,
            n_frames=len(self._paths),
            live=False,
            still=True,
        )
        return self

    def close(self) -> None:
        self._frames = self._first = None

    def __iter__(self) -> Iterator[Frame]:
        if self._first is not None:
            yield self._first
            self._first = None
        if self._frames is not None:
            yield from self._frames

    def _read(self) -> Iterator[Frame]:
        index = 0
        for path in self._paths:
            try:
                image = read_picture(path)
            except SourceError as exc:
                if len(self._paths) == 1:
                    raise
                self.corrupt_frames += 1
                logger.warning("skipped: %s", exc)
                continue
            captured_ns = time.monotonic_ns()
            yield Frame(image, index, index, _ONE_SECOND, captured_ns, name=Path(path).name)
            index += 1


def read_picture(path: str) -> BgrImage:
    """Read a picture file as (H, W, 3) uint8 BGR, upright, 16 bit scaled to 8, alpha over white.

    Raises:
        SourceError: it is missing, may not be read, or is no picture or a damaged one.
    """
    check_readable(path)
    try:
        data = Path(path).read_bytes()
    except OSError as exc:
        raise SourceError(f"{path} cannot be read: {exc.strerror}") from exc
    if _is_cut_short(data):
        raise SourceError(f"{path} is truncated ({len(data)} bytes); copy or download it again")
    said = cv2.utils.logging
    level = said.setLogLevel(said.LOG_LEVEL_SILENT)  # it tells stderr what is raised here
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as exc:
        raise SourceError(f"{path} cannot be decoded: {str(exc.err).strip()}") from exc
    finally:
        said.setLogLevel(level)
    if image is None:
        raise SourceError(
            f"{path} is not a picture that can be decoded, or it is damaged; "
            f"open it in a viewer and save it again as PNG or JPEG"
        )
    return upright(to_bgr8(image), orientation_of_exif(data))


def to_bgr8(image: npt.NDArray[Any]) -> BgrImage:
    """Any picture as (H, W, 3) uint8 BGR.

    Alpha goes over white, the ground that transparent drawings are made for; a checkerboard
    would be a texture that the network sees.

    Args:
        image: (H, W), (H, W, 1), (H, W, 3) or (H, W, 4); uint8 0..255, uint16 0..65535 or
            float 0..1.
    """
    if image.dtype == np.uint16:
        # 65535 / 255 = 257: white stays white, which dropping the low byte would also do, but
        # this one rounds.
        image = ((image.astype(np.uint32) + 128) // 257).astype(np.uint8)
    elif image.dtype != np.uint8:
        scaled = np.nan_to_num(image.astype(np.float32), posinf=1.0) * 255
        image = np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
    if image.ndim == 2 or image.shape[2] == 1:
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_GRAY2BGR), dtype=np.uint8)
    if image.shape[2] == 4:
        return over_white(image)
    return np.ascontiguousarray(image[:, :, :3], dtype=np.uint8)


def over_white(image_bgra: npt.NDArray[Any]) -> BgrImage:
    """Composite (H, W, 4) uint8 BGRA (alpha not premultiplied) over white."""
    alpha = image_bgra[:, :, 3:]
    if alpha.min(initial=255) == 255:
        return np.ascontiguousarray(image_bgra[:, :, :3])
    weight = alpha.astype(np.uint16)
    mixed = image_bgra[:, :, :3] * weight + (255 - weight) * np.uint16(255)
    return ((mixed + 127) // 255).astype(np.uint8)


def _is_cut_short(data: bytes) -> bool:
    # OpenCV gives half a picture for half a file, with a line on stderr that nobody asked for.
    if data[:3] == b"\xff\xd8\xff":
        scan = _first_scan(data)
        return scan is not None and data.find(b"\xff\xd9", scan) < 0
    return data[:8] == b"\x89PNG\r\n\x1a\n" and b"IEND" not in data[-64:] and b"IEND" not in data


def _first_scan(data: bytes) -> int | None:
    """Where a JPEG's coded picture begins; len(data) if it ends before, None: this is not known.

    Segments before it are stepped over by their lengths: a thumbnail in one of them has an end of
    image too, as has a film behind the picture, so that neither may be looked into.
    """
    at = 2
    while at + 4 <= len(data):
        if data[at] != 0xFF:
            return None
        marker = data[at + 1]
        if marker == 0xDA:
            return at
        if marker == 0xFF:  # a fill byte
            at += 1
        elif marker in _WITHOUT_LENGTH:
            at += 2
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return len(data)
