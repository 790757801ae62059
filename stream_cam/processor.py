"""What the system tells of its processor."""

from __future__ import annotations

import os
import re
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
