"""Triton: uint8 BGR frames become the network's input in one launch.

    out[c, y, x] = (Σ_j Σ_i wy[y, j]·wx[x, i]·frame[y0 + j, x0 + i, c] / 255 − mean[c]) / std[c]

The weights are those of torch's antialiased resize (a triangle, or a cubic, as wide as the
reduction), made once for a frame size, in float64; the area beside the frame (`letterbox`) is 0. A
1920×1080 frame for a 224×224 input costs 6.2 MB read and 0.3 MB (float16) written. Fused are
resize, BGR to RGB, scaling and normalisation: apart, each would write and read the picture again.

A thread takes four neighbouring frame pixels at a time, three words whose bytes it can tell apart:
down the rows under an output row it adds wy·byte, in integers (20 bits behind the point: the error
of a sum is below 0.002 of a level), since turning bytes into floats costs more than adding them.
Only then come the weights across, and a sum over the few threads that share an output pixel. Where
rows are not aligned to 4 bytes a word is read as four bytes.

Equal to `reference.preprocess` within 1e-5 in float32, 1e-3 in float16 (which has so few bits at
2.6, the largest value with ImageNet's figures). Nothing here is timed on a GPU yet.
"""

# Triton has no types, and no unpacking into tuples.
# mypy: disable-error-code="no-untyped-def, untyped-decorator, assignment"
# ruff: noqa: RUF005

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
import triton
import triton.language as tl
from torch import Tensor

from stream_cam.cam import reference
from stream_cam.cam.geometry import FitPlan

Interpolation = Literal["bilinear", "bicubic"]

_WEIGHT_BITS = 20
WEIGHT_SCALE = tl.constexpr(float(1 << _WEIGHT_BITS))
"""Factor of the vertical weights, which are integers."""
_QUADS = 3
"""Four-pixel pieces that a thread takes at most."""
_FULL_LANES = 2
"""Up to so many threads for an output pixel, each takes `_QUADS` pieces. Smaller frames then load
pieces that are masked, but need no kernel of their own."""
_THREADS = 32
"""One warp: 16 output columns of a 1920-pixel row, of which 224 are 14 programs."""


# These values change with the frame's size, and compiling for each size takes seconds.
_OF_THE_SIZE = [
    "frame_batch_stride",
    "frame_row_stride",
    "out_batch_stride",
    "out_channel_stride",
    "out_row_stride",
    "n_columns",
    "n_row_taps",
    "n_column_taps",
]


