"""Triton: class activation maps and their ranges, filtered over time with the state on the GPU.

The filter is that of `steady.SteadyMaps`, which says why: after Δt the share that is left of the
difference between a frame's map x and the filtered one y is

    E / √(1 + β·e²·(1 − E²)),    E = exp(−Δt / τ),    e = max |x − y| / (max x − min x),    β = 4.

One program filters one map: it reads 49 numbers of the frame and 51 of the state, a row for each
class, and writes both; all in float64, as on the CPU, so that both paths draw the same picture. It
is a launch between the maps' sum and their scaling because the range that they are scaled by is
filtered too. Further programs forget another scene's maps of all classes that this frame does not
show. Otherwise a looped file could return to times at which an old map looks recent. They read the
classes' times, 8 KB for a thousand. Frames must pass in their order. Nothing here is measured on a
GPU yet.
"""

# Triton has no types.
# mypy: disable-error-code="no-untyped-def, untyped-decorator, assignment"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from stream_cam.cam.class_choice import FrameTiming
from stream_cam.cam.steady import HURRY

_BETA = tl.constexpr(HURRY)
_NOW, _SMOOTH, _GAP = (
    tl.constexpr(int(place)) for place in (FrameTiming.NOW, FrameTiming.SMOOTH, FrameTiming.GAP)
)
_FORGET = tl.constexpr(int(FrameTiming.FORGET_MAPS))
_CLASSES = 256
"""Classes whose times one program checks."""


@triton.jit
def _mixed(new, kept, left):
    """New values drawn towards the kept ones; where one is no number, the other."""
    mixed = tl.where(new == new, new + left * (kept - new), kept)
    return tl.where(kept == kept, mixed, new)


@triton.jit
def _difference(new, kept):
    """|new − kept|, 0 where one of them is not finite."""
    difference = tl.abs(new - kept)
    return tl.where(difference < float("inf"), difference, 0.0)


@triton.jit
def _is_kept(seconds, clock_ptr):
    """Whether a map kept at a time belongs to this frame's scene; NaN never does."""
    forget = tl.load(clock_ptr + _FORGET) != 0.0
    gap = tl.where(forget, -1.0, tl.load(clock_ptr + _GAP))
    return tl.abs(tl.load(clock_ptr + _NOW) - seconds) <= gap


@triton.jit
def _forget(block, classes_ptr, clock_ptr, seconds_ptr, n_targets, n_classes, BLOCK: tl.constexpr):
    """The classes of a block that are not shown; the shown ones have their own programs."""
    index = block * BLOCK + tl.arange(0, BLOCK)
    n_classes = tl.where(tl.load(clock_ptr + _SMOOTH) > 0.0, n_classes, 0)
    is_class = index < n_classes
    seconds = tl.load(seconds_ptr + index, mask=is_class, other=0.0)
    is_gone = is_class & ~_is_kept(seconds, clock_ptr)
    for target in range(n_targets):
        is_gone = is_gone & (index != tl.load(classes_ptr + target))
    tl.store(seconds_ptr + index, float("nan"), mask=is_gone)


