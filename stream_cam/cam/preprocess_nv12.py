"""Triton: NV12 frames become the network's input in one launch.

    yuv[y, x]    = Σ_j Σ_i wy[y, j]·wx[x, i]·(luma, chroma of its 2×2 pixels)[y0 + j, x0 + i]
    out[c, y, x] = (clamp(Σ_p rgb_from_yuv[c, p]·yuv[p, y, x] + offset[c], 0, 1) − mean[c]) / std[c]

The taps are those of `preprocess`: torch's antialiased resize. A 1920×1080 frame for a 224×224
input costs 3.1 MB read and 0.3 MB (float16) written. The resize comes first and the colours after
it. Linear steps may change places, and this order needs 50,000 conversions instead of 2 million.
Only clamping is not linear, so colours that RGB does not have (a decoder's overshoot at an edge)
are averaged before they are clamped.

Within 1e-4 of `preprocess_nv12_reference` in float32, 2e-3 in float16 (normalised units). A thread
takes four neighbouring pixels at a time, a word of luma and one of chroma, which two rows share.
Nothing here is timed on a GPU yet.
"""

# Triton has no types, and no unpacking into tuples.
# mypy: disable-error-code="no-untyped-def, untyped-decorator, assignment"
# ruff: noqa: RUF005

from __future__ import annotations

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

from stream_cam.cam import reference
from stream_cam.cam.nv12 import ColorMatrix, check_even, rgb_from_yuv
from stream_cam.cam.preprocess import WEIGHT_SCALE, PreprocessPlan, is_aligned, launch_of

_QUADS = 4
"""Four-pixel pieces that a thread takes at most."""


