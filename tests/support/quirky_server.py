"""A server on 127.0.0.1 that sends just the bytes that a test tells it to."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress

from stream_cam.closing import Closeable

Answer = Callable[[bytes], bytes]
"""Makes the bytes that a request is answered with; none: the connection is closed."""


class QuirkyServer(Closeable):
    """Answers each connection once.

    Args:
        answer: bytes, or a function that makes them from a request.
        ends: whether the connection is closed after that; otherwise it stays open, and silent.
        asks: whether a request comes first, as in HTTP.
        tls: serves over TLS.
    """

    def __init__(
        self,
        answer: bytes | Answer,
        *,
        ends: bool = False,
        asks: bool = True,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._answer = answer
        self._ends, self._asks, self._tls = ends, asks, tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self.requests: list[bytes] = []
        self.port = self._listener.getsockname()[1]
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self.port}/live?cam=1"
        self.sent = threading.Event()
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()

    def url_with(self, credentials: str) -> str:
        return self.url.replace("://", f"://{credentials}@")

    def close(self) -> None:
        for each in (self._listener, *self._open):
            with suppress(OSError):
                socket.socket.shutdown(each, socket.SHUT_RDWR)
        for thread in (self._thread, *self._threads):
            thread.join()
        for each in (self._listener, *self._open):
            each.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(connection)
            thread = threading.Thread(target=self._serve, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError):
            if self._tls is not None:
                connection = self._tls.wrap_socket(connection, server_side=True)
                self._open.append(connection)
            request = connection.recv(1 << 16) if self._asks else b""
            self.requests.append(request)
            data = self._answer if isinstance(self._answer, bytes) else self._answer(request)
            connection.sendall(data)
            self.sent.set()
            if self._ends or not data:
                connection.shutdown(socket.SHUT_WR)
            while connection.recv(1 << 16):
                pass
