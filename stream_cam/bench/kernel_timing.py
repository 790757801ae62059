"""Timed calls of kernels, frames of noise, and checks against the references.

A kernel is timed in a graph that runs it on several frames in a row, several times. So neither a
frame left in a cache nor the graph's launch changes the figure by much. The gap between two kernels
of a graph, about a microsecond, is included.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from stream_cam.bench.graph_capture import capture_graph
from stream_cam.bench.timing import CudaTimer, HostTimer, TimedCall, Timer
from stream_cam.errors import BenchError
from stream_cam.explain.graph.device import Gpu

CAM_HW = (7, 7)
_PASSES = 8
"""Runs over all frames in one graph, whose launch takes as long as a few frames."""
_MAX_TIES = 0.02
"""Share of pixels whose heat lies between two colours, of which either may be taken."""
_MAX_LEVELS = 12
"""Levels of 255 between neighbouring colours."""
_MAX_DIFFERENCE = 2e-3
"""In normalised units, of preprocess against its reference."""


class PerItemTimer:
    """Divides another timer's figure, for calls that do the same work several times."""

    def __init__(self, timer: Timer, times: int) -> None:
        self._timer, self._times = timer, times
        self.name, self.is_asynchronous = timer.name, False

    def time_ms(self, call: Callable[[], object], n_calls: int = 1) -> float:
        return self._timer.time_ms(call, n_calls) / self._times


@dataclass(frozen=True)
class KernelTiming:
    """A kernel or its baseline, ready to be timed."""

    timed_call: TimedCall
    n_bytes: int
    """Bytes of frames and pictures read and written; 0 where memory is not the limit."""
    frame_hw: tuple[int, int] | None
    region: str
    baseline: str = ""
    """Name of the timing that does the same in plain torch."""


def kernel_call(gpu: Gpu, work: Callable[[], None], n_times: int) -> TimedCall:
    """A call that works `n_times` times; on a GPU as one graph's replay."""
    if gpu.device == "cpu":
        return TimedCall(work, PerItemTimer(HostTimer(), n_times))

    def passes() -> None:
        for _ in range(_PASSES):
            work()

    return TimedCall(
        capture_graph(passes, gpu.device), PerItemTimer(CudaTimer(), _PASSES * n_times)
    )


def check_input(got: Tensor, expected: Tensor, what: str) -> None:
    """Raises a BenchError unless they are equal within the tolerance of preprocess."""
    difference = float((got - expected).abs().max())
    if not difference <= _MAX_DIFFERENCE:
        raise BenchError(
            f"{what} differs from its reference by {difference:.2g}, at most {_MAX_DIFFERENCE:g} "
            "is allowed; it is not timed"
        )


def check_picture(
    picture: np.ndarray[tuple[int, ...], np.dtype[np.uint8]],
    expected: np.ndarray[tuple[int, ...], np.dtype[np.uint8]],
    what: str,
) -> None:
    """Raises a BenchError unless they are equal within a level, but for ties between colours."""
    difference = np.abs(picture.astype(np.int16) - expected.astype(np.int16)).max(axis=-1)
    share, most = float((difference > 1).mean()), int(difference.max())
    if share > _MAX_TIES or most > _MAX_LEVELS:
        raise BenchError(
            f"{what} differs from its reference at {share:.1%} of the pixels, by {most} of 255 "
            "levels; it is not timed"
        )


def noise_frames(gpu: Gpu, size_hw: tuple[int, int], n_frames: int) -> Tensor:
    """Frames of noise on the device, (n, H, W, 3) uint8."""
    random = torch.Generator().manual_seed(0)
    one = torch.randint(0, 256, (*size_hw, 3), dtype=torch.uint8, generator=random)
    return torch.stack([one.roll(place, 0) for place in range(n_frames)]).to(gpu.device)


def width_x_height(size_hw: tuple[int, int]) -> str:
    return f"{size_hw[1]}x{size_hw[0]}"
