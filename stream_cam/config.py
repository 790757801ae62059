"""Every option and every default, once; the command line is made of these classes."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Literal

Device = Literal["auto", "cpu", "cuda"]
EngineName = Literal["auto", "tensorrt", "inductor", "openvino", "eager"]
Precision = Literal["auto", "fp32", "fp16", "bf16", "int8"]
Fit = Literal["stretch", "crop", "letterbox", "native"]
Upsampling = Literal["bilinear", "nearest", "bicubic"]
Colormap = Literal["turbo", "jet", "viridis", "inferno", "magma"]
AlphaMode = Literal["constant", "heat"]
Layout = Literal["overlay", "side", "heatmap", "top5"]
CodecName = Literal["h264", "hevc", "av1", "vp9"]
_HOST_NAME = re.compile(r"[A-Za-z0-9.-]+(:\d{1,5})?")
_ROOT_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)+")
OnGap = Literal["gap", "hold"]
StreamFormat = Literal["mpegts", "matroska", "nut", "webm", "mp4"]
Deinterlace = Literal["auto", "on", "off"]


@dataclass(frozen=True)
class ModelConfig:
    """Which network looks, and how it is run."""

    model: str = "resnet18"
    """A torchvision classifier that ends in global average pooling and one linear layer."""
    weights: str = "auto"
    """imagenet (downloaded once), demo (shipped: ten drawn shapes), or a checkpoint: a .pth, .pt,
    .ckpt, .th, .bin, .pth.tar or .safetensors file; auto: demo for demo://shapes, imagenet for all
    else."""
    checkpoint_key: str | None = None
    """Which network of a checkpoint that holds several, such as state_dict_ema."""
    labels: Path | None = None
    """A file with the class names: one a line, numbered, CSV, JSON or YAML; default: those in the
    checkpoint."""
    target: tuple[str, ...] = ()
    """The number or label of a class whose map is shown; may be given several times. None: the
    class with the highest logit."""
    engine: EngineName = "auto"
    """What runs the network; auto takes the fastest that works here."""
    device: Device = "auto"
    """Where the network runs; auto takes a CUDA GPU if an engine for it is there."""
    precision: Precision = "auto"
    """auto: fp16 on GPUs, fp32 on CPUs; bf16: faster on processors that have it (`stream-cam
    doctor` says), and the maps differ by up to a hundredth of their range; int8: on CPUs, and on
    GPUs with TensorRT, once it was built with `stream-cam build --precision int8 --calibrate
    clip.mp4`."""
    input_size: int | None = None
    """Side of the network's input in pixels; default: what the weights were made for."""
    fit: Fit = "stretch"
    """How a frame becomes the network's input: stretch the whole frame to a square, crop the
    middle, letterbox, or native (short side to the input size, the shape of the frame kept)."""

    def for_source(self, uri: str) -> ModelConfig:
        """With the weights that `auto` means for this source."""
        if self.weights != "auto":
            return self
        drawn = uri.startswith("demo:") and self.model == "resnet18"
        return replace(self, weights="demo" if drawn else "imagenet")


