"""Translation of FFmpeg's and sockets' errors into messages for the person who typed the URI."""

from __future__ import annotations

import errno
import http.client
import socket
import ssl
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import av.error

from stream_cam.errors import SourceError, SourceErrorKind, SourceNotFoundError
from stream_cam.uri import quoted_url, redact, redact_uri, scheme_of

_STATUS: Final[dict[int, tuple[SourceErrorKind, str]]] = {
    400: ("other", "the server refused the request (4xx); check the URL"),
    401: (
        "authentication",
        "wrong or missing user and password (401); give {scheme}://USER:PASSWORD@…, special "
        "characters as %XX",
    ),
    403: ("authentication", "the server refuses access (403); check user and rights"),
    404: ("not found", "the server has nothing under this path (404); check it"),
    500: ("other", "the server failed (5xx); look at its log"),
}
_FFMPEG_STATUS: Final = (
    (av.error.HTTPUnauthorizedError, 401),
    (av.error.HTTPForbiddenError, 403),
    (av.error.HTTPNotFoundError, 404),
    (av.error.HTTPServerError, 500),
    (av.error.HTTPError, 400),
)
_ADVICE: Final[tuple[tuple[type[BaseException], SourceErrorKind, str], ...]] = (
    (
        ConnectionRefusedError,
        "refused",
        "nothing listens there; check host, port and server",
    ),
    (ConnectionResetError, "lost", "the connection was cut; check the server"),
    (BrokenPipeError, "lost", "the connection was cut; check the server"),
    (http.client.IncompleteRead, "lost", "the connection was cut; check the server"),
    (EOFError, "lost", "the connection was cut; check the server"),
    (TimeoutError, "timeout", "it does not answer; check host, port and network"),
    (
        av.error.ProtocolNotFoundError,
        "codec",
        "this build of FFmpeg does not speak that protocol; let the ffmpeg program pass it on, "
        "such as `ffmpeg -i srt://… -c copy -f mpegts udp://127.0.0.1:5000`",
    ),
    (
        av.error.DecoderNotFoundError,
        "codec",
        "there is no decoder for its codec; convert it to H.264",
    ),
    (PermissionError, "permission", "permission denied"),
)

_NO_SUCH_NAME: Final = frozenset({socket.EAI_NONAME, getattr(socket, "EAI_NODATA", None)})
_NO_TLS: Final = "no TLS connection; check the port, or whether the server speaks TLS at all"
_UNREACHABLE: Final = frozenset({errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN})


def explain_network_error(
    uri: str, exc: BaseException, doing: str, seconds: float, *, late: bool = False
) -> SourceError:
    """The error for a stream, without its secrets and without FFmpeg's text, which holds them.

    Args:
        doing: "opened" or "read".
        seconds: the time limit under which it was done.
        late: that limit has passed; FFmpeg's RTSP then says anything, such as invalid data.
    """
    where = f"{redact_uri(uri)} cannot be {doing}"
    scheme = scheme_of(uri)
    if late or isinstance(exc, av.error.ExitError):
        what = f"no answer within {seconds:g} s; check host, port and network"
        return SourceError(f"{where}: {what}", kind="timeout")
    for answer, status in _FFMPEG_STATUS:
        if isinstance(exc, answer):
            return explain_http_status(uri, status)
    for error_type, kind, what in _ADVICE:
        if isinstance(exc, error_type):
            return SourceError(f"{where}: {what}", kind=kind)
    if isinstance(exc, (socket.gaierror, UnicodeError)):
        return _explain_name(urlsplit(quoted_url(uri)).hostname or "", where, exc)
    if isinstance(exc, ssl.SSLError):
        return SourceError(f"{where}: {_NO_TLS}", kind="tls")
    if isinstance(exc, http.client.BadStatusLine):
        what = "the server there does not speak HTTP; check port and scheme, such as tcp://"
        return SourceError(f"{where}: {what}", kind="codec")
    number = getattr(exc, "errno", None)
    if isinstance(exc, av.error.InvalidDataError):
        # RTSP raises it as well when a connection breaks off during the handshake.
        lasting = scheme in ("http", "https", "tcp") and doing == "opened"
        what = "the data is no video that can be decoded"
        return SourceError(f"{where}: {what}", kind="codec" if lasting else "lost")
    if number in _UNREACHABLE:
        return SourceError(
            f"{where}: there is no route to that host; check the network", kind="unreachable"
        )
    if number == errno.EIO and doing == "opened":
        return _explain_eio(uri, where)
    reason = getattr(exc, "strerror", None) or type(exc).__name__
    kind = "lost" if doing == "read" else "other"
    return SourceError(f"{where}: {reason}; check host, port and path", kind=kind)


