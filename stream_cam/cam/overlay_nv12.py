"""Triton: scaled maps are upsampled, coloured and blended onto NV12 frames, plane by plane.

    heat(x, y) = as in `overlay`; of chroma at the middle of its 2×2 pixels
    out        = (keep[heat]·plane + colour[heat]) >> 8    tables: `overlay_plan.overlay_table_nv12`

To blend colours is to blend their Y, U and V, so a frame that a decoder left in NV12 is drawn on
without becoming BGR and back: 3.1 MB read and 3.1 MB written for 1920×1080, half of what BGR costs.

The walk down the rows is that of `overlay`. A thread takes a vector of 128 bits: 16 pixels of luma,
or 8 of chroma, whose U and V are one product. Rows that are aligned to 4 bytes only go by words,
others byte by byte, and so do the last columns. Two launches, four where there are such columns.
Nothing here is timed on a GPU yet.
"""

# Triton has no types, and no unpacking into tuples.
# mypy: disable-error-code="no-untyped-def, untyped-decorator, assignment, misc"
# ruff: noqa: RUF005

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from stream_cam.cam import reference
from stream_cam.cam.overlay_plan import OUTSIDE, OverlayPlan, OverlayPlanNv12, OverlayTable
from stream_cam.cam.walk import SHIFT, walk


@triton.jit
def _mixed(pixel, heat, table_ptr, CHANNELS: tl.constexpr):
    """Luma, or U | V << 16, under the colours of their heat."""
    entry = tl.load(table_ptr + (heat >> SHIFT))  # whatever 32 bits hold is in the table
    above = (entry >> 32).to(tl.uint32)
    if CHANNELS == 1:
        mixed = (pixel * (above >> 16) + (above & 0xFFFF)) >> 8
    else:
        mixed = ((pixel * (above >> 16) + entry.to(tl.uint32)) >> 8) & 0x00FF00FF
    return mixed


@triton.jit
def _load(row_ptr, group, mask, CHANNELS: tl.constexpr, WORDS: tl.constexpr):
    """The pixels of each group, a tensor for each place in it."""
    pixels = ()
    if WORDS == 0:
        value = tl.load(row_ptr + group * CHANNELS, mask=mask, other=0).to(tl.uint32)
        if CHANNELS == 2:
            v = tl.load(row_ptr + group * CHANNELS + 1, mask=mask, other=0).to(tl.uint32)
            value |= v << 16
        pixels = (value,)
    else:
        words = _load_words(row_ptr.to(tl.pointer_type(tl.uint32)), group, mask, WORDS)
        for place in tl.static_range(WORDS):
            word = words[place]
            if CHANNELS == 1:
                pixels = pixels + (word & 0xFF, (word >> 8) & 0xFF, (word >> 16) & 0xFF, word >> 24)
            else:
                first = (word & 0xFF) | ((word & 0xFF00) << 8)
                pixels = pixels + (first, ((word >> 16) & 0xFF) | ((word >> 8) & 0xFF0000))
    return pixels


@triton.jit
def _load_words(word_ptr, group, mask, WORDS: tl.constexpr):
    words = ()
    if WORDS == 4:
        ptr = word_ptr + (group * 4)[:, None] + tl.arange(0, 4)[None, :]
        four = tl.load(ptr, mask=mask[:, None], other=0)
        even, odd = tl.split(tl.reshape(four, [four.shape[0], 2, 2]))
        a, c = tl.split(even)
        b, d = tl.split(odd)
        words = (a, b, c, d)
    else:
        words = (tl.load(word_ptr + group, mask=mask, other=0),)
    return words


