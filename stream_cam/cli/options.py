"""The commands of `stream-cam`, each a dataclass; its fields are the command's options."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, TypeAlias

import tyro

from stream_cam.config import (
    BatchConfig,
    BenchConfig,
    CaptureConfig,
    DemoConfig,
    LookConfig,
    ModelConfig,
    RecordConfig,
    RunConfig,
    WebConfig,
)

Sinks = Annotated[
    tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(aliases=["-o"], metavar="SINK")
]
# One class a --target: of `--target star clip.mp4` the second word is the source.
Model = tyro.conf.OmitArgPrefixes[tyro.conf.UseAppendAction[ModelConfig]]
Capture = tyro.conf.OmitArgPrefixes[tyro.conf.UseAppendAction[CaptureConfig]]


@dataclass(frozen=True)
class RunCommand:
    """Explain a camera, a stream, a video or pictures.

    Sources: 0 or /dev/video0 (camera), a video file, a picture, a folder or glob of pictures,
    rtsp://…, http(s)://…, rtmp://…, udp://…, an .sdp file, demo://shapes, a FIFO, - (stdin).

    Outputs: window, a video file (.mp4, .mkv, .mov, .webm), a picture file, a folder of pictures
    (frames/), web://HOST:PORT (a page in the browser), - or a FIFO with --format, null.
    """

    source: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="SOURCE")]
    """Where frames come from."""
    output: Annotated[tyro.conf.Positional[str | None], tyro.conf.arg(metavar="[OUTPUT]")] = None
    """Where the result goes; default: a window, or where there is no display a page."""
    sink: Sinks = ()
    """A further output; may be given several times."""
    model: Model = field(default_factory=ModelConfig)
    look: tyro.conf.OmitArgPrefixes[LookConfig] = field(default_factory=LookConfig)
    run: tyro.conf.OmitArgPrefixes[RunConfig] = field(default_factory=RunConfig)
    capture: Capture = field(default_factory=CaptureConfig)
    record: tyro.conf.OmitArgPrefixes[RecordConfig] = field(default_factory=RecordConfig)
    web: tyro.conf.OmitArgPrefixes[WebConfig] = field(default_factory=WebConfig)

    @property
    def verbose(self) -> bool:
        return self.run.verbose


@dataclass(frozen=True)
class BatchCommand:
    """Annotate many videos into a folder; those that are there already are left as they are.

    In --predictions, --cams, --timeline, --sheet and --report, {name} stands for each recording's
    name without .mp4: clip.mp4 becomes clip.mp4, clip.mkv becomes clip.mkv.mp4.
    """

    source: Annotated[
        tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="SOURCE...")
    ] = ()
    """Videos, folders of videos, patterns in quotes."""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"], metavar="FOLDER")] = Path("annotated")
    """The folder that the recordings go into; it is made if it is not there."""
    batch: tyro.conf.OmitArgPrefixes[BatchConfig] = field(default_factory=BatchConfig)
    model: Model = field(default_factory=ModelConfig)
    look: tyro.conf.OmitArgPrefixes[LookConfig] = field(default_factory=LookConfig)
    run: tyro.conf.OmitArgPrefixes[RunConfig] = field(default_factory=RunConfig)
    record: tyro.conf.OmitArgPrefixes[RecordConfig] = field(default_factory=RecordConfig)

    @property
    def verbose(self) -> bool:
        return self.run.verbose


@dataclass(frozen=True)
class DemoCommand:
    """Watch the shipped model follow drawn shapes: no camera, network, GPU or display needed.

    Writes demo.mp4 and demo.png, and says how often the model was right; or shows it, as in
    `stream-cam demo -o web://127.0.0.1:8080`, until it is stopped.
    """

    sink: Sinks = ()
    """An output instead of demo.mp4 and demo.png; may be given several times."""
    demo: tyro.conf.OmitArgPrefixes[DemoConfig] = field(default_factory=DemoConfig)
    look: tyro.conf.OmitArgPrefixes[LookConfig] = field(default_factory=LookConfig)
    run: tyro.conf.OmitArgPrefixes[RunConfig] = field(default_factory=RunConfig)
    web: tyro.conf.OmitArgPrefixes[WebConfig] = field(default_factory=WebConfig)

    @property
    def verbose(self) -> bool:
        return self.run.verbose


@dataclass(frozen=True)
class DoctorCommand:
    """Say what this machine can do, and what to do about what it cannot."""

    json: bool = False
    """Print JSON instead of a table."""


@dataclass(frozen=True)
class RecoverCommand:
    """Make recordings of what runs that were killed left (out.part.mp4)."""

    recording: Annotated[
        tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="RECORDING...")
    ] = ()
    """The recordings' names, such as out.mp4; of a recording in segments, all that are left."""
    sound_of: Path | None = None
    """The file that was annotated, for its sound."""
    overwrite: bool = False
    """Replace recordings that exist."""


@dataclass(frozen=True)
class BuildCommand:
    """Compile a network ahead of time: build, verify and keep its engines.

    One engine is for live video, one for files, as `run` would build them at its start.
    """

    force: bool = False
    """Build anew what is already kept."""
    verify_only: bool = False
    """Compare kept engines with their network again; build nothing."""
    calibrate: Annotated[str | None, tyro.conf.arg(metavar="SOURCE")] = None
    """For --precision int8: a video, or a folder of pictures, of what the network will see. Half of
    up to 300 of its frames set the ranges, the engine is verified with the others."""
    batch: str = "1"
    """Frames the network takes at once, on GPUs: 8, or 1..32 (any number up to 32, fastest at 32),
    or 1..8..32 (fastest at 8)."""
    json: bool = False
    """Print JSON."""
    verbose: bool = False
    """Log what happens, for bug reports."""
    model: Model = field(default_factory=ModelConfig)

    def __post_init__(self) -> None:
        if self.force and self.verify_only:
            raise ValueError("--force builds and --verify-only does not: give one of them")
        if self.calibrate is not None and self.model.precision != "int8":
            raise ValueError("--calibrate is for int8 engines: give --precision int8 too")
        if self.force and self.calibrate is None and self.model.precision == "int8":
            raise ValueError("--force builds, and int8 is built from frames: give --calibrate too")


@dataclass(frozen=True)
class EnginesCommand:
    """List the engines that are kept, and which of them serve this machine."""

    prune: bool = False
    """Remove those that cannot serve this machine."""
    json: bool = False
    """Print JSON instead of a table."""


@dataclass(frozen=True)
class BenchCommand:
    """Measure engines, batches, shapes, and the stages of a frame; compare two measurements.

    Nothing is timed that was not compared with the network in float32 first.
    """

    bench: tyro.conf.OmitArgPrefixes[BenchConfig] = field(default_factory=BenchConfig)
    verbose: bool = False
    """Say of each engine that is left out why, and log what happens, for bug reports."""


AnyCommand: TypeAlias = (
    RunCommand
    | BatchCommand
    | DemoCommand
    | RecoverCommand
    | BuildCommand
    | EnginesCommand
    | BenchCommand
    | DoctorCommand
)
COMMANDS: dict[str, type[AnyCommand]] = {
    "run": RunCommand,
    "batch": BatchCommand,
    "demo": DemoCommand,
    "recover": RecoverCommand,
    "build": BuildCommand,
    "engines": EnginesCommand,
    "bench": BenchCommand,
    "doctor": DoctorCommand,
}
"""Every command by its name, in the order of `stream-cam --help`."""
