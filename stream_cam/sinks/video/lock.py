"""Locks a part file while it is written: no other process recovers or replaces it."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

from stream_cam.closing import Closeable
from stream_cam.errors import OutputExistsError

if sys.platform != "win32":
    import fcntl


class RecordingLock(Closeable):
    """Locks a file until it is closed or the process ends, however that ends.

    A system or a file system without locks locks nothing, and raises nothing.

    Args:
        path: the file.
        create: make it if it is not there.

    Raises:
        OutputExistsError: another process, or another recording of this process, has locked it.
        OSError: it cannot be opened.
    """

    def __init__(self, path: Path, *, create: bool = False) -> None:
        self._handle: int | None = None
        if sys.platform == "win32":  # there an open file cannot be given another name
            return
        flags = os.O_RDWR | os.O_CREAT if create else os.O_RDONLY
        while True:
            self._handle = os.open(path, flags, 0o666)
            if not _lock(self._handle):
                self.close()
                raise OutputExistsError(
                    f"{path} is being written at this moment, by another recording; wait for its "
                    "end, or give another name"
                )
            if not create or _is_named(self._handle, path):
                return
            self.close()  # it was removed before it was locked

    def close(self) -> None:
        """Unlocks it."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


def check_unlocked(path: Path) -> None:
    """Find out whether a file may be replaced.

    Raises:
        OutputExistsError: it is locked.
    """
    if os.path.exists(path):
        with suppress(OSError):  # it is gone by now, or may not be read
            RecordingLock(path).close()


def is_locked(path: Path) -> bool:
    """Whether a recording is being written to it."""
    try:
        check_unlocked(path)
    except OutputExistsError:
        return True
    return False


def _is_named(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False


def _lock(handle: int) -> bool:
    if sys.platform == "win32":
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass  # a file system without locks
    return True
