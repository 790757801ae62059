"""What `stream-cam` can be asked for: every command with its options, and the reading of them."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, suppress
from dataclasses import dataclass, field, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, TypeAlias, Union, get_args, get_origin, get_type_hints

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

Sinks = Annotated[
    tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(aliases=["-o"], metavar="SINK")
]
# One class a --target: of `--target star clip.mp4` the second word is the source.
Model = tyro.conf.OmitArgPrefixes[tyro.conf.UseAppendAction[ModelConfig]]
Capture = tyro.conf.OmitArgPrefixes[tyro.conf.UseAppendAction[CaptureConfig]]


@dataclass(frozen=True)
class Run:
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


@dataclass(frozen=True)
class Batch:
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
    """Say of each engine that is left out why, and log what happens, for bug reports."""


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
_COMMANDS: dict[str, type] = {
    **{"run": Run, "batch": Batch, "demo": Demo, "recover": Recover, "build": Build},
    **{"engines": Engines, "bench": Bench, "doctor": Doctor},
}


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
"""Not through `Annotated`: config is read where there is no tyro."""


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


def _usage_error(drawn: str, arguments: Sequence[str]) -> UsageError:
    """The error that tyro drew as a box, in words that say what was got and what is expected."""
    # A title, and a frame that is of ASCII or left out where the terminal has no better.
    lines = [line.strip("│| ") for line in drawn.splitlines()[1:]]
    said = " ".join(line for line in lines if line.strip("╰╯+-─ "))
    said = re.sub(r"Error parsing [\w.-]*: (?=--)", "", said)  # ours, of a `__post_init__`
    said = re.sub(r" *(Argument helptext:|For full helptext).*", "", said)
    name = next((name for name in _COMMANDS if name in arguments[:1]), "")
    known = _options(_COMMANDS[name]) if name else {}
    behind = arguments[arguments.index("--") + 1 :] if "--" in arguments else []
    if stray := next((each for each in behind if each.startswith("--")), ""):
        said = f"{stray} stands behind --, where options are none: put options before it"
    elif found := re.match(r"Unrecognized (?:or misplaced )?options: (\S+?),?(?= |$)", said):
        return _unrecognized(found[1], name, known)
    elif choice := re.match(r"invalid choice '(.*?)' for argument '(.*?)'", said):
        option = choice[2].rpartition("/")[2]
        choices = get_args(_without_none(known.get(option)))
        return unknown_name(option, choice[1], choices or re.findall(r"'([^']*)'", said)[2:])
    elif found := re.match(r"(?:Missing value for argument '|Error parsing )([\w/-]+)", said):
        option = found[1].rpartition("/")[2]
        if option not in known:  # --source, of which tyro thinks that it names a positional one
            stray = next((each for each in arguments if each.startswith("--")), option)
            return _unrecognized(stray, name, known)
        several = get_origin(_without_none(known[option])) is tuple
        values = _values_of(option, arguments)[: None if several else 1]
        got = " ".join(map(repr, values)) or "nothing"
        said = f"{option} takes {_expected(known[option])}, got {got}"
    elif found := re.match(r"Missing from [\w -]+: (\S+) (.*?)\.? \(required\)", said):
        said = f"`stream-cam {name}` needs {found[1]}: {found[2][0].lower()}{found[2][1:]}"
    return UsageError(f"{said}; see `stream-cam {f'{name} ' * bool(name)}--help`")


def _unrecognized(stray: str, name: str, known: Mapping[str, Any]) -> UsageError:
    """For what is no option of the command, or one argument too many.

    Args:
        name: the command; empty if there is none.
        known: its options.
    """
    option = stray.partition("=")[0]
    if not name and stray.startswith("-"):
        return UsageError(
            f"a command comes before {option}: stream-cam {' | '.join(_COMMANDS)}; such as "
            f"`stream-cam run SOURCE {option} …`"
        )
    if not name:
        if "." in stray or "/" in stray:
            return UsageError(f"what about {stray}? To annotate it: stream-cam run {stray} …")
        return unknown_name("command", stray, _COMMANDS)
    see = f"see `stream-cam {name} --help`"
    if not stray.startswith("-"):
        takes = _POSITIONAL.get(name, "options only")
        return UsageError(f"{stray!r} is too much: `stream-cam {name}` takes {takes}; {see}")
    near = get_close_matches(option, known, 3, 0.75)
    if near:
        return UsageError(f"unknown option {option}; did you mean {', '.join(near)}? {see}")
    others = [other for other, kind in _COMMANDS.items() if option in _options(kind)]
    if not others:
        return UsageError(f"unknown option {option} of `stream-cam {name}`; {see}")
    instead = _INSTEAD.get((name, option), see)
    return UsageError(
        f"`stream-cam {name}` has no {option}, which is for {', '.join(others)}; {instead}"
    )


_APPENDED = get_args(tyro.conf.UseAppendAction[str])[1]
_POSITIONAL_MARK = get_args(tyro.conf.Positional[str])[1]
_POSITIONAL = {
    "run": "SOURCE [OUTPUT]; give further outputs with -o",
    "batch": "SOURCE...",
    "recover": "RECORDING...",
}
"""Arguments that are no options, by command."""
_INSTEAD = {
    ("bench", "--precision"): "give it with the engine: --engines openvino:bf16",
    ("bench", "--input-size"): "give --shape 224x224",
    ("demo", "--weights"): "other weights: `stream-cam run demo://shapes --weights …`",
}
"""The next step for an option of another command."""


def _options(command: type, *, one_each: bool = False) -> dict[str, Any]:
    """The types of a command's options, by the names that they have on the command line.

    Args:
        one_each: an option that takes several values is given once for each.
    """
    found: dict[str, Any] = {}
    for name, hint in get_type_hints(command, include_extras=True).items():
        kind, *marks = get_args(hint) if get_origin(hint) is Annotated else (hint,)
        one = one_each or _APPENDED in marks
        option = f"--{name.replace('_', '-')}"
        if is_dataclass(kind) and isinstance(kind, type):
            found |= _options(kind, one_each=one)
        elif _POSITIONAL_MARK not in marks:
            found[option] = get_args(kind)[0] if one and get_origin(kind) is tuple else kind
            if kind is bool or kind == bool | None:
                found[f"--no-{option[2:]}"] = kind
    return found


def _values_of(option: str, arguments: Sequence[str]) -> list[str]:
    """What was given for an option, the last time."""
    names = (option, "-o") if option in ("--sink", "--output") else (option,)
    values: list[str] = []
    within = False
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if name in names:
            within, values = True, [value] if equals else []
        elif within and not argument.startswith("--"):
            values.append(argument)
        else:
            within = False
    return values


_KINDS = {int: "a whole number", float: "a number", Path: "a path", str: "a value", bool: "nothing"}
_SEVERAL = {int: "whole numbers", Path: "paths", str: "values"}


def _without_none(kind: Any) -> Any:
    rest = [each for each in get_args(kind) if each is not type(None)]
    return rest[0] if get_origin(kind) in (Union, UnionType) and len(rest) == 1 else kind


def _expected(kind: Any) -> str:
    """What an option of this type takes, in words."""
    kind = _without_none(kind)
    inner = get_args(kind)
    if get_origin(kind) is Literal:
        return f"one of {', '.join(inner)}"
    if get_origin(kind) is not tuple:
        return _KINDS[kind]
    if inner[-1] is Ellipsis:
        return f"one or more {_SEVERAL[inner[0]]}"
    return f"{len(inner)} {_SEVERAL[inner[0]]}"
