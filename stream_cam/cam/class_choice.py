"""Triton: logits become probabilities, the best classes, and the classes whose maps are shown.

    p_c = exp(S_c − max S) / Σ exp(S − max S)

One launch of one program: it reads the logits once (4 KB of ResNet18's) and writes a few dozen
numbers. Fused are softmax, the best five, the choice of the classes and the hold on the shown one
(the state machine of `steady.SteadyMaps`): apart they would be about twenty launches of a
microsecond each, and the host would have to wait to know which map to draw. Everything that may
change from frame to frame, such as the time, is read on the device. Nothing here is measured on a
GPU yet.
"""

# Triton has no types.
# mypy: disable-error-code="no-untyped-def, untyped-decorator, assignment"

from __future__ import annotations

from enum import IntEnum

import torch
import triton
import triton.language as tl
from torch import Tensor

from stream_cam.cam.steady import ROUNDING_SECONDS

N_HELD = 4
"""Numbers of the state of a hold: shown class, its rival (−1: none), since when, last seen."""


class FrameTiming(IntEnum):
    """Places in the (6,) float64 that every frame brings along, in seconds or as 0 and 1."""

    NOW = 0
    HOLD = 1
    SMOOTH = 2
    GAP = 3
    """Frames this far apart are of two scenes."""
    FORGET_CLASS = 4
    """1: the class held before belongs to another run of frames."""
    FORGET_MAPS = 5
    """1: the maps kept before, of all classes, belong to another place."""


_NOW, _HOLD, _GAP = (
    tl.constexpr(int(place)) for place in (FrameTiming.NOW, FrameTiming.HOLD, FrameTiming.GAP)
)
_FORGET = tl.constexpr(int(FrameTiming.FORGET_CLASS))
_ROUNDING = tl.constexpr(ROUNDING_SECONDS)


@triton.jit
def _highest(logits, free, index):
    """The first of the highest values that are free."""
    top = tl.max(tl.where(free, logits, float("-inf")), axis=0)
    return tl.min(tl.where(free & (logits >= top), index, 2147483647), axis=0)


@triton.jit
def _held(held_ptr, clock_ptr, best, is_locked):
    """The class to show, as float64; −1 where nothing is held."""
    now = tl.load(clock_ptr + _NOW)
    hold = tl.load(clock_ptr + _HOLD)
    shown = tl.load(held_ptr)
    rival = tl.load(held_ptr + 1)
    since = tl.load(held_ptr + 2)
    seen = tl.load(held_ptr + 3)
    best = best.to(tl.float64)
    is_new = (shown < 0.0) | ~(tl.abs(now - seen) <= tl.load(clock_ptr + _GAP))
    is_new = is_new | (tl.load(clock_ptr + _FORGET) != 0.0)
    is_shown = best == shown
    is_due = (best == rival) & (now - since >= hold - _ROUNDING)
    is_taken = is_new | is_due
    # Not held: the one that was shown is its own rival, so that its time begins anew.
    since = tl.where(best == rival, since, now)
    rival = tl.where(is_taken | is_shown, -1.0, best)
    shown = tl.where(is_locked, -1.0, tl.where(is_taken, best, shown))
    is_on = hold > 0.0
    # Every warp has read the state before one of them writes it.
    tl.debug_barrier()
    tl.store(held_ptr, shown, mask=is_on)
    tl.store(held_ptr + 1, rival, mask=is_on)
    tl.store(held_ptr + 2, since, mask=is_on)
    tl.store(held_ptr + 3, now, mask=is_on)
    return tl.where(is_on, shown, -1.0)


@triton.jit
def _classes_kernel(
    logits_ptr,
    locked_ptr,
    clock_ptr,
    held_ptr,
    best_ptr,
    best_probability_ptr,
    classes_ptr,
    probability_ptr,
    n_classes,
    N_BEST: tl.constexpr,
    N_SHOWN: tl.constexpr,
    BLOCK: tl.constexpr,
):
    index = tl.arange(0, BLOCK)
    is_class = index < n_classes
    logits = tl.load(logits_ptr + index, mask=is_class, other=float("-inf"))
    logits = tl.where(logits == logits, logits, float("-inf"))  # NaN is never best
    share = tl.where(is_class, tl.exp(logits - tl.max(logits, axis=0)), 0.0)
    total = tl.sum(share, axis=0)
    free = is_class
    first = _highest(logits, free, index)
    for place in tl.static_range(N_BEST):
        at = _highest(logits, free, index)
        free = free & (index != at)
        tl.store(best_ptr + place, at.to(tl.int64))
        value = tl.sum(tl.where(index == at, share, 0.0), axis=0) / total
        tl.store(best_probability_ptr + place, value)

    locked = tl.load(locked_ptr)
    shown = _held(held_ptr, clock_ptr, first, locked >= 0).to(tl.int64)
    free = is_class & (index != shown)
    for place in tl.static_range(N_SHOWN):
        free = free & (index != tl.load(locked_ptr + place))
    for place in tl.static_range(N_SHOWN):
        asked = tl.load(locked_ptr + place)
        if place == 0:
            asked = tl.where(asked < 0, shown, asked)
        at = tl.where(asked < 0, _highest(logits, free, index).to(tl.int64), asked)
        free = free & (index != at)
        tl.store(classes_ptr + place, at)
        value = tl.sum(tl.where(index == at, share, 0.0), axis=0) / total
        tl.store(probability_ptr + place, value)


