"""Frames as a decoder leaves them: NV12, brightness at every pixel, colour at every second one.

    luma (N, H, W) uint8            chroma (N, H/2, W/2, 2) uint8: U and V of 2×2 pixels

    Y = a + k·(kr·R + (1 − kr − kb)·G + kb·B)
    U = 128 + c·(B − Y')/(2·(1 − kb))        V = 128 + c·(R − Y')/(2·(1 − kr))

ITU-R BT.601 and BT.709; `a`, `k`, `c` are 16, 219/255, 224/255 in limited range, else 0, 1, 1.
Chroma is taken to lie in the middle of its pixels; video mostly has it half a pixel to the left.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
from torch import Tensor

ColorMatrix = Literal["bt601", "bt709"]
Float64Array = npt.NDArray[np.float64]

_KR_KB: dict[ColorMatrix, tuple[float, float]] = {
    "bt601": (0.299, 0.114),
    "bt709": (0.2126, 0.0722),
}


def planes(frames: Tensor) -> tuple[Tensor, Tensor]:
    """Luma and chroma of frames whose planes lie one below the other, as views.

    Args:
        frames: (N, H + H/2, W) uint8, H and W even, W packed; the form of OpenCV and of decoders.

    Returns:
        (N, H, W) and (N, H/2, W/2, 2).

    Raises:
        ValueError: another shape, or rows that are not packed.
    """
    if frames.ndim != 3 or frames.shape[1] % 3 or frames.shape[2] % 2 or frames.stride(2) != 1:
        raise ValueError(
            "NV12 frames are (N, H + H/2, W) with even H and W and packed rows, "
            f"got {tuple(frames.shape)} with strides {frames.stride()}"
        )
    n, rows, width = frames.shape
    height = rows // 3 * 2
    return frames[:, :height], frames[:, height:].view(n, height // 2, width // 2, 2)


def check_even(frame_hw: tuple[int, int]) -> None:
    """Raises ValueError if no NV12 frame has this height and width."""
    height, width = frame_hw
    if height % 2 or width % 2:
        raise ValueError(f"NV12 frames have an even height and width, got {height}×{width}")


def yuv_from_rgb(matrix: ColorMatrix, *, full_range: bool) -> tuple[Float64Array, Float64Array]:
    """The (3, 3) matrix and (3,) offset that make YUV levels of RGB levels, both 0..255."""
    if matrix not in _KR_KB:
        raise ValueError(f"matrix is {' or '.join(_KR_KB)}, got {matrix!r}")
    kr, kb = _KR_KB[matrix]
    luma = np.array([kr, 1.0 - kr - kb, kb])
    u = (np.array([0.0, 0.0, 1.0]) - luma) / (2.0 * (1.0 - kb))
    v = (np.array([1.0, 0.0, 0.0]) - luma) / (2.0 * (1.0 - kr))
    scale = np.array([255.0, 255.0, 255.0] if full_range else [219.0, 224.0, 224.0]) / 255.0
    offset = np.array([0.0 if full_range else 16.0, 128.0, 128.0])
    return scale[:, None] * np.stack([luma, u, v]), offset


def rgb_from_yuv(matrix: ColorMatrix, *, full_range: bool) -> tuple[Float64Array, Float64Array]:
    """The inverse: RGB levels are `m @ yuv + offset`, beyond 0..255 where YUV is no colour."""
    forward, offset = yuv_from_rgb(matrix, full_range=full_range)
    inverse = np.asarray(np.linalg.inv(forward), np.float64)
    return inverse, -inverse @ offset
