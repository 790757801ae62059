"""Pictures: one, a folder of them, or a glob."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Final

from stream_cam.errors import SourceError
from stream_cam.frame import Frame
from stream_cam.sources.base import Source, SourceInfo
from stream_cam.sources.kinds import Input, SourceKind
from stream_cam.sources.paths import (
    check_readable,
    find_pictures,
    is_pattern,
    is_picture,
    name_in,
)
from stream_cam.sources.pictures import Page, decode_pages
from stream_cam.uri import printable

logger = logging.getLogger(__name__)

_ONE_SECOND = Fraction(1)
"""Pictures have no time. One a second makes a video of them watchable."""
_MILLISECOND = Fraction(1, 1000)
"""Animations tell how long each picture is shown in these."""


class ImagesSource(Source):
    """A picture, a folder of pictures or a glob, in natural order; `frame.name` is `name_in`.

    Every page of a file is a frame: `scan.tif#1`, `scan.tif#2`. An animation that is the only file
    is a video, with its own times.

    A picture that cannot be decoded is an error if it is the only one; among several it is
    skipped, logged and counted in `corrupt_frames`.

    Args:
        place: a path or glob.
        data: the file, where it is not one of this machine; `place` then is its name.
    """

    corrupt_frames = 0

    def __init__(self, place: str, data: bytes | None = None) -> None:
        self._place, self._data = place, data
        several = data is None and (is_pattern(place) or os.path.isdir(place))
        self._paths, self._left_out = find_pictures(place) if several else ([place], "")
        self._frames: Iterator[Frame] | None = None
        self._first: Frame | None = None
        self._n_pages = 1

    def __enter__(self) -> ImagesSource:
        if self._left_out:
            logger.warning("%s: %s", printable(self._place), self._left_out)
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
            n_frames=len(self._paths) - 1 + self._n_pages,
            live=False,
            still=not self._first.duration,
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
            alone = len(self._paths) == 1
            try:
                data = _read_file(path) if self._data is None else self._data
                pages = self._counted(decode_pages(data, path))
                for frame in frames_of(pages, name_in(self._place, path), index, timed=alone):
                    index += 1
                    yield frame
            except SourceError as exc:
                if alone and not index:
                    raise
                self.corrupt_frames += 1
                logger.warning("skipped: %s", exc)

    def _counted(self, pages: Iterator[Page]) -> Iterator[Page]:
        for page in pages:
            self._n_pages = page.n_pages
            yield page


def frames_of(
    pages: Iterable[Page], name: str, index: int = 0, *, timed: bool = True
) -> Iterator[Frame]:
    """The pages of a file as frames of a second each.

    Args:
        index: of the first one, among the frames of all files.
        timed: those of an animation get its times and durations, and no names, as of a video.
    """
    begin = 0
    for number, page in enumerate(pages, 1):
        captured_ns, lasts = time.monotonic_ns(), page.milliseconds
        if timed and lasts:
            yield Frame(page.image_bgr, index, begin, _MILLISECOND, captured_ns, duration=lasts)
            begin += lasts
        else:
            one_name = name if page.n_pages == 1 else f"{name}#{number}"
            yield Frame(page.image_bgr, index, index, _ONE_SECOND, captured_ns, name=one_name)
        index += 1


def _read_file(path: str) -> bytes:
    check_readable(path)
    try:
        return Path(path).read_bytes()
    except OSError as exc:
        raise SourceError(f"{path} cannot be read: {exc.strerror}") from exc


def _is_of_pictures(source: Input) -> bool:
    path = source.path
    if path is None:
        return False
    return is_pattern(path) or os.path.isdir(path) or (os.path.isfile(path) and is_picture(path))


def _check_pictures(source: Input) -> None:
    if source.path is not None and not is_pattern(source.path):
        check_readable(source.path)


PICTURES: Final = SourceKind(
    "pictures",
    make=lambda source: ImagesSource(source.path or ""),
    check=_check_pictures,
    claims=_is_of_pictures,
    # It has no use for them. A command that is given for many files may have some of pictures.
    options=frozenset({"ffmpeg_option"}),
)
