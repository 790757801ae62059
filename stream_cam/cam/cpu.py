"""The fast CPU path: frame to network input, and map to overlay, without full-size float arrays.

`CpuPreprocessor` resizes and normalises in the same matrix products.
`CpuOverlay` works strip by strip, so that heat, colour and blend of a strip stay in the L2 cache,
and gets the heat of a strip as one small matrix product: rows' weights × map × columns' weights.
"""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
import numpy.typing as npt

from stream_cam.cam.colormaps import color_table
from stream_cam.cam.geometry import FitPlan
from stream_cam.cam.resize import AntialiasedResize
from stream_cam.config import LookConfig, Upsampling
from stream_cam.frame import BgrImage, FloatArray, Region

Float64Array = npt.NDArray[np.float64]

_STRIP_PIXELS = 48 * 1280
"""Pixels a strip: 6 bytes of buffers a pixel and 6 of frame and output fit a 1 MB L2 cache."""


def scale_cam(
    cam: FloatArray, *, relu: bool = False, cold_hot: tuple[float, float] | None = None
) -> FloatArray:
    """A raw (h, w) map scaled to 0..1 float32; constant maps become zeros, NaN counts as cold.

    Args:
        relu: negative values count as 0 first, in the map and in `cold_hot`.
        cold_hot: the values that become 0 and 1, values beyond are clipped; default: the map's
            minimum and maximum.
    """
    finite = np.isfinite(cam)
    if not finite.all():
        cam = np.where(finite, cam, cam[finite].min() if finite.any() else 0.0)
    if relu:
        cam = np.maximum(cam, 0.0)
    if cold_hot is not None:
        return _scale_between(cam, *(max(value, 0.0) if relu else value for value in cold_hot))
    low = cam.min()
    span = cam.max() - low
    if not span > 0:
        return np.zeros(cam.shape, np.float32)
    return np.asarray((cam - low) / span, np.float32)


def _scale_between(cam: FloatArray, cold: float, hot: float) -> FloatArray:
    if not hot > cold:
        return np.zeros(cam.shape, np.float32)
    return np.asarray(np.clip((cam - cold) / (hot - cold), 0.0, 1.0), np.float32)


class CpuPreprocessor:
    """Frames of one size to network input; buffers are allocated once, so one thread at a time."""

    def __init__(
        self,
        plan: FitPlan,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        interpolation: str = "bilinear",
    ) -> None:
        """`mean` and `std` are per channel R, G, B, for values in 0..1."""
        self.plan = plan
        rows = slice(max(0, plan.top), min(plan.resized_hw[0], plan.top + plan.input_hw[0]))
        columns = slice(max(0, plan.left), min(plan.resized_hw[1], plan.left + plan.input_hw[1]))
        self._target = (
            slice(None),
            slice(rows.start - plan.top, rows.stop - plan.top),
            slice(columns.start - plan.left, columns.stop - plan.left),
        )
        self._padded = (rows.stop - rows.start, columns.stop - columns.start) != plan.input_hw
        red, green, blue = (1.0 / (255.0 * one) for one in std)
        self._resize = AntialiasedResize(
            plan.frame_hw, plan.resized_hw, rows, columns, interpolation, (red, green, blue)
        )
        offset = np.array(mean) / np.array(std)
        self._offset = offset.astype(np.float32)[:, None, None]
        # A cubic overshoots beyond black and white, of which the network knows nothing.
        white = (1.0 / np.array(std)).astype(np.float32)[:, None, None]
        self._white = white if interpolation == "bicubic" else None

    def __call__(self, frame_bgr: BgrImage, out: FloatArray) -> None:
        """Writes the input of one frame.

        Args:
            frame_bgr: (H, W, 3) uint8 of the plan's frame size.
            out: (3, h, w) float32, contiguous, receives normalised RGB.
        """
        if self._padded:
            out.fill(0.0)
        target = out[self._target]
        self._resize(np.ascontiguousarray(frame_bgr), target)
        if self._white is not None:
            np.clip(target, 0.0, self._white, out=target)
        target -= self._offset


