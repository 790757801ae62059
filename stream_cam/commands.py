"""What `stream-cam` can be asked for: every command with its options, and the reading of them."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from contextlib import redirect_stderr, suppress
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
from stream_cam.errors import UsageError, unknown_name
from stream_cam.uri import redact_uri

COMMANDS = ("run", "batch", "demo", "recover", "build", "engines", "bench", "doctor")

Sinks = Annotated[
    tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(aliases=["-o"], metavar="SINK")
]
# One class a --target: of `--target star clip.mp4` the second word is the source.
Model = tyro.conf.OmitArgPrefixes[tyro.conf.UseAppendAction[ModelConfig]]


@dataclass(frozen=True)
class Run:
    """Explain a camera, a stream, a video or pictures.

    Sources: 0 or /dev/video0 (camera), a video file, a picture, a folder or glob of pictures,
    rtsp://…, http(s)://…, demo://shapes.

    Outputs: window, a video file (.mp4, .mkv, .mov, .webm), a picture file, a folder of pictures
    (frames/), web://HOST:PORT (a page in the browser), null.
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
    capture: tyro.conf.OmitArgPrefixes[CaptureConfig] = field(default_factory=CaptureConfig)
    record: tyro.conf.OmitArgPrefixes[RecordConfig] = field(default_factory=RecordConfig)
    web: tyro.conf.OmitArgPrefixes[WebConfig] = field(default_factory=WebConfig)


