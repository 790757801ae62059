"""A call on fixed buffers as a CUDA graph, captured once and replayed."""

from __future__ import annotations

from collections.abc import Callable

_WARM_UPS = 3
"""Before a capture: libraries choose algorithms and take memory at their first calls."""


def capture_graph(call: Callable[[], None], device: str) -> Callable[[], None]:
    """Captures what `call` gives to the GPU.

    Args:
        call: works on the current stream, always on the same buffers, and never synchronises.
        device: cuda or cuda:N, where its buffers are.

    Returns:
        Replays it on the then current stream; new input is what the buffers hold by then.

    Raises:
        RuntimeError: it does something that a graph cannot hold.
    """
    import torch

    with torch.cuda.device(device):
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UPS):
                call()
        torch.cuda.current_stream().wait_stream(stream)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        # Other threads may use the GPU meanwhile: https://github.com/NVIDIA/TensorRT/issues/3349
        # The outer stream: a capture that fails does not restore the one before it.
        with (
            torch.cuda.stream(stream),
            torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"),
        ):
            call()
        torch.cuda.synchronize()
    return lambda: graph.replay()