class CpuOverlay:
    """Lays maps of one size onto frames of one size; not for two threads at once."""

    def __init__(
        self,
        frame_hw: tuple[int, int],
        cam_hw: tuple[int, int],
        region: Region,
        look: LookConfig,
    ) -> None:
        self.key = frame_hw, cam_hw, region, look
        self._look = look
        self._table = color_table(look.colormap)
        self._rows, row_weights = _axis_weights(
            frame_hw[0], cam_hw[0], region.y0, region.y1, look.upsampling
        )
        self._columns, column_weights = _axis_weights(
            frame_hw[1], cam_hw[1], region.x0, region.x1, look.upsampling
        )
        self._row_weights = row_weights
        self._column_weights = np.ascontiguousarray(column_weights.T)
        self._covers_frame = (row_weights.shape[0], column_weights.shape[0]) == frame_hw
        width = max(1, column_weights.shape[0])
        strip = max(1, min(frame_hw[0], _STRIP_PIXELS // width))
        self._heat = np.empty((strip, width), np.float32)
        self._index = np.empty((strip, width), np.uint8)
        self._color = np.empty((strip, width, 3), np.uint8)

    def blend(
        self,
        frame_bgr: BgrImage,
        scaled: FloatArray,
        out: BgrImage | None = None,
        *,
        opacity: float = 1.0,
    ) -> BgrImage:
        """The frame with the coloured heatmap blended in.

        Args:
            frame_bgr: (H, W, 3) uint8.
            scaled: (h, w) float32 in 0..1.
            out: (H, W, 3) uint8 to write to; may be the frame itself. Default: a new array.
            opacity: factor of alpha, 0..1.
        """
        frame_bgr = np.ascontiguousarray(frame_bgr)
        if out is None:
            out = np.empty_like(frame_bgr)
        if not self._covers_frame and out is not frame_bgr:
            np.copyto(out, frame_bgr)
        source = frame_bgr[self._rows, self._columns]
        target = out[self._rows, self._columns]
        alpha = self._look.alpha * opacity
        for start, stop, heat, color in self._strips(scaled):
            if self._look.alpha_mode == "heat":
                _blend_by_heat(source[start:stop], color, heat, alpha / 255.0, target[start:stop])
            else:
                cv2.addWeighted(
                    color, alpha, source[start:stop], 1.0 - alpha, 0.0, target[start:stop]
                )
        return out

    def heatmap(self, scaled: FloatArray) -> BgrImage:
        """The coloured heatmap alone, (H, W, 3) uint8; black outside the region."""
        frame_hw: tuple[int, int] = self.key[0]
        picture = np.zeros((*frame_hw, 3), np.uint8)
        target = picture[self._rows, self._columns]
        for start, stop, _, color in self._strips(scaled):
            target[start:stop] = color
        return picture

    def _strips(self, scaled: FloatArray) -> Iterator[tuple[int, int, FloatArray, BgrImage]]:
        """Yields first row, end row, heat in 0..255 (float32) and colour of each strip."""
        across = np.dot(np.asarray(scaled, np.float32) * np.float32(255.0), self._column_weights)
        n_rows, height = self._row_weights.shape[0], self._heat.shape[0]
        if not across.shape[1]:  # the region does not touch the frame
            return
        for start in range(0, n_rows, height):
            stop = min(n_rows, start + height)
            heat = self._heat[: stop - start]
            index = self._index[: stop - start]
            color = self._color[: stop - start]
            np.dot(self._row_weights[start:stop], across, out=heat)
            if self._look.upsampling == "bicubic":  # the only one that overshoots
                np.clip(heat, 0.0, 255.0, out=heat)
            cv2.convertScaleAbs(heat, index)
            cv2.applyColorMap(index, self._table.reshape(256, 1, 3), color)
            yield start, stop, heat, color


def _blend_by_heat(
    frame: BgrImage, color: BgrImage, heat: FloatArray, alpha: float, out: BgrImage
) -> None:
    """`(1 − α·heat)·frame + α·heat·colour`; `alpha` is per unit of `heat`."""
    weight = heat * np.float32(alpha)
    cv2.blendLinear(color, frame, weight, np.float32(1.0) - weight, out)


def _axis_weights(
    n_pixels: int, n_cells: int, start: float, stop: float, mode: Upsampling
) -> tuple[slice, FloatArray]:
    """Interpolation weights along one axis.

    Returns:
        The pixels whose centre lies between `start` and `stop`, and for each of them a row of
        (n_cells,) float32 weights: half-pixel centres, indices clamped at the edges.
    """
    centers = np.arange(n_pixels, dtype=np.float64) + 0.5
    position: Float64Array = (centers - start) / (stop - start)
    inside = np.flatnonzero((position >= 0.0) & (position < 1.0))
    first, last = (int(inside[0]), int(inside[-1]) + 1) if inside.size else (0, 0)
    cell = position[first:last] * n_cells - 0.5
    weights = np.zeros((last - first, n_cells), np.float64)
    rows = np.arange(last - first)
    for tap, weight in _taps(cell, mode):
        np.add.at(weights, (rows, np.clip(tap, 0, n_cells - 1)), weight)
    return slice(first, last), weights.astype(np.float32)


def _taps(cell: Float64Array, mode: Upsampling) -> list[tuple[npt.NDArray[np.int64], Float64Array]]:
    """The cells that make each pixel, and their weights; `cell` counts from cell centres."""
    if mode == "nearest":
        return [(np.floor(cell + 0.5).astype(np.int64), np.ones_like(cell))]
    base = np.floor(cell).astype(np.int64)
    t = cell - base
    if mode == "bilinear":
        return [(base, 1.0 - t), (base + 1, t)]
    if mode == "smooth":
        nearest = np.floor(cell + 0.5).astype(np.int64)
        u = cell - nearest
        return [
            (nearest - 1, 0.5 * (0.5 - u) ** 2),
            (nearest, 0.75 - u**2),
            (nearest + 1, 0.5 * (0.5 + u) ** 2),
        ]
    return [
        (base - 1, _cubic_far(1 + t)),
        (base, _cubic_near(t)),
        (base + 1, _cubic_near(1 - t)),
        (base + 2, _cubic_far(2 - t)),
    ]


_CUBIC = -0.75
"""The parameter a of Keys, "Cubic convolution interpolation for digital image processing", 1981,
as torch and OpenCV have it."""


def _cubic_near(distance: Float64Array) -> Float64Array:
    return ((_CUBIC + 2) * distance - (_CUBIC + 3)) * distance * distance + 1


def _cubic_far(distance: Float64Array) -> Float64Array:
    a = _CUBIC
    return ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
