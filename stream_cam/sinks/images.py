"""Pictures as files: one, or a folder of them."""

from __future__ import annotations

import glob
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import cv2

from stream_cam.atomic_files import write_atomic
from stream_cam.errors import OutputExistsError, SinkError
from stream_cam.frame import BgrImage
from stream_cam.sinks.base import Picture, Sink
from stream_cam.sinks.kinds import Output, SinkKind
from stream_cam.sinks.path_checks import (
    check_is_no_folder,
    check_not_source,
    check_not_there,
    check_parent,
    check_writable,
)
from stream_cam.uri import folder_of_pattern, local_path, result_name

PICTURE_SUFFIXES: Final = (".png", ".jpg", ".jpeg", ".webp", ".bmp")

_QUALITY: Final = 95
_ENCODING: Final[Mapping[str, tuple[int, ...]]] = {
    ".jpg": (cv2.IMWRITE_JPEG_QUALITY, _QUALITY),
    ".jpeg": (cv2.IMWRITE_JPEG_QUALITY, _QUALITY),
    ".webp": (cv2.IMWRITE_WEBP_QUALITY, _QUALITY),
}


class PictureSink(Sink):
    """One picture file: the newest picture when the sink closes.

    For a video that is its last frame. Nothing is encoded before closing, so a video costs no more
    than one picture.

    Args:
        path: of the file; its suffix decides the format.
    """

    def __init__(self, path: str, *, overwrite: bool = False) -> None:
        self.name = path
        self._overwrite = overwrite
        self._newest: BgrImage | None = None

    def close(self) -> None:
        newest, self._newest = self._newest, None
        if newest is not None:
            write_picture(Path(self.name), newest, overwrite=self._overwrite)

    def write(self, picture: Picture) -> bool:
        self._newest = picture.image_bgr
        return True


class FolderSink(Sink):
    """A folder of pictures, made if it is not there.

    Pictures that come from files of their own keep those files' whole names, in the same subfolders
    (`cat.jpg` → `cat.jpg.png`, `cat.png` → `cat.png`). Frames of a video are `frame_000000.png` and
    on, by their index in the source.

    Args:
        folder: of the pictures.
        suffix: the format; PNG is lossless.
    """

    def __init__(self, folder: str, *, overwrite: bool = False, suffix: str = ".png") -> None:
        self.name = folder
        self._folder = Path(folder)
        self._overwrite = overwrite
        self._suffix = suffix
        self._names: set[str] = set()

    def write(self, picture: Picture) -> bool:
        path = self._folder / self._name_of(picture)
        folder = path.parent
        try:
            folder.mkdir(exist_ok=True, parents=folder != self._folder)
        except OSError as exc:
            raise SinkError(f"the folder {folder} cannot be made: {exc.strerror}") from exc
        write_picture(path, picture.image_bgr, overwrite=self._overwrite)
        return True

    def _name_of(self, picture: Picture) -> str:
        frame = picture.frame
        source = frame.name or f"frame_{frame.index:06d}"
        name, count = result_name(source, self._suffix), 0
        while name in self._names:
            count += 1
            name = f"{source}.{count}{self._suffix}"
        self._names.add(name)
        return name


def write_picture(path: Path, image_bgr: BgrImage, *, overwrite: bool) -> None:
    """Write a picture file atomically.

    Args:
        image_bgr: (H, W, 3) uint8.

    Raises:
        OutputExistsError: the file is there and `overwrite` is not set.
        SinkError: the format cannot hold the picture, or the disk cannot.
    """
    if not overwrite and path.exists():
        raise OutputExistsError(f"{path} exists; give --overwrite to replace it")
    suffix = path.suffix.lower()
    height, width = image_bgr.shape[:2]
    try:
        ok, data = cv2.imencode(suffix, image_bgr, list(_ENCODING.get(suffix, ())))
    except cv2.error:
        ok = False
    if not ok:
        raise SinkError(f"{path}: {suffix} cannot hold {width}×{height} pixels; write .png instead")
    try:
        write_atomic(path, data.tobytes())
    except OSError as exc:
        raise SinkError(f"{path} cannot be written: {exc.strerror}; free space?") from exc


def _check_picture(output: Output) -> None:
    check_is_no_folder(output)
    path = output.path
    source = None if output.source is None else local_path(output.source)
    if source is not None:
        check_not_source(path, path if _is_one_of(path, source) else source)
    check_parent(path)
    check_not_there(output)


def _is_one_of(picture: Path, source: Path) -> bool:
    """Whether a picture lies in the folder that is read, or matches the pattern that is read."""
    if os.path.isdir(source):
        return os.path.isfile(picture) and os.path.samefile(picture.parent, source)
    if os.path.exists(source):
        return False
    found = glob.glob(str(source), recursive=True)
    return os.path.realpath(picture) in map(os.path.realpath, found)


def _check_folder(output: Output) -> None:
    path = output.path
    source = None if output.source is None else local_path(output.source)
    folder = None if source is None else _folder_read(source)
    if folder is not None:
        check_not_source(path, folder)
    if not os.path.exists(path):
        check_parent(path)
        return
    if not os.path.isdir(path):
        raise SinkError(f"{path} is a file, not a folder; give another name")
    check_writable(path)
    held = sorted(entry.name for entry in path.iterdir() if entry.suffix in PICTURE_SUFFIXES)
    if held and not output.overwrite:
        raise OutputExistsError(
            f"{path}/ holds {len(held)} pictures already ({held[0]}); give --overwrite to replace "
            f"those of the same name, or another folder"
        )


def _folder_read(source: Path) -> Path | None:
    """The folder in which a result could have the source's name; None: it cannot."""
    if os.path.isdir(source):
        return source
    if os.path.isfile(source) and source.suffix.lower() not in PICTURE_SUFFIXES:
        return None  # a video's frames have names of their own
    return source.parent if os.path.exists(source) else folder_of_pattern(str(source))


PICTURE: Final = SinkKind(
    "picture",
    usage=" ".join(f"*{suffix}" for suffix in PICTURE_SUFFIXES),
    make=lambda output: PictureSink(str(output.path), overwrite=output.overwrite),
    check=_check_picture,
    suffixes=PICTURE_SUFFIXES,
)
FOLDER: Final = SinkKind(
    "folder",
    usage="folder/",
    make=lambda output: FolderSink(os.path.expanduser(output.uri), overwrite=output.overwrite),
    check=_check_folder,
    claims=lambda uri: uri.endswith(("/", os.sep)) or os.path.isdir(os.path.expanduser(uri)),
)
