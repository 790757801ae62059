"""What all kernels' timings share: a case, frames of noise, comparisons with the references.

A kernel is timed as part of a graph that runs it on several frames one after the other, several
times, so that what a cache holds of the last frame is not in its figure, and next to nothing of
the graph's launch. The gap between two kernels of a graph, about a microsecond, is in it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from stream_cam.bench.graph_capture import capture_graph
from stream_cam.bench.timing import Case, Clock, CudaClock, HostClock
from stream_cam.errors import BenchError
from stream_cam.explain.graph.device import Gpu

CAM_HW = (7, 7)
_PASSES = 8
"""Over all of them in one graph: its launch takes as long as a few frames."""
_MOST_TIES = 0.02
"""Share of pixels whose heat lies between two colours, of which either may be taken."""
_MOST_LEVELS = 12
"""Of 255, between neighbouring colours."""
_MOST_INPUT = 2e-3
"""In normalised units, of preprocess against its reference."""


class Divided:
    """Another clock, for calls that do the same thing several times."""

    def __init__(self, clock: Clock, times: int) -> None:
        self._clock, self._times = clock, times
        self.name, self.queues = clock.name, False

    def time_ms(self, call: Callable[[], object], n_calls: int = 1) -> float:
        return self._clock.time_ms(call, n_calls) / self._times


@dataclass(frozen=True)
class Timing:
    """One thing to be timed."""

    case: Case
    n_bytes: int
    """What it reads and writes of frames and pictures; 0 where that is not what limits it."""
    frame_hw: tuple[int, int] | None
    region: str
    beside: str = ""
    """Which other one does the same in plain torch."""


def case_of(gpu: Gpu, work: Callable[[], None], n_times: int) -> Case:
    """Work that does one thing so many times, as one replay where there are graphs."""
    if gpu.device == "cpu":
        return Case(work, Divided(HostClock(), n_times))

    def passes() -> None:
        for _ in range(_PASSES):
            work()

    return Case(capture_graph(passes, gpu.device), Divided(CudaClock(), _PASSES * n_times))


def check_input(got: Tensor, expected: Tensor, what: str) -> None:
    """Raises a BenchError unless they are equal within the tolerance of preprocess."""
    difference = float((got - expected).abs().max())
    if not difference <= _MOST_INPUT:
        raise BenchError(
            f"{what} differs from its reference by {difference:.2g}, at most {_MOST_INPUT:g} is "
            "allowed; it is not timed"
        )


def check_picture(
    picture: np.ndarray[tuple[int, ...], np.dtype[np.uint8]],
    expected: np.ndarray[tuple[int, ...], np.dtype[np.uint8]],
    what: str,
) -> None:
    """Raises a BenchError unless they are equal within a level, but for ties between colours."""
    difference = np.abs(picture.astype(np.int16) - expected.astype(np.int16)).max(axis=-1)
    share, most = float((difference > 1).mean()), int(difference.max())
    if share > _MOST_TIES or most > _MOST_LEVELS:
        raise BenchError(
            f"{what} differs from its reference at {share:.1%} of the pixels, by {most} of 255 "
            "levels; it is not timed"
        )


def noise_frames(gpu: Gpu, size_hw: tuple[int, int], n_frames: int) -> Tensor:
    """(n, H, W, 3) uint8 of noise on the device."""
    random = torch.Generator().manual_seed(0)
    one = torch.randint(0, 256, (*size_hw, 3), dtype=torch.uint8, generator=random)
    return torch.stack([one.roll(place, 0) for place in range(n_frames)]).to(gpu.device)


def wide_by_high(size_hw: tuple[int, int]) -> str:
    return f"{size_hw[1]}x{size_hw[0]}"