def explain_http_status(uri: str, status: int) -> SourceError:
    """The error for an HTTP answer (or RTSP's, which are the same) other than success."""
    where = f"{redact_uri(uri)} cannot be opened"
    if 300 <= status < 400:
        return SourceError(f"{where}: the server redirects without end; check the URL")
    kind, what = _STATUS.get(status) or _STATUS[500 if status >= 500 else 400]
    error = SourceNotFoundError if kind == "not found" else SourceError
    return error(f"{where}: {what.format(scheme=scheme_of(uri))}", kind=kind)


def _explain_eio(uri: str, where: str) -> SourceError:
    """FFmpeg's answer to names that do not resolve and to TLS that fails; tell them apart."""
    host = urlsplit(quoted_url(uri)).hostname or ""
    try:
        socket.getaddrinfo(host, None)
    except (OSError, UnicodeError) as exc:
        return _explain_name(host, where, exc)
    if scheme_of(uri) in ("https", "rtsps"):
        return SourceError(f"{where}: {_NO_TLS}", kind="tls")
    return SourceError(f"{where}: the connection breaks off; check the server", kind="lost")


def _explain_name(host: str, where: str, exc: BaseException) -> SourceError:
    if getattr(exc, "errno", None) in _NO_SUCH_NAME or isinstance(exc, UnicodeError):
        what = f"there is no host named {host}; check the name"
        return SourceNotFoundError(f"{where}: {what}")
    reason = getattr(exc, "strerror", None) or exc
    what = f"the name {host} cannot be looked up now ({reason}); check the network"
    return SourceError(f"{where}: {what}", kind="unreachable")


def explain_file_error(path: str, exc: BaseException, doing: str = "opened") -> SourceError:
    """The error for a local file that FFmpeg cannot open, or cannot read on."""
    for error_type, kind, what in _ADVICE:
        if isinstance(exc, error_type):
            return SourceError(f"{path} cannot be {doing}: {what}", kind=kind)
    if isinstance(exc, av.error.InvalidDataError):
        if _mp4_lacks_index(path):
            return SourceError(
                f"{path} is truncated: an MP4 whose index (moov) is missing, as when a recording "
                f"or a copy was cut off; copy it again, or repair it with a tool such as untrunc"
            )
        return SourceError(f"{path} is not a video that FFmpeg can read, or it is damaged")
    reason = getattr(exc, "strerror", None) or str(exc) or type(exc).__name__
    return SourceError(f"{path} cannot be {doing}: {redact(str(reason))}")


def _mp4_lacks_index(path: str) -> bool:
    """Walk the boxes at the top level of an MP4: size (4 bytes), type (4), [long size (8)]."""
    if not Path(path).is_file():
        return False
    types: list[bytes] = []
    with open(path, "rb") as file:
        while len(types) < 1000:
            header = file.read(16)
            size = int.from_bytes(header[:4], "big")
            if len(header) < 8:
                break
            types.append(header[4:8])
            if size == 1:
                size = int.from_bytes(header[8:16], "big")
            if size < 8:
                break
            file.seek(size - len(header), 1)
    return types[:1] == [b"ftyp"] and b"moov" not in types
