"""One connection to a live source, read in a thread that can be abandoned."""

from __future__ import annotations

import ctypes
import gc
import sys
import threading
from collections.abc import Callable

from stream_cam.errors import SourceError
from stream_cam.frame import Frame
from stream_cam.queues import Handoff, WaitFor
from stream_cam.sources.base import Source, SourceInfo, StreamState


class Reader:
    """Opens, reads and closes one source in a thread of its own, into a slot.

    Nobody else touches the source, so that a call into it that never returns holds up nobody. A
    reader that was abandoned hands nothing on any more; its source closes when the call returns.
    A source that turns out to be recorded (`info.live` is false) drops no frame.

    Args:
        open_source: makes the source; called in the thread.
        on_end: called in the thread when all is closed.
        wait_for: how the slot waits.
        always_live: frames may be dropped, whatever the source says it is.
    """

    def __init__(
        self,
        open_source: Callable[[], Source],
        on_end: Callable[[], None],
        wait_for: WaitFor = threading.Condition.wait_for,
        name: str = "reader",
        always_live: bool = False,
    ) -> None:
        self._open_source = open_source
        self._on_end = on_end
        self._always_live = always_live
        self._source: Source | None = None
        self._corrupt_frames = 0
        self._packets = 0
        self._abandoned = threading.Event()
        self.frames: Handoff[Frame] = Handoff(1, drop_oldest=True, wait_for=wait_for)
        self.info: SourceInfo | None = None
        """Set before the first frame comes."""
        self.error: BaseException | None = None
        """Set before `frames` is closed."""
        self.alive = True
        """False once the source is closed."""
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @property
    def recorded(self) -> bool:
        return self.info is not None and not (self.info.live or self._always_live)

    @property
    def corrupt_frames(self) -> int:
        """So far."""
        source = self._source
        return self._corrupt_frames if source is None else source.corrupt_frames

    @property
    def stream_state(self) -> StreamState:
        """The source's state; the default once it is closed."""
        source = self._source
        return StreamState() if source is None else source.stream_state

    def has_new_packets(self) -> bool:
        """Whether packets have come since the last call."""
        before, self._packets = self._packets, self.stream_state.packets_read
        return self._packets > before

    def start(self) -> None:
        self._thread.start()

    def join(self, timeout_seconds: float) -> None:
        self._thread.join(timeout_seconds)

    def abandon(self) -> None:
        """Nothing of this reader is wanted any more; any thread, returns at once."""
        self._abandoned.set()
        self.frames.abort()
        source = self._source
        if source is not None:
            source.stop()

    def _run(self) -> None:
        source: Source | None = None
        try:
            source = self._source = self._open_source()
            with source:
                if not self._abandoned.is_set():
                    self._read(source)
        except SourceError as error:
            # The traceback would keep the last picture, and with it each connection's memory.
            self.error = error.with_traceback(None)
        except BaseException as error:
            self.error = error
        finally:
            self.frames.close()
            self._corrupt_frames = self.corrupt_frames
            source = self._source = None
            _release_memory()
            self.alive = False
            self._on_end()

    def _read(self, source: Source) -> None:
        self.info = source.info
        self.frames.drop_oldest = not self.recorded
        for frame in source:
            if not self.frames.put(frame):
                return


def _release_memory() -> None:
    """Frees the memory of a closed connection, which otherwise grows with each of them.

    PyAV's containers and streams hold each other, and with them a decoder's pictures: 60 to 90 MB
    at 1280×720 until Python's collector comes along. glibc keeps memory that threads have
    freed: 150 MB (both measured). Takes up to 0.1 s, while there is no picture to be late.
    """
    gc.collect()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
        if trim is not None:
            trim(0)
