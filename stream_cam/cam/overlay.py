"""Triton: scaled maps are upsampled, coloured and blended onto uint8 frames in one pass.

    heat(x, y) = the map at half-pixel centres, on the plan's region: bilinear, nearest, bicubic or
                 smooth (a quadratic B-spline)
    out        = (keep[heat]·frame + colour[heat]) >> 8        tables: `overlay_plan.overlay_table`

A 1920×1080 frame costs 6.2 MB read and 6.2 MB written, and nothing else of that size: the heatmap
exists in registers only, a few rows of it. The limit of such a kernel is instructions: an H200 has
time for about 41 a pixel while it moves those bytes. Hence:

- Pixels are read and written as 32-bit words, 16 pixels a thread as three 128-bit vectors (4 as
  three words where rows are aligned to 4 bytes only). Blue and red of a pixel are one product, the
  rounding half and the colour's product come out of the table.
- A thread walks down rows. Between two map rows the heat of a column grows by the same step from
  row to row, so the interpolation is done once a column, and then costs one addition a pixel, in
  fixed point (9.23 bits: exacter than float32). Rows between other map rows begin a new
  interpolation; with bicubic or smooth upsampling every row does, at about five times the
  instructions.
- Frames whose rows are not aligned to 4 bytes, or whose pixels are not packed, go byte by byte, and
  so do the last columns of those whose width is no multiple.

Measured offline is the number of instructions (docs/gpu.md); time is not measured yet.
"""

# Triton has no types, and no unpacking into tuples.
# mypy: disable-error-code="no-untyped-def, untyped-decorator, assignment"
# ruff: noqa: RUF005

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from stream_cam.cam import reference
from stream_cam.cam.heat_interpolation import SHIFT, heat_and_step
from stream_cam.cam.overlay_plan import CURVES, OUTSIDE, OverlayPlan, OverlayTable
from stream_cam.cam.packed_pixels import load_pixels, store_pixels


@triton.jit
def _mixed(pixel, heat, table_ptr, CHANNELS: tl.constexpr):
    """Pixels under the colours of their heat."""
    # No mask, which would cost an instruction a pixel: whatever 32 bits hold is in the table.
    entry = tl.load(table_ptr + (heat >> SHIFT))
    above = (entry >> 32).to(tl.uint32)
    keep = above >> 16
    if CHANNELS == 1:
        mixed = (pixel * keep + (above & 0xFFFF)) >> 8
    else:
        # Two products in one: red and blue, or V and U.
        mixed = (((pixel & 0x00FF00FF) * keep + entry.to(tl.uint32)) >> 8) & 0x00FF00FF
        if CHANNELS == 3:
            mixed |= (((pixel >> 8) & 0xFF) * keep + above) & 0xFF00
    return mixed


# These values change with the frame's size, and compiling for each size takes seconds.
_OF_THE_SIZE = [
    "frame_batch_stride",
    "frame_row_stride",
    "out_batch_stride",
    "out_target_stride",
    "out_row_stride",
    "n_targets",
    "n_columns",
    "n_map_rows",
    "n_map_columns",
    "first_row",
    "end_row",
    "first_group",
    "end_group",
]


