"""Tables that the overlay kernel reads besides pixels: where a map lies, and its colours.

Both are made once for a frame size and a look, in float64, with the CPU path's formulas.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from stream_cam.cam.colormaps import color_table
from stream_cam.cam.nv12 import ColorMatrix, check_even, yuv_from_rgb
from stream_cam.config import AlphaMode, Colormap, Upsampling
from stream_cam.frame import Region

Int32Array = npt.NDArray[np.int32]

OUTSIDE = 256
"""The table's entries from here on are for pixels that the map does not cover."""
CURVES: Mapping[Upsampling, int] = {"bicubic": 1, "smooth": 2}
"""Upsampling that is not linear between two rows of the map, as the kernel numbers it."""
_N_ENTRIES = 512
_MAX_CELLS = 1 << 15
"""Two cell numbers are packed into 32 bits."""


@dataclass(frozen=True, eq=False)
class OverlayPlan:
    """Where maps of one size lie on frames of one size; tensors on the frames' device."""

    frame_hw: tuple[int, int]
    cam_hw: tuple[int, int]
    region: Region
    upsampling: Upsampling
    covered: tuple[slice, slice]
    """Rows and columns of the frame whose centres lie in the region."""
    column_cells: Tensor
    """(W,) int32: the two map columns that a pixel lies between, left | right << 16; −1: none."""
    column_t: Tensor
    """(W,) float32: weight of the right one, 0..1."""
    row_cells: Tensor
    """(H,) int32: as `column_cells`, top | bottom << 16."""
    row_t: Tensor
    """(H,) float32: weight of the bottom one, 0..1."""
    row_end: Tensor
    """(H,) int32: the first row below that lies between other map rows; curves: the next."""
    row_step: float
    """Step of `row_t` from row to row."""


def plan_overlay(
    frame_hw: tuple[int, int],
    cam_hw: tuple[int, int],
    region: Region,
    upsampling: Upsampling = "bilinear",
    *,
    device: torch.device | str = "cuda",
) -> OverlayPlan:
    """Half-pixel centres, edges held, as `reference.upsample_heat`.

    Args:
        region: where the maps lie, in frame pixels; may be smaller or larger than the frame.
    """
    if upsampling not in get_args(Upsampling):
        raise ValueError(f"upsampling is one of {get_args(Upsampling)}, got {upsampling!r}")
    if max(cam_hw) > _MAX_CELLS:
        raise ValueError(f"maps have up to {_MAX_CELLS} rows and columns, got {cam_hw}")
    rows, row_cells, row_t = _axis(frame_hw[0], cam_hw[0], region.y0, region.y1, upsampling)
    columns, column_cells, column_t = _axis(
        frame_hw[1], cam_hw[1], region.x0, region.x1, upsampling
    )
    ends = np.append(row_cells[1:] != row_cells[:-1], True) | (upsampling in CURVES)
    last_of_run = np.flatnonzero(ends) + 1
    row_end = last_of_run[np.searchsorted(last_of_run, np.arange(frame_hw[0]), side="right")]
    # Above 1, rows skip map rows and no step is taken.
    step = min(cam_hw[0] / (region.y1 - region.y0), 1.0) if upsampling == "bilinear" else 0.0
    return OverlayPlan(
        frame_hw=frame_hw,
        cam_hw=cam_hw,
        region=region,
        upsampling=upsampling,
        covered=(rows, columns),
        column_cells=torch.from_numpy(column_cells).to(device),
        column_t=torch.from_numpy(column_t).to(device),
        row_cells=torch.from_numpy(row_cells).to(device),
        row_t=torch.from_numpy(row_t).to(device),
        row_end=torch.from_numpy(row_end.astype(np.int32)).to(device),
        row_step=step,
    )


def _axis(
    n_pixels: int, n_cells: int, start: float, stop: float, upsampling: Upsampling
) -> tuple[slice, Int32Array, npt.NDArray[np.float32]]:
    """The pixels inside, and for each pixel its two cells and the weight of the second one."""
    position = (np.arange(n_pixels, dtype=np.float64) + 0.5 - start) / (stop - start)
    inside = (position >= 0.0) & (position < 1.0)
    cell = np.where(inside, position, 0.0) * n_cells - 0.5
    if upsampling == "nearest":
        first = second = np.floor(cell + 0.5)
        t = np.zeros_like(cell)
    else:
        first = np.floor(cell)
        second = first + 1
        t = cell - first
    low, high = (np.clip(one, 0, n_cells - 1).astype(np.int32) for one in (first, second))
    covered = np.flatnonzero(inside)
    span = slice(int(covered[0]), int(covered[-1]) + 1) if covered.size else slice(0, 0)
    cells = np.where(inside, low | high << 16, -1).astype(np.int32)
    return span, cells, np.where(inside, t, 0.0).astype(np.float32)


