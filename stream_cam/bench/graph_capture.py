"""A call on fixed buffers as a CUDA graph, captured once and replayed."""

from __future__ import annotations

from collections.abc import Callable


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

    from stream_cam.explain.graph.cuda_capture import captured

    with torch.cuda.device(device):
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        graph = captured(call, stream, device)
    return lambda: graph.replay()