@triton.jit(do_not_specialize=_OF_THE_SIZE)
def _overlay_kernel(
    frame_ptr,
    out_ptr,
    scaled_ptr,
    table_ptr,
    column_cells_ptr,
    column_t_ptr,
    row_cells_ptr,
    row_t_ptr,
    row_end_ptr,
    frame_batch_stride,
    frame_row_stride,
    frame_column_stride,
    frame_channel_stride,
    out_batch_stride,
    out_target_stride,
    out_row_stride,
    out_column_stride,
    out_channel_stride,
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
    QUADS: tl.constexpr,
    ALIGNMENT: tl.constexpr,
    GROUPS: tl.constexpr,
    ROWS: tl.constexpr,
    AHEAD: tl.constexpr,
    CURVE: tl.constexpr,
):
    """`ROWS` rows of `GROUPS` groups of 4·`QUADS` packed pixels, or of one pixel of any strides.

    Batch, target and row strides are in units of `ALIGNMENT` bytes, so that Triton sees how rows
    are aligned.
    """
    UNIT: tl.constexpr = max(1, 4 * QUADS)
    VECTORS: tl.constexpr = ALIGNMENT == 16
    group = first_group + tl.program_id(0) * GROUPS + tl.arange(0, GROUPS)
    picture = tl.program_id(2)
    batch = (picture // n_targets).to(tl.int64)
    target = (picture % n_targets).to(tl.int64)
    scaled_ptr += picture * n_map_rows * n_map_columns
    frame_ptr += batch * frame_batch_stride * ALIGNMENT
    out_ptr += (batch * out_batch_stride + target * out_target_stride) * ALIGNMENT
    row = first_row + tl.program_id(1) * ROWS
    stop = tl.minimum(row + ROWS, end_row)
    while row < stop:
        row_cells = tl.load(row_cells_ptr + row)
        row_t = tl.load(row_t_ptr + row)
        end = tl.minimum(tl.load(row_end_ptr + row), stop)
        heats = ()
        steps = ()
        for place in tl.static_range(UNIT):
            heat, step = heat_and_step(
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
                CURVE,
            )
            heats = heats + (heat,)
            steps = steps + (step,)
        frame_row_ptr = frame_ptr + row.to(tl.int64) * frame_row_stride * ALIGNMENT
        out_row_ptr = out_ptr + row.to(tl.int64) * out_row_stride * ALIGNMENT
        for down in range(0, end - row, AHEAD):
            # `AHEAD` rows are asked for before the first one is written: the compiler may not move
            # a load over a store that could be to the same place.
            rows = ()
            masks = ()
            for ahead in tl.static_range(AHEAD):
                mask = group < tl.where(row + down + ahead < end, end_group, 0)
                pixels = load_pixels(
                    frame_row_ptr + (down + ahead) * frame_row_stride * ALIGNMENT,
                    group,
                    frame_column_stride,
                    frame_channel_stride,
                    mask,
                    CHANNELS,
                    QUADS,
                    VECTORS,
                )
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
                store_pixels(
                    out_row_ptr + (down + ahead) * out_row_stride * ALIGNMENT,
                    group,
                    mixed,
                    out_column_stride,
                    out_channel_stride,
                    masks[ahead],
                    CHANNELS,
                    QUADS,
                    VECTORS,
                )
        row = end


_SHAPES = {16: (32, 4, 2, 1), 4: (128, 8, 2, 4), 1: (128, 8, 2, 4)}
"""Alignment → groups and rows a program, rows ahead, warps. A 1920×1080 frame is 1080 programs of
one warp, 8 for each multiprocessor of an H200."""
_QUADS = {16: {3: 4, 2: 2, 1: 4}, 4: {3: 1, 2: 1, 1: 1}, 1: {3: 0, 2: 0, 1: 0}}
"""Alignment, channels → quadruples of pixels that a thread takes: whole vectors, or words."""


def overlay(
    frame_bgr: Tensor,
    scaled: Tensor,
    plan: OverlayPlan,
    table: OverlayTable,
    *,
    out: Tensor,
) -> None:
    """Blends coloured maps onto frames; at most two launches, which nobody waits for.

    Args:
        frame_bgr: (N, H, W, 3) uint8, any strides; fastest with packed pixels and rows that begin
            at multiples of 16 bytes.
        scaled: (N, n_targets, h, w) float32 in 0..1, contiguous, from `maps.class_maps`.
        plan, table: where the maps lie, and how they colour; on the frames' device.
        out: (N, n_targets, H, W, 3) uint8, any strides: a picture for each map. May be the frames
            themselves (`frame_bgr[:, None]`) if there is one map; else it must not overlap them.
    """
    check_overlay("frames", frame_bgr, scaled, plan, table, out, 3)
    draw_overlay(frame_bgr, scaled, plan, table, out)


def draw_overlay(
    frames: Tensor, scaled: Tensor, plan: OverlayPlan, table: OverlayTable, out: Tensor
) -> None:
    """The launches for frames, or planes of frames, that were checked: (N, H, W, channels)."""
    n, n_targets = scaled.shape[:2]
    height, width = plan.frame_hw
    rows, columns = slice(0, height), slice(0, width)
    if out.data_ptr() == frames.data_ptr() and table.keeps_outside:
        rows, columns = plan.covered
    if not (n and n_targets and rows.stop > rows.start and columns.stop > columns.start):
        return
    alignment = _alignment(frames, out)
    if plan.upsampling in CURVES:
        alignment = min(alignment, 4)  # the heats of sixteen pixels would not stay in registers
    first = columns.start
    if alignment > 1:
        unit = 4 * _QUADS[alignment][frames.shape[3]]
        end = min(-(-columns.stop // unit), width // unit) * unit
        groups = slice(first // unit, end // unit)
        _launch(frames, scaled, plan, table, out, alignment, rows, groups)
        first = max(first, end)
    _launch(frames, scaled, plan, table, out, 1, rows, slice(first, columns.stop))


def _launch(
    frames: Tensor,
    scaled: Tensor,
    plan: OverlayPlan,
    table: OverlayTable,
    out: Tensor,
    alignment: int,
    rows: slice,
    groups: slice,
) -> None:
    if groups.start >= groups.stop:
        return
    n, n_targets = scaled.shape[:2]
    n_groups, n_rows, ahead, warps = _SHAPES[alignment]
    grid = (
        triton.cdiv(groups.stop - groups.start, n_groups),
        triton.cdiv(rows.stop - rows.start, n_rows),
        n * n_targets,
    )
    curve = CURVES.get(plan.upsampling, 0)
    frame_strides, out_strides = frames.stride(), out.stride()
    with torch.cuda.device_of(frames):  # type: ignore[no-untyped-call]
        _overlay_kernel[grid](
            frames,
            out,
            scaled,
            table.entries,
            plan.column_cells,
            plan.column_t,
            plan.row_cells,
            plan.row_t,
            plan.row_end,
            *(stride // alignment for stride in frame_strides[:2]),
            *frame_strides[2:],
            *(stride // alignment for stride in out_strides[:3]),
            *out_strides[3:],
            plan.row_step,
            n_targets,
            plan.frame_hw[1],
            *plan.cam_hw,
            rows.start,
            rows.stop,
            groups.start,
            groups.stop,
            CHANNELS=frames.shape[3],
            QUADS=_QUADS[alignment][frames.shape[3]],
            ALIGNMENT=alignment,
            GROUPS=n_groups,
            ROWS=n_rows,
            AHEAD=1 if curve else ahead,
            CURVE=curve,
            num_warps=warps,
            enable_fp_fusion=True,
        )


def _alignment(frames: Tensor, out: Tensor) -> int:
    """Bytes that rows begin at a multiple of: 16, 4, or 1, also where pixels are not packed."""
    packed = (frames.shape[3], 1)
    if frames.stride()[2:] != packed or out.stride()[3:] != packed:
        return 1
    steps = (frames.data_ptr(), out.data_ptr(), *frames.stride()[:2], *out.stride()[:3])
    return next(one for one in (16, 4, 1) if not any(step % one for step in steps))


def check_overlay(
    name: str,
    frames: Tensor,
    scaled: Tensor,
    plan: OverlayPlan,
    table: OverlayTable,
    out: Tensor,
    channels: int,
) -> None:
    """Raises ValueError if that cannot be drawn; `name` is a name for the frames in messages."""
    n = frames.shape[0] if frames.ndim else 0
    shape = (n, *plan.frame_hw, channels)
    if frames.dtype != torch.uint8 or frames.shape != shape:
        raise ValueError(
            f"{name}: {shape} uint8 for this plan, got {tuple(frames.shape)} {frames.dtype}"
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
    wanted = (n, scaled.shape[1], *shape[1:])
    if out.dtype != torch.uint8 or out.shape != wanted:
        raise ValueError(f"out of {name}: {wanted} uint8, got {tuple(out.shape)} {out.dtype}")
    same_strides = (out.stride(0), *out.stride()[2:]) == frames.stride()
    if out.data_ptr() == frames.data_ptr() and (scaled.shape[1] > 1 or not same_strides):
        raise ValueError("in place there is one map a frame, and out has the frame's strides")
    for tensor in (scaled, plan.row_end, table.entries, out):
        if tensor.device != frames.device:
            raise ValueError(f"tensors are on {frames.device} and {tensor.device}")


def overlay_reference(
    frame_bgr: Tensor,
    scaled: Tensor,
    plan: OverlayPlan,
    table: OverlayTable,
    *,
    out: Tensor,
) -> None:
    """`overlay` in plain torch, with the full-size heatmap that it does without."""
    entries = table.entries.cpu()
    # Where a frame's channels are in an entry: Y alone, U and V, or blue, green and red.
    shifts = {1: (32,), 2: (0, 16), 3: (0, 32, 16)}[frame_bgr.shape[3]]
    color = torch.stack([entries >> shift for shift in shifts], dim=-1) & 0xFFFF
    for n in range(scaled.shape[0]):
        frame = frame_bgr[n].cpu().long()
        for target in range(scaled.shape[1]):
            heat, inside = reference.upsample_heat(
                scaled[n, target].cpu(), plan.frame_hw, plan.region, plan.upsampling
            )
            index = torch.where(inside, (heat * 255.0).round().long(), OUTSIDE)
            out[n, target] = (frame * (entries >> 48)[index][..., None] + color[index]) >> 8
