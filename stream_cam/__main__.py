"""The entry of `python -m stream_cam` and of the `stream-cam` command."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

from stream_cam.cli import main
from stream_cam.cli.streams import use_lenient_streams


def run() -> NoReturn:
    """Runs the command line and ends the process at once.

    By then files are closed and reports written. An ordinary exit would still wait for a read of
    a dead camera, and for the libraries' own shutdown: 2 to 3 s after a Ctrl-C.
    """
    out = use_lenient_streams()
    exit_code = main()
    sys.stdout.flush()
    if out.failure is not None:
        reason = out.failure.strerror
        print(f"stream-cam: stdout cannot be written: {reason}", file=sys.stderr)
        exit_code = exit_code or 1
    sys.stderr.flush()
    os._exit(exit_code)


if __name__ == "__main__":
    run()