@dataclass(frozen=True)
class LookConfig:
    """How the picture looks."""

    layout: Layout = "overlay"
    """overlay; side (frame | overlay); heatmap alone; top5 (the five best classes' maps)."""
    colormap: Colormap = "turbo"
    """Colours of the heatmap, cold to hot."""
    alpha: float = 0.4
    """Weight of the colours over the frame, 0..1."""
    alpha_mode: AlphaMode = "constant"
    """constant, or heat: alpha grows with the heat, so that cold regions stay clear."""
    upsampling: Upsampling = "bilinear"
    """How the low-resolution map becomes as large as the frame."""
    relu: bool = False
    """Drop what speaks against the class (negative values) before scaling, as Grad-CAM does."""
    hud: bool = True
    """Labels, bars and rates drawn on the picture."""
    smooth: float = 0.0
    """Time constant of a filter against flickering maps, such as 0.3, in seconds; 0: off."""
    hold: float = 0.0
    """Show another class only once it has been the best one for so long, in seconds; 0: at once.
    Without effect on classes chosen with --target."""
    max_age: float = 0.5
    """Live: a map that is so much older than the frame, in seconds, begins to fade; at twice that
    age it is gone."""

    def __post_init__(self) -> None:
        if not 0.0 < self.max_age < math.inf:
            raise ValueError(f"--max-age is a time in seconds above 0, got {self.max_age:g}")
        if not 0.0 <= self.alpha <= 1.0:
            raise ValueError(f"--alpha is a weight from 0 to 1, got {self.alpha:g}")
        for name in ("smooth", "hold"):
            if not 0.0 <= getattr(self, name) < math.inf:
                raise ValueError(f"--{name} is a time in seconds, got {getattr(self, name):g}")


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
class WebConfig:
    """How the browser page is served."""

    viewer_only: bool = False
    """The page is for watching: nobody can change anything there."""
    web_quality: int = 80
    """Quality of the page's JPEG pictures, 1..100."""
    web_name: str | None = None
    """The host name under which a reverse proxy shows the page; it then needs a token."""
    web_root_path: str = ""
    """The path under which a reverse proxy shows the page, such as /cam."""
    web_embed: bool = False
    """Pages of this machine, such as notebooks, may show the page in a frame."""
    tls_cert: Path | None = None
    """A certificate, as a PEM file: the page is served over https."""
    tls_key: Path | None = None
    """The certificate's private key, as a PEM file."""

    def __post_init__(self) -> None:
        if self.web_name is not None and not _HOST_NAME.fullmatch(self.web_name):
            raise ValueError(
                f"--web-name is a host name such as cam.example.org, got {self.web_name}"
            )
        root_path = self.web_root_path.rstrip("/")
        if root_path and not _ROOT_PATH.fullmatch(root_path):
            raise ValueError(
                f"--web-root-path is a path such as /cam, of letters, digits, - . _ ~ and /, got "
                f"{self.web_root_path}"
            )
        object.__setattr__(self, "web_root_path", root_path)
        if not 1 <= self.web_quality <= 100:
            raise ValueError(f"--web-quality is a number from 1 to 100, got {self.web_quality}")


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


@dataclass(frozen=True)
class BenchConfig:
    """What is measured, how long, and where the figures go."""

    engines: tuple[str, ...] = ()
    """Which engines, such as `eager`, or `openvino:bf16` for one precision of one; none: all that
    this machine can run."""
    batch: tuple[int, ...] = (1, 8)
    """Images in one call of the network."""
    shape: tuple[str, ...] = ()
    """Width x height of the network's input in pixels, such as 384x224; none: what the weights were
    made for."""
    model: str = "resnet18"
    """A torchvision classifier that ends in global average pooling and one linear layer."""
    weights: str = "demo"
    """imagenet (downloaded once), demo (shipped, resnet18), or a checkpoint file."""
    checkpoint_key: str | None = None
    """Which network of a checkpoint that holds several, such as state_dict_ema."""
    device: Device = "auto"
    """Where engines run; auto lets each take the fastest place that it knows."""
    frame: str = "1280x720"
    """Width x height in pixels of the drawn frames that a --source is not given for."""
    source: str | None = None
    """A video file to decode and explain; default: drawn scenes, coded as H.264."""
    peers: bool = False
    """Also time torch-cam and pytorch-grad-cam on the same frames (pip install
    'stream-cam[bench]')."""
    file: bool = True
    """Also run a whole file as `stream-cam run` does, several frames at once."""
    samples: int = 200
    """Timed calls for one row, at most; p99 is shown from 200 on."""
    seconds: float = 10.0
    """Time that the calls of one row may take together, in seconds; slow ones are then fewer."""
    budget: float | None = None
    """Begin nothing new after so many seconds; what is left out is said. Engines are then timed one
    after the other instead of in turns, and no file is run."""
    json: Path | None = None
    """Write all figures and samples to this JSON file."""
    plot: Path | None = None
    """Draw the distributions into this .svg file."""
    compare: tuple[Path, Path] | None = None
    """Measure nothing: say what became slower from the first JSON file to the second."""
    tolerance: float = 0.1
    """With --compare: end with 1 if a median grew by more than this share of it, 0 or more, and the
    files can tell it from their noise."""

    def __post_init__(self) -> None:
        if not self.batch or min(self.batch) < 1:
            raise ValueError(f"--batch is a number of images from 1, got {list(self.batch)}")
        for shape in self.shape:
            size_hw(shape, "--shape", 10, 9999)
        size_hw(self.frame, "--frame", 64, 7680)
        if self.plot is not None and self.plot.suffix.lower() != ".svg":
            raise ValueError(f"--plot is a file in .svg, got {self.plot}")
        if self.samples < 1:
            raise ValueError(f"--samples is a number of calls from 1, got {self.samples}")
        for name in ("seconds", "budget"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"--{name} is a time in seconds above 0, got {value:g}")
        if not 0 <= self.tolerance < math.inf:
            raise ValueError(f"--tolerance is a share from 0, got {self.tolerance:g}")


