"""Errors of a GPU or its driver, recognised and translated."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from stream_cam.errors import EngineError, first_line


def is_gpu_error(error: RuntimeError) -> bool:
    """Whether a GPU or its driver failed, and not its input."""
    kinds = (torch.OutOfMemoryError, torch.AcceleratorError)
    return isinstance(error, kinds) or str(error).startswith(("CUDA", "cuDNN", "cuBLAS"))


@contextmanager
def translate_gpu_errors() -> Iterator[None]:
    """Makes such an error an EngineError that names the next step."""
    try:
        yield
    except RuntimeError as error:
        if not is_gpu_error(error):
            raise
        advice = (
            "free its memory, or give --device cpu"
            if "out of memory" in str(error)
            else "give --device cpu, and see `stream-cam doctor`"
        )
        raise EngineError(f"the GPU does not run it ({first_line(error)}): {advice}") from error
