"""A page in the browser as a sink."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from typing import Final

from starlette.types import ASGIApp

from stream_cam.config import WebConfig
from stream_cam.errors import SinkError, UsageError
from stream_cam.settings import Settings
from stream_cam.sinks.base import Picture, Sink, Waiting
from stream_cam.web.access import Access, check_token, new_token
from stream_cam.web.address import WebAddress, address_of_this_machine, listen
from stream_cam.web.app import make_app
from stream_cam.web.page_state import PageState, Stats
from stream_cam.web.server import WebServer, check_certificate

TOKEN_VARIABLE: Final = "STREAM_CAM_WEB_TOKEN"
_FAREWELL_SECONDS: Final = 0.2


class WebSink(Sink):
    """Serves the page of a run from its construction until it is closed.

    Args:
        address: where to listen.
        settings: changed by the page's controls.
        source: the source's name, without secrets.
        config: how the page is served.

    Raises:
        SinkError: the port is taken; the certificate is not one.
        UsageError: the token is too short.
    """

    watched = True
    takes_repeats = True
    labels_are_optional = True

    def __init__(
        self,
        address: WebAddress,
        settings: Settings,
        source: str,
        config: WebConfig | None = None,
    ) -> None:
        config = config or WebConfig()
        self._page_state = PageState(
            settings, source, viewer_only=config.viewer_only, quality=config.web_quality
        )
        self._server, self.address, self.url = open_server(
            address, config, lambda access: make_app(self._page_state, access)
        )
        self.name = f"web://{self.address}"

    def attach_stats(self, stats: Stats) -> None:
        self._page_state.stats, self._page_state.waiting = stats, None

    def __enter__(self) -> WebSink:
        self._server.start()
        return self

    def wait(self, waiting: Waiting) -> bool:
        self._page_state.waiting = waiting
        return True

    def write(self, picture: Picture) -> bool:
        failure = self._server.failure
        if failure is not None:
            raise SinkError(f"{self.name}: the server ended: {type(failure).__name__}: {failure}")
        self._page_state.show(picture)
        return True

    def close(self) -> None:
        viewers = self._page_state.viewers
        if len(viewers):
            viewers.end(json.dumps({"type": "end"}))
            time.sleep(_FAREWELL_SECONDS)  # lets viewers get the message before connections close
        self._server.stop()


def open_server(
    address: WebAddress, config: WebConfig, make: Callable[[Access], ASGIApp]
) -> tuple[WebServer, WebAddress, str]:
    """A server that listens, and does not answer yet.

    Args:
        make: gives the application, which asks the access rules about each request.

    Returns:
        The server, its address, and the link to open, with its token if one is needed. The link is
        not for logs.

    Raises:
        SinkError: the port is taken; the certificate is not one.
        UsageError: the token is too short.
    """
    check_certificate(config.tls_cert, config.tls_key)
    secure = config.tls_cert is not None
    token = _token(address, config)
    listener = listen(address)
    listening = WebAddress(address.host, listener.getsockname()[1])
    access = Access(
        listening,
        token,
        public_name=config.web_name,
        root_path=config.web_root_path,
        secure=secure,
        embeddable=config.web_embed,
    )
    server = WebServer(
        make(access),
        listener,
        tls_cert=config.tls_cert,
        tls_key=config.tls_key,
        behind_proxy=config.web_name is not None,
    )
    return server, listening, _url(listening, token, secure, config)


def check_page(address: WebAddress, config: WebConfig) -> None:
    """Find out, before anything slow is loaded, whether a page can be served.

    Raises:
        SinkError, UsageError: it cannot.
    """
    check_certificate(config.tls_cert, config.tls_key)
    _token(address, config)
    listen(address).close()


def _token(address: WebAddress, config: WebConfig) -> str | None:
    """The viewers' token; None where only this machine has access."""
    if address.is_loopback and config.web_name is None:
        return None
    given = os.environ.get(TOKEN_VARIABLE)
    if not given:
        return new_token()
    try:
        return check_token(given)
    except ValueError as exc:
        raise UsageError(f"{TOKEN_VARIABLE}: {exc}") from exc


def _url(address: WebAddress, token: str | None, secure: bool, config: WebConfig) -> str:
    tail = f"{config.web_root_path}/" + (f"?token={token}" if token is not None else "")
    if config.web_name is not None:
        return f"https://{config.web_name}{tail}"
    host = address_of_this_machine() if address.is_everywhere else address.host
    place = WebAddress(host, address.port)
    return f"{'https' if secure else 'http'}://{place}{tail}"
