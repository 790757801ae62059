"""A listening HTTP endpoint on loopback: one program pushes a stream in, readers get it."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from stream_cam.closing import Closeable

_PIECES_KEPT = 256
_TICK_SECONDS = 0.1


class PushEndpoint(Closeable):
    """Sends the body of a POST to `url` on to every GET; 503 while nobody posts."""

    def __init__(self) -> None:
        self.pushes = 0
        self._readers: dict[int, queue.Queue[bytes | None]] = {}
        self._lock = threading.Lock()
        self._pushing = False
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/live.ts"
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_TICK_SECONDS,), daemon=True
        )

    def __enter__(self) -> PushEndpoint:
        self._thread.start()
        return self

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def take(self, pieces: Iterator[bytes]) -> None:
        """Pass a push on until it ends; readers end with it."""
        with self._lock:
            self.pushes += 1
            self._pushing = True
        try:
            for piece in pieces:
                self._send(piece)
        finally:
            with self._lock:
                self._pushing = False
            self._send(None)

    def _send(self, piece: bytes | None) -> None:
        with self._lock:
            readers = list(self._readers.values())
        for reader in readers:
            # A reader that has stopped reading gets nothing more.
            with suppress(queue.Full):
                reader.put(piece, timeout=_TICK_SECONDS)

    def pieces(self, number: int) -> Iterator[bytes] | None:
        """The data pushed from now on; None if nobody pushes."""
        with self._lock:
            if not self._pushing:
                return None
            mine = self._readers[number] = queue.Queue(_PIECES_KEPT)
        return iter(mine.get, None)

    def forget(self, number: int) -> None:
        with self._lock:
            self._readers.pop(number, None)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            close_connection = True

            def do_POST(self) -> None:
                endpoint.take(self._chunks())

            def do_GET(self) -> None:
                number = threading.get_ident()
                pieces = endpoint.pieces(number)
                if pieces is None:
                    self.send_error(503, "nobody pushes")
                    return
                self.send_response(200)
                self.send_header("Content-Type", "video/mp2t")
                self.end_headers()
                try:
                    for piece in pieces:
                        self.wfile.write(piece)
                except OSError:
                    pass  # the reader has left
                finally:
                    endpoint.forget(number)

            def _chunks(self) -> Iterator[bytes]:
                """The body, in chunked transfer coding (RFC 9112, 7.1), until the peer leaves."""
                try:
                    while size := int(self.rfile.readline().strip() or b"0", 16):
                        yield self.rfile.read(size)
                        self.rfile.readline()
                except OSError:
                    return

            def log_message(self, *_: object) -> None:
                """Not on stderr."""

        return Handler