@dataclass(frozen=True)
class CaptureConfig:
    """How frames are read."""

    queue_frames: int = 4
    """Frames that may wait between two stages when every frame counts (files)."""
    rtsp_transport: Literal["tcp", "udp"] = "tcp"
    """How RTSP streams travel; tcp loses nothing, udp is sometimes all a camera speaks."""
    open_timeout_seconds: float = 10.0
    """How long opening a network source may take, in seconds."""
    read_timeout_seconds: float = 5.0
    """How long a camera or stream may give no frame, in seconds, before it is opened anew."""
    deinterlace: Deinterlace = "auto"
    """Interlaced video without its combs, one frame for each; auto: what is flagged as
    interlaced."""
    give_up_after: float | None = None
    """End the run when a camera or stream has been away so long, in seconds; default: never, except
    that a first connection which fails for a lasting reason (wrong password, wrong path) ends it
    at once."""
    camera_size: str | None = None
    """Width x height to ask of a webcam in pixels, such as 1280x720; default: its own."""
    camera_fps: float | None = None
    """Frames per second to ask of a webcam; MJPG is chosen where it takes that."""
    poll: float | None = None
    """Fetch the picture at an http(s):// URL every so often, in seconds; one that has not changed
    is no new frame."""
    ffmpeg_option: tuple[str, ...] = ()
    """An option of FFmpeg's demuxer or protocol as NAME=VALUE, such as user_agent=me; may be given
    several times. FFmpeg then opens the source itself."""

    def __post_init__(self) -> None:
        if self.queue_frames < 1:
            raise ValueError(
                f"--queue-frames is a number of frames from 1, got {self.queue_frames}"
            )
        limits = ("open_timeout_seconds", "read_timeout_seconds", "give_up_after")
        for name in (*limits, "camera_fps", "poll"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"--{name.replace('_', '-')} must be above 0, got {value:g}")
        if self.camera_size is not None:
            size_hw(self.camera_size, "--camera-size", 10, 99_999)
        for option in self.ffmpeg_option:
            name, equals, _ = option.partition("=")
            if not (name and equals):
                raise ValueError(f"--ffmpeg-option is NAME=VALUE, got {name!r}")

    @property
    def ffmpeg_options(self) -> dict[str, str]:
        """Value by name; the last one wins."""
        parts = (option.partition("=") for option in self.ffmpeg_option)
        return {name: value for name, _, value in parts}


_MOST_PIXELS = 16_384
"""Of one side; no encoder takes more."""

