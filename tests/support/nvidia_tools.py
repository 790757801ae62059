"""NVIDIA's command line tools, also where their folder is not on the path."""

from __future__ import annotations

import os
import shutil
from pathlib import Path


def find_tool(name: str) -> str | None:
    """The program, such as compute-sanitizer or ncu; None where it is not installed."""
    homes = [os.environ.get(one) for one in ("CUDA_HOME", "CUDA_PATH")]
    folders = [
        Path(home) / place
        for home in (*filter(None, homes), "/usr/local/cuda")
        for place in ("bin", name)
    ]
    path = os.pathsep.join([os.environ.get("PATH", ""), *map(str, folders)])
    return shutil.which(name, path=path)
