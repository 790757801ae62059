"""Names of sources and sinks: what kind each is, and how to show it without its secrets."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, quote, urlsplit, urlunsplit

_URL = re.compile(r"([a-z][a-z0-9+.\-]*://)([^\s'\"<>]+)", re.IGNORECASE)
_SECRET_KEYS = re.compile(r"pass|pwd|token|secret|auth|key|sig|user|credential", re.IGNORECASE)

NETWORK_SCHEMES = ("rtsp", "rtsps", "http", "https", "rtmp", "udp", "srt", "tcp")


def scheme_of(uri: str) -> str:
    """The part before `://` in lower case, or "" for a plain path or a camera number."""
    match = _URL.match(uri)
    return match.group(1)[:-3].lower() if match else ""


def redact(text: str) -> str:
    """`text` with user, password and secret-looking query values of every URL in it masked."""
    return _URL.sub(lambda match: _redact_url(match.group(0)), text)


def _redact_url(url: str) -> str:
    # The last @ before the path ends the credentials, even when a password holds an @ or a /.
    scheme, rest = url.split("://", 1)
    cut = re.search(r"[?#]", rest)
    body, tail = (rest[: cut.start()], rest[cut.start() :]) if cut else (rest, "")
    if "@" in tail and "@" not in body:
        body, tail = rest, ""
    if "@" in body:
        body = "***@" + body.rsplit("@", 1)[1]
    if tail.startswith("?"):
        query, hash_sign, fragment = tail[1:].partition("#")
        parts = [
            (key, "***" if _SECRET_KEYS.search(key) else value)
            for key, value in parse_qsl(query, keep_blank_values=True)
        ]
        shown = "&".join(f"{quote(key)}={quote(value, safe='*:/,')}" for key, value in parts)
        tail = "?" + shown + hash_sign + fragment
    return f"{scheme}://{body}{tail}"


def query_of(uri: str) -> dict[str, str]:
    """The query parameters of a URI, last one wins."""
    return dict(parse_qsl(urlsplit(uri).query, keep_blank_values=True))


def without_query(uri: str) -> str:
    """The URI without its query and fragment."""
    return urlunsplit(urlsplit(uri)._replace(query="", fragment=""))
