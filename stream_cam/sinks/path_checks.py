"""Checks of the paths that outputs are written to, before anything slow is loaded."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from stream_cam.errors import OutputExistsError, SinkError, UsageError
from stream_cam.sinks.kinds import Output

_TEMPORARY_BYTES: Final = 7
"""`.out.mp4.whole` is longer than `out.mp4` by this much."""


def check_is_no_folder(output: Output) -> None:
    if os.path.isdir(output.path):
        raise UsageError(f"{output.uri} is a folder; for pictures in it give {output.uri}/")


def check_not_source(path: Path, source: Path) -> None:
    """Raises UsageError if the path is the source's, also through a link."""
    if os.path.realpath(source) == os.path.realpath(path) or (
        os.path.exists(path) and os.path.exists(source) and os.path.samefile(path, source)
    ):
        raise UsageError(f"{path} is where the source is; give the output another name")


def check_not_there(output: Output) -> None:
    if os.path.exists(output.path) and not output.overwrite:
        raise OutputExistsError.of(output.uri)


def check_parent(path: Path, more_bytes: int = 0) -> None:
    """Raises SinkError if no file of that name can be written into its folder.

    Args:
        more_bytes: how much longer than the name are those of the files that are really written.
    """
    parent = path.parent
    if not os.path.exists(parent):
        raise SinkError(f"there is no folder {parent} for {path.name}; make it: mkdir -p {parent}")
    if not os.path.isdir(parent):
        raise SinkError(f"{parent} is a file, not a folder; give another name for {path.name}")
    check_writable(parent)
    _check_length(path, more_bytes)


def check_writable(folder: Path) -> None:
    effective = os.access in os.supports_effective_ids
    if not os.access(folder, os.W_OK | os.X_OK, effective_ids=effective):
        raise SinkError(f"the folder {folder} may not be written to; choose another, or chmod it")


def _check_length(path: Path, more_bytes: int) -> None:
    """Raises SinkError if its temporary name is longer than the file system allows."""
    try:
        most = os.pathconf(path.parent, "PC_NAME_MAX") - _TEMPORARY_BYTES - more_bytes
    except (AttributeError, OSError, ValueError):
        return  # the system does not say
    n_bytes = len(os.fsencode(path.name))
    if n_bytes > most:
        raise SinkError(f"{path.name} is too long a name: {n_bytes} bytes, at most {most} here")
