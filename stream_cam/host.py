"""The host's processor: its cores, /proc/cpuinfo, and the scheduling of threads."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def usable_cores() -> int:
    """The number of cores that this process may use; containers and `taskset` limit it."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def parallel_choices() -> tuple[int, ...]:
    """The possible results of `session.parallel_frames` on this machine, 1 first."""
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
    """Take back real-time scheduling that a library gives to the calling thread (Linux).

    SVT-AV1, run by root, gives it to the thread that opens an encoder, as to its own (SCHED_FIFO,
    priority 99). Every process and thread that is started from there has it too: a browser under
    test let nothing else run for 20 minutes. (SVT-AV1 in PyAV 18.1)
    """
    if not hasattr(os, "sched_getscheduler"):
        yield
        return
    before, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        if os.sched_getscheduler(0) != before:
            os.sched_setscheduler(0, before, parameters)
