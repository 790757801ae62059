"""The real command in processes of its own."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from support.waiting import wait_until


def process(*arguments: str, **options: object) -> subprocess.Popen[str]:
    return subprocess.Popen(  # type: ignore[call-overload, no-any-return]
        [sys.executable, "-m", "stream_cam", *arguments],
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options},
    )


def wait_for(path: Path, running: subprocess.Popen[str], until: float, size: int = 0) -> None:
    """Until a file of at least `size` bytes is there."""

    def there() -> bool:
        assert running.poll() is None, running.communicate()
        return path.exists() and path.stat().st_size >= size

    wait_until(there, until - time.monotonic())
