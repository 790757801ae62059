"""Lines on stdout and stderr: results, errors, log records and tracebacks, without secrets."""

from __future__ import annotations

import codecs
import io
import logging
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import TracebackType

from stream_cam.uri import hide, printable


def print_line(line: str) -> None:
    """Prints a line to stdout at once."""
    print(printable(line), flush=True)


def print_error(message: str) -> None:
    """Prints an error as one line to stderr."""
    print(f"stream-cam: {hide(' '.join(message.split()))}", file=sys.stderr, flush=True)


def print_traceback(
    exc_type: type[BaseException], exc: BaseException | None, trace: TracebackType | None
) -> None:
    text = "".join(traceback.format_exception(exc_type, exc, trace))
    with suppress(OSError, ValueError):
        sys.stderr.write(hide(text))


def escape_unprintable() -> None:
    """Escapes characters that stdout and stderr cannot encode, by the rule of all other text."""

    def escaped(error: UnicodeError) -> tuple[str, int]:
        if not isinstance(error, UnicodeEncodeError):
            raise error
        text = printable(error.object[error.start : error.end])
        return text.encode(error.encoding, "backslashreplace").decode(error.encoding), error.end

    codecs.register_error("printable", escaped)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="printable")


@contextmanager
def tracebacks_without_secrets() -> Iterator[None]:
    """Hides the command line's passwords in tracebacks of threads and finalizers."""
    hooks = threading.excepthook, sys.unraisablehook
    threading.excepthook = lambda args: print_traceback(
        args.exc_type, args.exc_value, args.exc_traceback
    )
    sys.unraisablehook = lambda args: print_traceback(
        args.exc_type, args.exc_value, args.exc_traceback
    )
    try:
        yield
    finally:
        threading.excepthook, sys.unraisablehook = hooks


@contextmanager
def logging_to_stderr(verbose: bool) -> Iterator[None]:
    """Writes warnings to stderr; with `verbose`, all records."""
    handler = _StderrHandler()
    handler.setFormatter(_RedactingFormatter("stream-cam: %(levelname)s: %(message)s"))
    # FFmpeg's own lines too, in case they are turned on: they hold URLs and credentials.
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
    """Writes to the current `sys.stderr`, so that a line does not run into the status line."""

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError, ValueError):
            sys.stderr.write(f"{self.format(record)}\n")
            sys.stderr.flush()


class _RedactingFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return hide(super().format(record))
