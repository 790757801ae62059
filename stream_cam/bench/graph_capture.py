"""A call on fixed buffers as a CUDA graph, captured once and replayed."""

from __future__ import annotations

from collections.abc import Callable


def capture_graph(call: Callable[[], None], device: str) -> Callable[[], None]:
    """Captures the GPU work of a call.

    Args:
        call: uses the current stream and always the same buffers, and never synchronises.
        device: cuda or cuda:N, where its buffers are.

    Returns:
        The replay, on the stream that is current then, with the buffers' contents as input.

    Raises:
        RuntimeError: a graph cannot hold the call.
    """
    import torch

    from stream_cam.explain.graph.cuda_capture import captured

    with torch.cuda.device(device):
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        graph = captured(call, stream, device)
    return lambda: graph.replay()
