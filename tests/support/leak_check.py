"""Checks that no child process and no listening socket is left after a test.

Fixtures of a module or of the session keep theirs, as they are set up before the test is. The rest
is ended, and the test fails by name. Where there is no /proc nothing is counted.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_GRACE_SECONDS = 5.0
"""A process that was told to end, or a thread that closes its socket, may take so long."""
_OF_PYTHON = "multiprocessing.resource_tracker"
"""Started once by Python itself, for as long as this process lives."""
_LOOK_SECONDS = 0.01
_PR_SET_CHILD_SUBREAPER = 36


_session_children: set[int] = set()


def exempt_session_child(pid: int) -> None:
    """Names a child that a fixture of the session starts in the middle of a test."""
    _session_children.add(pid)


def adopt_orphans() -> None:
    """Have the children of ended children become ours (Linux), so that they are counted."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


@contextmanager
def check_for_leaks() -> Iterator[None]:
    """Fails if there are children or listening sockets afterwards that there were not before."""
    before = _children(), _listening()
    yield
    until = time.monotonic() + _GRACE_SECONDS
    while (left := _left(*before)) and time.monotonic() < until:
        time.sleep(_LOOK_SECONDS)
    if left:
        for pid in _children().keys() - before[0].keys():
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        raise AssertionError("left behind: " + "; ".join(left))


def _left(children: dict[int, str], listening: set[str]) -> list[str]:
    now = _children()
    ours = [f"process {pid} ({now[pid]})" for pid in now.keys() - children.keys()]
    return ours + [f"socket that listens at {address}" for address in _listening() - listening]


def _children() -> dict[int, str]:
    """Living children of this process, and their command lines."""
    found = {}
    for task in Path("/proc/self/task").glob("*/children"):
        with suppress(OSError):
            for pid in map(int, task.read_text().split()):
                words = _command_of(pid)
                if words and _OF_PYTHON not in words and pid not in _session_children:
                    found[pid] = words
    return found


def _command_of(pid: int) -> str:
    """Empty for one that is gone, or has ended and waits to be asked for its status."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").strip()
        return words[:200].decode(errors="replace")
    except OSError:
        return ""


def _listening() -> set[str]:
    """TCP sockets of this process that listen: their inodes and addresses.

    Python's own multiprocessing keeps one of another kind.
    """
    found = set()
    for descriptor in Path("/proc/self/fd").glob("*"):
        with suppress(OSError):
            inode = os.readlink(descriptor)
            if inode.startswith("socket:"):
                with socket.socket(fileno=os.dup(int(descriptor.name))) as ours:
                    if ours.family != socket.AF_UNIX and ours.getsockopt(
                        socket.SOL_SOCKET, socket.SO_ACCEPTCONN
                    ):
                        found.add(f"{ours.getsockname()} ({inode})")
    return found
