"""`demo://photos`: a camera that pans and zooms slowly over photographs.

The photographs are those that installed packages carry inside their wheels (scikit-image's, then
foolbox's), or those in a folder. Nothing is downloaded.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import cv2
import numpy as np

from stream_cam.errors import SourceError
from stream_cam.frame import BgrImage, Truth
from stream_cam.sources.pictures import decode_picture, is_encoded_picture

PHOTO_SECONDS: Final = 4.0
"""How long each photograph is seen."""
_FADE_SECONDS: Final = 0.5
"""How long one photograph blends into the next."""
_WIDE, _CLOSE = (0.92, 1.0), (0.68, 0.78)
"""Sides of the camera's view where it is wide and where it is close, as shares of the largest."""
_IN_PACKAGES: Final = (
    ("skimage", ("data/chelsea.png", "data/coffee.png", "data/motorcycle_left.png")),
    ("skimage", ("data/camera.png", "data/rocket.jpg")),
    ("foolbox", ("data/imagenet_*.jpg",)),
)
"""Packages, and the files of photographs in them, in the order in which they are shown."""


def has_photos() -> bool:
    """Whether installed packages carry photographs."""
    return bool(_in_packages())


def find_photos(folder: str | None) -> list[Path]:
    """The pictures in a folder by their names; without one, those that installed packages carry.

    Raises:
        SourceError: there are none.
    """
    if folder is None:
        photos = _in_packages()
        if not photos:
            raise SourceError(
                "demo://photos has no photographs: pip install 'stream-cam[photos]', or give a "
                "folder of pictures: demo://photos?folder=PATH"
            )
        return photos
    place = Path(folder).expanduser()
    if not place.is_dir():
        raise SourceError(f"demo://photos: {folder} is no folder; give one with pictures in it")
    photos = [path for path in sorted(place.iterdir()) if is_encoded_picture(str(path))]
    if not photos:
        raise SourceError(f"demo://photos: {folder} holds no pictures; give a folder that does")
    return photos


def _in_packages() -> list[Path]:
    photos: list[Path] = []
    for package, patterns in _IN_PACKAGES:
        found = find_spec(package)  # looks only; importing scikit-image takes a second
        for folder in (found and found.submodule_search_locations) or ():
            for pattern in patterns:
                photos += sorted(Path(folder).glob(pattern))
    return photos


class PhotoScene:
    """The photographs one after another, each seen by a moving camera; it begins anew at the end.

    Args:
        width_px, height_px: the camera's frame.
        seed: another one moves the camera otherwise.
        photos: files of pictures, at least one.
    """

    def __init__(self, width_px: int, height_px: int, seed: int, photos: list[Path]) -> None:
        self._size_wh = (width_px, height_px)
        self._seed = seed
        self._photos = photos
        self._read = lru_cache(maxsize=2)(self._read_photo)

    def frame(self, number: int, seconds: float) -> tuple[BgrImage, tuple[Truth, ...]]:
        """The camera's frame at a time; no truth is known of photographs.

        Args:
            number: of the frame; unused, for a photograph has no sensor noise to vary.
            seconds: since the start.
        """
        index, within = divmod(seconds, PHOTO_SECONDS)
        image_bgr = self._seen(int(index), within)
        fade = 1 - within / _FADE_SECONDS
        if index > 0 and fade > 0:
            before_bgr = self._seen(int(index) - 1, within + PHOTO_SECONDS)
            image_bgr = np.asarray(
                cv2.addWeighted(before_bgr, fade, image_bgr, 1 - fade, 0), np.uint8
            )
        return image_bgr, ()

    def _seen(self, index: int, within_seconds: float) -> BgrImage:
        """One photograph through the camera, so long after it came into view."""
        photo_bgr = self._read(index % len(self._photos))
        width_px, height_px = self._size_wh
        photo_h, photo_w = photo_bgr.shape[:2]
        largest_w = min(photo_w, photo_h * width_px / height_px)
        share, x, y = self._view(index, within_seconds)
        scale = share * largest_w / width_px
        left = (photo_w - scale * width_px) * x
        top = (photo_h - scale * height_px) * y
        # Pixels' centres lie at half a pixel.
        to_photo = np.array(
            [[scale, 0, left + (scale - 1) / 2], [0, scale, top + (scale - 1) / 2]], np.float64
        )
        seen = cv2.warpAffine(
            photo_bgr,
            to_photo,
            self._size_wh,
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
        return np.asarray(seen, np.uint8)

    def _view(self, index: int, within_seconds: float) -> tuple[float, float, float]:
        """The view's side as a share of the largest, and its place (0..1, 0..1) in what is left."""
        random = np.random.default_rng((self._seed, index))
        wide, close = random.uniform(*_WIDE), random.uniform(*_CLOSE)
        start, end = (wide, close) if index % 2 == 0 else (close, wide)
        (x0, x1), (y0, y1) = random.uniform(0.3, 0.7, (2, 2))
        passed = within_seconds / (PHOTO_SECONDS + _FADE_SECONDS)
        eased = passed * passed * (3 - 2 * passed)
        return (
            float(start + (end - start) * eased),
            float(x0 + (x1 - x0) * eased),
            float(y0 + (y1 - y0) * eased),
        )

    def _read_photo(self, index: int) -> BgrImage:
        """A photograph, shrunk where its shorter side in frames is longer than a frame's."""
        path = self._photos[index]
        try:
            data = path.read_bytes()
        except OSError as exc:
            raise SourceError(
                f"demo://photos: cannot read {path} ({exc.strerror or exc}); give another folder"
            ) from exc
        image_bgr = decode_picture(data, str(path))
        height_px, width_px = image_bgr.shape[:2]
        ratio = min(width_px / self._size_wh[0], height_px / self._size_wh[1])
        if ratio <= 1:
            return image_bgr
        size_wh = (round(width_px / ratio), round(height_px / ratio))
        return np.asarray(cv2.resize(image_bgr, size_wh, interpolation=cv2.INTER_AREA), np.uint8)
