"""uvicorn on a thread of its own, with bounds on each connection.

uvicorn has no options for these bounds: `limit_concurrency` answers requests with 503 and lets idle
connections be, and `timeout_keep_alive` begins after the first answer only. Therefore the bounds
are in two subclasses of its protocol classes, which its public options `http` and `ws` take. They
use its attributes `connections`, `cycle`, `handshake_complete`, `loop` and `transport`. A
test holds each bound, so that a uvicorn that renames one is noticed.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
import time
from pathlib import Path
from typing import Any, Final
from weakref import WeakSet

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from stream_cam.errors import SinkError, UsageError
from stream_cam.web.websocket import MAX_MESSAGE_BYTES

_MAX_CONNECTIONS: Final = 256
_REQUEST_SECONDS: Final = 10.0
"""A connection without a complete request by then is closed."""
_BUFFER_BYTES: Final = 64 * 1024
"""Limit of the write buffer in this process, besides the picture that is being sent."""
_MAX_UNREAD_BYTES: Final = 8 * 1024 * 1024
"""More than two large pictures. A connection with more unread bytes is closed."""
_CLOSE_SECONDS: Final = 2.0
_SEND_BUFFER_BYTES: Final = 256 * 1024
"""Size of the kernel's send buffer."""
_MAX_HEAD_BYTES: Final = 16 * 1024
_PING_SECONDS: Final = 10.0
_START_SECONDS: Final = 10.0
_STOP_SECONDS: Final = 3.0


class WebServer:
    """Serves an application on a listening socket, on a thread of its own.

    Args:
        app: the application.
        listener: a listening socket; closed by `stop`.
        tls_cert, tls_key: PEM files that passed `check_certificate`; None: no TLS.
        behind_proxy: a reverse proxy on this machine gives the client's address
            (X-Forwarded-For).
    """

    def __init__(
        self,
        app: ASGIApp,
        listener: socket.socket,
        *,
        tls_cert: Path | None = None,
        tls_key: Path | None = None,
        behind_proxy: bool = False,
    ) -> None:
        self._listener = listener
        config = uvicorn.Config(
            app,
            http=_BoundedHttp,
            ws=_BoundedWebSocket,
            # Only a reverse proxy of this machine may give the client's address.
            proxy_headers=behind_proxy,
            forwarded_allow_ips="127.0.0.1,::1",
            ws_max_size=MAX_MESSAGE_BYTES,
            ws_ping_interval=_PING_SECONDS,
            ws_ping_timeout=_PING_SECONDS,
            ws_per_message_deflate=False,  # pictures are compressed already
            h11_max_incomplete_event_size=_MAX_HEAD_BYTES,
            lifespan="on",
            log_config=None,
            log_level="error",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=1,
            ssl_certfile=tls_cert,
            ssl_keyfile=tls_key,
        )
        config.load()
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._serve, name="web", daemon=True)
        self._failure: BaseException | None = None

    @property
    def failure(self) -> BaseException | None:
        """The error that ended the server; None while it runs."""
        return self._failure

    def start(self) -> None:
        """Returns once it answers requests; at once if it does already.

        Raises:
            SinkError: it does not.
        """
        if not self._thread.ident:
            self._thread.start()
        deadline = time.monotonic() + _START_SECONDS
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > deadline:
                raise SinkError(f"the page's server did not start: {self._failure or 'no answer'}")
            time.sleep(0.005)

    def stop(self) -> None:
        """Closes all connections and the socket."""
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join(_STOP_SECONDS)
            if self._thread.is_alive():
                self._server.force_exit = True
                self._thread.join(_STOP_SECONDS)
        self._listener.close()

    def _serve(self) -> None:
        try:
            self._server.run(sockets=[self._listener])
        except BaseException as error:
            self._failure = error


class _BoundedHttp(H11Protocol):
    """HTTP with bounds: number of connections, time until a request is complete, buffer sizes."""

    def __init__(self, config: Any, server_state: Any, *others: Any, **named: Any) -> None:
        super().__init__(config, server_state, *others, **named)
        protocols: WeakSet[_BoundedHttp] = server_state.__dict__.setdefault("protocols", WeakSet())
        protocols.add(self)
        if len(protocols) > 2 * _MAX_CONNECTIONS:
            # uvicorn does not count connections during their TLS handshake.
            raise ConnectionAbortedError("too many connections")
        self._request_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > _MAX_CONNECTIONS:
            transport.abort()
            return
        transport.set_write_buffer_limits(high=_BUFFER_BYTES)
        plain: socket.socket | None = transport.get_extra_info("socket")
        if plain is not None:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        self._start_timer()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._has_request:
            if self._request_timer is not None:
                self._request_timer.cancel()
                self._request_timer = None
        elif self._request_timer is None:
            self._start_timer()

    @property
    def _has_request(self) -> bool:
        """Whether a request is complete, or the connection has become a WebSocket."""
        transport: Any = self.transport
        if transport.get_protocol() is not self:
            return True
        return self.cycle is not None and not self.cycle.response_complete

    def _start_timer(self) -> None:
        self._request_timer = self.loop.call_later(_REQUEST_SECONDS, self._close_without_request)

    def _close_without_request(self) -> None:
        self._request_timer = None
        if not self._has_request:
            self.transport.abort()


class _BoundedWebSocket(WebSocketsSansIOProtocol):
    """WebSocket with a bound: a client that does not read is disconnected."""

    def data_received(self, data: bytes) -> None:
        if self.transport.get_write_buffer_size() > _MAX_UNREAD_BYTES:
            self.transport.abort()  # it sends, perhaps pings only, and does not read the answers
            return
        super().data_received(data)

    async def send(self, message: Any) -> None:
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and not message.get("more_body"):
            # A refusal is a complete answer. uvicorn would log an error for each, and strangers
            # could fill the terminal.
            self.handshake_complete = True

    def keepalive_timeout(self) -> None:
        super().keepalive_timeout()
        self.loop.call_later(_CLOSE_SECONDS, self.transport.abort)


def check_certificate(cert: Path | None, key: Path | None) -> None:
    """Find out, before anything slow is loaded, whether a certificate can be used.

    Raises:
        UsageError: one without the other.
        SinkError: they cannot be read, or do not belong together.
    """
    if cert is None and key is None:
        return
    if cert is None or key is None:
        raise UsageError("--tls-cert and --tls-key belong together: give both, as PEM files")
    for path in (cert, key):
        if not path.is_file():
            raise SinkError(f"there is no file {path}; give a certificate and its key as PEM files")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key, password="")
    except (ssl.SSLError, OSError) as exc:
        raise SinkError(
            f"{cert} and {key} cannot be used ({exc}); give a certificate and its key, not "
            "encrypted, as PEM files"
        ) from exc
