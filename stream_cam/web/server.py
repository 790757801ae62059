"""uvicorn in a thread of its own, with bounds on what a connection may take."""

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
from stream_cam.web.websocket import LONGEST_MESSAGE

_MOST_CONNECTIONS: Final = 256
_REQUEST_SECONDS: Final = 10.0
"""Who has not asked for anything by then, or not to the end, is disconnected."""
_WAITING_BYTES: Final = 64 * 1024
"""What may wait in this process for a slow reader, besides the picture that is being sent."""
_MOST_WAITING_BYTES: Final = 8 * 1024 * 1024
"""More than two large pictures: what nobody reads."""
_GOODBYE_SECONDS: Final = 2.0
_SEND_BYTES: Final = 256 * 1024
"""What may wait in the kernel for a slow reader."""
_LONGEST_HEAD: Final = 16 * 1024
_PING_SECONDS: Final = 10.0
_START_SECONDS: Final = 10.0
_STOP_SECONDS: Final = 3.0


class WebServer:
    """Serves an application on a listening socket, on a thread of its own.

    Args:
        app: what answers.
        listener: listens already; closed by `stop`.
        tls_cert, tls_key: PEM files that `check_certificate` found good; given: over TLS.
        behind_proxy: a reverse proxy on this machine says who asks (X-Forwarded-For).
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
            http=_BoundedProtocol,
            ws=_BoundedSocket,
            # Only a reverse proxy of this machine may say whom it speaks for.
            proxy_headers=behind_proxy,
            forwarded_allow_ips="127.0.0.1,::1",
            ws_max_size=LONGEST_MESSAGE,
            ws_ping_interval=_PING_SECONDS,
            ws_ping_timeout=_PING_SECONDS,
            ws_per_message_deflate=False,  # pictures are packed already
            h11_max_incomplete_event_size=_LONGEST_HEAD,
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
        """Why it no longer answers."""
        return self._failure

    def start(self) -> None:
        """Returns when it answers; at once if it does already.

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


class _BoundedProtocol(H11Protocol):
    """uvicorn's own, for which connections are few, ask in time and have little in store."""

    def __init__(self, config: Any, server_state: Any, *others: Any, **named: Any) -> None:
        super().__init__(config, server_state, *others, **named)
        made: WeakSet[_BoundedProtocol] = server_state.__dict__.setdefault("made", WeakSet())
        made.add(self)
        if len(made) > 2 * _MOST_CONNECTIONS:
            # Before TLS, whose handshakes are not among the connections.
            raise ConnectionAbortedError("too many connections")
        self._asking_since: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > _MOST_CONNECTIONS:
            transport.abort()
            return
        transport.set_write_buffer_limits(high=_WAITING_BYTES)
        plain: socket.socket | None = transport.get_extra_info("socket")
        if plain is not None:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BYTES)
        self._wait_for_request()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._answering:
            if self._asking_since is not None:
                self._asking_since.cancel()
                self._asking_since = None
        elif self._asking_since is None:
            self._wait_for_request()

    @property
    def _answering(self) -> bool:
        """Whether a request has come whole, or the connection is a WebSocket by now."""
        transport: Any = self.transport
        if transport.get_protocol() is not self:
            return True
        return self.cycle is not None and not self.cycle.response_complete

    def _wait_for_request(self) -> None:
        self._asking_since = self.loop.call_later(_REQUEST_SECONDS, self._close_if_late)

    def _close_if_late(self) -> None:
        self._asking_since = None
        if not self._answering:
            self.transport.abort()


class _BoundedSocket(WebSocketsSansIOProtocol):
    """uvicorn's own, for which those who do not read are not kept."""

    def data_received(self, data: bytes) -> None:
        if self.transport.get_write_buffer_size() > _MOST_WAITING_BYTES:
            self.transport.abort()  # it asks, with pings too, and does not read the answers
            return
        super().data_received(data)

    async def send(self, message: Any) -> None:
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and not message.get("more_body"):
            # Refused, and that is an answer: uvicorn would write an error for each one, and
            # anybody could fill the terminal with them.
            self.handshake_complete = True

    def keepalive_timeout(self) -> None:
        super().keepalive_timeout()
        self.loop.call_later(_GOODBYE_SECONDS, self.transport.abort)


def check_certificate(cert: Path | None, key: Path | None) -> None:
    """Finds out before anything is loaded whether they can be used.

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
