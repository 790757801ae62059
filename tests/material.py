"""Small videos and pictures, made on the spot with PyAV."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt

from stream_cam.frame import BgrImage, Frame
from stream_cam.sinks.base import Picture


def numbered_picture(index: int, size_hw: tuple[int, int]) -> BgrImage:
    """A grey picture as bright as its number, 16 levels apart: survives coding, tells its place."""
    return np.full((*size_hw, 3), 16 + 16 * (index % 14), np.uint8)


def picture_number(image_bgr: BgrImage) -> int:
    """The number of a `numbered_picture` after decoding."""
    return round((float(image_bgr.mean()) - 16) / 16)


def write_video(
    path: Path,
    *,
    images: Sequence[npt.NDArray[Any]] | None = None,
    n_frames: int = 6,
    size_hw: tuple[int, int] = (48, 64),
    fps: Fraction | int = 10,
    times: Sequence[int] | None = None,
    time_base: Fraction | None = None,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    rotation: int | None = None,
    hflip: bool = False,
    colorspace: int | None = None,
    full_range: bool = False,
    options: dict[str, str] | None = None,
    format: str | None = None,
) -> Path:
    """Write a video file.

    Args:
        path: where to; its suffix decides the container.
        images: BGR or BGRA pictures; default: `n_frames` numbered pictures of `size_hw`.
        times: presentation times in units of `time_base` (1 / `fps`); default 0, 1, 2, …
        rotation: degrees counter-clockwise by which players turn the picture.
        colorspace: 1 tags and converts with BT.709, 5 with BT.601; default: untagged BT.601.
        format: container, where the suffix does not say it.
    """
    pictures = images or [numbered_picture(index, size_hw) for index in range(n_frames)]
    time_base = time_base or 1 / Fraction(fps)
    with av.open(str(path), "w", format=format) as container:
        stream = container.add_stream(codec, rate=Fraction(fps), options=options or {})
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = pix_fmt
        stream.codec_context.time_base = time_base
        if colorspace is not None:
            stream.codec_context.colorspace = colorspace
            stream.codec_context.color_range = 2 if full_range else 1
        if rotation is not None or hflip:
            stream.set_display_rotation(rotation or 0, hflip=hflip)
        for index, image in enumerate(pictures):
            picture = av.VideoFrame.from_ndarray(
                image, "bgr24" if image.shape[2] == 3 else "bgra"
            ).reformat(
                format=pix_fmt,
                dst_colorspace=colorspace,
                dst_color_range=(2 if full_range else 1) if colorspace else None,
            )
            picture.pts = times[index] if times is not None else index
            picture.time_base = time_base
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


def picture_at(
    image_bgr: BgrImage,
    pts: int = 0,
    time_base: Fraction = Fraction(1, 10),
    *,
    index: int | None = None,
    name: str | None = None,
) -> Picture:
    """A finished picture as the pipeline hands it to sinks."""
    frame = Frame(image_bgr, pts if index is None else index, pts, time_base, 0, name=name)
    return Picture(image_bgr, frame, None)
