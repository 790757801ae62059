"""Atomic writes: a file is there as a whole or not at all."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

_NO_SYNC_OF_FOLDERS = frozenset({errno.EINVAL, errno.EBADF, errno.ENOTSUP, errno.EISDIR})
"""Errors of file systems that cannot sync folders, such as shared folders of virtual machines."""


def unwritable(path: Path) -> str:
    """Why a file cannot be written there; empty if it can be, as far as can be told before."""
    if os.path.isdir(path):
        return f"{path} is a folder"
    if os.path.exists(path) and not os.path.isfile(path):
        return ""  # /dev/stdout
    if not os.path.isdir(path.parent):
        return f"{path.parent} is no folder that exists"
    if not os.access(path.parent, os.W_OK | os.X_OK):
        return f"{path.parent} is not writable"
    return ""


def replace_durably(made: Path, path: Path) -> None:
    """Give a finished file its name so that a power cut does not take it back.

    Raises:
        OSError: it cannot be done.
    """
    handle = os.open(made, os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
    os.replace(made, path)
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Sync a folder's entries to the disk, where its file system can do that."""
    # Windows opens no folders; there the rename alone has to do.
    if os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _NO_SYNC_OF_FOLDERS:
            raise
    finally:
        os.close(handle)


def write_atomic(path: Path, data: bytes) -> None:
    """Write a temporary file beside a path, then rename it; an older file stays until then.

    An existing path that is no ordinary file, such as /dev/stdout, is written to directly.

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
