"""Which videos there are in folders, and below them."""

from __future__ import annotations

import glob
import logging
import os
import shlex
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Final

from stream_cam.errors import SourceNotFoundError, UsageError
from stream_cam.sources.paths import (
    VIDEO_SUFFIXES,
    check_readable,
    find_pictures,
    is_pattern,
    name_in,
    natural_key,
)

logger = logging.getLogger(__name__)

_MOST_FOLDERS: Final = 1000
"""So many are looked into for videos that nobody asked for, to tell of them."""


def find_videos(
    places: Sequence[str], *, recursive: bool = False, leave_out: Path | None = None
) -> dict[Path, str]:
    """Videos, those in folders and of globs, in the order in which people count.

    Args:
        recursive: also those in folders of folders.
        leave_out: a folder that is not entered.

    Returns:
        Each with its path as seen from the folder or pattern that it was found in.

    Raises:
        UsageError: none is given.
        SourceNotFoundError: a place that is not there, or where there are none.
    """
    if not places:
        raise UsageError("which videos? give files, folders or a pattern in quotes")
    found: dict[Path, str] = {}
    for place in map(os.path.expanduser, places):
        if is_pattern(place):
            inside = [path for path in glob.glob(place, recursive=True) if os.path.isfile(path)]
            videos = list(filter(_is_video, inside))
        elif os.path.isdir(place):
            videos = _videos_of_folder(place, recursive=recursive, leave_out=leave_out)
        else:
            check_readable(place)
            videos = [place]
        if not videos:
            raise SourceNotFoundError(f"there are no videos in {place}{_pictures_instead(place)}")
        for path in sorted(videos, key=natural_key):
            found.setdefault(Path(path), name_in(place, path))
    return found


def _pictures_instead(place: str) -> str:
    """What to do with the pictures that there are; empty if there are none."""
    try:
        pictures, _ = find_pictures(place)
    except SourceNotFoundError:
        return ""
    plural = "s" * (len(pictures) > 1)
    return (
        f", only {len(pictures)} picture{plural}: `stream-cam run {shlex.quote(place)} annotated/` "
        "explains them"
    )


def _videos_of_folder(place: str, *, recursive: bool, leave_out: Path | None) -> list[str]:
    """Those in it, and in its folders or a word about these.

    Raises:
        SourceNotFoundError: there are none but in its folders.
    """
    below = _folders_below(place, leave_out)
    videos = next(below)
    if recursive:
        return list(chain(videos, *below))
    others = next(filter(None, islice(below, _MOST_FOLDERS)), None)
    if others is None:
        return videos
    said = f"there are videos in folders of {place}, such as {others[0]}; give --recursive"
    if not videos:
        raise SourceNotFoundError(said)
    logger.warning("%s to annotate those as well", said)
    return videos


def _folders_below(place: str, leave_out: Path | None) -> Iterator[list[str]]:
    """The videos of a folder, then those of each folder in it, hidden ones left out."""
    without = None if leave_out is None else os.path.realpath(leave_out)
    for folder, folders, names in os.walk(place):
        paths = ((name, os.path.join(folder, name)) for name in sorted(folders, key=natural_key))
        folders[:] = [
            name
            for name, path in paths
            if not name.startswith(".") and os.path.realpath(path) != without
        ]
        paths_in = [os.path.join(folder, name) for name in names]
        yield [path for path in paths_in if _is_video(path) and os.path.isfile(path)]


def _is_video(path: str) -> bool:
    name = Path(path)
    return name.suffix.lower() in VIDEO_SUFFIXES and not name.name.startswith(".")