@triton.jit
def _preprocess_nv12_kernel(
    luma_ptr,
    chroma_ptr,
    out_ptr,
    row_first_ptr,
    row_weight_ptr,
    column_first_ptr,
    column_weight_ptr,
    color_ptr,
    normal_ptr,
    luma_batch_stride,
    luma_row_stride,
    chroma_batch_stride,
    chroma_row_stride,
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
    first_pixel = (first // 4 * 4)[:, None] + 4 * lane
    end_pixel = (first + n_taps)[:, None]
    luma_ptr += batch * luma_batch_stride
    chroma_ptr += batch * chroma_batch_stride
    sums = ()
    for _ in tl.static_range(8 * QUADS):
        sums = sums + (tl.zeros([COLUMNS, LANES], tl.int32),)
    for tap in range(0, n_rows):
        weight = tl.load(row_weight_ptr + row * n_row_taps + tap)
        frame_row = (first_row + tap).to(tl.int64)
        luma_row_ptr = luma_ptr + frame_row * luma_row_stride
        chroma_row_ptr = chroma_ptr + frame_row // 2 * chroma_row_stride
        added = ()
        for quad in tl.static_range(QUADS):
            pixel = first_pixel + 4 * LANES * quad
            # A pair of U and V takes as many bytes as its two pixels of luma.
            lumas = _load_four(luma_row_ptr, pixel, end_pixel, 1, ALIGNED)
            chromas = _load_four(chroma_row_ptr, pixel, end_pixel, 2, ALIGNED)
            for place in tl.static_range(4):
                added = added + (sums[8 * quad + place] + lumas[place] * weight,)
            for place in tl.static_range(4):
                added = added + (sums[8 * quad + 4 + place] + chromas[place] * weight,)
        sums = added

    y = tl.zeros([COLUMNS, LANES], tl.float32)
    u = tl.zeros([COLUMNS, LANES], tl.float32)
    v = tl.zeros([COLUMNS, LANES], tl.float32)
    for quad in tl.static_range(QUADS):
        for place in tl.static_range(4):
            # As unsigned, taps before the first one are large.
            tap_of = (first_pixel + 4 * LANES * quad + place - first[:, None]).to(tl.uint32)
            weight_ptr = column_weight_ptr + column[:, None] * n_column_taps + tap_of
            weight = tl.load(weight_ptr, mask=tap_of < n_taps[:, None].to(tl.uint32), other=0.0)
            y += sums[8 * quad + place].to(tl.float32) * weight
            u += sums[8 * quad + 4 + place // 2 * 2].to(tl.float32) * weight
            v += sums[8 * quad + 5 + place // 2 * 2].to(tl.float32) * weight
    y_level = tl.sum(y, axis=1) / WEIGHT_SCALE
    u_level = tl.sum(u, axis=1) / WEIGHT_SCALE
    v_level = tl.sum(v, axis=1) / WEIGHT_SCALE

    out_ptr += batch * out_batch_stride + row * out_row_stride
    for channel in tl.static_range(3):
        row_ptr = color_ptr + 4 * channel
        level = y_level * tl.load(row_ptr) + u_level * tl.load(row_ptr + 1)
        level += v_level * tl.load(row_ptr + 2) + tl.load(row_ptr + 3)
        level = tl.minimum(tl.maximum(level, 0.0), 1.0)
        value = level * tl.load(normal_ptr + channel) + tl.load(normal_ptr + 3 + channel)
        value = tl.where(n_taps * n_rows > 0, value, 0.0)
        ptr = out_ptr + channel * out_channel_stride + column * out_column_stride
        tl.store(ptr, value.to(out_ptr.dtype.element_ty), mask=column < n_columns)


@triton.jit
def _load_four(row_ptr, pixel, end_pixel, STEP: tl.constexpr, ALIGNED: tl.constexpr):
    """Four bytes from `pixel` on, no more than the taps need; `STEP` of them belong together."""
    four = ()
    if ALIGNED:
        ptr = (row_ptr + pixel).to(tl.pointer_type(tl.uint32))
        word = tl.load(ptr, mask=pixel < end_pixel, other=0)
        for place in tl.static_range(4):
            four = four + (((word >> (8 * place)) & 0xFF).to(tl.int32),)
    else:
        for place in tl.static_range(4):
            mask = pixel + place // STEP * STEP < end_pixel
            byte = tl.load(row_ptr + pixel + place, mask=mask, other=0)
            four = four + (byte.to(tl.int32),)
    return four


def color_of(
    matrix: ColorMatrix, *, full_range: bool, device: torch.device | str = "cuda"
) -> Tensor:
    """(3, 4) float32: the matrix from levels of Y, U, V and 1 to R, G and B in 0..1."""
    to_rgb, offset = rgb_from_yuv(matrix, full_range=full_range)
    color = np.concatenate([to_rgb, offset[:, None]], axis=1) / 255.0
    return torch.from_numpy(color.astype(np.float32)).to(device)


def preprocess_nv12(
    luma: Tensor, chroma: Tensor, plan: PreprocessPlan, color: Tensor, *, out: Tensor
) -> None:
    """Resizes, converts and normalises frames; one launch, which nobody waits for.

    Args:
        luma: (N, H, W) uint8 and
        chroma: (N, H/2, W/2, 2) uint8, from `nv12.planes`, say; packed pixels, any other strides;
            fastest with rows that begin at multiples of 4 bytes.
        plan: for frames of this size, on their device.
        color: (3, 4) float32, from `color_of`.
        out: (N, 3, h, w) float16 or float32, any strides (so also channels-last): normalised RGB.
    """
    _check(luma, chroma, plan, color, out)
    n, width = luma.shape[0], plan.fit.input_hw[1]
    if not n:
        return
    grid, shape = launch_of(plan, n, _QUADS, full_lanes=1)
    with torch.cuda.device_of(luma):  # type: ignore[no-untyped-call]
        _preprocess_nv12_kernel[grid](
            luma,
            chroma,
            out,
            plan.row_first,
            plan.row_weight,
            plan.column_first,
            plan.column_weight,
            color,
            plan.normal,
            *luma.stride()[:2],
            *chroma.stride()[:2],
            *out.stride(),
            width,
            plan.row_weight.shape[1],
            plan.column_weight.shape[1],
            ALIGNED=is_aligned(luma[..., None]) and is_aligned(chroma),
            **shape,
        )


def _check(luma: Tensor, chroma: Tensor, plan: PreprocessPlan, color: Tensor, out: Tensor) -> None:
    n = luma.shape[0] if luma.ndim else 0
    check_even(plan.fit.frame_hw)
    height, width = plan.fit.frame_hw
    wanted = {
        "luma": (luma, (n, height, width), (1,)),
        "chroma": (chroma, (n, height // 2, width // 2, 2), (2, 1)),
    }
    for name, (plane, shape, packed) in wanted.items():
        if plane.dtype != torch.uint8 or plane.shape != shape or plane.stride()[2:] != packed:
            raise ValueError(
                f"{name} is {shape} uint8 for this plan, with packed pixels, "
                f"got {tuple(plane.shape)} {plane.dtype} with strides {plane.stride()}"
            )
    if color.shape != (3, 4) or color.dtype != torch.float32 or not color.is_contiguous():
        raise ValueError(
            "color is (3, 4) float32, contiguous, "
            f"got {tuple(color.shape)} {color.dtype} with strides {color.stride()}"
        )
    out_shape = (n, 3, *plan.fit.input_hw)
    if out.dtype not in (torch.float16, torch.float32) or out.shape != out_shape:
        raise ValueError(
            f"out is {out_shape} float16 or float32, got {tuple(out.shape)} {out.dtype}"
        )
    for tensor in (chroma, plan.normal, color, out):
        if tensor.device != luma.device:
            raise ValueError(f"tensors are on {luma.device} and {tensor.device}")


def preprocess_nv12_reference(
    luma: Tensor, chroma: Tensor, plan: PreprocessPlan, color: Tensor, *, out: Tensor
) -> None:
    """`preprocess_nv12` in plain torch."""
    for n in range(luma.shape[0]):
        uv = chroma[n].cpu().repeat_interleave(2, 0).repeat_interleave(2, 1).permute(2, 0, 1)
        yuv = torch.cat([luma[n].cpu()[None], uv]).float()
        small = reference.resized(yuv, plan.fit, plan.interpolation)
        ones = torch.ones_like(small[:1])
        rgb = torch.einsum("cp,phw->chw", color.cpu(), torch.cat([small, ones])).clamp(0.0, 1.0)
        out[n] = reference.normalised(rgb, plan.fit, plan.mean, plan.std)[0].to(out.dtype)
