"""The command line: call what was asked for, report, end in order."""

from stream_cam.cli.main import main

__all__ = ["main"]
