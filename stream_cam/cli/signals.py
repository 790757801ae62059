"""Ctrl-C, SIGTERM and SIGHUP end a run in order, also while the main thread is busy."""

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

    Before a run has started, a signal raises KeyboardInterrupt. After `watch`, a separate thread
    stops the run: the main thread may be blocked inside a library and never see the signal.
    """

    def __init__(self) -> None:
        self.exit_code = 0
        """128 plus the number of the first signal, or 0."""
        self._stop: Callable[[str], None] | None = None
        self._previous: dict[int, object] = {}
        self._n_signals = 0

    def __enter__(self) -> Signals:
        if threading.current_thread() is not threading.main_thread():
            return self  # only the main thread can change handlers
        reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        self._wakeup_fd = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        for number in _EXIT_CODES:
            if number == _SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
                continue  # nohup
            self._previous[number] = signal.signal(number, self._on_main_thread)
        threading.Thread(target=self._listen, args=(reader,), name="signals", daemon=True).start()
        return self

    def watch(self, stop: Callable[[str], None]) -> None:
        """From now on signals call `stop(reason)` instead of raising KeyboardInterrupt."""
        self._stop = stop
        if self._n_signals:
            stop("interrupted")

    def close(self) -> None:
        if not self._previous:
            return
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._previous.clear()
        signal.set_wakeup_fd(self._wakeup_fd)
        self._writer.close()

    def _on_main_thread(self, number: int, frame: object) -> None:
        self.exit_code = self.exit_code or _EXIT_CODES[number]
        if self._stop is None:
            raise KeyboardInterrupt

    def _listen(self, reader: socket.socket) -> None:
        with reader:
            while numbers := reader.recv(1):
                if numbers[0] in _EXIT_CODES:
                    self._handle(numbers[0])

    def _handle(self, number: int) -> None:
        self.exit_code = self.exit_code or _EXIT_CODES[number]
        self._n_signals += 1
        if self._n_signals > 1:
            os._exit(self.exit_code)
        stop = self._stop
        if stop is None:
            return
        line = b"stream-cam: stopping: files are being finished (again: at once)\n"
        # print could block: the main thread may hold its lock.
        with suppress(OSError):
            os.write(2, _CLEAR_LINE + line if os.isatty(2) else line)
        stop("interrupted")
