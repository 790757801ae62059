"""Access control of the page: tokens, cookies, origins, host names."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stream_cam.web.address import WebAddress

_COOKIE_SECONDS: Final = 30 * 24 * 3600
_WRONG_TOKENS_PER_MINUTE: Final = 10
"""Wrong tokens from one address; then none is checked for the rest of the minute."""
_MAX_ADDRESSES: Final = 1024
"""Addresses whose wrong tokens are counted."""
_MIN_TOKEN_LENGTH: Final = 16
_PUBLIC_PATH: Final = "/healthz"
"""Needs no token: it says only that the server runs."""
_LOCAL_NAMES: Final = ("localhost", "127.0.0.1", "::1")
_NOTEBOOKS: Final = "http://localhost:* http://127.0.0.1:* https://localhost:*"
_SAFE_HOST: Final = re.compile(r"[\w.-]+(:\d+)?|\[[0-9a-fA-F:.]+\](:\d+)?")


def new_token() -> str:
    """192 random bits in a URL's characters."""
    return secrets.token_urlsafe(24)


def check_token(token: str) -> str:
    """The token, if it is long enough.

    Raises:
        ValueError: it is too short, or has characters that a URL cannot hold.
    """
    if len(token) < _MIN_TOKEN_LENGTH or not re.fullmatch(r"[\w.~-]+", token, re.ASCII):
        raise ValueError(
            f"a token has {_MIN_TOKEN_LENGTH} or more letters, digits, - or _; got {len(token)} "
            "characters"
        )
    return token