@triton.jit
def _store(row_ptr, group, pixels, mask, CHANNELS: tl.constexpr, WORDS: tl.constexpr):
    if WORDS == 0:
        ptr = row_ptr + group * CHANNELS
        tl.store(ptr, (pixels[0] & 0xFF).to(tl.uint8), mask=mask)
        if CHANNELS == 2:
            tl.store(ptr + 1, (pixels[0] >> 16).to(tl.uint8), mask=mask)
    else:
        words = ()
        for place in tl.static_range(WORDS):
            if CHANNELS == 1:
                p, q = pixels[4 * place], pixels[4 * place + 1]
                r, s = pixels[4 * place + 2], pixels[4 * place + 3]
                words = words + (p | (q << 8) | (r << 16) | (s << 24),)
            else:
                p, q = pixels[2 * place], pixels[2 * place + 1]
                low = (p & 0xFF) | (p >> 8)
                words = words + (low | ((q & 0xFF) << 16) | ((q >> 16) << 24),)
        word_ptr = row_ptr.to(tl.pointer_type(tl.uint32))
        if WORDS == 4:
            four = tl.join(tl.join(words[0], words[2]), tl.join(words[1], words[3]))
            four = tl.reshape(four, [words[0].shape[0], 4])
            ptr = word_ptr + (group * 4)[:, None] + tl.arange(0, 4)[None, :]
            tl.store(ptr, four, mask=mask[:, None])
        else:
            tl.store(word_ptr + group, words[0], mask=mask)


