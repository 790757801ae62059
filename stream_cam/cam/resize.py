"""Antialiased resizing of frames on the CPU, as PyTorch's `interpolate(antialias=True)` does it.

A triangle (bilinear) or a cubic, as wide as an output pixel covers, weighs the frame's pixels. It
is separable. So each axis is a few small matrix products, whose weights are mostly not zero: one
for some neighbouring output rows, then one for some neighbouring columns. Only NumPy is needed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stream_cam.frame import BgrImage, FloatArray

_ROWS, _COLUMNS = 4, 8
"""Output rows and columns a product: the fastest of those tried, from 480 to 1080 rows."""
_CUBIC = -0.5
"""The parameter a of Keys' cubic in PyTorch's antialiased resizing, and in Pillow's."""


@dataclass(frozen=True)
class _Block:
    """Neighbouring outputs of one axis, and the inputs that they are made of."""

    outputs: slice
    inputs: slice
    weights: FloatArray
    """(n_outputs, n_inputs)."""


class AntialiasedResize:
    """Frames of one size to planes of another; its buffers are for one thread at a time."""

    def __init__(
        self,
        frame_hw: tuple[int, int],
        resized_hw: tuple[int, int],
        rows: slice,
        columns: slice,
        interpolation: str,
        scale: tuple[float, float, float] = (1.0, 1.0, 1.0),
    ) -> None:
        """
        Args:
            rows, columns: the part of the resized picture that is made.
            interpolation: bilinear or bicubic.
            scale: factors of red, green and blue.
        """
        self._rows = _blocks(frame_hw[0], resized_hw[0], rows, _ROWS, interpolation)
        across = _blocks(frame_hw[1], resized_hw[1], columns, _COLUMNS, interpolation)
        first = min(block.inputs.start for block in across)
        last = max(block.inputs.stop for block in across)
        self._used = slice(first * 3, last * 3)
        self._columns = [_of_pixels(block, first, scale) for block in across]
        self._size_hw = (rows.stop - rows.start, columns.stop - columns.start)
        width = (last - first) * 3
        tallest = max(block.weights.shape[1] for block in self._rows)
        self._strip = np.empty((tallest, width), np.float32)
        self._short = np.empty((self._size_hw[0], width), np.float32)

    def __call__(self, frame_bgr: BgrImage, out: FloatArray) -> None:
        """Writes the planes.

        Args:
            frame_bgr: (H, W, 3) uint8, contiguous.
            out: (3, h, w) float32, receives red, green and blue; a cubic goes beyond 0..255.
        """
        frame = frame_bgr.reshape(frame_bgr.shape[0], -1)[:, self._used]
        for block in self._rows:
            strip = self._strip[: block.weights.shape[1]]
            np.copyto(strip, frame[block.inputs])
            np.dot(block.weights, strip, out=self._short[block.outputs])
        for block in self._columns:
            planes = np.dot(self._short[:, block.inputs], block.weights)
            planes = planes.reshape(self._size_hw[0], 3, -1)
            out[:, :, block.outputs] = planes.transpose(1, 0, 2)


def _of_pixels(block: _Block, first: int, scale: tuple[float, float, float]) -> _Block:
    """The block for rows of (B, G, R) pixels, from pixel `first` on.

    Its weights are (n_inputs · 3, 3 · n_outputs), of which each third makes one plane of R, G, B.
    """
    n_outputs, n_inputs = block.weights.shape
    weights = np.zeros((n_inputs, 3, 3, n_outputs), np.float32)
    for channel in range(3):
        weights[:, 2 - channel, channel] = block.weights.T * scale[channel]
    start = (block.inputs.start - first) * 3
    inputs = slice(start, start + n_inputs * 3)
    return _Block(block.outputs, inputs, weights.reshape(n_inputs * 3, 3 * n_outputs))


def _blocks(
    n_inputs: int, n_resized: int, wanted: slice, n_outputs: int, interpolation: str
) -> list[_Block]:
    """One axis of which the outputs `wanted` are made, `n_outputs` a block."""
    scale = n_inputs / n_resized
    wide = max(scale, 1.0)
    reach = wide * (2.0 if interpolation == "bicubic" else 1.0)
    centers = (np.arange(wanted.start, wanted.stop) + 0.5) * scale
    firsts = np.maximum((centers - reach + 0.5).astype(int), 0)
    lasts = np.minimum((centers + reach + 0.5).astype(int), n_inputs)
    blocks = []
    for start in range(0, centers.size, n_outputs):
        outputs = slice(start, min(start + n_outputs, centers.size))
        inputs = slice(int(firsts[outputs].min()), int(lasts[outputs].max()))
        place = np.arange(inputs.start, inputs.stop)
        weights = _filter((place + 0.5 - centers[outputs, None]) / wide, interpolation)
        weights[(place < firsts[outputs, None]) | (place >= lasts[outputs, None])] = 0.0
        weights /= weights.sum(axis=1, keepdims=True)
        blocks.append(_Block(outputs, inputs, weights.astype(np.float32)))
    return blocks


def _filter(distance: npt.NDArray[np.float64], interpolation: str) -> npt.NDArray[np.float64]:
    """The weight of a pixel at a distance from an output's centre, in output pixels."""
    x, a = np.abs(distance), _CUBIC
    if interpolation != "bicubic":
        return np.maximum(0.0, 1.0 - x)
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    far = (((x - 5.0) * x + 8.0) * x - 4.0) * a
    weights: npt.NDArray[np.float64] = np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))
    return weights