@dataclass(frozen=True)
class Batch:
    """Annotate many videos into a folder; those that are there already are left as they are.

    In --predictions, --cams, --timeline, --sheet and --report, {name} stands for each video's name.
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


@dataclass(frozen=True)
class Demo:
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


@dataclass(frozen=True)
class Doctor:
    """Say what this machine can do, and what to do about what it cannot."""

    json: bool = False
    """Print JSON instead of a table."""


@dataclass(frozen=True)
class Recover:
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
class Build:
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
class Engines:
    """List the engines that are kept, and which of them serve this machine."""

    prune: bool = False
    """Remove those that cannot serve this machine."""
    json: bool = False
    """Print JSON instead of a table."""


@dataclass(frozen=True)
class Bench:
    """Measure engines, batches, shapes, and the stages of a frame; compare two measurements.

    Nothing is timed that was not compared with the network in float32 first.
    """

    bench: tyro.conf.OmitArgPrefixes[BenchConfig] = field(default_factory=BenchConfig)
    verbose: bool = False
    """Log what happens, for bug reports."""


AnyCommand: TypeAlias = "Run | Batch | Demo | Recover | Build | Engines | Bench | Doctor"
Command = (
    Annotated[Run, tyro.conf.subcommand("run")]
    | Annotated[Batch, tyro.conf.subcommand("batch")]
    | Annotated[Demo, tyro.conf.subcommand("demo")]
    | Annotated[Recover, tyro.conf.subcommand("recover")]
    | Annotated[Build, tyro.conf.subcommand("build")]
    | Annotated[Engines, tyro.conf.subcommand("engines")]
    | Annotated[Bench, tyro.conf.subcommand("bench")]
    | Annotated[Doctor, tyro.conf.subcommand("doctor")]
)


def parse(arguments: Sequence[str]) -> AnyCommand | None:
    """What was asked for; None if that was help, which is then printed.

    Raises:
        UsageError: a wrong command line, in one line where tyro would draw a box.
    """
    drawn = io.StringIO()
    try:
        with redirect_stderr(drawn):
            return _tyro(arguments)
    except SystemExit as exit_:
        if not exit_.code:
            return None
    # Once more: in tyro's box a long URL is broken over lines, and its password not recognised.
    shown = [redact_uri(argument) for argument in arguments]
    drawn.truncate(drawn.seek(0))
    with redirect_stderr(drawn), suppress(SystemExit):
        _tyro(shown)
    raise _usage_error(drawn.getvalue(), shown)


def _tyro(arguments: Sequence[str]) -> AnyCommand:
    with _SHOWN_AS_FLAGS:
        return tyro.cli(
            Command,
            prog="stream-cam",
            description="Shows, live, what a network looks at.",
            args=_with_live(arguments),
        )


_SHOWN_AS_FLAGS = tyro.constructors.ConstructorRegistry()
"""Not through `Annotated`: config.py is read where there is no tyro."""


@_SHOWN_AS_FLAGS.primitive_rule
def _live_or_not(
    kind: tyro.constructors.PrimitiveTypeInfo,
) -> tyro.constructors.PrimitiveConstructorSpec[bool | None] | None:
    """`--live`, the only one that may also be left to chance, in the help as what it is."""
    if kind.type != bool | None:
        return None
    words = {"True": True, "False": False, "None": None}
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="| --no-live",
        instance_from_str=lambda given: words[given[0]],
        is_instance=lambda value: value is None or isinstance(value, bool),
        str_from_instance=lambda value: ["as-the-source" if value is None else str(value)],
        choices=tuple(words),
    )


def _with_live(arguments: Sequence[str]) -> list[str]:
    """`--live` and `--no-live` as the value that tyro wants of what may also be left to chance."""
    written: list[str] = []
    for number, argument in enumerate(arguments):
        following = arguments[number + 1] if number + 1 < len(arguments) else ""
        if argument == "--no-live":
            written += ["--live", "False"]
        elif argument == "--live" and following not in ("None", "True", "False"):
            written += ["--live", "True"]
        else:
            written.append(argument)
    return written


_KINDS = {
    "INT": "a whole number",
    "FLOAT": "a number",
    "int": "a whole number",
    "float": "a number",
}
"""tyro's and Python's words for what an option takes."""


def _value_error(said: str) -> str:
    """What is said of a value of another type, without how it was tried."""
    found = re.match(
        r"Error parsing (--[\w-]+): (?:no type matching \S*\b(INT|FLOAT) .*?\['(.*?)'\]"
        r"|could not convert string to (float): '(.*?)'"
        r"|invalid literal for (int)\(\) with base 10: '(.*?)')",
        said,
    )
    if found is None:
        return said
    option, *rest = found.groups()
    kind, got = (each for each in rest if each is not None)
    return f"{option} takes {_KINDS[kind]}, got {got!r}"


def _usage_error(drawn: str, arguments: Sequence[str]) -> UsageError:
    """The error that tyro drew as a box, with the nearest names where it is about a name."""
    # A title, and a frame that is of ASCII or left out where the terminal has no better.
    lines = [line.strip("│| ") for line in drawn.splitlines()[1:]]
    said = " ".join(line for line in lines if line.strip("╰╯+-─ "))
    commands = [name for name in COMMANDS if name in arguments[:1]]
    said = re.sub(r" *(Argument helptext:|For full helptext).*", "", said)
    said = re.sub(r"Error parsing __tyro[\w.-]*: ", "", said)
    choice = re.match(
        r"invalid choice '(.*?)' for argument '(.*?)'. Expected one of \((.*)\)", said
    )
    if choice is not None:
        known = [name for name in re.findall(r"'(.*?)'", choice[3]) if name != "None"]
        return unknown_name(choice[2], choice[1], known)
    stray = re.match(r"Unrecognized options: (\S+?),?(?= |$)", said)
    if stray is not None and not commands:
        if "." in stray[1] or "/" in stray[1]:
            return UsageError(f"what about {stray[1]}? To annotate it: stream-cam run {stray[1]} …")
        return unknown_name("command", stray[1], COMMANDS)
    said = _value_error(said)
    if "--" in arguments:
        behind = [each for each in arguments[arguments.index("--") :] if each.startswith("--")][1:]
        if behind:
            said = f"{behind[0]} stands behind --, where options are none: put options before it"
    said = re.sub(r" \(applied to [\w -]+\)", "", said)
    said = re.sub(r" ?Arguments are applied to the directly .*? matter\.", "", said)
    said = re.sub(r" Perhaps you meant: (--[\w-]+).*", r"; did you mean \1?", said)
    return UsageError(f"{said}; see `stream-cam {' '.join([*commands, '--help'])}`")
