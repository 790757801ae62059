"""Work on a CUDA stream, captured as a graph."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

capturing = threading.RLock()
"""Held while a graph is captured, and while frames' graphs wait for their device."""
_WARM_UPS = 3
"""Before a capture: libraries choose algorithms, take memory and compile at their first calls."""


def captured(work: Callable[[], None], stream: Any, device: str) -> torch.cuda.CUDAGraph:
    """Runs work a few times on a stream, then captures it there.

    Args:
        work: works on the current stream, always on the same buffers, and never synchronises.
        stream: a torch.cuda.Stream of the device.
        device: cuda or cuda:N.

    Raises:
        RuntimeError: it does something that a graph cannot hold.
    """
    with capturing, torch.cuda.device(device):
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UPS):
                work()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        # Other threads may use the GPU meanwhile: https://github.com/NVIDIA/TensorRT/issues/3349
        # The outer stream: a capture that fails does not restore the one before it.
        with (
            _no_collection(),
            torch.cuda.stream(stream),
            torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"),
        ):
            work()
        torch.cuda.synchronize()
    return graph


@contextmanager
def _no_collection() -> Iterator[None]:
    """Keeps Python's collector from freeing CUDA's memory, which would end a capture."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
