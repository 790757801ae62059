"""The command line: call what was asked for, report, end in order."""

from stream_cam.cli.entry_point import main

__all__ = ["main"]
