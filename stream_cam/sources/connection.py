"""One connection to a camera over HTTP or plain TCP, read as a stream of bytes."""

from __future__ import annotations

import base64
import http.client
import io
import socket
import ssl
import threading
import urllib.request
from collections.abc import Callable, Iterable
from contextlib import suppress
from email.message import Message
from typing import IO, Any, Final
from urllib.error import HTTPError, URLError
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from stream_cam.closing import Closeable
from stream_cam.config import CaptureConfig
from stream_cam.errors import SourceError
from stream_cam.sources.ffmpeg_errors import explain_http_status, explain_network_error
from stream_cam.uri import quoted_url, redact_uri, scheme_of

_PIECE_BYTES: Final = 1 << 16
_USER_AGENT: Final = "stream-cam"
_IN_PATHS: Final = "/%:@!$&'()*+,;=~?"
"""Characters of a path or query that are sent as they were typed."""


class Connection(Closeable):
    """The bytes that a server sends; opened by entering, under time limits.

    Read by one thread; `interrupt` may be called by any. As FFmpeg does, it takes any TLS
    certificate: cameras sign their own. A password is sent when the server asks for one, once.

    Args:
        uri: http://, https:// or tcp://.
        config: the time limits.
    """

    def __init__(self, uri: str, config: CaptureConfig) -> None:
        self._uri = uri
        self._config = config
        self._socket: socket.socket | None = None
        self._body: http.client.HTTPResponse | io.BufferedReader | None = None
        self._ahead = b""
        self._interrupted = threading.Event()
        self.content_type = ""
        """Such as image/jpeg, in lower case, without parameters; "" where nothing says it."""
        self.length: int | None = None
        """Bytes that will come, if the server says so."""
        self.seekable = False
        """Whether the server gives parts of it when asked for them."""

    def __enter__(self) -> Connection:
        problem: SourceError
        try:
            if scheme_of(self._uri) == "tcp":
                self._open_tcp()
            else:
                self._open_http()
            if self._socket is not None:
                self._socket.settimeout(self._config.read_timeout_seconds)
            return self
        except (OSError, http.client.HTTPException, ValueError) as exc:
            self.close()
            problem = self._explain(exc, "opened", self._config.open_timeout_seconds)
        # Outside the handler: the library's own error may hold the URL with its password.
        raise problem

    def read(self, most: int = _PIECE_BYTES) -> bytes:
        """The next bytes as soon as there are any, at most so many; none at the end."""
        if self._ahead:
            data, self._ahead = self._ahead[:most], self._ahead[most:]
            return data
        if self._body is None or self._interrupted.is_set():
            return b""
        try:
            return self._body.read1(most)
        except (OSError, http.client.HTTPException, ValueError) as exc:
            if self._interrupted.is_set():
                return b""
            problem = self._explain(exc, "read", self._config.read_timeout_seconds)
        raise problem

    def push_back(self, data: bytes) -> None:
        """Give bytes back, to be read again."""
        self._ahead = data + self._ahead

    def interrupt(self) -> None:
        """Ends a read at once, and all later ones."""
        self._interrupted.set()
        if self._socket is not None:
            # Not the TLS layer's own, which the reading thread is in.
            with suppress(OSError):
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def close(self) -> None:
        body, self._body = self._body, None
        for each in (body, self._socket):
            with suppress(OSError, ValueError):
                if each is not None:
                    each.close()

    def _open_tcp(self) -> None:
        parts = urlsplit(quoted_url(self._uri))
        if parts.port is None:
            raise SourceError(f"{redact_uri(self._uri)} names no port, such as :8000")
        address = (parts.hostname or "", parts.port)
        self._socket = socket.create_connection(address, self._config.open_timeout_seconds)
        self._body = io.BufferedReader(socket.SocketIO(self._socket, "r"), _PIECE_BYTES)

    def _open_http(self) -> None:
        parts = urlsplit(quoted_url(self._uri))
        host = parts.netloc.rpartition("@")[2]
        path, query = (quote(part, safe=_IN_PATHS) for part in (parts.path or "/", parts.query))
        url = urlunsplit((parts.scheme, host, path, query, ""))
        request = urllib.request.Request(url, headers={"User-Agent": _USER_AGENT, "Accept": "*/*"})
        login = _Login()
        if parts.username is not None:
            user, password = unquote(parts.username), unquote(parts.password or "")
            login.passwords.add_password(None, f"{parts.scheme}://{host}/", user, password)
        opener = urllib.request.OpenerDirector()
        for handler in (
            urllib.request.ProxyHandler(),
            _Openers(self._on_connect),
            urllib.request.HTTPRedirectHandler(),
            urllib.request.HTTPErrorProcessor(),
            urllib.request.HTTPDefaultErrorHandler(),
            urllib.request.UnknownHandler(),
            login,
        ):
            opener.add_handler(handler)
        response = opener.open(request, timeout=self._config.open_timeout_seconds)
        self._body = response
        self.content_type = response.headers.get_content_type()
        if "Content-Type" not in response.headers:
            self.content_type = ""
        if self.content_type.startswith("multipart/"):
            response.length = None  # some cameras say one; the stream has no end
        self.length = response.length
        self.seekable = response.headers.get("Accept-Ranges", "none").lower() == "bytes"

    def _on_connect(self, connected: socket.socket) -> None:
        self._socket = connected
        if self._interrupted.is_set():
            self.interrupt()

    def _explain(self, exc: Exception, doing: str, seconds: float) -> SourceError:
        if isinstance(exc, HTTPError):
            exc.close()
            return explain_http_status(self._uri, exc.code)
        reason = exc.reason if isinstance(exc, URLError) else exc
        if isinstance(reason, BaseException):
            late = isinstance(reason, TimeoutError)
            return explain_network_error(self._uri, reason, doing, seconds, late=late)
        return SourceError(f"{redact_uri(self._uri)} cannot be {doing}: {reason}")


