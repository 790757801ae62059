"""A GPU that is none: work happens on the CPU, late, in pieces and in a random order.

A capture is recorded operation by operation and replayed on the same tensors. So a captured Python
number keeps its value, as on CUDA. Nothing of a replay happens before the host waits for an event;
then steps of all streams take turns at random, as far as events allow, until that event is reached.
Memory begins as poison, and the targets of a replay's copies are poison from its start. So correct
results by luck are rare: an upload overwritten too early, a result read before it is there, two
frames on one buffer, a missing wait between two streams all show as wrong pictures. A capture in
which the host would read the device's results is refused, as by CUDA.
"""

from __future__ import annotations

import random
import threading
from collections import deque
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from stream_cam.cam.class_choice import choose_classes_reference
from stream_cam.cam.class_maps import class_maps_reference
from stream_cam.cam.overlay import overlay_reference
from stream_cam.cam.preprocess import preprocess_reference
from stream_cam.cam.reference import scale_cam
from stream_cam.cam.smooth_maps import smooth_maps_reference
from stream_cam.explain.graph.device import Event, Graph, Kernels, Stream, Work

POISON = 0xA5
_HOST_READS = ("_local_scalar_dense", "nonzero", "equal", "is_nonzero")
"""Operations that make the host wait for a value."""
_LONGEST_TURN = 12
"""Steps of one stream before another may come."""


class SimulatedGpu:
    """Stands in for a GPU.

    Args:
        seed: of the order in which things happen.
        fail_replay: the replay, counted from 0, in which the device fails; from then on it is lost,
            as CUDA's is after an error.
    """

    def __init__(self, seed: int = 0, *, fail_replay: int | None = None) -> None:
        self.device = "cpu"
        self.kernels: Kernels = ReferenceKernels()
        self.n_allocated = 0
        """How often memory was asked for."""
        self.n_captured = 0
        self.n_replayed = 0
        self.fail_replay = fail_replay
        self._random = random.Random(seed)
        self._lock = threading.RLock()
        self._streams: list[SimulatedStream] = []
        self._failure: str | None = None
        self._recorder: _Recorder | None = None

    def host(self, n_bytes: int) -> Tensor:
        return self.memory(n_bytes)

    def memory(self, n_bytes: int) -> Tensor:
        self.n_allocated += 1
        return torch.full((n_bytes,), POISON, dtype=torch.uint8)

    def copy(self, target: Tensor, source: Tensor) -> None:
        if self._recorder is not None:
            self._recorder.copied.append(target)
        target.copy_(source)

    def stream(self) -> Stream:
        stream = SimulatedStream(self)
        with self._lock:
            self._streams.append(stream)
        return stream

    def event(self) -> Event:
        return SimulatedEvent(self)

    def settle(self) -> None:
        with self._lock:
            self.run_until(lambda: not any(stream.steps for stream in self._streams))

    def run_until(self, is_reached: Any) -> None:
        """Takes steps of any streams until it is so.

        Raises:
            RuntimeError: the device has failed, or all streams wait for one another.
        """
        with self._lock:
            while not is_reached():
                ready = [stream for stream in self._streams if stream.is_ready()]
                if not ready:
                    raise RuntimeError("deadlock: each stream waits for another one")
                stream = self._random.choice(ready)
                for _ in range(self._random.randint(1, _LONGEST_TURN)):
                    if not stream.is_ready() or is_reached():
                        break
                    stream.step()
            if self._failure is not None:
                raise RuntimeError(self._failure)

    def captured(self, work: Work) -> _Recorded:
        """Records the operations of some work, which is done once meanwhile."""
        with self._lock:
            self.settle()
            self._recorder = recorder = _Recorder()
            try:
                with recorder:
                    work()
            finally:
                self._recorder = None
            self.n_captured += 1
            return _Recorded(recorder)

    def replayed(self, graph: _Recorded) -> Iterator[None]:
        """The steps of one replay, from the next one on."""
        number, self.n_replayed = self.n_replayed, self.n_replayed + 1
        for target in graph.copied:
            target.fill_(POISON)
        return self._steps(graph, number)

    def _steps(self, graph: _Recorded, number: int) -> Iterator[None]:
        breaks_at = len(graph.calls) // 2 if number == self.fail_replay else None
        for place, call in enumerate(graph.calls):
            if place == breaks_at:
                self._failure = f"stand-in error: an illegal memory access in replay {number}"
            if self._failure is None:  # a lost device does nothing more
                call.run()
            yield


class SimulatedEvent:
    def __init__(self, gpu: SimulatedGpu) -> None:
        self._gpu = gpu
        self.n_recorded = 0
        self.n_reached = 0

    def wait(self) -> None:
        wanted = self.n_recorded
        self._gpu.run_until(lambda: self.n_reached >= wanted)


class SimulatedStream:
    """A queue of replays, records of events and waits for them."""

    def __init__(self, gpu: SimulatedGpu) -> None:
        self._gpu = gpu
        self.steps: deque[tuple[str, Any, int]] = deque()

    def capture(self, work: Work) -> Graph:
        return self._gpu.captured(work)

    def replay(self, graph: Graph) -> None:
        assert isinstance(graph, _Recorded)
        with self._gpu._lock:
            self.steps.append(("replay", self._gpu.replayed(graph), 0))

    def record(self, event: Event) -> None:
        assert isinstance(event, SimulatedEvent)
        with self._gpu._lock:
            event.n_recorded += 1
            self.steps.append(("record", event, event.n_recorded))

    def wait(self, event: Event) -> None:
        assert isinstance(event, SimulatedEvent)
        with self._gpu._lock:
            self.steps.append(("wait", event, event.n_recorded))

    def is_ready(self) -> bool:
        if not self.steps:
            return False
        kind, what, number = self.steps[0]
        return kind != "wait" or what.n_reached >= number

    def step(self) -> None:
        kind, what, number = self.steps[0]
        if kind == "replay" and next(what, "over") is None:
            return
        if kind == "record":
            what.n_reached = max(what.n_reached, number)
        self.steps.popleft()


class _Call:
    """One operation on fixed tensors."""

    def __init__(self, function: Any, args: Any, kwargs: Any, out: Any) -> None:
        self._function, self._args, self._kwargs = function, args, kwargs
        self._out = out

    def run(self) -> None:
        with torch.inference_mode():
            new = self._function(*self._args, **self._kwargs)
            for old, fresh in zip(_tensors(self._out), _tensors(new), strict=True):
                # An output that is neither a view nor in place has its own memory in the graph.
                if old.data_ptr() != fresh.data_ptr():
                    old.copy_(fresh)


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[_Call] = []
        self.copied: list[Tensor] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in _HOST_READS:
            raise RuntimeError(f"operation not permitted when stream is capturing: {name}")
        out = func(*args, **(kwargs or {}))
        self.calls.append(_Call(func, args, kwargs or {}, out))
        return out


class _Recorded:
    """A graph."""

    def __init__(self, recorder: _Recorder) -> None:
        self.calls = recorder.calls
        self.copied = recorder.copied


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, tuple | list):
        return [tensor for each in value for tensor in _tensors(each)]
    return []


class ReferenceKernels:
    """The kernels' references in plain torch."""

    def __init__(self) -> None:
        self.preprocess = preprocess_reference
        self.choose_classes = choose_classes_reference
        self.class_maps = class_maps_reference
        self.smooth_maps = smooth_maps_reference
        self.overlay = overlay_reference

    def scale_maps(self, maps: Tensor, *, scaled: Tensor, ranges: Tensor, relu: bool) -> None:
        scaled.copy_(scale_cam(maps, relu=relu, ranges=ranges))
