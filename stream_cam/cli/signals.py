"""Ctrl-C, SIGTERM and SIGHUP end a run in order, whatever the main thread is doing."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from stream_cam.closing import Closeable

INTERRUPTED: Final = 130
_EXIT_CODES: Final = {
    number: 128 + number
    for name in ("SIGINT", "SIGTERM", "SIGHUP")  # Windows has no SIGHUP
    if (number := getattr(signal, name, None)) is not None
}
_SIGHUP: Final = getattr(signal, "SIGHUP", None)
_CLEAR_LINE: Final = b"\r\x1b[2K"


class Signals(Closeable):
    """The first signal ends the run in order, the second one ends the process at once.

    Before a run has begun a signal raises KeyboardInterrupt. After `watch` a thread of its own
    stops the run: the main thread may be held up inside a library and never see the signal.
    """

    def __init__(self) -> None:
        self.exit_code = 0
        """128 and the number of the first signal, or 0."""
        self._stop: Callable[[str], None] | None = None
        self._previous: dict[int, object] = {}
        self._n_heard = 0

    def __enter__(self) -> Signals:
        if threading.current_thread() is not threading.main_thread():
            return self  # only the main thread can change handlers
        ours, self._theirs = socket.socketpair()
        self._theirs.setblocking(False)
        self._wakeup_fd = signal.set_wakeup_fd(self._theirs.fileno(), warn_on_full_buffer=False)
        for number in _EXIT_CODES:
            if number == _SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
                continue  # nohup
            self._previous[number] = signal.signal(number, self._on_main_thread)
        threading.Thread(target=self._listen, args=(ours,), name="signals", daemon=True).start()
        return self

    def watch(self, stop: Callable[[str], None]) -> None:
        """From now on signals call `stop(reason)` instead of raising KeyboardInterrupt."""
        self._stop = stop
        if self._n_heard:
            stop("interrupted")

    def close(self) -> None:
        if not self._previous:
            return
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._previous.clear()
        signal.set_wakeup_fd(self._wakeup_fd)
        self._theirs.close()

    def _on_main_thread(self, number: int, frame: object) -> None:
        self.exit_code = self.exit_code or _EXIT_CODES[number]
        if self._stop is None:
            raise KeyboardInterrupt

    def _listen(self, ours: socket.socket) -> None:
        with ours:
            while numbers := ours.recv(1):
                if numbers[0] in _EXIT_CODES:
                    self._hear(numbers[0])

    def _hear(self, number: int) -> None:
        self.exit_code = self.exit_code or _EXIT_CODES[number]
        self._n_heard += 1
        if self._n_heard > 1:
            os._exit(self.exit_code)
        stop = self._stop
        if stop is None:
            return
        line = b"stream-cam: stopping: files are being finished (again: at once)\n"
        # Not print: the main thread may hold its lock.
        with suppress(OSError):
            os.write(2, _CLEAR_LINE + line if os.isatty(2) else line)
        stop("interrupted")