@triton.jit
def _plane_kernel(
    plane_ptr,
    out_ptr,
    scaled_ptr,
    table_ptr,
    column_cells_ptr,
    column_t_ptr,
    row_cells_ptr,
    row_t_ptr,
    row_end_ptr,
    plane_batch_stride,
    plane_row_stride,
    out_batch_stride,
    out_target_stride,
    out_row_stride,
    row_step,
    n_targets,
    n_columns,
    n_map_rows,
    n_map_columns,
    first_row,
    end_row,
    first_group,
    end_group,
    CHANNELS: tl.constexpr,
    WORDS: tl.constexpr,
    GROUPS: tl.constexpr,
    ROWS: tl.constexpr,
    AHEAD: tl.constexpr,
    CUBIC: tl.constexpr,
):
    """`ROWS` rows of `GROUPS` groups of `WORDS` words, or of one pixel; strides in such units."""
    BYTES: tl.constexpr = max(1, 4 * WORDS)
    UNIT: tl.constexpr = max(1, 4 * WORDS // CHANNELS)
    group = first_group + tl.program_id(0) * GROUPS + tl.arange(0, GROUPS)
    picture = tl.program_id(2)
    batch = (picture // n_targets).to(tl.int64)
    target = (picture % n_targets).to(tl.int64)
    scaled_ptr += picture * n_map_rows * n_map_columns
    plane_ptr += batch * plane_batch_stride * BYTES
    out_ptr += (batch * out_batch_stride + target * out_target_stride) * BYTES
    row = first_row + tl.program_id(1) * ROWS
    stop = tl.minimum(row + ROWS, end_row)
    while row < stop:
        row_cells = tl.load(row_cells_ptr + row)
        row_t = tl.load(row_t_ptr + row)
        end = tl.minimum(tl.load(row_end_ptr + row), stop)
        heats = ()
        steps = ()
        for place in tl.static_range(UNIT):
            heat, step = walk(
                scaled_ptr,
                column_cells_ptr,
                column_t_ptr,
                group * UNIT + place,
                row_cells,
                row_t,
                row_step,
                n_columns,
                n_map_rows,
                n_map_columns,
                CUBIC,
            )
            heats = heats + (heat,)
            steps = steps + (step,)
        plane_row_ptr = plane_ptr + row.to(tl.int64) * plane_row_stride * BYTES
        out_row_ptr = out_ptr + row.to(tl.int64) * out_row_stride * BYTES
        for down in range(0, end - row, AHEAD):
            rows = ()
            masks = ()
            for ahead in tl.static_range(AHEAD):
                mask = group < tl.where(row + down + ahead < end, end_group, 0)
                ptr = plane_row_ptr + (down + ahead) * plane_row_stride * BYTES
                pixels = _load(ptr, group, mask, CHANNELS, WORDS)
                rows = rows + (pixels,)
                masks = masks + (mask,)
            for ahead in tl.static_range(AHEAD):
                mixed = ()
                grown = ()
                for place in tl.static_range(UNIT):
                    pixel = _mixed(rows[ahead][place], heats[place], table_ptr, CHANNELS)
                    mixed = mixed + (pixel,)
                    grown = grown + (heats[place] + steps[place],)
                heats = grown
                ptr = out_row_ptr + (down + ahead) * out_row_stride * BYTES
                _store(ptr, group, mixed, masks[ahead], CHANNELS, WORDS)
        row = end


_SHAPES = {4: (32, 4, 2, 1), 1: (128, 8, 2, 4), 0: (128, 8, 2, 4)}
"""Words → groups and rows a program, rows ahead, warps; as the overlay of BGR."""


def overlay_nv12(
    luma: Tensor,
    chroma: Tensor,
    scaled: Tensor,
    plan: OverlayPlanNv12,
    table: OverlayTable,
    *,
    out_luma: Tensor,
    out_chroma: Tensor,
) -> None:
    """Blends coloured maps onto NV12 frames; at most four launches, which nobody waits for.

    Args:
        luma: (N, H, W) uint8 and
        chroma: (N, H/2, W/2, 2) uint8, from `nv12.planes`, say; packed pixels, any other strides;
            fastest with rows that begin at multiples of 16 bytes.
        scaled: (N, n_targets, h, w) float32 in 0..1, contiguous, from `maps.class_maps`.
        plan, table: where the maps lie, and how they colour; on the frames' device.
        out_luma: (N, n_targets, H, W) and
        out_chroma: (N, n_targets, H/2, W/2, 2): a picture for each map. May be the frames
            themselves (`luma[:, None]`) if there is one map; else they must not overlap them.
    """
    _check(luma, scaled, plan.luma, table, out_luma, 1)
    _check(chroma, scaled, plan.chroma, table, out_chroma, 2)
    _overlay_plane(luma, scaled, plan.luma, table, out_luma, 1)
    _overlay_plane(chroma, scaled, plan.chroma, table, out_chroma, 2)


def _overlay_plane(
    plane: Tensor,
    scaled: Tensor,
    plan: OverlayPlan,
    table: OverlayTable,
    out: Tensor,
    channels: int,
) -> None:
    height, width = plan.frame_hw
    rows, columns = slice(0, height), slice(0, width)
    if out.data_ptr() == plane.data_ptr() and table.keeps_outside:
        rows, columns = plan.covered
    if not scaled.numel() or rows.start >= rows.stop or columns.start >= columns.stop:
        return
    words = _words(plane, out)
    if plan.upsampling == "bicubic":
        words = min(words, 1)  # the heats of a vector's pixels would not stay in registers
    first = columns.start
    if words:
        unit = 4 * words // channels
        end = min(-(-columns.stop // unit), width // unit) * unit
        groups = first // unit, end // unit
        _launch(plane, scaled, plan, table, out, channels, words, rows, groups)
        first = max(first, end)
    _launch(plane, scaled, plan, table, out, channels, 0, rows, (first, columns.stop))


def _launch(
    plane: Tensor,
    scaled: Tensor,
    plan: OverlayPlan,
    table: OverlayTable,
    out: Tensor,
    channels: int,
    words: int,
    rows: slice,
    first_and_end_group: tuple[int, int],
) -> None:
    first_group, end_group = first_and_end_group
    if first_group >= end_group:
        return
    n, n_targets = scaled.shape[:2]
    groups, n_rows, ahead, warps = _SHAPES[words]
    unit = max(1, 4 * words)
    grid = (
        triton.cdiv(end_group - first_group, groups),
        triton.cdiv(rows.stop - rows.start, n_rows),
        n * n_targets,
    )
    cubic = plan.upsampling == "bicubic"
    with torch.cuda.device_of(plane):  # type: ignore[no-untyped-call]
        _plane_kernel[grid](
            plane,
            out,
            scaled,
            table.entries,
            plan.column_cells,
            plan.column_t,
            plan.row_cells,
            plan.row_t,
            plan.row_end,
            *(stride // unit for stride in plane.stride()[:2]),
            *(stride // unit for stride in out.stride()[:3]),
            plan.row_step,
            n_targets,
            plan.frame_hw[1],
            *plan.cam_hw,
            rows.start,
            rows.stop,
            first_group,
            end_group,
            CHANNELS=channels,
            WORDS=words,
            GROUPS=groups,
            ROWS=n_rows,
            AHEAD=1 if cubic else ahead,
            CUBIC=cubic,
            num_warps=warps,
            enable_fp_fusion=True,
        )


def _words(plane: Tensor, out: Tensor) -> int:
    """How many 32-bit words a thread may take: 4, 1, or 0 for single bytes."""
    steps = (plane.data_ptr(), out.data_ptr(), *plane.stride()[:2], *out.stride()[:3])
    return next((words for words in (4, 1) if not any(step % (4 * words) for step in steps)), 0)


def _check(
    plane: Tensor,
    scaled: Tensor,
    plan: OverlayPlan,
    table: OverlayTable,
    out: Tensor,
    channels: int,
) -> None:
    name = "luma" if channels == 1 else "chroma"
    n = plane.shape[0] if plane.ndim else 0
    shape = (*plan.frame_hw, 2)[: 1 + channels]
    packed = (1,) if channels == 1 else (2, 1)
    if plane.dtype != torch.uint8 or plane.shape != (n, *shape) or plane.stride()[2:] != packed:
        raise ValueError(
            f"{name} is {(n, *shape)} uint8 for this plan, with packed pixels, "
            f"got {tuple(plane.shape)} {plane.dtype} with strides {plane.stride()}"
        )
    if (
        scaled.ndim != 4
        or (scaled.shape[0], *scaled.shape[2:]) != (n, *plan.cam_hw)
        or scaled.dtype != torch.float32
        or not scaled.is_contiguous()
    ):
        raise ValueError(
            f"maps are ({n}, n_targets, {plan.cam_hw[0]}, {plan.cam_hw[1]}) float32, contiguous, "
            f"got {tuple(scaled.shape)} {scaled.dtype}"
        )
    wanted = (n, scaled.shape[1], *shape)
    if out.dtype != torch.uint8 or out.shape != wanted or out.stride()[3:] != packed:
        raise ValueError(
            f"out_{name} is {wanted} uint8 with packed pixels, "
            f"got {tuple(out.shape)} {out.dtype} with strides {out.stride()}"
        )
    same_strides = (out.stride(0), *out.stride()[2:]) == plane.stride()
    if out.data_ptr() == plane.data_ptr() and (scaled.shape[1] > 1 or not same_strides):
        raise ValueError("in place there is one map a frame, and out has the frame's strides")
    for tensor in (scaled, plan.row_end, table.entries, out):
        if tensor.device != plane.device:
            raise ValueError(f"tensors are on {plane.device} and {tensor.device}")


def overlay_nv12_reference(
    luma: Tensor,
    chroma: Tensor,
    scaled: Tensor,
    plan: OverlayPlanNv12,
    table: OverlayTable,
    *,
    out_luma: Tensor,
    out_chroma: Tensor,
) -> None:
    """`overlay_nv12` in plain torch, with the full-size heatmaps that it does without."""
    entries = table.entries.cpu()
    keep = entries >> 48
    y, uv = (entries >> 32) & 0xFFFF, torch.stack([entries, entries >> 16], dim=-1) & 0xFFFF
    for n in range(scaled.shape[0]):
        for target in range(scaled.shape[1]):
            cam = scaled[n, target].cpu()
            at = _table_places(cam, plan.luma)
            out_luma[n, target] = (luma[n].cpu().long() * keep[at] + y[at]) >> 8
            at = _table_places(cam, plan.chroma)
            mixed = chroma[n].cpu().long() * keep[at][..., None] + uv[at]
            out_chroma[n, target] = mixed >> 8


def _table_places(cam: Tensor, plan: OverlayPlan) -> Tensor:
    heat, inside = reference.upsample_heat(cam, plan.frame_hw, plan.region, plan.upsampling)
    return torch.where(inside, (heat * 255.0).round().long(), OUTSIDE)
