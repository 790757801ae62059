"""Small videos and pictures, made on the spot with PyAV."""

from __future__ import annotations

import struct
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
    display_matrix: tuple[int, int, int, int] | None = None,
    colorspace: int | None = None,
    full_range: bool = False,
    options: dict[str, str] | None = None,
    format: str | None = None,
    last_duration: int | None = None,
    pixel_aspect: Fraction | None = None,
) -> Path:
    """Write a video file.

    Args:
        path: where to; its suffix decides the container.
        images: BGR or BGRA pictures; default: `n_frames` numbered pictures of `size_hw`.
        times: presentation times in units of `time_base` (1 / `fps`); default 0, 1, 2, …
        display_matrix: (a, b, c, d) by which players of an MP4 turn the picture:
            x' = a·x + c·y, y' = b·x + d·y, with y pointing down.
        colorspace: 1 tags and converts with BT.709, 5 with BT.601; default: untagged BT.601.
        format: container, where the suffix does not say it.
        last_duration: how long the last picture is shown, in units of `time_base`.
        pixel_aspect: a pixel's width by its height; default: nothing is said of it.
    """
    pictures = images or [numbered_picture(index, size_hw) for index in range(n_frames)]
    time_base = time_base or 1 / Fraction(fps)
    with av.open(str(path), "w", format=format) as container:
        stream = container.add_stream(codec, rate=Fraction(fps), options=options or {})
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = pix_fmt
        stream.codec_context.time_base = time_base
        if pixel_aspect is not None:
            stream.codec_context.sample_aspect_ratio = pixel_aspect
        if colorspace is not None:
            stream.codec_context.colorspace = colorspace
            stream.codec_context.color_range = 2 if full_range else 1
        for index, image in enumerate(pictures):
            if colorspace is not None:
                planes = yuv420(image, bt709=colorspace == 1, full_range=full_range)
                picture = av.VideoFrame.from_ndarray(planes, "yuv420p")
            else:
                form = "bgr24" if image.shape[2] == 3 else "bgra"
                picture = av.VideoFrame.from_ndarray(image, form).reformat(format=pix_fmt)
            picture.pts = times[index] if times is not None else index
            picture.time_base = time_base
            container.mux(stream.encode(picture))
        left = stream.encode(None)
        if last_duration is not None:
            max(left, key=lambda packet: packet.pts or 0).duration = last_duration
        container.mux(left)
    if display_matrix is not None:
        _set_display_matrix(path, display_matrix)
    return path


def yuv420(image_bgr: BgrImage, *, bt709: bool, full_range: bool) -> npt.NDArray[np.uint8]:
    """Y, Cb, Cr planes below each other (H·3/2, W), by the formulas of ITU-T H.273, in numpy."""
    red, blue = (0.2126, 0.0722) if bt709 else (0.299, 0.114)
    b, g, r = np.moveaxis(image_bgr / 255.0, 2, 0)
    luma = red * r + (1 - red - blue) * g + blue * b
    chroma = np.stack([(b - luma) / (2 - 2 * blue), (r - luma) / (2 - 2 * red)])[:, ::2, ::2]
    luma_8bit = luma * 255 if full_range else 16 + luma * 219
    chroma_8bit = 128 + chroma * (255 if full_range else 224)
    rows = np.concatenate([luma_8bit, chroma_8bit.reshape(-1, luma.shape[1])])
    planes: npt.NDArray[np.uint8] = np.clip(np.rint(rows), 0, 255).astype(np.uint8)
    return planes


def _set_display_matrix(path: Path, abcd: tuple[int, int, int, int]) -> None:
    """Overwrite the matrix in an MP4's track header (ISO/IEC 14496-12, tkhd), 16.16 and 2.30."""
    data = path.read_bytes()

    def packed(a: int, b: int, c: int, d: int) -> bytes:
        one, last = 1 << 16, 1 << 30
        return struct.pack(">9i", a * one, b * one, 0, c * one, d * one, 0, 0, 0, last)

    start = data.index(packed(1, 0, 0, 1), data.index(b"tkhd"))
    path.write_bytes(data[:start] + packed(*abcd) + data[start + 36 :])


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