class _Login(urllib.request.HTTPDigestAuthHandler):
    """Answers a 401 once, by digest if the server offers that, and otherwise by basic.

    Python's own answer a digest six times, and cameras lock users out.
    """

    auth_header = "Authorization"

    def __init__(self) -> None:
        self.passwords = urllib.request.HTTPPasswordMgrWithDefaultRealm()
        super().__init__(self.passwords)

    def http_error_401(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message
    ) -> Any:
        if self.auth_header in req.unredirected_hdrs:
            return None
        challenges = headers.get_all("WWW-Authenticate", [])
        answer = next(filter(None, self._answers(req, challenges)), None)
        if answer is None:
            return None
        fp.close()
        req.add_unredirected_header(self.auth_header, answer)
        return self.parent.open(req, timeout=req.timeout)

    def _answers(self, req: urllib.request.Request, challenges: list[str]) -> Iterable[str | None]:
        offered = sorted(challenges, key=lambda said: not said.lower().startswith("digest"))
        for challenge in offered:
            kind, _, said = challenge.partition(" ")
            fields = urllib.request.parse_keqv_list(
                [each for each in urllib.request.parse_http_list(said) if "=" in each]
            )
            realm = fields.get("realm", "")
            user, password = self.passwords.find_user_password(realm, req.full_url)
            if user is None:
                continue
            if kind.lower() == "digest":
                with suppress(ValueError):  # an algorithm that Python does not know
                    answer = self.get_authorization(req, fields)
                    yield f"Digest {answer}" if answer else None
            elif kind.lower() == "basic":
                both = base64.b64encode(f"{user}:{password}".encode()).decode()
                yield f"Basic {both}"


class _Openers(urllib.request.HTTPHandler, urllib.request.HTTPSHandler):
    """Tells of the socket, so that another thread can end a read."""

    def __init__(self, took: Callable[[socket.socket], None]) -> None:
        super().__init__()
        self._on_connect = took

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        def connect(host: str, **options: Any) -> http.client.HTTPConnection:
            return _reporting(http.client.HTTPConnection(host, **options), self._on_connect)

        return self.do_open(connect, req)

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        context.set_ciphers("DEFAULT:@SECLEVEL=0")  # old cameras know no better

        def connect(host: str, **options: Any) -> http.client.HTTPConnection:
            https = http.client.HTTPSConnection(host, context=context, **options)
            return _reporting(https, self._on_connect)

        return self.do_open(connect, req)


def _reporting(
    connection: http.client.HTTPConnection, took: Callable[[socket.socket], None]
) -> http.client.HTTPConnection:
    """`connection`, which calls `took` with its socket once it is connected."""
    connect = connection.connect

    def connect_and_report() -> None:
        connect()
        took(connection.sock)

    connection.connect = connect_and_report  # type: ignore[method-assign]
    return connection
