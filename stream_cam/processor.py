"""The processor: its cores, what the system tells of it, and how threads are scheduled on it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def usable_cores() -> int:
    """So many cores this process may run on; containers and `taskset` give fewer than there are."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def parallel_choices() -> tuple[int, ...]:
    """What `stream_cam.session.parallel_frames` may say on this machine, 1 first."""
    n_cores = usable_cores()
    return (1, min(4, n_cores)) if n_cores > 1 else (1,)


def cpuinfo(field: str) -> list[str]:
    """A field of Linux's /proc/cpuinfo for each core; empty elsewhere."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return [value.strip() for value in re.findall(rf"^{field}\s*: (.+)$", text, re.MULTILINE)]


@contextmanager
def scheduling_kept() -> Iterator[None]:
    """Take back real-time scheduling that a library gives to threads of this process (Linux).

    SVT-AV1, run by root, gives it to the thread that opens an encoder and to all threads of its
    own (SCHED_FIFO, priority 99). These and every process that they start then starve the rest of
    the machine: a browser under test stood still for 20 minutes. (SVT-AV1 in PyAV 18.1)
    """
    before = _real_time_threads()
    try:
        yield
    finally:
        for thread in _real_time_threads() - before:
            with suppress(OSError):  # it has ended
                os.sched_setscheduler(thread, os.SCHED_OTHER, os.sched_param(0))


def _real_time_threads() -> set[int]:
    found = set()
    for task in Path("/proc/self/task").glob("*") if hasattr(os, "SCHED_FIFO") else ():
        with suppress(OSError):
            if os.sched_getscheduler(int(task.name)) in (os.SCHED_FIFO, os.SCHED_RR):
                found.add(int(task.name))
    return found
