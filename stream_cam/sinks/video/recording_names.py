"""The names that a recording's file has before it has its own."""

from __future__ import annotations

from pathlib import Path
from typing import Final

_UNFINISHED: Final = ".unfinished"


def part_path(path: Path) -> Path:
    """`out.part.mp4`: the file that a run writes while it records `out.mp4`."""
    return path.with_name(f"{path.stem}.part{path.suffix}")


def unfinished_path(path: Path) -> Path:
    """`out.unfinished.mp4`: a recording that waits until its whole source is in it."""
    return path.with_name(f"{path.stem}{_UNFINISHED}{path.suffix}")


def finished_path(path: Path) -> Path:
    """The name for which `unfinished_path` stands; other paths as they are."""
    return path.with_name(path.stem.removesuffix(_UNFINISHED) + path.suffix)
