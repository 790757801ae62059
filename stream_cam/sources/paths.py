"""Paths of sources: whether one can be read, is a picture, a folder of pictures or a glob."""

from __future__ import annotations

import difflib
import glob
import os
import re
import shlex
import stat
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from stream_cam.errors import SourceError, SourceNotFoundError, UsageError
from stream_cam.sources.pictures import is_encoded_picture
from stream_cam.uri import folder_of_pattern, local_path, pipe_number

# fmt: off
PICTURE_SUFFIXES: Final = frozenset((
    ".avif", ".bmp", ".dib", ".gif", ".heic", ".heif", ".hif", ".jfif", ".jp2", ".jpe", ".jpeg",
    ".jpg", ".mpo", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp",
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
    """Whether a regular file is a picture, by its name, or by its first bytes if that is open.

    A GIF is a video here, which it mostly is; in a folder of pictures it is one of them.
    """
    suffix = Path(path).suffix.lower()
    if suffix in VIDEO_SUFFIXES:
        return False
    return suffix in PICTURE_SUFFIXES or is_encoded_picture(path)


def refuse_pipe(uri: str, option: str) -> None:
    """Find out whether a source can be read several times.

    Raises:
        UsageError: it is a FIFO, stdin or a device.
    """
    path = local_path(uri)
    is_pipe = pipe_number(uri, 0) is not None
    if path is not None and os.path.exists(path) and not uri.startswith("/dev/video"):
        is_pipe = not (os.path.isfile(path) or os.path.isdir(path))
    if is_pipe:
        raise UsageError(f"{option} reads {uri} several times, and a pipe only once; give a file")


def is_pattern(path: str) -> bool:
    """Whether a path is a glob; an existing file with brackets in its name is not."""
    return glob.has_magic(path) and not os.path.exists(path)


def find_pictures(place: str) -> tuple[list[str], str]:
    """The pictures in a folder or of a glob, in the order in which people count.

    Returns:
        Their paths, and a sentence about the other files, empty if there are none.

    Raises:
        SourceNotFoundError: there are none; the message names the files found instead.
    """
    folders = 0
    if is_pattern(place):
        found = [path for path in glob.glob(place, recursive=True) if os.path.isfile(path)]
        what = f"{place} matches {len(found)} files, but no picture"
    else:
        entries = [entry for entry in os.scandir(place) if not entry.name.startswith(".")]
        found = [entry.path for entry in entries if entry.is_file()]
        folders = sum(entry.is_dir() for entry in entries)
        what = f"the folder {place} has no pictures in it"
    found = [path for path in found if not Path(path).name.startswith(".")]
    pictures = [path for path in found if _is_picture_of_folder(path)]
    if pictures:
        others = sorted(set(found) - set(pictures))
        return sorted(pictures, key=natural_key), _left_out(place, others, folders)
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


def name_in(place: str, path: str) -> str:
    """A picture's path as seen from the folder or the pattern in which it was found.

    It never leads out of there, so that results can be called by it.
    """
    if place == path:
        return os.path.basename(path)
    folder = folder_of_pattern(place) if is_pattern(place) else place
    name = Path(os.path.relpath(path, folder))
    return name.name if ".." in name.parts else name.as_posix()


def _is_picture_of_folder(path: str) -> bool:
    suffix = Path(path).suffix.lower()
    if suffix in PICTURE_SUFFIXES or suffix in VIDEO_SUFFIXES:
        return suffix in PICTURE_SUFFIXES
    return is_encoded_picture(path)


def _left_out(place: str, paths: Sequence[str], n_folders: int) -> str:
    """A sentence about the files of a folder or glob that are not read."""
    said = []
    if paths:
        kinds = Counter(Path(path).suffix.lower() or "without a suffix" for path in paths)
        listed = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
        said.append(f"left out, because they are no pictures: {listed}")
    if n_folders:
        folders = "1 folder" if n_folders == 1 else f"{n_folders} folders"
        everything = os.path.join(place, "**")
        said.append(f"not entered: {folders}; give '{everything}' for those as well")
    return "; ".join(said)


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
    if not near:
        return "; check the name and the folder"
    return f"; did you mean {', '.join(os.path.join(folder, other) for other in near)}?"