RESULT_SUFFIXES = {
    "predictions": (".jsonl", ".csv", ".parquet"),
    "cams": (".npz",),
    "timeline": (".svg", ".html"),
    "sheet": (".png", ".jpg"),
}
"""What results can be written as, by option."""


@dataclass(frozen=True)
class RecordConfig:
    """How recordings are written, and of which part of a file."""

    format: StreamFormat | None = None
    """What is written into - (stdout), /dev/stdout or a FIFO, for another program to read."""
    codec: CodecName | None = None
    """What video files are compressed with; default: h264, in .webm vp9."""
    crf: int | None = None
    """Constant quality, from 0 (best); default: one that shows no loss to the eye, by codec."""
    bitrate: str | None = None
    """Bits per second instead of a constant quality, such as 4M or 800k."""
    preset: str | None = None
    """The encoder's speed, in its own words, such as veryfast; default: fast."""
    size: str | None = None
    """Width x height of the recording in pixels, such as 1280x720; default: the picture's."""
    start: str | None = None
    """Begin here in a file: seconds, or h:m:s."""
    end: str | None = None
    """End here in a file: seconds, or h:m:s."""
    every: int = 1
    """Of a file, explain and write only every n-th frame."""
    audio: bool = True
    """Keep a file's sound in the recording."""
    min_free: str = "500M"
    """Stop recording when the disk has less than this free, in bytes, such as 2G."""
    segment: str | None = None
    """Begin a new file every so often: seconds, 90s, 10m, 1h, or h:m:s; names get the time at which
    a segment begins."""
    keep: str | None = None
    """Of a live recording in segments, keep the newest: a time such as 24h or 7d, or a size such as
    20GB; older ones are removed."""
    on_gap: OnGap = "gap"
    """While a live source is away: gap (nothing is recorded, the time is left free) or hold (the
    last picture is recorded on, marked as what it is)."""
    predictions: Path | None = None
    """Write a row of predictions a frame to this .jsonl, .csv or .parquet file."""
    cams: Path | None = None
    """Write the raw maps of all frames to this .npz file."""
    timeline: Path | None = None
    """Draw the leading classes' probabilities over time into this .svg or .html file."""
    sheet: Path | None = None
    """Put the moments worth looking at into this picture, .png or .jpg."""

    def __post_init__(self) -> None:
        if self.crf is not None and not 0 <= self.crf <= 63:
            raise ValueError(f"--crf is a number from 0 to 63, got {self.crf}")
        if self.crf is not None and self.bitrate is not None:
            raise ValueError("--crf and --bitrate are two ways to say the same: give one")
        if self.every < 1:
            raise ValueError(f"--every is a number of frames from 1, got {self.every}")
        if self.size is not None:
            size_hw(self.size, "--size", 1, _MOST_PIXELS)
        _amount("--min-free", self.min_free)
        if self.bits_a_second is not None and self.bits_a_second < 1000:
            raise ValueError(f"--bitrate is bits a second from 1k on, got {self.bitrate!r}")
        for name, suffixes in RESULT_SUFFIXES.items():
            path = getattr(self, name)
            if path is not None and path.suffix.lower() not in suffixes:
                raise ValueError(f"--{name} is a file in {' or '.join(suffixes)}, got {path}")
        self._check_segments()
        start, end = self.start_seconds, self.end_seconds
        if end is not None and end <= (start or 0):
            raise ValueError(f"--end {self.end} is not after --start {self.start or 0}")

    def _check_segments(self) -> None:
        segment, keep = self.segment_seconds, self.keep_seconds
        if segment is not None and segment < 1:
            raise ValueError(f"--segment is a time from 1 second on, got {self.segment!r}")
        if self.keep is not None and self.keep_bytes is None and keep is None:
            raise ValueError(
                f"--keep is a time such as 24h or 7d, or a size such as 20GB, got {self.keep!r}"
            )
        if 0 in (keep, self.keep_bytes):
            raise ValueError(f"--keep is a time or a size above 0, got {self.keep!r}")
        if self.keep is not None and segment is None:
            raise ValueError("--keep removes old segments: give --segment as well, such as 10m")
        if segment is not None and keep is not None and keep < segment:
            raise ValueError(f"--keep {self.keep} is less than one --segment of {self.segment}")

    @property
    def segment_seconds(self) -> Fraction | None:
        if self.segment is None:
            return None
        seconds = _duration(self.segment)
        if seconds is None:
            raise ValueError(
                f"--segment is a time such as 90, 90s, 10m, 1h or h:m:s, got {self.segment!r}"
            )
        return seconds

    @property
    def keep_seconds(self) -> Fraction | None:
        # A bare number could be meant as a size; what removes files does not guess.
        if self.keep is None or (self.keep[-1:].isdigit() and ":" not in self.keep):
            return None
        return _duration(self.keep)

    @property
    def keep_bytes(self) -> int | None:
        text = self.keep or ""
        found = re.fullmatch(r"\d+(?:\.\d+)?[kKMGT]?B", text)
        return None if found is None else _amount("--keep", text)

    @property
    def bits_a_second(self) -> int | None:
        return None if self.bitrate is None else _amount("--bitrate", self.bitrate)

    @property
    def min_free_bytes(self) -> int:
        return _amount("--min-free", self.min_free)

    @property
    def size_hw(self) -> tuple[int, int] | None:
        return None if self.size is None else size_hw(self.size)

    @property
    def start_seconds(self) -> Fraction | None:
        return _moment("--start", self.start)

    @property
    def end_seconds(self) -> Fraction | None:
        return _moment("--end", self.end)


