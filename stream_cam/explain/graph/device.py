"""The interface of a GPU for the graphs: memory, streams, events, captures and kernels.

Two classes have it: `CudaGpu` (cuda_device.py), and the tests' `SimulatedGpu` on the CPU, which
works as late and as much out of order as CUDA may.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from stream_cam.errors import EngineError

if TYPE_CHECKING:
    from torch import Tensor

    from stream_cam.cam.overlay_plan import OverlayPlan, OverlayTable
    from stream_cam.cam.preprocess import PreprocessPlan

Work = Callable[[], None]
"""Gives work to the current stream, always on the same tensors; waits for nothing."""


class NotCapturedError(EngineError):
    """No graph can be made; frames can still be explained without one."""


class Kernels(Protocol):
    """The launchers of `stream_cam.cam`, or their references."""

    def preprocess(self, frame_bgr: Tensor, plan: PreprocessPlan, *, out: Tensor) -> None: ...

    def choose_classes(
        self,
        logits: Tensor,
        locked: Tensor,
        clock: Tensor,
        held: Tensor,
        *,
        best: Tensor,
        best_probability: Tensor,
        classes: Tensor,
        probability: Tensor,
    ) -> None: ...

    def class_maps(
        self,
        features: Tensor,
        weight: Tensor,
        classes: Tensor,
        *,
        scaled: Tensor,
        cams: Tensor,
        relu: bool,
    ) -> None: ...

    def smooth_maps(
        self,
        cams: Tensor,
        classes: Tensor,
        clock: Tensor,
        seconds: Tensor,
        values: Tensor,
        *,
        ranges: Tensor,
    ) -> None: ...

    def scale_maps(self, maps: Tensor, *, scaled: Tensor, ranges: Tensor, relu: bool) -> None: ...

    def overlay(
        self,
        frame_bgr: Tensor,
        scaled: Tensor,
        plan: OverlayPlan,
        table: OverlayTable,
        *,
        out: Tensor,
    ) -> None: ...


class Graph(Protocol):
    """Captured work; belongs to the streams that captured it."""


class Event(Protocol):
    """A place in a stream; recorded again and again."""

    def wait(self) -> None:
        """Keeps the host until all before the last record is done.

        Raises:
            RuntimeError: something on the GPU failed, perhaps of another stream.
        """
        ...


class Stream(Protocol):
    """Does work in the order in which it is given, later than the call that gives it."""

    def capture(self, work: Work) -> Graph:
        """Does the work a few times, waits for it, and captures it.

        Raises:
            Exception: whatever the work raises.
            RuntimeError: it does something that a graph cannot hold.
        """
        ...

    def replay(self, graph: Graph) -> None: ...

    def record(self, event: Event) -> None: ...

    def wait(self, event: Event) -> None:
        """Later work begins when all work before the event's last record is done."""
        ...


class Gpu(Protocol):
    """One GPU, or its simulation."""

    device: str
    """As an engine names it."""
    kernels: Kernels

    def host(self, n_bytes: int) -> Tensor:
        """(n_bytes,) uint8 in host memory that the GPU copies from and to by itself."""
        ...

    def memory(self, n_bytes: int) -> Tensor:
        """(n_bytes,) uint8 on the device."""
        ...

    def copy(self, target: Tensor, source: Tensor) -> None:
        """Within captured work, between `host` and `memory`, without waiting."""
        ...

    def stream(self) -> Stream: ...

    def event(self) -> Event: ...

    def settle(self) -> None:
        """Waits for everything: after plans were made, before a graph reads them."""
        ...
