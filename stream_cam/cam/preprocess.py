"""Triton: uint8 BGR frames become the network's input in one launch.

    out[c, y, x] = (Σ_j Σ_i wy[y, j]·wx[x, i]·frame[y0 + j, x0 + i, c] / 255 − mean[c]) / std[c]

The weights are those of torch's antialiased resize (a triangle, or a cubic, as wide as the
reduction), made once for a frame size, in float64; what lies beside the frame (`letterbox`) is 0.
A 1920×1080 frame for a 224×224 input costs 6.2 MB read and 0.3 MB (float16) written. Fused are
resize, BGR to RGB, scaling and normalisation: apart, each would write and read the picture again.

A thread owns a word, four bytes of the rows under one output pixel, whatever their channels: down
the rows it adds wy·byte four times, in integers (20 bits behind the point: the error of a sum is
below 0.002 of a level), since turning bytes into floats costs more than adding them. Only then are
the words of a pixel weighted by wx, told apart by channel and summed across threads. Neighbouring
threads read neighbouring words. Where rows are not aligned to 4 bytes a word is read as four bytes.

Equal to `reference.preprocess` within 1e-5 in float32, 1e-3 in float16 (which has so few bits at
2.6, the largest value with ImageNet's figures). Nothing here is timed on a GPU yet.
"""

# Triton has no types.
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

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
_LEVELS = tl.constexpr(255.0 * (1 << _WEIGHT_BITS))
_TILE = 512
"""Words a program holds at once: output pixels × words of a row under each."""


@triton.jit
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
    WORDS: tl.constexpr,
    ALIGNED: tl.constexpr,
):
    """`COLUMNS` pixels of one output row; a first tap of −1 is padding."""
    row = tl.program_id(1)
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    batch = tl.program_id(2).to(tl.int64)
    first_row = tl.load(row_first_ptr + 2 * row)
    n_rows = tl.load(row_first_ptr + 2 * row + 1)
    first = tl.load(column_first_ptr + 2 * column, mask=column < n_columns, other=0)
    n_taps = tl.load(column_first_ptr + 2 * column + 1, mask=column < n_columns, other=0)

    word = (first * 3 // 4)[:, None] + tl.arange(0, WORDS)[None, :]
    in_window = word * 4 < ((first + n_taps) * 3)[:, None]
    row_ptr = frame_ptr + batch * frame_batch_stride + first_row.to(tl.int64) * frame_row_stride
    sum_0 = tl.zeros([COLUMNS, WORDS], tl.int32)
    sum_1 = tl.zeros([COLUMNS, WORDS], tl.int32)
    sum_2 = tl.zeros([COLUMNS, WORDS], tl.int32)
    sum_3 = tl.zeros([COLUMNS, WORDS], tl.int32)
    for tap in range(0, n_rows):
        weight = tl.load(row_weight_ptr + row * n_row_taps + tap)
        if ALIGNED:
            words_ptr = (row_ptr + tap * frame_row_stride).to(tl.pointer_type(tl.int32))
            four = tl.load(words_ptr + word, mask=in_window, other=0)
            sum_0 += (four & 0xFF) * weight
            sum_1 += ((four >> 8) & 0xFF) * weight
            sum_2 += ((four >> 16) & 0xFF) * weight
            sum_3 += ((four >> 24) & 0xFF) * weight
        else:
            end = ((first + n_taps) * 3)[:, None]
            for place in tl.static_range(4):
                byte = word * 4 + place
                offset = byte // 3 * frame_column_stride + byte % 3 * frame_channel_stride
                one = tl.load(row_ptr + tap * frame_row_stride + offset, mask=byte < end, other=0)
                one = one.to(tl.int32) * weight
                if place == 0:
                    sum_0 += one
                elif place == 1:
                    sum_1 += one
                elif place == 2:
                    sum_2 += one
                else:
                    sum_3 += one

    red = tl.zeros([COLUMNS, WORDS], tl.float32)
    green = tl.zeros([COLUMNS, WORDS], tl.float32)
    blue = tl.zeros([COLUMNS, WORDS], tl.float32)
    sums = (sum_0, sum_1, sum_2, sum_3)
    for place in tl.static_range(4):
        byte = word * 4 + place
        tap_of = byte // 3 - first[:, None]
        channel = byte % 3
        # As unsigned, taps before the first one are large.
        is_tap = tap_of.to(tl.uint32, bitcast=True) < n_taps[:, None].to(tl.uint32, bitcast=True)
        weight_ptr = column_weight_ptr + column[:, None] * n_column_taps + tap_of
        value = sums[place].to(tl.float32) * tl.load(weight_ptr, mask=is_tap, other=0.0)
        blue += tl.where(channel == 0, value, 0.0)
        green += tl.where(channel == 1, value, 0.0)
        red += tl.where(channel == 2, value, 0.0)

    out_ptr += batch * out_batch_stride + row * out_row_stride
    planes = (red, green, blue)
    for channel in tl.static_range(3):
        level = tl.sum(planes[channel], axis=1) / _LEVELS
        level = tl.minimum(tl.maximum(level, 0.0), 1.0)
        value = level * tl.load(normal_ptr + channel) + tl.load(normal_ptr + 3 + channel)
        value = tl.where(n_taps * n_rows > 0, value, 0.0)
        ptr = out_ptr + channel * out_channel_stride + column * out_column_stride
        tl.store(ptr, value.to(out_ptr.dtype.element_ty), mask=column < n_columns)


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
    n = frame_bgr.shape[0]
    height, width = plan.fit.input_hw
    n_column_taps = plan.column_weight.shape[1]
    words = triton.next_power_of_2(-(-(3 * n_column_taps + 3) // 4))
    columns = max(1, min(_TILE // words, triton.next_power_of_2(width)))
    if not n:
        return
    with torch.cuda.device_of(frame_bgr):  # type: ignore[no-untyped-call]
        _preprocess_kernel[(triton.cdiv(width, columns), height, n)](
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
            n_column_taps,
            COLUMNS=columns,
            WORDS=words,
            ALIGNED=_is_aligned(frame_bgr),
            num_warps=4,
            enable_fp_fusion=True,
        )


def _is_aligned(frame_bgr: Tensor) -> bool:
    """True if rows can be read as 32-bit words, the last of which may reach beyond a row's end."""
    batch_stride, row_stride, *pixel_strides = frame_bgr.stride()
    if pixel_strides != [3, 1] or (frame_bgr.data_ptr() | batch_stride | row_stride) % 4:
        return False
    n, height, width, _ = frame_bgr.shape
    last_row = frame_bgr.storage_offset() + (n - 1) * batch_stride + (height - 1) * row_stride
    return bool(last_row + -(-3 * width // 4) * 4 <= frame_bgr.untyped_storage().nbytes())


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