@triton.jit(do_not_specialize=_OF_THE_SIZE)
def _preprocess_kernel(
    frame_ptr,
    out_ptr,
    row_first_ptr,
    row_weight_ptr,
    column_first_ptr,
    column_weight_ptr,
    normal_ptr,
    frame_batch_stride,
    frame_row_stride,
    frame_column_stride,
    frame_channel_stride,
    out_batch_stride,
    out_channel_stride,
    out_row_stride,
    out_column_stride,
    n_columns,
    n_row_taps,
    n_column_taps,
    COLUMNS: tl.constexpr,
    LANES: tl.constexpr,
    QUADS: tl.constexpr,
    ALIGNED: tl.constexpr,
):
    """`COLUMNS` pixels of one output row, each by `LANES` threads with `QUADS`·4 frame pixels."""
    row = tl.program_id(1)
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    batch = tl.program_id(2).to(tl.int64)
    first_row = tl.load(row_first_ptr + 2 * row)
    n_rows = tl.load(row_first_ptr + 2 * row + 1)
    first = tl.load(column_first_ptr + 2 * column, mask=column < n_columns, other=0)
    n_taps = tl.load(column_first_ptr + 2 * column + 1, mask=column < n_columns, other=0)

    lane = tl.arange(0, LANES)[None, :]
    # Whole quadruples, so that which byte is of which channel does not depend on the place.
    first_pixel = (first // 4 * 4)[:, None] + 4 * lane
    end_pixel = (first + n_taps)[:, None]
    row_ptr = frame_ptr + batch * frame_batch_stride + first_row.to(tl.int64) * frame_row_stride
    sums = ()
    for _ in tl.static_range(12 * QUADS):
        sums = sums + (tl.zeros([COLUMNS, LANES], tl.int32),)
    for tap in range(0, n_rows):
        weight = tl.load(row_weight_ptr + row * n_row_taps + tap)
        tap_ptr = row_ptr + tap * frame_row_stride
        added = ()
        for quad in tl.static_range(QUADS):
            pixel = first_pixel + 4 * LANES * quad
            if ALIGNED:
                words = _load_words(tap_ptr, pixel, end_pixel)
            for place in tl.static_range(12):
                if ALIGNED:
                    byte = (words[place // 4] >> (8 * (place % 4))) & 0xFF
                else:
                    offset = (pixel + place // 3) * frame_column_stride
                    offset += place % 3 * frame_channel_stride
                    mask = pixel + place // 3 < end_pixel
                    byte = tl.load(tap_ptr + offset, mask=mask, other=0)
                added = added + (sums[12 * quad + place] + byte.to(tl.int32) * weight,)
        sums = added

    red = tl.zeros([COLUMNS, LANES], tl.float32)
    green = tl.zeros([COLUMNS, LANES], tl.float32)
    blue = tl.zeros([COLUMNS, LANES], tl.float32)
    for quad in tl.static_range(QUADS):
        for place in tl.static_range(4):
            # As unsigned, taps before the first one are large.
            tap_of = (first_pixel + 4 * LANES * quad + place - first[:, None]).to(tl.uint32)
            weight_ptr = column_weight_ptr + column[:, None] * n_column_taps + tap_of
            weight = tl.load(weight_ptr, mask=tap_of < n_taps[:, None].to(tl.uint32), other=0.0)
            blue += sums[12 * quad + 3 * place].to(tl.float32) * weight
            green += sums[12 * quad + 3 * place + 1].to(tl.float32) * weight
            red += sums[12 * quad + 3 * place + 2].to(tl.float32) * weight

    out_ptr += batch * out_batch_stride + row * out_row_stride
    planes = (red, green, blue)
    for channel in tl.static_range(3):
        level = tl.sum(planes[channel], axis=1) / (255.0 * WEIGHT_SCALE)
        level = tl.minimum(tl.maximum(level, 0.0), 1.0)
        value = level * tl.load(normal_ptr + channel) + tl.load(normal_ptr + 3 + channel)
        value = tl.where(n_taps * n_rows > 0, value, 0.0)
        ptr = out_ptr + channel * out_channel_stride + column * out_column_stride
        tl.store(ptr, value.to(out_ptr.dtype.element_ty), mask=column < n_columns)


@triton.jit
def _load_words(tap_ptr, pixel, end_pixel):
    """The three words of four pixels, of which no more is read than the taps need."""
    first_word = pixel // 4 * 3
    words = ()
    for word in tl.static_range(3):
        ptr = tap_ptr.to(tl.pointer_type(tl.uint32)) + first_word + word
        mask = (first_word + word) * 4 < end_pixel * 3
        words = words + (tl.load(ptr, mask=mask, other=0),)
    return words


@dataclass(frozen=True, eq=False)
class PreprocessPlan:
    """The taps of every output row and column; tensors on the frames' device."""

    fit: FitPlan
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: Interpolation
    row_first: Tensor
    """(h, 2) int32: first frame row under an output row, and how many; 0 of them: padding."""
    row_weight: Tensor
    """(h, taps) int32: their weights times 2^20."""
    column_first: Tensor
    """(w, 2) int32, as `row_first`."""
    column_weight: Tensor
    """(w, taps) float32, 0..1 (bicubic: a little beyond)."""
    n_quads: int
    """Aligned quadruples of frame pixels that the taps of an output pixel lie in, at most."""
    normal: Tensor
    """(6,) float32: 1 / std of R, G, B, then −mean / std."""


def plan_preprocess(
    fit: FitPlan,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    interpolation: Interpolation = "bilinear",
    *,
    device: torch.device | str = "cuda",
) -> PreprocessPlan:
    """`mean` and `std` are per channel R, G, B, for values in 0..1."""
    if interpolation not in ("bilinear", "bicubic"):
        raise ValueError(f"interpolation is bilinear or bicubic, got {interpolation!r}")
    row_first, row_weight = _axis_taps(fit, 0, fit.top, interpolation)
    column_first, column_weight = _axis_taps(fit, 1, fit.left, interpolation)
    fixed = np.rint(row_weight * 2**_WEIGHT_BITS).astype(np.int32)
    scale = 1.0 / np.array(std)
    normal = np.concatenate([scale, -np.array(mean) * scale])
    return PreprocessPlan(
        fit=fit,
        mean=mean,
        std=std,
        interpolation=interpolation,
        row_first=torch.from_numpy(row_first).to(device),
        row_weight=torch.from_numpy(fixed).to(device),
        column_first=torch.from_numpy(column_first).to(device),
        column_weight=torch.from_numpy(column_weight.astype(np.float32)).to(device),
        n_quads=max(1, int((-(-(column_first[:, 0] % 4 + column_first[:, 1]) // 4)).max())),
        normal=torch.from_numpy(normal.astype(np.float32)).to(device),
    )


def _axis_taps(
    fit: FitPlan, axis: int, offset: int, interpolation: Interpolation
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float64]]:
    """First frame pixel and number of taps, and the weights, of each pixel of the input."""
    n_frame, n_resized, n_input = fit.frame_hw[axis], fit.resized_hw[axis], fit.input_hw[axis]
    scale = n_frame / n_resized
    widening = max(scale, 1.0)
    radius = widening * (1.0 if interpolation == "bilinear" else 2.0)
    place = np.arange(n_input) + offset
    center = (place + 0.5) * scale
    first = np.maximum((center - radius + 0.5).astype(np.int64), 0)
    end = np.minimum((center + radius + 0.5).astype(np.int64), n_frame)
    first, end = (np.where((place >= 0) & (place < n_resized), one, 0) for one in (first, end))
    n_taps = end - first
    taps = np.arange(max(1, int(n_taps.max())))
    distance = np.abs(first[:, None] + taps + 0.5 - center[:, None]) / widening
    kernel = np.maximum(1.0 - distance, 0.0) if interpolation == "bilinear" else _cubic(distance)
    weight = np.where(taps < n_taps[:, None], kernel, 0.0)
    total = weight.sum(axis=1, keepdims=True)
    weight = weight / np.where(total == 0.0, 1.0, total)
    return np.stack([first, n_taps], axis=1).astype(np.int32), weight


def _cubic(distance: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Keys, "Cubic convolution interpolation for digital image processing", 1981, a = −0.5, as
    torch has it where it is antialiased (elsewhere it has −0.75)."""
    d = distance
    near = (1.5 * d - 2.5) * d * d + 1.0
    far = ((-0.5 * d + 2.5) * d - 4.0) * d + 2.0
    return np.where(d < 1.0, near, np.where(d < 2.0, far, 0.0))


def preprocess(frame_bgr: Tensor, plan: PreprocessPlan, *, out: Tensor) -> None:
    """Resizes and normalises frames; one launch, which nobody waits for.

    Args:
        frame_bgr: (N, H, W, 3) uint8, any strides; fastest with packed pixels and rows that begin
            at multiples of 4 bytes.
        plan: for frames of this size, on their device.
        out: (N, 3, h, w) float16 or float32, any strides (so also channels-last): normalised RGB.
    """
    _check(frame_bgr, plan, out)
    n, width = frame_bgr.shape[0], plan.fit.input_hw[1]
    if not n:
        return
    grid, shape = launch_of(plan, n, _QUADS, _FULL_LANES)
    with torch.cuda.device_of(frame_bgr):  # type: ignore[no-untyped-call]
        _preprocess_kernel[grid](
            frame_bgr,
            out,
            plan.row_first,
            plan.row_weight,
            plan.column_first,
            plan.column_weight,
            plan.normal,
            *frame_bgr.stride(),
            *out.stride(),
            width,
            plan.row_weight.shape[1],
            plan.column_weight.shape[1],
            ALIGNED=is_aligned(frame_bgr),
            **shape,
        )


def launch_of(
    plan: PreprocessPlan, n: int, most_quads: int, full_lanes: int
) -> tuple[tuple[int, int, int], dict[str, int | bool]]:
    """The grid for `n` frames and the constants of a kernel whose threads take so many pieces.

    Args:
        full_lanes: up to so many threads an output pixel take `most_quads` pieces for any frame.
    """
    height, width = plan.fit.input_hw
    lanes = triton.next_power_of_2(triton.cdiv(plan.n_quads, most_quads))
    columns = max(1, min(_THREADS // lanes, triton.next_power_of_2(width)))
    return (triton.cdiv(width, columns), height, n), {
        "COLUMNS": columns,
        "LANES": lanes,
        "QUADS": most_quads if lanes <= full_lanes else triton.cdiv(plan.n_quads, lanes),
        "num_warps": _THREADS // 32,
        "enable_fp_fusion": True,
    }


def is_aligned(plane: Tensor) -> bool:
    """True if rows of (N, H, W, channels) can be read as 32-bit words, the last of which may reach
    beyond a row's end."""
    batch_stride, row_stride, *pixel_strides = plane.stride()
    n, height, width, channels = plane.shape
    if pixel_strides != [channels, 1] or (plane.data_ptr() | batch_stride | row_stride) % 4:
        return False
    last_row = plane.storage_offset() + (n - 1) * batch_stride + (height - 1) * row_stride
    return bool(last_row + -(-channels * width // 4) * 4 <= plane.untyped_storage().nbytes())


def _check(frame_bgr: Tensor, plan: PreprocessPlan, out: Tensor) -> None:
    n = frame_bgr.shape[0] if frame_bgr.ndim else 0
    frame_shape, out_shape = (n, *plan.fit.frame_hw, 3), (n, 3, *plan.fit.input_hw)
    if frame_bgr.dtype != torch.uint8 or frame_bgr.shape != frame_shape:
        raise ValueError(
            f"frames are {frame_shape} uint8 for this plan, "
            f"got {tuple(frame_bgr.shape)} {frame_bgr.dtype}"
        )
    if out.dtype not in (torch.float16, torch.float32) or out.shape != out_shape:
        raise ValueError(
            f"out is {out_shape} float16 or float32, got {tuple(out.shape)} {out.dtype}"
        )
    for tensor in (plan.normal, out):
        if tensor.device != frame_bgr.device:
            raise ValueError(f"tensors are on {frame_bgr.device} and {tensor.device}")


def preprocess_reference(frame_bgr: Tensor, plan: PreprocessPlan, *, out: Tensor) -> None:
    """`preprocess` in plain torch."""
    for n in range(frame_bgr.shape[0]):
        batch = reference.preprocess(
            frame_bgr[n].cpu(), plan.fit, plan.mean, plan.std, plan.interpolation
        )
        out[n] = batch[0].to(out.dtype)
