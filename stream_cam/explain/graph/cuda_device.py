"""The graphs' GPU as PyTorch gives it: CUDA streams, events and graphs, and Triton's kernels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from stream_cam.cam.class_choice import choose_classes
from stream_cam.cam.class_maps import class_maps, scale_maps
from stream_cam.cam.overlay import overlay
from stream_cam.cam.preprocess import preprocess
from stream_cam.cam.smooth_maps import smooth_maps
from stream_cam.explain.graph.cuda_capture import captured, capturing
from stream_cam.explain.graph.device import Event, Graph, Kernels, Stream, Work


class CudaGpu:
    """One CUDA device.

    Args:
        device: cuda:N.
    """

    def __init__(self, device: str) -> None:
        self.device = device
        self.kernels: Kernels = TritonKernels()

    def host(self, n_bytes: int) -> Tensor:
        return torch.zeros(n_bytes, dtype=torch.uint8, pin_memory=True)

    def memory(self, n_bytes: int) -> Tensor:
        # A network compiled for an ordinary tensor is compiled anew for an inference tensor.
        with torch.inference_mode(False):
            return torch.zeros(n_bytes, dtype=torch.uint8, device=self.device)

    def copy(self, target: Tensor, source: Tensor) -> None:
        target.copy_(source, non_blocking=True)

    def stream(self) -> Stream:
        return CudaStream(self.device)

    def event(self) -> Event:
        return CudaEvent()

    def settle(self) -> None:
        with capturing:
            torch.cuda.synchronize(self.device)


class CudaEvent:
    def __init__(self) -> None:
        # Not a blocking one: to be woken costs more than a frame takes.
        self.event = torch.cuda.Event()  # type: ignore[no-untyped-call]

    def wait(self) -> None:
        self.event.synchronize()


class CudaStream:
    def __init__(self, device: str) -> None:
        self._device = device
        self._stream: Any = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def capture(self, work: Work) -> Graph:
        return captured(work, self._stream, self._device)

    def replay(self, graph: Graph) -> None:
        assert isinstance(graph, torch.cuda.CUDAGraph)
        # On another device a replay could do nothing, and leave the old results there.
        with torch.cuda.device(self._device), torch.cuda.stream(self._stream):
            graph.replay()

    def record(self, event: Event) -> None:
        assert isinstance(event, CudaEvent)
        event.event.record(self._stream)

    def wait(self, event: Event) -> None:
        assert isinstance(event, CudaEvent)
        self._stream.wait_event(event.event)


class TritonKernels:
    """The launchers themselves."""

    def __init__(self) -> None:
        self.preprocess = preprocess
        self.choose_classes = choose_classes
        self.class_maps = class_maps
        self.smooth_maps = smooth_maps
        self.scale_maps = scale_maps
        self.overlay = overlay
