"""How much of a source is run; the options of `batch` and of `demo`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from stream_cam.config.model import EngineName


@dataclass(frozen=True)
class RunConfig:
    """How much of the source is run, and how the run is reported."""

    limit: int | None = None
    """Stop after this many frames."""
    live: bool | None = None
    """--live: the newest frame wins. --no-live: every frame is explained.
    Default: cameras and streams are live, files are not."""
    strict: bool = False
    """End the run as soon as one output fails.
    Default: the other outputs go on, and the run ends with exit code 1."""
    overwrite: bool = False
    """Replace outputs that exist."""
    report: Path | None = None
    """Write counters, latency percentiles, engine and versions to this JSON file."""
    quiet: bool = False
    """Print no progress, mode or summary; errors are still shown."""
    verbose: bool = False
    """Write a detailed log to stderr, for bug reports."""

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"--limit is a number of frames from 1, got {self.limit}")


@dataclass(frozen=True)
class BatchConfig:
    """How several videos are annotated."""

    container: Literal["mp4", "mkv", "mov", "webm"] = "mp4"
    """The type of the recordings."""
    recursive: bool = False
    """Include the videos in subfolders; recordings and results keep these folders."""
    jobs: int = 1
    """Number of videos that are annotated at the same time."""
    dry_run: bool = False
    """Print the plan, and annotate nothing."""

    def __post_init__(self) -> None:
        if self.jobs < 1:
            raise ValueError(f"--jobs is a number of videos from 1, got {self.jobs}")


@dataclass(frozen=True)
class DemoConfig:
    """The synthetic camera of the demo."""

    size: str = "1280x720"
    """Width x height of the synthetic camera in pixels."""
    fps: int = 30
    """Frames per second of the synthetic camera."""
    seconds: float | None = None
    """Length of the demo in seconds.
    Default: 10, for photos 20; in a page or a window, until it is stopped."""
    seed: int = 0
    """Another seed draws another scene, or moves the camera over the photographs anew."""
    engine: EngineName = "auto"
    """The library that runs the network; auto takes the fastest one that works here."""
