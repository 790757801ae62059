"""What a GPU or its driver raises, told apart and told in words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from stream_cam.errors import EngineError, first_line


def is_of_gpu(error: RuntimeError) -> bool:
    """Whether a GPU or its driver failed, not what it was given."""
    kinds = (torch.OutOfMemoryError, torch.AcceleratorError)
    return isinstance(error, kinds) or str(error).startswith(("CUDA", "cuDNN", "cuBLAS"))


@contextmanager
def gpu_errors_told() -> Iterator[None]:
    """Such an error becomes an EngineError that says what to do."""
    try:
        yield
    except RuntimeError as error:
        if not is_of_gpu(error):
            raise
        way_out = (
            "free its memory, or give --device cpu"
            if "out of memory" in str(error)
            else "give --device cpu, and see `stream-cam doctor`"
        )
        raise EngineError(f"the GPU does not run it ({first_line(error)}): {way_out}") from error
