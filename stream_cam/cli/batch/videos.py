"""Finds videos: files, folders, folders of folders and globs."""

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
"""Most subfolders that are searched for the hint at --recursive."""


def find_videos(
    places: Sequence[str], *, recursive: bool = False, leave_out: Path | None = None
) -> dict[Path, str]:
    """Videos, those in folders and those of globs, in natural order (2 before 10).

    Args:
        recursive: include folders of folders.
        leave_out: a folder that is not searched.

    Returns:
        Each video, with its path relative to the folder or pattern that it was found by.

    Raises:
        UsageError: no place is given.
        SourceNotFoundError: a place does not exist, or has no videos.
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
    """A hint at `run` if there are pictures instead; empty if there are none."""
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
    """The videos in a folder; those in subfolders are included, or a hint names them.

    Raises:
        SourceNotFoundError: there are videos in subfolders only.
    """
    below = _folders_below(place, leave_out)
    videos = next(below)
    if recursive:
        return list(chain(videos, *below))
    others = next(filter(None, islice(below, _MOST_FOLDERS)), None)
    if others is None:
        return videos
    hint = f"there are videos in folders of {place}, such as {others[0]}; give --recursive"
    if not videos:
        raise SourceNotFoundError(hint)
    logger.warning("%s to annotate those as well", hint)
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
