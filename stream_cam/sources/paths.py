"""What lies at a path: pictures, a folder of them, something else, or nothing."""

from __future__ import annotations

import difflib
import glob
import os
import re
import shlex
import stat
from pathlib import Path
from typing import Final

import cv2

from stream_cam.errors import SourceError, SourceNotFoundError

# fmt: off
PICTURE_SUFFIXES: Final = frozenset((
    ".avif", ".bmp", ".dib", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png",
    ".ppm", ".tif", ".tiff", ".webp",
))
VIDEO_SUFFIXES: Final = frozenset((
    ".3gp", ".avi", ".flv", ".gif", ".h264", ".h265", ".hevc", ".m2ts", ".m4v", ".mjpeg", ".mjpg",
    ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".mxf", ".ogv", ".ts", ".vob", ".webm",
    ".wmv", ".y4m",
))
# fmt: on


def check_readable(path: str) -> os.stat_result:
    """Find out whether a file or folder is there and may be read.

    Raises:
        SourceNotFoundError: there is nothing; the message has the nearest names beside it.
        SourceError: it may not be read, or is an empty file.
    """
    try:
        found = os.stat(path)
        if stat.S_ISDIR(found.st_mode):
            os.scandir(path).close()
        elif stat.S_ISREG(found.st_mode):
            with open(path, "rb"):
                pass
    except PermissionError as exc:
        raise SourceError(
            f"{path} may not be read: permission denied; check with `ls -ld`, change with `chmod`"
        ) from exc
    except (FileNotFoundError, NotADirectoryError) as exc:
        raise SourceNotFoundError(f"{path} does not exist{_nearest(path)}") from exc
    except OSError as exc:
        raise SourceError(f"{path} cannot be read: {exc.strerror}") from exc
    if stat.S_ISREG(found.st_mode) and found.st_size == 0:
        raise SourceError(f"{path} is empty (0 bytes); copy or record it again")
    return found


def is_picture(path: str) -> bool:
    """Whether a regular file is a picture, by its name, or by its first bytes if that is open."""
    suffix = Path(path).suffix.lower()
    if suffix in PICTURE_SUFFIXES:
        return True
    return suffix not in VIDEO_SUFFIXES and bool(cv2.haveImageReader(path))


def is_pattern(path: str) -> bool:
    """Whether a path is a glob; an existing file with brackets in its name is not."""
    return glob.has_magic(path) and not os.path.exists(path)


def find_pictures(place: str) -> list[str]:
    """The pictures in a folder or of a glob, in the order in which people count.

    Raises:
        SourceNotFoundError: there are none; the message says what there is instead.
    """
    if is_pattern(place):
        found = [path for path in glob.glob(place, recursive=True) if os.path.isfile(path)]
        what = f"{place} matches {len(found)} files, but no picture"
    else:
        found = [entry.path for entry in os.scandir(place) if entry.is_file()]
        what = f"the folder {place} has no pictures in it"
    pictures = [
        path
        for path in found
        if Path(path).suffix.lower() in PICTURE_SUFFIXES and not Path(path).name.startswith(".")
    ]
    if pictures:
        return sorted(pictures, key=natural_key)
    videos = sorted(path for path in found if Path(path).suffix.lower() in VIDEO_SUFFIXES)
    if videos:
        what += (
            f", only {len(videos)} video{'s' * bool(videos[1:])}: `stream-cam batch "
            f"{shlex.quote(place)}` annotates all, `stream-cam run {shlex.quote(videos[0])}` one"
        )
    elif not found and is_pattern(place):
        what = f"nothing matches {place}; quote the pattern, or check the folder"
    else:
        what += " (" + " ".join(sorted(PICTURE_SUFFIXES)) + ")"
    raise SourceNotFoundError(what)


def natural_key(path: str) -> list[tuple[int, int, str]]:
    """Sorts `frame2` before `frame10`, upper and lower case together."""
    parts = re.split(r"(\d+)", path)
    return [(0, int(part), part) if part.isdecimal() else (1, 0, part.lower()) for part in parts]


def _nearest(path: str) -> str:
    """The names most like a missing one in its folder, as the end of a sentence."""
    folder, name = os.path.split(path)
    try:
        names = os.listdir(folder or ".")
    except OSError:
        return f"; there is no folder {folder} either"
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    return f"; did you mean {', '.join(os.path.join(folder, other) for other in near)}?" * bool(
        near
    )
