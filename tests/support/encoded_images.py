"""Encoded pictures, made on the spot with Pillow and pillow-heif."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pillow_heif
from PIL import Image

from stream_cam.frame import BgrImage

pillow_heif.register_heif_opener()

RED, GREEN, BLUE, YELLOW = (0, 0, 255), (0, 255, 0), (255, 0, 0), (0, 255, 255)


def quadrants(size_hw: tuple[int, int] = (32, 48)) -> BgrImage:
    """Red and green over blue and yellow: no two orientations of it are alike."""
    (height, width), image = size_hw, np.zeros((*size_hw, 3), np.uint8)
    image[: height // 2, : width // 2], image[: height // 2, width // 2 :] = RED, GREEN
    image[height // 2 :, : width // 2], image[height // 2 :, width // 2 :] = BLUE, YELLOW
    return image


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def with_orientation(form: str, orientation: int, **options: Any) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(quadrants()[:, :, ::-1])
    # pillow-heif looks into bytes alone, and then writes `irot` and `imir` as telephones do.
    said = exif.tobytes() if form == "HEIF" else exif
    return encoded(image, form, exif=said, **options)


def pages(form: str, **options: Any) -> bytes:
    """A red, a green and a blue page, in one file."""
    images = [Image.new("RGB", (6, 4), colour) for colour in ("red", "lime", "blue")]
    return encoded(images[0], form, save_all=True, append_images=images[1:], **options)
