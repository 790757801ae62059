"""Pictures as files: one, or a folder of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import cv2

from stream_cam.atomic_files import write_atomic
from stream_cam.errors import OutputExistsError, SinkError
from stream_cam.frame import BgrImage
from stream_cam.sinks.base import Picture, Sink
from stream_cam.uri import result_name

PICTURE_SUFFIXES: Final = (".png", ".jpg", ".jpeg", ".webp", ".bmp")

_QUALITY: Final = 95
_ENCODING: Final[Mapping[str, tuple[int, ...]]] = {
    ".jpg": (cv2.IMWRITE_JPEG_QUALITY, _QUALITY),
    ".jpeg": (cv2.IMWRITE_JPEG_QUALITY, _QUALITY),
    ".webp": (cv2.IMWRITE_WEBP_QUALITY, _QUALITY),
}


class PictureSink(Sink):
    """One picture file: the newest picture when the sink closes.

    For a picture that is the picture, for a video its last frame. Nothing is encoded before
    that, so a video costs no more than one picture.

    Args:
        path: where to; its suffix decides the format.
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

    Pictures that come from files of their own keep the whole of those files' names, in the same
    subfolders (`cat.jpg` → `cat.jpg.png`, `cat.png` → `cat.png`). Frames of a video are
    `frame_000000.png` and on, by their index in the source.

    Args:
        folder: where to.
        suffix: the format; PNG loses nothing.
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
    """Write a picture file whole or not at all.

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
