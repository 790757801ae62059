"""The command line: one module for each command, and `main`."""

from stream_cam.cli.main import main

__all__ = ["main"]