def size_hw(
    text: str, option: str = "a size", least: int = 1, most: int = _MOST_PIXELS
) -> tuple[int, int]:
    """Height and width in pixels of a size as every option takes it: width x height.

    Raises:
        ValueError: it is none, or a side is out of its bounds.
    """
    found = re.fullmatch(r"(\d{1,6})[xX×](\d{1,6})", text)
    if found is None:
        raise ValueError(f"{option} is WIDTHxHEIGHT in pixels, such as 1280x720, got {text!r}")
    width, height = int(found[1]), int(found[2])
    if not least <= min(width, height) <= max(width, height) <= most:
        raise ValueError(f"{option} has sides of {least} to {most} pixels, got {text!r}")
    return height, width


def _amount(option: str, text: str) -> int:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([kKMGT]?)B?", text)
    if found is None:
        raise ValueError(f"{option} is a number with k, M or G behind it, got {text!r}")
    factor = 1000 ** ("", "K", "M", "G", "T").index(found[2].upper())
    return int(float(found[1]) * factor)


def _duration(text: str) -> Fraction | None:
    """Seconds of 90, 90s, 1.5h, 2d, or h:m:s; None if it is neither."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", text)
    if found is not None:
        return Fraction(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}[found[2]]
    try:
        return _moment("", text)
    except ValueError:
        return None


def _moment(option: str, text: str | None) -> Fraction | None:
    if text is None:
        return None
    if not re.fullmatch(r"(?:(?:\d+:)?\d+:)?\d+(?:\.\d+)?", text):
        raise ValueError(f"{option} is a time in seconds or h:m:s, got {text!r}")
    seconds = Fraction(0)
    for part in text.split(":"):
        seconds = 60 * seconds + Fraction(part)
    return seconds


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
class PipelineConfig:
    """Everything `stream-cam run` can be told, as one value."""

    model: ModelConfig = field(default_factory=ModelConfig)
    look: LookConfig = field(default_factory=LookConfig)
    run: RunConfig = field(default_factory=RunConfig)
    capture: CaptureConfig = field(default_factory=CaptureConfig)
    record: RecordConfig = field(default_factory=RecordConfig)
    web: WebConfig = field(default_factory=WebConfig)
