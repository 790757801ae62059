"""PyTorch's global settings, put aside while a network of ours is loaded or run.

A program may have set another default type or device, autocast, deterministic algorithms or
inference mode. None of them is about our networks, and several would break or change them.

This module imports PyTorch only for `loading`: a kept OpenVINO engine runs without it.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

_thread = threading.local()
_lock = threading.Lock()
_n_inside = 0
_dtype: torch.dtype | None = None
"""The default type that was put aside."""
_deterministic = 0
"""The debug mode of deterministic algorithms that was put aside; 0: off."""


@contextmanager
def own_settings() -> Iterator[None]:
    """Float32, the CPU, no autocast, any algorithm; afterwards everything is as it was.

    The default type and deterministic algorithms are settings of the whole process: the first
    thread in puts them aside, the last one out restores them. Inside of itself it does nothing,
    nor while PyTorch is not imported.
    """
    torch: Any = sys.modules.get("torch")
    if getattr(_thread, "inside", False) or torch is None or _is_being_imported(torch):
        yield
        return
    with ExitStack() as stack:
        _thread.inside = True
        stack.callback(setattr, _thread, "inside", False)
        for kind in ("cpu", "cuda"):
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        cpu = torch.device("cpu")
        if torch.get_default_device() != cpu:
            stack.enter_context(cpu)
        _put_aside()
        stack.callback(_restore)
        yield


def _is_being_imported(module: Any) -> bool:
    """By another thread, which therefore has changed no setting yet."""
    return bool(getattr(module.__spec__, "_initializing", False))


@contextmanager
def loading() -> Iterator[None]:
    """The same for making networks and engines, whose tensors outlive a caller's inference mode."""
    import torch

    with own_settings(), torch.inference_mode(False), torch.no_grad():
        yield


def _put_aside() -> None:
    import torch

    global _n_inside, _dtype, _deterministic
    with _lock:
        _n_inside += 1
        dtype, deterministic = torch.get_default_dtype(), torch.get_deterministic_debug_mode()
        if dtype != torch.float32:
            _dtype = dtype
            torch.set_default_dtype(torch.float32)
        if deterministic:
            _deterministic = deterministic
            torch.set_deterministic_debug_mode(0)


def _restore() -> None:
    import torch

    global _n_inside, _dtype, _deterministic
    with _lock:
        _n_inside -= 1
        if _n_inside:
            return
        if _dtype is not None:
            torch.set_default_dtype(_dtype)
        if _deterministic:
            torch.set_deterministic_debug_mode(_deterministic)
        _dtype, _deterministic = None, 0
