"""Files that are there as a whole or not at all."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def unwritable(path: Path) -> str:
    """Why a file cannot be written there; empty if it can be, as far as can be told before."""
    if path.is_dir():
        return f"{path} is a folder"
    if path.exists() and not path.is_file():
        return ""  # /dev/stdout
    if not path.parent.is_dir():
        return f"{path.parent} is no folder that exists"
    if not os.access(path.parent, os.W_OK | os.X_OK):
        return f"{path.parent} is not writable"
    return ""


def write_whole(path: Path, data: bytes) -> None:
    """Write a file beside its place, then give it its name; what it replaces is there until then.

    What is there and no ordinary file, such as /dev/stdout, is written to instead.

    Raises:
        OSError: it cannot be written; nothing is left of it.
    """
    if path.exists() and not path.is_file():
        path.write_bytes(data)
        return
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_bytes(data)
        os.replace(part, path)
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise
