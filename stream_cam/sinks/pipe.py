"""A video into a pipe, for another program to read during the run."""

from __future__ import annotations

import errno
import os
import select
import stat
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import av
import av.error
from av.container import OutputContainer

from stream_cam.config import RecordConfig
from stream_cam.errors import SinkError, UsageError
from stream_cam.sinks.base import Picture, Sink, StreamInfo
from stream_cam.sinks.kinds import Output, SinkKind
from stream_cam.sinks.video.encoders import check_codec, check_settings
from stream_cam.sinks.video.sink import VideoSink
from stream_cam.uri import pipe_number

STREAM_SUFFIXES: Final = {
    "mpegts": ".ts",
    "matroska": ".mkv",
    "nut": ".nut",
    "webm": ".webm",
    "mp4": ".mp4",
}
"""Formats that are written without seeking, and the suffix of their files."""
_OPTIONS: Final = {"mp4": {"movflags": "+frag_keyframe+empty_moov+default_base_moof"}}
_POLL_MS: Final = 100
"""An interrupt ends a waiting write within this time."""
_CHUNK_BYTES: Final = 4096
"""POSIX' PIPE_BUF on Linux: a pipe that is ready takes this many without waiting."""
_STDOUT: Final = 1
_stdout = _STDOUT
"""The file descriptor that `-` writes to."""


def is_pipe(uri: str) -> bool:
    """Whether an output is a pipe: `-`, `pipe:3`, /dev/stdout, a FIFO, a device."""
    if pipe_number(uri, _STDOUT) is not None or uri == "/dev/stdout":
        return True
    try:
        mode = os.stat(os.path.expanduser(uri)).st_mode
    except (OSError, ValueError):
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def is_terminal(uri: str) -> bool:
    place = _descriptor_or_path(uri)
    return isinstance(place, int) and os.isatty(_stdout if place == _STDOUT else place)


@contextmanager
def messages_to_stderr(uris: Sequence[str]) -> Iterator[None]:
    """While stdout is an output, all printed text goes to stderr, also from libraries."""
    global _stdout
    if not any(_descriptor_or_path(uri) == _STDOUT for uri in uris):
        yield
        return
    sys.stdout.flush()
    _stdout = os.dup(_STDOUT)
    os.dup2(2, _STDOUT)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(_stdout, _STDOUT)
        os.close(_stdout)
        _stdout = _STDOUT


def _descriptor_or_path(uri: str) -> str | int:
    """The file descriptor, or the path, of a pipe."""
    number = _STDOUT if uri == "/dev/stdout" else pipe_number(uri, _STDOUT)
    return os.path.expanduser(uri) if number is None else number


class _Pipe:
    """A file for PyAV that can only be written to; waits for a reader until it is interrupted."""

    def __init__(self, place: str | int) -> None:
        self._place = place
        self._handle: int | None = None
        self._interrupted = threading.Event()
        self.has_reader = True
        """False once the reader has left."""

    def open(self) -> None:
        """Raises OSError if it cannot be opened, or is interrupted before there is a reader."""
        if isinstance(self._place, int):
            self._handle = os.dup(_stdout if self._place == _STDOUT else self._place)
            return
        while not self._interrupted.is_set():
            try:
                # Without O_NONBLOCK this waits for a reader, and no signal ends that.
                self._handle = os.open(self._place, os.O_WRONLY | getattr(os, "O_NONBLOCK", 0))
                return
            except OSError as exc:
                if exc.errno != errno.ENXIO:
                    raise
            self._interrupted.wait(_POLL_MS / 1000)
        self._drop_sink()

    def write(self, data: bytes | memoryview) -> int:
        left = memoryview(data)
        while left:
            left = left[self._write_some(left[:_CHUNK_BYTES]) :]
        return len(data)

    def _write_some(self, data: memoryview) -> int:
        while self._handle is not None and not self._interrupted.is_set():
            if os.name != "nt":
                ready = select.poll()
                ready.register(self._handle, select.POLLOUT)
                if not ready.poll(_POLL_MS):
                    continue
            try:
                return os.write(self._handle, data)
            except BlockingIOError:
                continue
            except BrokenPipeError:
                break
        self._drop_sink()
        return 0

    def _drop_sink(self) -> None:
        self.has_reader = False
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

    def interrupt(self) -> None:
        self._interrupted.set()

    def close(self) -> None:
        handle, self._handle = self._handle, None
        if handle is not None:
            os.close(handle)


class PipeSink(VideoSink):
    """Writes a video without audio into a pipe; ends the run when its reader has left.

    Args:
        uri: one for which `is_pipe` is true.
        stream: the source's properties.
        record: with the `format`.
    """

    def __init__(self, uri: str, stream: StreamInfo, record: RecordConfig) -> None:
        assert record.format is not None
        super().__init__(f"stdout{STREAM_SUFFIXES[record.format]}", stream, record)
        self.name = uri
        self._format = record.format
        self._pipe = _Pipe(_descriptor_or_path(uri))

    def write(self, picture: Picture) -> bool:
        try:
            return super().write(picture)
        except SinkError:
            if self._pipe.has_reader:
                raise
            return False

    def interrupt(self) -> None:
        self._pipe.interrupt()

    def close(self) -> None:
        try:
            super().close()
        except SinkError:
            if self._pipe.has_reader:
                raise
        finally:
            self._pipe.close()

    def _check_space(self) -> None:
        """A pipe needs no disk space."""

    def _check_not_there(self) -> None:
        """A pipe replaces no file."""

    def _open_container(self) -> OutputContainer:
        self._pipe.open()
        options = {"flush_packets": "1", **_OPTIONS.get(self._format, {})}
        return av.open(self._pipe, "w", format=self._format, container_options=options)

    def _is_matroska(self) -> bool:
        return self._format in ("matroska", "webm")

    def _remove_part(self) -> None:
        """There is no part file."""

    def _kept_part(self) -> str:
        return f"{self.written} pictures were written before"

    def _publish(self, *, complete: bool) -> None:
        """There is no file to rename."""


def _check(output: Output) -> None:
    uri, record = output.uri, output.record
    if record is None:
        return
    if record.format is None:
        raise UsageError(
            f"{uri} is a pipe, whose format must be given: add --format, such as --format "
            f"matroska; known are {', '.join(STREAM_SUFFIXES)}"
        )
    if is_terminal(uri):
        raise UsageError(f"{uri} is the terminal: pipe it into a program, or give out.mp4")
    check_settings(check_codec(STREAM_SUFFIXES[record.format], record.codec), record)


def _make(output: Output) -> Sink:
    record = output.record or RecordConfig(format="matroska")
    return PipeSink(output.uri, output.stream, record)


PIPE: Final = SinkKind(
    "pipe",
    usage="- (with --format)",
    make=_make,
    check=_check,
    claims=is_pipe,
    options={"format": "--format is for what is piped: give - as output; files have suffixes"},
)
