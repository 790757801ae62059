"""A GPU that failed: from then on every call of CUDA fails, also one that frees memory."""

from __future__ import annotations

import ctypes
import threading
from weakref import WeakSet

from stream_cam.errors import EngineError, first_line

_holders: WeakSet[object] = WeakSet()
_changing = threading.Lock()


def holds_gpu_memory(holder: object) -> None:
    """Pinned memory or graphs are freed with it, unless the GPU is lost before."""
    with _changing:
        _holders.add(holder)


def lost(error: RuntimeError) -> EngineError:
    """What to raise of an error after which all that was on its way is lost.

    What holds memory of a GPU stays for good, also past the end of the interpreter: torch 2.11 may
    abort the process when pinned memory is freed after such an error.
    """
    with _changing:
        for holder in list(_holders):
            _holders.discard(holder)
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(holder))
    return EngineError(
        f"the GPU failed while it worked on a frame ({first_line(error)}); start again"
    )
