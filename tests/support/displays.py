"""A virtual X server, for windows and browsers that know no other way."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

_START_SECONDS = 30


@contextmanager
def x_server() -> Iterator[str]:
    """The name of a display, such as `:99`; skips where Xvfb is not installed."""
    program = shutil.which("Xvfb")
    if program is None:
        pytest.skip("Xvfb is not installed (apt-get install xvfb)")
    read_end, write_end = os.pipe()
    with subprocess.Popen(
        [program, "-displayfd", str(write_end), "-screen", "0", "1600x1000x24", "-noreset"],
        pass_fds=[write_end],
        stderr=subprocess.DEVNULL,
    ) as server:
        os.close(write_end)
        deadline = threading.Timer(_START_SECONDS, server.kill)
        deadline.start()
        with os.fdopen(read_end) as answer:
            number = answer.readline().strip()
        deadline.cancel()
        assert number, "Xvfb did not start"
        try:
            yield f":{number}"
        finally:
            server.terminate()
