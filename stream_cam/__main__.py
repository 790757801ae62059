"""`python -m stream_cam`, and what the `stream-cam` command calls."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import NoReturn

from stream_cam.cli import main


def run() -> NoReturn:
    """Obey the command line and end the process at once.

    By then files are closed and reports written. An ordinary end would still wait for a read of a
    dead camera and for the libraries to take themselves apart: 2 to 3 s after a Ctrl-C.
    """
    exit_code = main()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(exit_code)


if __name__ == "__main__":
    run()
