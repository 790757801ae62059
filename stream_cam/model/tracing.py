"""Locks between tracing and running networks: PyTorch's tracers work on the whole process.

While `torch.fx` and `torch.export` follow a network they replace `nn.Module.__call__` by a function
of theirs. A network that runs in another thread meanwhile runs into it. If two trace at once, the
later one may leave the other's function behind.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from stream_cam.model.torch_settings import own_settings

_changed = threading.Condition()
_tracer: int | None = None
"""The thread that traces."""
_n_waiting = 0
"""Threads that want to trace; networks let them go first."""
_n_running = 0
"""Networks that run, in any thread."""


@contextmanager
def tracing() -> Iterator[None]:
    """Waits until no other thread traces, nor runs a network; they wait until this is over.

    PyTorch's global settings are put aside meanwhile, here and in `running`.
    """
    global _tracer, _n_waiting
    with _changed:
        _n_waiting += 1
        try:
            _changed.wait_for(lambda: _tracer is None and not _n_running)
            _tracer = threading.get_ident()
        finally:
            _n_waiting -= 1
            _changed.notify_all()
    try:
        with own_settings():
            yield
    finally:
        with _changed:
            _tracer = None
            _changed.notify_all()


@contextmanager
def running() -> Iterator[None]:
    """Waits while another thread traces or wants to; inside `tracing` it does nothing.

    It must not be entered twice by one thread: a tracer between the two would stop both.
    """
    global _n_running
    if _tracer == threading.get_ident():
        yield
        return
    with _changed:
        _changed.wait_for(lambda: _tracer is None and not _n_waiting)
        _n_running += 1
    try:
        with own_settings():
            yield
    finally:
        with _changed:
            _n_running -= 1
            _changed.notify_all()
