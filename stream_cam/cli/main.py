"""The command line: call what was asked for, report. Nothing heavy is imported before that."""

from __future__ import annotations

import codecs
import dataclasses
import io
import logging
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from stream_cam._version import __version__
from stream_cam.cli.options import Batch, Bench, Build, Demo, Doctor, Engines, Recover, Run, parse
from stream_cam.cli.signals import INTERRUPTED, Signals
from stream_cam.config import LookConfig, PipelineConfig
from stream_cam.errors import StreamCamError
from stream_cam.uri import hide, json_text, printable, remember_secrets

if TYPE_CHECKING:
    from stream_cam.pipeline.pipeline import Pipeline
    from stream_cam.pipeline.report import Report, SinkCount
    from stream_cam.settings import Settings

_LISTED = 4
"""So many segments are told by name."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The `stream-cam` command; returns its exit code."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    remember_secrets(*arguments)
    _print_any_name()
    signals = Signals()
    try:
        with _tracebacks_without_secrets(), signals:
            return _dispatch(arguments, signals)
    except KeyboardInterrupt:
        _print_error("interrupted")
        return signals.exit_code or INTERRUPTED
    except StreamCamError as error:
        _print_error(str(error))
        return error.exit_code
    except Exception as error:
        _print_traceback(type(error), error, error.__traceback__)
        _print_error("this is a bug in stream-cam; please report it with the lines above")
        return 1


def _print_any_name() -> None:
    """What stdout and stderr cannot encode is escaped, by the rule of all other text."""

    def escaped(error: UnicodeError) -> tuple[str, int]:
        if not isinstance(error, UnicodeEncodeError):
            raise error
        text = printable(error.object[error.start : error.end])
        return text.encode(error.encoding, "backslashreplace").decode(error.encoding), error.end

    codecs.register_error("printable", escaped)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="printable")


def _say(line: str) -> None:
    """To stdout, at once."""
    print(printable(line), flush=True)


@contextmanager
def _tracebacks_without_secrets() -> Iterator[None]:
    """What threads and finalizers die of is shown without the passwords of the command line."""
    hooks = threading.excepthook, sys.unraisablehook
    threading.excepthook = lambda args: _print_traceback(
        args.exc_type, args.exc_value, args.exc_traceback
    )
    sys.unraisablehook = lambda args: _print_traceback(
        args.exc_type, args.exc_value, args.exc_traceback
    )
    try:
        yield
    finally:
        threading.excepthook, sys.unraisablehook = hooks


def _print_traceback(
    exc_type: type[BaseException], exc: BaseException | None, trace: TracebackType | None
) -> None:
    text = "".join(traceback.format_exception(exc_type, exc, trace))
    with suppress(OSError, ValueError):
        sys.stderr.write(hide(text))


def _dispatch(arguments: Sequence[str], signals: Signals) -> int:
    if arguments in (["--version"], ["version"]):
        print(f"stream-cam {__version__}")
        return 0
    command = parse(arguments or ["--help"])
    if command is None:
        return 0
    if isinstance(command, Doctor):
        return _doctor(command)
    if isinstance(command, Engines):
        return _engines(command)
    if isinstance(command, Recover):
        from stream_cam.cli.recover import recover_command

        recover_command(command.recording, sound_of=command.sound_of, overwrite=command.overwrite)
        return 0
    if isinstance(command, Build):
        with _logging_to_stderr(command.verbose):
            return _build(command)
    if isinstance(command, Bench):
        with _logging_to_stderr(command.verbose):
            return _bench(command, arguments)
    with _logging_to_stderr(command.run.verbose):
        if isinstance(command, Batch):
            _batch(command, signals)
        elif isinstance(command, Demo):
            _demo(command, signals)
        else:
            _run(command, signals)
    return signals.exit_code


def _print_error(message: str) -> None:
    print(f"stream-cam: {hide(' '.join(message.split()))}", file=sys.stderr, flush=True)


@contextmanager
def _logging_to_stderr(verbose: bool) -> Iterator[None]:
    handler = _StderrHandler()
    handler.setFormatter(_RedactingFormatter("stream-cam: %(levelname)s: %(message)s"))
    # FFmpeg's own lines too, should they be turned on: they hold URLs and credentials.
    loggers = [logging.getLogger(name) for name in ("stream_cam", "libav")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.DEBUG if verbose else logging.WARNING)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)


class _StderrHandler(logging.Handler):
    """Writes to what `sys.stderr` is now, so that a line does not run into the status line."""

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError, ValueError):
            sys.stderr.write(f"{self.format(record)}\n")
            sys.stderr.flush()


class _RedactingFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return hide(super().format(record))


def _run(command: Run, signals: Signals) -> None:
    config = PipelineConfig(
        command.model, command.look, command.run, command.capture, command.record, command.web
    )
    outputs = [*([command.output] if command.output is not None else []), *command.sink]
    from stream_cam.pipeline.session import run_session

    quiet = command.run.quiet

    def begin(pipeline: Pipeline) -> None:
        signals.watch(pipeline.stop)
        if not quiet:
            if pipeline.info.note:
                _say(pipeline.info.note)
            _say(_mode(pipeline.report, command.look))

    run_session(
        command.source,
        outputs,
        config,
        on_open=_say_where,
        on_start=begin,
        on_end=None if quiet else _summarise,
    )


def _batch(command: Batch, signals: Signals) -> None:
    config = PipelineConfig(command.model, command.look, command.run, record=command.record)
    from stream_cam.cli.batch import batch_command

    batch_command(command.source, command.output, config, command.batch, on_start=signals.watch)


def _demo(command: Demo, signals: Signals) -> None:
    from stream_cam.pipeline.session import run_demo

    quiet = command.run.quiet

    report, score = run_demo(
        command.demo,
        command.sink,
        command.look,
        command.run,
        command.web,
        on_open=_say_where,
        on_start=lambda pipeline: signals.watch(pipeline.stop),
        on_end=None if quiet else partial(_summarise, sheet=True),
    )
    if quiet or report.live:
        return
    print(score.summary())
    print(
        "\nnext:\n"
        "  stream-cam run 0 --weights demo        draw a shape, hold it before your webcam\n"
        "  stream-cam demo -o web://              watch it in the browser, and steer it\n"
        "  stream-cam run clip.mp4 out.mp4        annotate a video with ImageNet's 1000 classes\n"
        "  stream-cam doctor                      what this machine can do"
    )


def _build(command: Build) -> int:
    from stream_cam.cli.build import build_command
    from stream_cam.host import parallel_choices

    build_command(
        command.model,
        parallel_choices(),
        command.batch,
        calibrate=command.calibrate,
        force=command.force,
        verify_only=command.verify_only,
        as_json=command.json,
    )
    return 0


def _engines(command: Engines) -> int:
    from stream_cam.cli.engines import engines_command

    engines_command(remove=command.prune, as_json=command.json)
    return 0


def _bench(command: Bench, arguments: Sequence[str]) -> int:
    from stream_cam.bench.command import bench_command

    bench_command(command.bench, arguments, verbose=command.verbose)
    return 0


def _doctor(command: Doctor) -> int:
    from stream_cam.cli.doctor import examine, print_table

    findings = examine()
    if command.json:
        print(json_text([dataclasses.asdict(finding) for finding in findings], indent=2))
    else:
        print_table(findings)
    return 0


def _mode(report: Report, look: LookConfig) -> str:
    """What becomes of the frames, in one line."""
    if not report.live:
        return "lossless: every frame is explained and written"
    return (
        "live: newest frame wins; every frame is drawn, with the newest map, which fades when it "
        f"is more than {look.max_age:g} s older than the frame"
    )


def _say_where(urls: Sequence[str], _: Settings) -> None:
    """The links of pages, also with --quiet: without the token in it nobody could watch."""
    for url in urls:
        _say(f"watch at {url}   (Ctrl-C ends it)")


def _summarise(report: Report, *, sheet: bool = False) -> None:
    """How it went; `sheet`: its picture shows several moments, and none replaced another."""
    explain = report.latency.get("explain")
    frames = "frame" if report.rendered == 1 else "frames"
    parts = [f"{report.rendered} {frames} in {report.seconds:.1f} s ({report.fps:.1f} fps)"]
    if explain is not None:
        at_once = f" a frame, {report.parallel} at once" if report.parallel > 1 else ""
        parts.append(f"explain p50 {explain.p50_ms:.1f} ms, p95 {explain.p95_ms:.1f} ms{at_once}")
    if report.engine:
        parts.append(f"{report.engine['name']} on {report.engine['device']}")
    counts = {"superseded": report.superseded, "stale": report.stale, "corrupt": report.corrupt}
    parts += [f"{count} {name}" for name, count in counts.items() if count]
    _say(" · ".join(parts))
    for sink in report.sinks:
        path = Path(sink.name)
        if sink.failed:
            _say(f"failed after {sink.written} pictures: {sink.failed}")
        if sink.segments or sink.removed:
            _say(_segments_of(sink))
        elif sink.failed:
            continue
        elif sink.written and path.is_file():
            _say(f"wrote {sink.name} ({_size_of(path)}{'' if sheet else _replaced(sink)})")
        elif sink.written and path.is_dir():
            _say(f"wrote {sink.name}")


def _size_of(path: Path) -> str:
    size = path.stat().st_size
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"


def _replaced(sink: SinkCount) -> str:
    """A word about the pictures that a single picture file could not keep."""
    from stream_cam.sinks.images import PICTURE_SUFFIXES

    if sink.written < 2 or Path(sink.name).suffix.lower() not in PICTURE_SUFFIXES:
        return ""
    return f", the last of {sink.written} pictures; a folder keeps all: {Path(sink.name).stem}/"


def _segments_of(sink: SinkCount) -> str:
    """The files of a recording in segments, in one line."""
    total = sum(path.stat().st_size for path in map(Path, sink.segments) if path.is_file())
    names = sink.segments
    listed = ", ".join(names) if len(names) <= _LISTED else f"{names[0]} … {names[-1]}"
    removed = f"; {sink.removed} older ones were removed (--keep)" if sink.removed else ""
    noun = "segment" if len(names) == 1 else "segments"
    return f"wrote {len(names)} {noun} ({total / 1e6:.1f} MB): {listed}{removed}"
