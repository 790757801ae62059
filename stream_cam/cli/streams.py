"""Standard streams that may be closed, or fail, without ending a run."""

from __future__ import annotations

import errno
import io
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_GONE: Final = frozenset({errno.EPIPE, errno.EIO, errno.EBADF, errno.ENXIO})
"""Errors of a pipe without a reader, and of a closed terminal."""


class LenientFile(io.FileIO):
    """A stream that may fail; later output is discarded."""

    failure: OSError | None = None
    """Why output was lost; None also if only the reader has gone."""

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return super().write(data) or 0
        except OSError as error:
            if error.errno not in _GONE:
                self.failure = error
            _discard(self.fileno())
            return memoryview(data).nbytes


def use_lenient_streams() -> LenientFile:
    """Makes `sys.stdout` and `sys.stderr` streams that never raise; returns stdout's file.

    A standard stream that is closed (`2>&-`) becomes the null device. Otherwise the next file that
    is opened would get its number, and a library's messages to stderr would go into a recording.
    """
    for fd in range(3):
        if not _is_open(fd):
            _discard(fd)
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    out, err = LenientFile(1, "w", closefd=False), LenientFile(2, "w", closefd=False)
    for file, name in ((out, "stdout"), (err, "stderr")):
        before: io.TextIOWrapper | None = getattr(sys, name)
        if before is not None:
            with suppress(OSError, ValueError):
                before.flush()
        stream = io.TextIOWrapper(
            io.BufferedWriter(file),
            encoding=before.encoding if before is not None else "utf-8",
            errors=before.errors if before is not None else "backslashreplace",
            line_buffering=file is err or file.isatty(),
        )
        setattr(sys, name, stream)
    return out


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def _discard(fd: int) -> None:
    """Puts the null device in the place of a stream."""
    null = os.open(os.devnull, os.O_RDWR)
    if null == fd:
        os.set_inheritable(fd, True)
        return
    os.dup2(null, fd)
    os.close(null)
