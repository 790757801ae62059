"""Sources that can be read only once: FIFOs, the standard input, devices."""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Iterator
from typing import Final

from stream_cam.closing import Closeable
from stream_cam.config import CaptureConfig
from stream_cam.errors import SourceError
from stream_cam.frame import Frame
from stream_cam.sources.base import WrappedSource
from stream_cam.sources.video import VideoSource

_LOOK_MS: Final = 100
"""How soon an interrupt ends a waiting read."""
_HEAD_BYTES: Final = 8


class Pipe(Closeable):
    """Bytes of a FIFO or device. Waits for a writer and for its data, until interrupted.

    Read by one thread; `interrupt` may be called by any.

    Args:
        place: its path, or the number of an open file descriptor, which stays open.
    """

    def __init__(self, place: str | int) -> None:
        self._place = place
        self._handle: int | None = None
        self._interrupted = threading.Event()
        self.heard_ctrl_c = False
        """A KeyboardInterrupt came in `read`, whose caller may be C code that loses it."""
        self.head = b""
        """The first bytes."""

    def __enter__(self) -> Pipe:
        # Without O_NONBLOCK this waits for a writer, and no signal ends that.
        if isinstance(self._place, int):
            self._handle = os.dup(self._place)
        else:
            self._handle = os.open(self._place, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        return self

    def read(self, most: int, /) -> bytes:
        """The next bytes as soon as there are any, at most so many; none at the end."""
        try:
            while self._handle is not None and not self._interrupted.is_set():
                if _has_something(self._handle):
                    data = os.read(self._handle, most)
                    self.head = self.head or data[:_HEAD_BYTES]
                    return data
        except KeyboardInterrupt:
            self.heard_ctrl_c = True
            self.interrupt()
        return b""

    def interrupt(self) -> None:
        """Ends a read soon, and all later ones."""
        self._interrupted.set()

    def close(self) -> None:
        handle, self._handle = self._handle, None
        if handle is not None:
            os.close(handle)


def _has_something(handle: int) -> bool:
    """Waits a moment for data, or for the end."""
    if os.name == "nt":
        return True  # there is no way to look
    ready = select.poll()
    ready.register(handle, select.POLLIN)
    return bool(ready.poll(_LOOK_MS))


class PipeSource(WrappedSource):
    """A video that comes through a pipe: opened once, never sought in, and without its sound.

    Args:
        name: as it is shown.
        place: as of `Pipe`.
        config, live: as of VideoSource.
    """

    def __init__(
        self,
        name: str,
        place: str | int,
        config: CaptureConfig | None = None,
        live: bool | None = None,
    ) -> None:
        self._name = name
        self._pipe = Pipe(place)
        super().__init__(VideoSource(name, config, live, self._pipe))

    def __enter__(self) -> PipeSource:
        try:
            self._open()
        except BaseException:
            self.close()
            raise
        return self

    def _open(self) -> None:
        problem: BaseException | None = None
        try:
            self._pipe.__enter__()
            self._source.__enter__()
        except OSError as exc:
            problem = SourceError(f"{self._name} cannot be read: {exc.strerror}")
        except SourceError as exc:
            problem = exc
            if self._pipe.head[4:] == b"ftyp":
                problem = SourceError(
                    f"{exc}; an MP4 in a pipe needs its index at its beginning: write it with "
                    "-movflags +faststart, or pipe -f mpegts"
                )
        if self._pipe.heard_ctrl_c:
            problem = KeyboardInterrupt()  # any other problem follows from it
        if problem is not None:
            raise problem

    def __iter__(self) -> Iterator[Frame]:
        return iter(self._source)

    def stop(self) -> None:
        super().stop()
        self._pipe.interrupt()

    def close(self) -> None:
        super().close()
        self._pipe.close()