@triton.jit
def _filter(
    target,
    cams_ptr,
    ranges_ptr,
    classes_ptr,
    clock_ptr,
    seconds_ptr,
    values_ptr,
    n_cells,
    CELLS: tl.constexpr,
):
    cell = tl.arange(0, CELLS)
    is_cell = cell < n_cells
    chosen = tl.load(classes_ptr + target)
    values_ptr += chosen * (n_cells + 2)
    now = tl.load(clock_ptr + _NOW)
    tau = tl.load(clock_ptr + _SMOOTH)
    seen = tl.load(seconds_ptr + chosen)
    since = now - seen
    is_on = tau > 0.0
    is_kept = is_on & _is_kept(seen, clock_ptr)

    nan = float("nan")
    cam = tl.load(cams_ptr + target * n_cells + cell, mask=is_cell, other=nan).to(tl.float64)
    cam = tl.where(tl.abs(cam) < float("inf"), cam, nan)
    is_number = cam == cam
    low = tl.min(tl.where(is_number, cam, float("inf")), axis=0)
    high = tl.max(tl.where(is_number, cam, float("-inf")), axis=0)
    has_numbers = low <= high
    span = high - low
    low = tl.where(has_numbers, low, nan)
    high = tl.where(has_numbers, high, nan)
    kept = tl.load(values_ptr + 2 + cell, mask=is_cell, other=nan)
    kept = tl.where(is_kept, kept, nan)
    kept_low = tl.where(is_kept, tl.load(values_ptr), nan)
    kept_high = tl.where(is_kept, tl.load(values_ptr + 1), nan)

    change = tl.max(_difference(cam, kept), axis=0)
    change = tl.maximum(change, _difference(low, kept_low))
    change = tl.maximum(change, _difference(high, kept_high))
    change = tl.where(span > 0.0, change / tl.where(span > 0.0, span, 1.0), 0.0)
    decay = tl.exp(-tl.maximum(since, 0.0) / tl.where(is_on, tau, 1.0))
    left = decay / tl.sqrt(1.0 + change * change * _BETA * (1.0 - decay * decay))
    cam = _mixed(cam, kept, left)
    low = _mixed(low, kept_low, left)
    high = _mixed(high, kept_high, left)

    is_stored = is_on & has_numbers
    tl.store(values_ptr, low, mask=is_stored)
    tl.store(values_ptr + 1, high, mask=is_stored)
    n_stored = tl.where(is_stored, n_cells, 0)
    tl.store(values_ptr + 2 + cell, cam, mask=cell < n_stored)
    # A map without a number brings nothing back that is of another scene.
    seen = tl.where(has_numbers, now, tl.where(is_kept, seen, nan))
    tl.store(seconds_ptr + chosen, seen, mask=is_on)
    tl.store(ranges_ptr + 2 * target, low.to(tl.float32))
    tl.store(ranges_ptr + 2 * target + 1, high.to(tl.float32))
    tl.store(cams_ptr + target * n_cells + cell, cam.to(tl.float32), mask=is_cell)


@triton.jit
def _smooth_kernel(
    cams_ptr,
    ranges_ptr,
    classes_ptr,
    clock_ptr,
    seconds_ptr,
    values_ptr,
    n_targets,
    n_classes,
    n_cells,
    CELLS: tl.constexpr,
    CLASSES: tl.constexpr,
):
    target = tl.program_id(0)
    if target < n_targets:
        _filter(
            target,
            cams_ptr,
            ranges_ptr,
            classes_ptr,
            clock_ptr,
            seconds_ptr,
            values_ptr,
            n_cells,
            CELLS,
        )
    else:
        block = target - n_targets
        _forget(block, classes_ptr, clock_ptr, seconds_ptr, n_targets, n_classes, CLASSES)


def smooth_maps(
    cams: Tensor, classes: Tensor, clock: Tensor, seconds: Tensor, values: Tensor, *, ranges: Tensor
) -> None:
    """Filters a frame's maps in place; one launch, which nobody waits for. All contiguous.

    Args:
        cams: (1, n_targets, h, w) float32, raw; become the filtered ones.
        classes: (1, n_targets) int64, each once: whose maps they are.
        clock: (6,) float64, as `class_choice.FrameTiming` says; with `SMOOTH` 0 nothing is filtered
            or kept.
        seconds: (n_classes,) float64: when each class's state took in a frame; NaN: never, or that
            is forgotten.
        values: (n_classes, 2 + h·w) float64: filtered minimum, maximum and cells.
        ranges: receives the values drawn as cold and as hot, (1, n_targets, 2) float32.
    """
    _check(cams, classes, clock, seconds, values, ranges)
    n_targets, n_cells = cams.shape[1], cams.shape[2] * cams.shape[3]
    n_classes = seconds.shape[0]
    with torch.cuda.device_of(cams):  # type: ignore[no-untyped-call]
        _smooth_kernel[(n_targets + triton.cdiv(n_classes, _CLASSES),)](
            cams,
            ranges,
            classes,
            clock,
            seconds,
            values,
            n_targets,
            n_classes,
            n_cells,
            CELLS=triton.next_power_of_2(n_cells),
            CLASSES=_CLASSES,
            num_warps=1,
            enable_fp_fusion=False,  # as on the CPU
        )


