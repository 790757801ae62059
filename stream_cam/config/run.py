"""How much is run, and how the terminal is told; many videos, and the demo."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from stream_cam.config.model import EngineName


@dataclass(frozen=True)
class RunConfig:
    """How much is run, and what is written about it."""

    limit: int | None = None
    """Stop after this many frames."""
    live: bool | None = None
    """The newest frame wins, or (--no-live) every frame is explained; cameras and streams are live,
    files are not."""
    strict: bool = False
    """End the run as soon as one output fails; default: the others go on, and the run ends with
    exit code 1."""
    overwrite: bool = False
    """Replace outputs that exist."""
    report: Path | None = None
    """Write counters, latency percentiles, engine and versions to this JSON file."""
    quiet: bool = False
    """No progress, mode or summary on the terminal; errors are still shown."""
    verbose: bool = False
    """Log what happens, for bug reports."""

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"--limit is a number of frames from 1, got {self.limit}")


@dataclass(frozen=True)
class BatchConfig:
    """How many videos are annotated."""

    container: Literal["mp4", "mkv", "mov", "webm"] = "mp4"
    """The recordings' type."""
    recursive: bool = False
    """Take the videos in folders of folders too; recordings and results keep these folders."""
    jobs: int = 1
    """So many videos at once."""
    dry_run: bool = False
    """Only say what would be done."""

    def __post_init__(self) -> None:
        if self.jobs < 1:
            raise ValueError(f"--jobs is a number of videos from 1, got {self.jobs}")


@dataclass(frozen=True)
class DemoConfig:
    """What the demo shows."""

    size: str = "1280x720"
    """Width x height of the synthetic camera in pixels."""
    fps: int = 30
    """Frames per second of the synthetic camera."""
    seconds: float | None = None
    """How long it runs, in seconds; default: 10, or for a page or a window until it is stopped."""
    seed: int = 0
    """Another seed, another scene."""
    engine: EngineName = "auto"
    """What runs the network; auto takes the fastest that works here."""
