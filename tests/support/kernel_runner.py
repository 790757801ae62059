"""Runs kernels' launchers on CPU tensors: in Triton's interpreter, or on the GPU."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any

import torch
from support.kernel_worker import call, saved
from support.leak_check import exempt_session_child

RunKernel = Callable[..., None]
"""`run(launcher, frame_bgr=…, out=…)`: as `launcher(frame_bgr=…, out=…)`, for CPU tensors."""

_WORKER = Path(__file__).with_name("kernel_worker.py")
_DEADLINE_SECONDS = 300.0


def interpreter_problem() -> str | None:
    """The reason why Triton's interpreter cannot run kernels here; None if it can."""
    triton, numpy = (_version(name) for name in ("triton", "numpy"))
    if triton < (3, 8) and numpy >= (2, 4):
        return f"the interpreter of Triton {triton[0]}.{triton[1]} does not work with NumPy 2.4"
    return None


def _version(name: str) -> tuple[int, int]:
    major, minor = version(name).split(".")[:2]
    return int(major), int(minor)


@contextmanager
def interpreter() -> Iterator[RunKernel]:
    ours, theirs = Pipe()
    worker = subprocess.Popen(
        [sys.executable, str(_WORKER), str(theirs.fileno())],
        pass_fds=[theirs.fileno()],
        env={**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join(_path())},
    )
    theirs.close()
    exempt_session_child(worker.pid)
    try:
        yield lambda launcher, **arguments: _ask(ours, launcher, arguments)
    finally:
        ours.close()
        worker.wait(_DEADLINE_SECONDS)


def _path() -> list[str]:
    """Where the worker finds modules: stream-cam need not be installed."""
    return [*filter(None, [os.environ.get("PYTHONPATH")]), str(_WORKER.parents[2])]


def run_on_gpu(launcher: Callable[..., None], **arguments: Any) -> None:
    blob = call(launcher.__module__, launcher.__name__, saved(arguments), "cuda")
    _copy_back(blob, arguments)


def _ask(
    connection: Connection[Any, Any], launcher: Callable[..., None], arguments: dict[str, Any]
) -> None:
    connection.send((launcher.__module__, launcher.__name__, saved(arguments)))
    assert connection.poll(_DEADLINE_SECONDS), f"{launcher.__name__} does not end"
    blob, error = connection.recv()
    if error is not None:
        raise error
    _copy_back(blob, arguments)


def _copy_back(blob: bytes, arguments: dict[str, Any]) -> None:
    after = torch.load(io.BytesIO(blob), map_location="cpu", weights_only=False)
    for name, tensor in arguments.items():
        if isinstance(tensor, torch.Tensor):
            tensor.untyped_storage().copy_(after[name].untyped_storage())