def _check(
    cams: Tensor, classes: Tensor, clock: Tensor, seconds: Tensor, values: Tensor, ranges: Tensor
) -> None:
    n_targets, n_cells = cams.shape[1], cams.shape[2] * cams.shape[3]
    n_classes = seconds.shape[0]
    for name, tensor, shape, dtype in (
        ("cams", cams, (1, *cams.shape[1:]), torch.float32),
        ("classes", classes, (1, n_targets), torch.int64),
        ("clock", clock, (len(FrameTiming),), torch.float64),
        ("seconds", seconds, (n_classes,), torch.float64),
        ("values", values, (n_classes, 2 + n_cells), torch.float64),
        ("ranges", ranges, (1, n_targets, 2), torch.float32),
    ):
        if tensor.shape != shape or tensor.dtype != dtype or not tensor.is_contiguous():
            got = f"{tuple(tensor.shape)} {tensor.dtype}"
            raise ValueError(f"{name}: {shape} {dtype}, contiguous; got {got}")
        if tensor.device != cams.device:
            raise ValueError(f"tensors are on {cams.device} and {tensor.device}")


def smooth_maps_reference(
    cams: Tensor, classes: Tensor, clock: Tensor, seconds: Tensor, values: Tensor, *, ranges: Tensor
) -> None:
    """`smooth_maps` in plain torch, which nobody waits for either."""
    now, tau, gap = clock[FrameTiming.NOW], clock[FrameTiming.SMOOTH], clock[FrameTiming.GAP]
    is_on = tau > 0
    is_recent = ((now - seconds).abs() <= gap) & (clock[FrameTiming.FORGET_MAPS] == 0)
    seconds.copy_(torch.where(is_on & ~is_recent, torch.nan, seconds))

    chosen = classes[0]
    cells = cams[0].flatten(1).double()
    is_number = cells.isfinite()
    low = torch.where(is_number, cells, torch.inf).amin(dim=1, keepdim=True)
    high = torch.where(is_number, cells, -torch.inf).amax(dim=1, keepdim=True)
    span, has_numbers = high - low, low <= high
    new = torch.cat([low, high, cells], dim=1)
    new = torch.where(new.isfinite(), new, torch.nan)

    kept, since = values[chosen], (now - seconds[chosen])[:, None]
    is_kept = is_on & ~since.isnan()
    difference = torch.where((new - kept).isfinite(), (new - kept).abs(), 0.0)
    change = difference.amax(dim=1, keepdim=True) / torch.where(span > 0, span, 1.0)
    change = torch.where(span > 0, change, 0.0)
    decay = torch.exp(-since.clamp(min=0.0) / torch.where(is_on, tau, 1.0))
    left = decay / torch.sqrt(1.0 + HURRY * change**2 * (1.0 - decay**2))
    mixed = torch.where(new.isnan(), kept, new + left * (kept - new))
    filtered = torch.where(is_kept & ~kept.isnan(), mixed, new)

    is_stored = is_on & has_numbers
    values[chosen] = torch.where(is_stored, filtered, kept)
    seconds[chosen] = torch.where(is_stored[:, 0], now, seconds[chosen])
    ranges[0] = filtered[:, :2].float()
    cams[0] = filtered[:, 2:].float().reshape(cams.shape[1:])