@dataclass(frozen=True, eq=False)
class OverlayPlanNv12:
    """Where maps lie on the two planes of an NV12 frame."""

    luma: OverlayPlan
    chroma: OverlayPlan
    """For a frame of half the size: the heat in the middle of four pixels is the heat of their
    colour."""


def plan_overlay_nv12(
    frame_hw: tuple[int, int],
    cam_hw: tuple[int, int],
    region: Region,
    upsampling: Upsampling = "bilinear",
    *,
    device: torch.device | str = "cuda",
) -> OverlayPlanNv12:
    """As `plan_overlay`, for NV12 frames, whose height and width are even."""
    check_even(frame_hw)
    height, width = frame_hw
    half = Region(region.x0 / 2, region.y0 / 2, region.x1 / 2, region.y1 / 2)
    return OverlayPlanNv12(
        plan_overlay(frame_hw, cam_hw, region, upsampling, device=device),
        plan_overlay((height // 2, width // 2), cam_hw, half, upsampling, device=device),
    )


@dataclass(frozen=True, eq=False)
class OverlayTable:
    """The effect of each heat on a pixel."""

    entries: Tensor
    """(512,) int64 on the frames' device, from 256 on for pixels outside the region. From the low
    end, 16 bits each: blue, red, green (NV12: U, V, Y) of the colour times its weight times 256,
    plus the half that rounds; and the weight of the frame, 0..256. A pixel becomes
    (frame · weight + colour) >> 8."""
    keeps_outside: bool
    """True if pixels outside the region stay as they are: in place they need not be touched."""


def overlay_table(
    colormap: Colormap = "turbo",
    alpha: float = 0.4,
    alpha_mode: AlphaMode = "constant",
    *,
    outside_alpha: float = 0.0,
    device: torch.device | str = "cuda",
) -> OverlayTable:
    """The table of a look; a map that fades is another table copied over this one's entries.

    Args:
        alpha: weight of the colour, 0..1; with `alpha_mode="heat"` it is multiplied by the heat.
            The colours alone, as in the `heatmap` layout, are `alpha=1.0, outside_alpha=1.0`.
        outside_alpha: weight of the black outside the region, 0..1.
    """
    color = np.append(color_table(colormap), np.zeros((1, 3), np.uint8), axis=0)
    return _table(color[:, [0, 2, 1]], alpha, alpha_mode, outside_alpha, device)


def overlay_table_nv12(
    colormap: Colormap = "turbo",
    alpha: float = 0.4,
    alpha_mode: AlphaMode = "constant",
    *,
    matrix: ColorMatrix = "bt709",
    full_range: bool = False,
    outside_alpha: float = 0.0,
    device: torch.device | str = "cuda",
) -> OverlayTable:
    """As `overlay_table`, for NV12: a blend of colours is the same blend of their Y, U and V.

    Args:
        matrix, full_range: the frames' colour matrix and range, from their stream.
    """
    color = np.append(color_table(colormap), np.zeros((1, 3), np.uint8), axis=0)
    to_yuv, offset = yuv_from_rgb(matrix, full_range=full_range)
    yuv = np.clip(color[:, ::-1] @ to_yuv.T + offset, 0.0, 255.0)  # pure blue has 255.5
    return _table(yuv[:, [1, 2, 0]], alpha, alpha_mode, outside_alpha, device)


def _table(
    color: npt.NDArray[np.number],
    alpha: float,
    alpha_mode: AlphaMode,
    outside_alpha: float,
    device: torch.device | str,
) -> OverlayTable:
    """Of (257, 3) levels in the order of an entry's bits, the last row for outside the region."""
    for name, value in (("alpha", alpha), ("outside_alpha", outside_alpha)):
        if not 0.0 <= value <= 1.0:
            raise ValueError(f"{name} is a weight from 0 to 1, got {value}")
    heat = np.arange(256) / 255.0
    weight = alpha * heat if alpha_mode == "heat" else np.full(256, alpha)
    weight = np.append(weight, outside_alpha)
    mixed = np.rint(256.0 * weight[:, None] * color).astype(np.int64) + 128
    # Half down: were both rounded up, white on white would be more than 16 bits hold.
    keep = np.ceil(256.0 * (1.0 - weight) - 0.5).astype(np.int64)
    entries = mixed[:, 0] | mixed[:, 1] << 16 | mixed[:, 2] << 32 | keep << 48
    entries = np.append(entries, np.repeat(entries[OUTSIDE:], _N_ENTRIES - entries.size))
    return OverlayTable(torch.from_numpy(entries).to(device), keeps_outside=outside_alpha == 0.0)
