"""The command line: parse, call the command, report errors. Heavy imports wait for the call."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from stream_cam._version import __version__
from stream_cam.cli.messages import (
    escape_unprintable,
    logging_to_stderr,
    print_error,
    print_traceback,
    tracebacks_without_secrets,
)
from stream_cam.cli.options import (
    AnyCommand,
    BatchCommand,
    BenchCommand,
    BuildCommand,
    CamerasCommand,
    DemoCommand,
    DoctorCommand,
    EnginesCommand,
    ExportCommand,
    RecoverCommand,
    RunCommand,
)
from stream_cam.cli.parse import parse
from stream_cam.cli.signals import INTERRUPTED, Signals
from stream_cam.errors import StreamCamError
from stream_cam.uri import remember_secrets


def main(arguments: Sequence[str] | None = None) -> int:
    """The `stream-cam` command; returns its exit code."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    remember_secrets(*arguments)
    escape_unprintable()
    signals = Signals()
    try:
        with tracebacks_without_secrets(), signals:
            return _main(arguments, signals)
    except KeyboardInterrupt:
        print_error("interrupted")
        return signals.exit_code or INTERRUPTED
    except StreamCamError as error:
        print_error(str(error))
        return error.exit_code
    except Exception as error:
        print_traceback(type(error), error, error.__traceback__)
        print_error("this is a bug in stream-cam; please report it with the lines above")
        return 1


def _main(arguments: Sequence[str], signals: Signals) -> int:
    if arguments in (["--version"], ["version"]):
        print(f"stream-cam {__version__}")
        return 0
    command = parse(arguments or ["--help"])
    if command is None:
        return 0
    with logging_to_stderr(getattr(command, "verbose", False)):  # some have no --verbose
        _call(command, arguments, signals)
    return signals.exit_code


def _call(command: AnyCommand, arguments: Sequence[str], signals: Signals) -> None:
    """Runs a command; each one imports only the libraries that it needs."""
    match command:
        case RunCommand():
            from stream_cam.cli.run import run_command

            run_command(command, signals)
        case BatchCommand():
            from stream_cam.cli.batch import batch_command

            batch_command(command, signals)
        case CamerasCommand():
            from stream_cam.cli.cameras import cameras_command

            cameras_command(command, signals)
        case DemoCommand():
            from stream_cam.cli.demo import demo_command

            demo_command(command, signals)
        case RecoverCommand():
            from stream_cam.cli.recover import recover_command

            recover_command(command)
        case BuildCommand():
            from stream_cam.cli.build import build_command

            build_command(command)
        case ExportCommand():
            from stream_cam.cli.export import export_command

            export_command(command)
        case EnginesCommand():
            from stream_cam.cli.engines import engines_command

            engines_command(command)
        case BenchCommand():
            from stream_cam.bench.command import bench_command

            bench_command(command.bench, arguments, verbose=command.verbose)
        case DoctorCommand():
            from stream_cam.cli.doctor import doctor_command

            doctor_command(command)
        case _:
            raise NotImplementedError(type(command).__name__)
