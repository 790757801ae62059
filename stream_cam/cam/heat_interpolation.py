"""Triton: the heat of a map along columns and down rows, in fixed point.

Between two rows of the map the heat of a column is linear: it is interpolated once, and then grows
by the same step from row to row. A bicubic or a smooth one is not: it is interpolated in every row.
"""

# Triton has no types.
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

import triton
import triton.language as tl

from stream_cam.cam.overlay_plan import OUTSIDE

SHIFT = tl.constexpr(23)
"""Bits behind the point of a heat, which is unsigned: above them is its place in the table."""
_FULL_HEAT = tl.constexpr(float(255 << SHIFT.value))
_HALF = tl.constexpr(1 << (SHIFT.value - 1))
_OUTSIDE_HEAT = tl.constexpr(OUTSIDE << SHIFT.value)


@triton.jit
def _map_row(scaled_ptr, row, left, right, t, n_map_columns, mask):
    """A row of the map, interpolated at columns; 0..1 whatever the map holds."""
    a = tl.load(scaled_ptr + row * n_map_columns + left, mask=mask, other=0.0)
    b = tl.load(scaled_ptr + row * n_map_columns + right, mask=mask, other=0.0)
    value = a + t * (b - a)
    return tl.where(value > 0.0, tl.minimum(value, 1.0), 0.0)


@triton.jit
def _cubic(t):
    """Keys's weights of the two cells before and the two behind, a = −0.75 as torch and OpenCV."""
    s = 1.0 - t
    near = (1.25 * t - 2.25) * t * t + 1.0
    far = (1.25 * s - 2.25) * s * s + 1.0
    return -0.75 * t * s * s, near, far, -0.75 * s * t * t


@triton.jit
def _spline(t):
    """The quadratic B-spline's weights of the two cells before and the two behind."""
    before = tl.maximum(0.5 - t, 0.0)
    behind = tl.maximum(t - 0.5, 0.0)
    first = 0.5 * before * before
    last = 0.5 * behind * behind
    # The nearest cell has 0.75 − u², its neighbour on the far side what is left.
    near = tl.where(t < 0.5, 0.75 - t * t, 0.5 * (1.5 - t) * (1.5 - t))
    far = 1.0 - first - near - last
    return first, near, far, last


@triton.jit
def _curved_heat(
    scaled_ptr, row_cells, row_t, cells, t, n_map_rows, n_map_columns, mask, CURVE: tl.constexpr
):
    """A map at columns of one row, from four cells each way; 0..1 whatever the map holds."""
    left = cells & 0xFFFF
    right = cells >> 16
    top = row_cells & 0xFFFF
    bottom = row_cells >> 16
    # At the map's edge both are its last cell, and so are those beyond.
    columns = (tl.maximum(left - 1, 0), left, right, tl.minimum(right + 1, n_map_columns - 1))
    rows = (tl.maximum(top - 1, 0), top, bottom, tl.minimum(bottom + 1, n_map_rows - 1))
    if CURVE == 2:
        across = _spline(t)
        down = _spline(row_t)
    else:
        across = _cubic(t)
        down = _cubic(row_t)
    value = t * 0.0
    for y in tl.static_range(4):
        line = t * 0.0
        for x in tl.static_range(4):
            ptr = scaled_ptr + rows[y] * n_map_columns + columns[x]
            line += across[x] * tl.load(ptr, mask=mask, other=0.0)
        value += down[y] * line
    return tl.where(value > 0.0, tl.minimum(value, 1.0), 0.0)


@triton.jit
def heat_and_step(
    scaled_ptr,
    column_cells_ptr,
    column_t_ptr,
    column,
    row_cells,
    row_t,
    row_step,
    n_columns,
    n_map_rows,
    n_map_columns,
    CURVE: tl.constexpr,
):
    """The heat of columns in a row, and its step from row to row, in fixed point."""
    cells = tl.load(column_cells_ptr + column, mask=column < n_columns, other=-1)
    t = tl.load(column_t_ptr + column, mask=column < n_columns, other=0.0)
    inside = (cells | row_cells) >= 0
    if CURVE:
        value = _curved_heat(
            scaled_ptr, row_cells, row_t, cells, t, n_map_rows, n_map_columns, inside, CURVE
        )
        heat = (value * _FULL_HEAT).to(tl.int32) + _HALF
        step = cells * 0
    else:
        left = cells & 0xFFFF
        right = cells >> 16
        top = _map_row(scaled_ptr, row_cells & 0xFFFF, left, right, t, n_map_columns, inside)
        bottom = _map_row(scaled_ptr, row_cells >> 16, left, right, t, n_map_columns, inside)
        heat = ((top + row_t * (bottom - top)) * _FULL_HEAT).to(tl.int32) + _HALF
        step = (row_step * (bottom - top) * _FULL_HEAT).to(tl.int32)
    heat = tl.where(inside, heat.to(tl.uint32, bitcast=True), _OUTSIDE_HEAT)
    return heat, tl.where(inside, step, 0).to(tl.uint32, bitcast=True)
