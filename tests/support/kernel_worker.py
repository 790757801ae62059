"""A process whose Triton kernels run in the interpreter; `kernel_runner.py` starts and asks it.

Whether a kernel is interpreted is settled when it is decorated, and Triton's own library is
decorated at its import: so a process of its own, with TRITON_INTERPRET set from its start.
"""

from __future__ import annotations

import importlib
import io
import sys
import traceback
from multiprocessing.connection import Connection
from typing import Any

import torch


def call(module: str, name: str, blob: bytes, device: str) -> bytes:
    """Calls a function with saved arguments, and returns them as it changed them."""
    arguments: dict[str, Any] = torch.load(
        io.BytesIO(blob), map_location=device, weights_only=False
    )
    getattr(importlib.import_module(module), name)(**arguments)
    return saved(arguments)


def saved(arguments: dict[str, Any]) -> bytes:
    """With whole storages: strides, offsets and views of the same storage outlast it."""
    buffer = io.BytesIO()
    torch.save(arguments, buffer)
    return buffer.getvalue()


def main() -> None:
    # One thread: the interpreter is Python, and the machine has other work.
    torch.set_num_threads(1)
    connection: Connection[Any, Any] = Connection(int(sys.argv[1]))
    while True:
        try:
            module, name, blob = connection.recv()
        except EOFError:
            return
        try:
            connection.send((call(module, name, blob, "cpu"), None))
        except (ValueError, TypeError) as error:
            connection.send((None, error))
        except Exception:
            connection.send((None, RuntimeError(traceback.format_exc())))


if __name__ == "__main__":
    main()
