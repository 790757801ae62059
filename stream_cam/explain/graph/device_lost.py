"""A GPU that failed: from then on every call of CUDA fails, also one that frees memory."""

from __future__ import annotations

import ctypes
import threading
from weakref import WeakSet

from stream_cam.errors import EngineError, first_line

_holders: WeakSet[object] = WeakSet()
_changing = threading.Lock()


def register_gpu_memory(holder: object) -> None:
    """Pinned memory or graphs are freed with it, unless the GPU is lost before."""
    with _changing:
        _holders.add(holder)


def gpu_failed(error: RuntimeError) -> EngineError:
    """The error to raise after a failure by which all frames on their way are lost.

    Objects that hold memory of a GPU are never freed, also not at the interpreter's end: torch 2.11
    may abort the process when pinned memory is freed after such an error.
    """
    with _changing:
        for holder in list(_holders):
            _holders.discard(holder)
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(holder))
    return EngineError(
        f"the GPU failed while it worked on a frame ({first_line(error)}); start again"
    )
