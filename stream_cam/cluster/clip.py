"""A clip of an archive, and its outcome."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

State = Literal["done", "there already", "failed", "poison", "stopped"]


@dataclass(frozen=True)
class Clip:
    """One video, and the places of its results."""

    source: str
    """A path or URL that every node can read."""
    output: str
    """The recording's path or URL; it is there once the clip is done."""
    results: Mapping[str, str] = field(default_factory=dict, hash=False)
    """The place of each further result, by the name of its option."""


@dataclass(frozen=True)
class Outcome:
    """One line of the manifest."""

    clip: str
    """The clip's source."""
    state: State
    node: str = ""
    """The node that made it, or that failed."""
    seconds: float = 0.0
    """Time that the clip took on its node, copies to and from its store included."""
    frames: int = 0
    reason: str = ""
    """Why it is not done."""