class Throttle:
    """Counts wrong tokens by client address.

    Args:
        now: seconds of a monotonic clock.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._wrong: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def wait_seconds(self, client: str) -> float:
        """Seconds until a token from this address is checked again; 0: at once."""
        since, count = self._wrong.get(client, (0.0, 0))
        return max(0.0, since + 60.0 - self._now()) if count >= _WRONG_TOKENS_PER_MINUTE else 0.0

    def count_wrong(self, client: str) -> None:
        """Counts a wrong token."""
        since, count = self._wrong.pop(client, (self._now(), 0))
        if self._now() - since >= 60.0:
            since, count = self._now(), 0
        self._wrong[client] = since, count + 1
        while len(self._wrong) > _MAX_ADDRESSES:
            self._wrong.popitem(last=False)


class Access:
    """The access rules of one server.

    On a loopback address everybody on this machine has access, but only under a name of this
    machine. Otherwise a foreign page could reach it by pointing its own name here (DNS rebinding).
    Elsewhere, and behind a reverse proxy, a token is needed. It comes once, in the link. A cookie
    that no script can read replaces it.

    Args:
        address: where the server listens.
        token: the viewers' token; None: they need none.
        public_name: the host name under which a reverse proxy shows the page.
        root_path: the path under which it does, such as `/cam`, or "".
        secure: over TLS; the cookie is then sent over TLS only.
        embeddable: pages of this machine, such as notebooks, may show it in a frame.
        throttle: counts wrong tokens.
    """

    def __init__(
        self,
        address: WebAddress,
        token: str | None,
        *,
        public_name: str | None = None,
        root_path: str = "",
        secure: bool = False,
        embeddable: bool = False,
        throttle: Throttle | None = None,
    ) -> None:
        self._address = address
        self._token = token
        self._public = _name_of(public_name or "") or None
        self.root_path = root_path
        self._secure = secure
        self._embeddable = embeddable
        self._throttle = throttle or Throttle()
        self._cookie_name = f"stream_cam_{address.port}"
        # Slow on purpose: nobody shall guess a chosen token from its cookie.
        self._cookie = (
            hashlib.scrypt(token.encode(), salt=b"stream-cam's cookie", n=2**14, r=8, p=1).hex()
            if token is not None
            else ""
        )
        self.refused = 0
        """Number of refused requests."""

    def refusal(self, connection: HTTPConnection, *, changes: bool) -> Response | None:
        """The response that refuses a request; None: it is allowed.

        Args:
            connection: a request, or a WebSocket that is not yet accepted.
            changes: it could change settings, or be sent by a foreign page.
        """
        host = connection.headers.get("host", "")
        if not self._is_known_host(host):
            return _text(
                421, f"this page does not answer to the name {_name_of(host)[:80]!r}; open it as "
                f"http://127.0.0.1:{self._address.port}/, or see --web-name"
            )  # fmt: skip
        origin = connection.headers.get("origin")
        if changes and origin is not None and not _is_same_origin(origin, host):
            return _text(403, "another site's page may not do that")
        if self._token is None or self._has_cookie(connection):
            return None
        return self._refusal_of_token(connection)

    def exchange_token(self, connection: HTTPConnection) -> Response | None:
        """For a link with the token: a redirection to the page without it, with a cookie."""
        if self._token is None or "token" not in connection.query_params:
            return None
        # Relative: a reverse proxy may show the page under any path.
        answer = RedirectResponse("./", status_code=303)
        answer.set_cookie(
            self._cookie_name,
            self._cookie,
            max_age=_COOKIE_SECONDS,
            path=f"{self.root_path}/",
            httponly=True,
            samesite="lax",
            secure=self._secure or _name_of(connection.headers.get("host", "")) == self._public,
        )
        return answer

    def headers(self, host: str) -> dict[str, str]:
        """Headers of every answer: no foreign content, no caching, no foreign frames."""
        socket = f" ws://{host} wss://{host}" if _SAFE_HOST.fullmatch(host) else ""
        framed = f"'self' {_NOTEBOOKS}" if self._embeddable else "'none'"
        policy = (
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
            f"connect-src 'self'{socket}; base-uri 'none'; form-action 'none'; "
            f"frame-ancestors {framed}"
        )
        return {
            "content-security-policy": policy,
            "x-content-type-options": "nosniff",
            "referrer-policy": "no-referrer",
            "cross-origin-resource-policy": "same-origin",
            "cross-origin-opener-policy": "same-origin",
            "permissions-policy": "camera=(), microphone=(), geolocation=()",
            "cache-control": "no-store",
        }

    def _is_known_host(self, host: str) -> bool:
        if not self._address.is_loopback:
            return True  # the token protects it
        name = _name_of(host)
        known = (*_LOCAL_NAMES, self._address.host, self._public)
        return name in known or name.endswith(".localhost")

    def _has_cookie(self, connection: HTTPConnection) -> bool:
        given = connection.cookies.get(self._cookie_name, "")
        return hmac.compare_digest(given.encode(), self._cookie.encode())

    def _refusal_of_token(self, connection: HTTPConnection) -> Response | None:
        given = _given_token(connection)
        if given is None:
            return _text(
                401, "this page needs its token: open the whole link that stream-cam printed"
            )
        client = connection.client.host if connection.client is not None else ""
        wait = self._throttle.wait_seconds(client)
        if wait > 0.0:
            answer = _text(429, "too many wrong tokens; wait a minute")
            answer.headers["retry-after"] = str(int(wait) + 1)
            return answer
        if hmac.compare_digest(given.encode(), (self._token or "").encode()):
            return None
        self._throttle.count_wrong(client)
        return _text(401, "that token is not right: open the whole link that stream-cam printed")


class Guard:
    """Passes requests that `Access` allows to the application, and adds its headers."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        scope = self._below_root(scope)
        connection = HTTPConnection(scope)
        extra = self._access.headers(connection.headers.get("host", ""))

        async def send_guarded(message: Message) -> None:
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                MutableHeaders(scope=message).update(extra)
            await send(message)

        socket = scope["type"] == "websocket"
        if not socket and scope["path"] == _PUBLIC_PATH:
            extra["connection"] = "close"
            await self._app(scope, receive, send_guarded)
            return
        changes = socket or scope["method"] not in ("GET", "HEAD")
        answer = self._access.refusal(connection, changes=changes)
        if answer is not None:
            self._access.refused += 1
            extra["connection"] = "close"  # refused clients hold no connection
        elif not changes and scope["path"] == "/":
            answer = self._access.exchange_token(connection)
        elif not changes and scope["path"] == "":
            # The page's own links are relative, and need the / after its path.
            here = self._access.root_path.rpartition("/")[2]
            query = f"?{connection.url.query}" if connection.url.query else ""
            answer = RedirectResponse(f"{here}/{query}", status_code=303)
        await (answer or self._app)(scope, receive, send_guarded)

    def _below_root(self, scope: Scope) -> Scope:
        """The request without the root path, which some proxies strip and others pass on."""
        root, path = self._access.root_path, scope["path"]
        if root and (path == root or path.startswith(f"{root}/")):
            return {**scope, "path": path[len(root) :]}
        return scope


def _given_token(connection: HTTPConnection) -> str | None:
    """The token in the link, or in `Authorization: Bearer …` of players and Prometheus."""
    kind, _, value = connection.headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer":
        return value.strip()
    return connection.query_params.get("token")


def _name_of(host: str) -> str:
    """The host name without port and brackets: `::1` of `[::1]:8080`."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _is_same_origin(origin: str, host: str) -> bool:
    """Whether an origin is the one of this `Host` header.

    The scheme is not compared: a reverse proxy that ends TLS changes it.
    """
    try:
        there, here = urlsplit(origin), urlsplit(f"//{host}")
        usual = {"http": 80, "https": 443}.get(there.scheme)
        same_port = (there.port or usual) == (here.port or usual)
    except ValueError:
        return False
    return usual is not None and there.hostname == here.hostname and same_port


def _text(status: int, text: str) -> Response:
    return PlainTextResponse(f"{text}\n", status)
