"""Pictures: one, a folder of them, or a glob."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

from stream_cam.closing import Closes
from stream_cam.errors import SourceError
from stream_cam.frame import BgrImage, Frame
from stream_cam.sources.base import SourceInfo
from stream_cam.sources.paths import check_readable, find_pictures, is_pattern
from stream_cam.sources.pictures import decode_picture
from stream_cam.uri import printable

logger = logging.getLogger(__name__)

# Pictures have no time. One a second is what makes a video of them watchable.
_ONE_SECOND = Fraction(1)


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
    """The first page of a picture file as (H, W, 3) uint8 BGR; see `decode_picture`.

    Raises:
        SourceError: it is missing, may not be read, or is no picture or a damaged one.
    """
    return decode_picture(_read_file(path), path)


def _read_file(path: str) -> bytes:
    check_readable(path)
    try:
        return Path(path).read_bytes()
    except OSError as exc:
        raise SourceError(f"{path} cannot be read: {exc.strerror}") from exc