def choose_classes(
    logits: Tensor,
    locked: Tensor,
    clock: Tensor,
    held: Tensor,
    *,
    best: Tensor,
    best_probability: Tensor,
    classes: Tensor,
    probability: Tensor,
) -> None:
    """Which classes a frame shows; one launch, which nobody waits for. All tensors contiguous.

    Args:
        logits: (1, n_classes) float32.
        locked: (n_shown,) int64: the classes asked for, then −1 for each of the best that follow.
        clock: (6,) float64, as `FrameTiming` says.
        held: (4,) float64: the state of the hold, changed only while `HOLD` is above 0.
        best: receives the best classes, best first, (n_best,) int64 with n_best ≤ n_classes.
        best_probability: receives their probabilities, (n_best,) float32.
        classes: receives the classes to show, (1, n_shown) int64: the ones asked for, or else the
            held one first, and then the best that are not among them.
        probability: receives theirs, (n_shown,) float32.
    """
    _check(logits, locked, clock, held, best, best_probability, classes, probability)
    n_classes = logits.shape[1]
    with torch.cuda.device_of(logits):  # type: ignore[no-untyped-call]
        _classes_kernel[(1,)](
            logits,
            locked,
            clock,
            held,
            best,
            best_probability,
            classes,
            probability,
            n_classes,
            N_BEST=best.shape[0],
            N_SHOWN=locked.shape[0],
            BLOCK=triton.next_power_of_2(n_classes),
            num_warps=8,
            enable_fp_fusion=False,  # times are compared as on the CPU
        )


def _check(
    logits: Tensor,
    locked: Tensor,
    clock: Tensor,
    held: Tensor,
    best: Tensor,
    best_probability: Tensor,
    classes: Tensor,
    probability: Tensor,
) -> None:
    n_classes, n_shown, n_best = logits.shape[-1], locked.shape[0], best.shape[0]
    if not 0 < n_best <= n_classes or not 0 < n_shown <= n_classes:
        raise ValueError(f"{n_best} best and {n_shown} shown classes are asked for of {n_classes}")
    for name, tensor, shape, dtype in (
        ("logits", logits, (1, n_classes), torch.float32),
        ("locked", locked, (n_shown,), torch.int64),
        ("clock", clock, (len(FrameTiming),), torch.float64),
        ("held", held, (N_HELD,), torch.float64),
        ("best", best, (n_best,), torch.int64),
        ("best_probability", best_probability, (n_best,), torch.float32),
        ("classes", classes, (1, n_shown), torch.int64),
        ("probability", probability, (n_shown,), torch.float32),
    ):
        if tensor.shape != shape or tensor.dtype != dtype or not tensor.is_contiguous():
            got = f"{tuple(tensor.shape)} {tensor.dtype}"
            raise ValueError(f"{name}: {shape} {dtype}, contiguous; got {got}")
        if tensor.device != logits.device:
            raise ValueError(f"tensors are on {logits.device} and {tensor.device}")


def choose_classes_reference(
    logits: Tensor,
    locked: Tensor,
    clock: Tensor,
    held: Tensor,
    *,
    best: Tensor,
    best_probability: Tensor,
    classes: Tensor,
    probability: Tensor,
) -> None:
    """`choose_classes` in plain torch, which nobody waits for either."""
    values = torch.where(logits[0].isnan(), -torch.inf, logits[0])
    probabilities = torch.softmax(values, 0)
    order = torch.sort(values, descending=True, stable=True).indices
    best.copy_(order[: best.shape[0]])
    best_probability.copy_(probabilities[best])

    now, hold, gap = clock[FrameTiming.NOW], clock[FrameTiming.HOLD], clock[FrameTiming.GAP]
    shown, rival, since, seen = held.clone()
    first = order[0].double()
    is_new = (shown < 0) | ~((now - seen).abs() <= gap) | (clock[FrameTiming.FORGET_CLASS] != 0)
    is_due = (first == rival) & (now - since >= hold - ROUNDING_SECONDS)
    is_taken = is_new | is_due
    since = torch.where(first == rival, since, now)
    rival = torch.where(is_taken | (first == shown), -1.0, first)
    shown = torch.where(locked[0] >= 0, -1.0, torch.where(is_taken, first, shown))
    is_on = hold > 0
    held.copy_(torch.where(is_on, torch.stack([shown, rival, since, now]), held))

    wanted = locked.clone()
    wanted[0] = torch.where((locked[0] < 0) & is_on, shown.long(), locked[0])
    # The classes in the order of their places: those asked for, then the best of the others.
    is_wanted = (order[:, None] == wanted[None, :]).any(dim=1)
    others = order[torch.sort(is_wanted.int(), stable=True).indices]
    place = torch.cumsum((wanted < 0).int(), 0) - 1
    classes[0] = torch.where(wanted < 0, others[place.clamp(min=0)], wanted)
    probability.copy_(probabilities[classes[0]])
