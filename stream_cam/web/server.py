"""uvicorn in a thread of its own, with bounds on what a connection may take."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
import time
from pathlib import Path
from typing import Any, Final

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from stream_cam.errors import SinkError, UsageError
from stream_cam.web.talk import LONGEST_MESSAGE

_MOST_CONNECTIONS: Final = 256
_FIRST_REQUEST_SECONDS: Final = 10.0
"""Who has not asked for anything by then is disconnected."""
_WAITING_BYTES: Final = 64 * 1024
"""What may wait in this process for a slow reader, besides the picture that is being sent."""
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
        tls_cert, tls_key: PEM files; given: over TLS.

    Raises:
        SinkError: the certificate or its key cannot be used.
    """

    def __init__(
        self,
        app: ASGIApp,
        listener: socket.socket,
        *,
        tls_cert: Path | None = None,
        tls_key: Path | None = None,
    ) -> None:
        self._listener = listener
        config = uvicorn.Config(
            app,
            http=_BoundedProtocol,
            ws="websockets-sansio",
            ws_max_size=LONGEST_MESSAGE,
            ws_ping_interval=_PING_SECONDS,
            ws_ping_timeout=_PING_SECONDS,
            ws_per_message_deflate=False,  # pictures are packed already
            h11_max_incomplete_event_size=_LONGEST_HEAD,
            lifespan="on",
            log_config=None,
            log_level="critical",
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
        """Returns when it answers.

        Raises:
            SinkError: it does not.
        """
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
    """uvicorn's own, for which connections are few, begin in time and have little in store."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > _MOST_CONNECTIONS:
            transport.abort()
            return
        transport.set_write_buffer_limits(high=_WAITING_BYTES)
        plain: socket.socket | None = transport.get_extra_info("socket")
        if plain is not None:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BYTES)
        self.loop.call_later(_FIRST_REQUEST_SECONDS, self._close_if_silent)

    def _close_if_silent(self) -> None:
        transport: Any = self.transport
        if self.cycle is None and transport.get_protocol() is self:
            transport.abort()


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
