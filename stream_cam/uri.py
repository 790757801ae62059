"""URIs of sources and sinks: their schemes and paths, and how to show them without secrets."""

from __future__ import annotations

import base64
import glob
import json
import os
import re
from itertools import takewhile
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote, urlsplit

_URL = re.compile(r"([a-z][a-z0-9+.\-]*://)([^\s'\"<>]+)", re.IGNORECASE)
_SCHEME = re.compile(r"([a-z][a-z0-9+.\-]*)://", re.IGNORECASE)
_SECRET_KEYS = re.compile(
    r"pass|pwd|\bpw\b|token|secret|auth|key|sig|user|usr|login|credential", re.IGNORECASE
)
_IN_PATH = re.compile(
    r"((?:user(?:name)?|usr|login|pass\w*?|pwd|pw|token|auth|key|secret)=)"
    r"(.*?)(?=$|[&;/?#]|_[a-z]+=)",
    re.IGNORECASE,
)
"""As in `rtsp://cam/user=me&password=x&channel=1.sdp`: many recorders have it in the path."""
_HOST_AND_PORT = re.compile(r"(\[[0-9a-f:.%]+\]|[\w.-]+)(:\d*)?", re.IGNORECASE)
_ADDRESS = re.compile(r"\[.*\]|\d+\.\d+\.\d+\.\d+|localhost", re.IGNORECASE)
"""Hosts that are no user's name."""
_IN_QUERY = re.compile(r"/[^@?#]*\?[^@#]*=[^#]*")
"""A path and a query, whose values may well hold an @."""
_SHORTEST_SECRET = 4
"""Shorter passwords are masked in URLs only: many ordinary words hold such a short text."""
_secrets: set[str] = set()
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufffe\uffff\ud800-\udfff]")
"""Surrogates, which no encoding has, and control characters, which XML forbids and terminals obey.
Python reads a byte of a name that is not UTF-8 as U+DC80 to U+DCFF."""

TAG_ERRORS = "backslashreplace"
"""For PyAV: titles and other tags that are not UTF-8 are read as `printable` writes names."""

NETWORK_SCHEMES = (
    *("rtsp", "rtsps", "http", "https", "ftp", "rtmp", "rtmps", "rtmpt", "rtmpts"),
    *("rtp", "srtp", "srt", "udp", "tcp", "tls"),
)
"""All but srt are spoken by the FFmpeg in PyAV's wheels; a build of one's own may have that."""


def printable(text: str) -> str:
    """Text that every encoding of Unicode, XML and terminal takes.

    A byte of a name that is not UTF-8 is written as `\\xfc`. All text that leaves the program, and
    may hold a name, goes through here; names that open a file do not.
    """
    return _UNPRINTABLE.sub(_escaped, text)


def _escaped(match: re.Match[str]) -> str:
    code = ord(match.group())
    if 0xDC80 <= code <= 0xDCFF:
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def json_text(value: object, *, indent: int | None = None) -> str:
    """JSON in one line, or indented, that can be encoded whatever names are in it."""
    separators = (",", ":") if indent is None else None
    text = json.dumps(value, indent=indent, ensure_ascii=False, separators=separators)
    # Only strings hold such a character, and there a backslash is written twice.
    return _UNPRINTABLE.sub(lambda match: "\\" + _escaped(match), text)


def scheme_of(uri: str) -> str:
    """The part before `://` in lower case, or "" for a plain path or a camera number."""
    match = _SCHEME.match(uri)
    return match.group(1).lower() if match else ""


def pipe_number(uri: str, standard: int) -> int | None:
    """The file descriptor that a URI names: `-` and `pipe:` are the standard one, `pipe:3` is 3."""
    match = re.fullmatch(r"-|pipe:(\d*)", uri)
    return None if match is None else int(match[1] or standard)


def local_path(uri: str) -> Path | None:
    """The path that a source's URI names; None for cameras, streams, stdin and `demo://`."""
    scheme = scheme_of(uri)
    if pipe_number(uri, 0) is not None:
        return None
    if scheme == "file":
        return Path(unquote(urlsplit(uri).path))
    if scheme or (uri.isascii() and uri.isdecimal()):
        return None
    return Path(os.path.expanduser(uri))


def folder_of_pattern(pattern: str) -> Path:
    """The folder below which everything lies that a glob finds."""
    return Path(*takewhile(lambda part: not glob.has_magic(part), Path(pattern).parts[:-1]))


def result_name(source: str, suffix: str) -> str:
    """The name of a file's result: its whole name, and a suffix if it has another one.

    `cat.png` → `cat.png`, `cat.jpg` → `cat.jpg.png`: known without looking at the files beside it,
    and no two files of one folder have one result.
    """
    return source if source.lower().endswith(suffix) else source + suffix


def redact(text: str) -> str:
    """`text`, `printable`, with user, password and secret-looking values of every URL masked.

    In a text a URL ends at a space or a quotation mark. A password may hold these, so a text
    that is one URI as a whole is for `redact_uri`.
    """
    return _URL.sub(lambda match: _redact_url(match.group(0)), printable(text))


def redact_uri(uri: str) -> str:
    """A URI, and nothing beside it, with its secrets masked."""
    return _redact_url(printable(uri)) if _SCHEME.match(uri) else redact(uri)


def _redact_url(url: str) -> str:
    # The last @ of all ends the credentials, even when a password holds any of @:/?#.
    scheme, rest = url.split("://", 1)
    cut = re.search(r"[?#]", rest)
    body, tail = (rest[: cut.start()], rest[cut.start() :]) if cut else (rest, "")
    if "@" in tail:
        body, tail = rest, ""
    if "@" in body:
        body = "***@" + body.rsplit("@", 1)[1]
    body = _IN_PATH.sub(r"\1***", body)
    if tail.startswith("?"):
        query, hash_sign, fragment = tail[1:].partition("#")
        parts = [
            (key, "***" if _SECRET_KEYS.search(key) else value)
            for key, value in parse_qsl(query, keep_blank_values=True)
        ]
        shown = "&".join(f"{quote(key)}={quote(value, safe='*:/,')}" for key, value in parts)
        tail = "?" + shown + hash_sign + fragment
    return f"{scheme}://{body}{tail}"


def remember_secrets(*uris: str) -> None:
    """From now on `hide` masks the passwords of these URIs wherever they stand, however coded."""
    for uri in uris:
        forms = map(printable, _secrets_of(uri))
        _secrets.update(form for form in forms if len(form) >= _SHORTEST_SECRET)


def hide(text: str) -> str:
    """`redact`, and the remembered secrets masked outside of URLs too: in logs and tracebacks."""
    text = redact(text)
    for secret in sorted(_secrets, key=len, reverse=True):
        text = text.replace(secret, "***")
    return text


def _secrets_of(uri: str) -> set[str]:
    scheme, userinfo, rest = _split_credentials(uri)
    if not scheme:
        return set()
    user, _, password = (userinfo or "").partition(":")
    secrets = {unquote(password)}
    if is_ambiguous(uri):
        secrets.add(uri.partition("://")[2].rpartition("@")[0].partition(":")[2])
    path, _, query = rest.partition("?")
    for key, value in parse_qsl(query.partition("#")[0]):
        if _SECRET_KEYS.search(key):
            secrets.add(value)
    for name, value in _IN_PATH.findall(path):
        if not name.lower().startswith(("user", "usr", "login")):
            secrets.add(unquote(value))
    secrets.discard("")
    # As typed, decoded, encoded, and as HTTP's basic authentication sends it.
    forms = {password, f"{unquote(user)}:{unquote(password)}" if password else ""} | secrets
    coded = {base64.b64encode(os.fsencode(form)).decode() for form in forms if form}
    return forms | {quote(os.fsencode(secret), safe="") for secret in secrets} | coded


def quoted_url(url: str) -> str:
    """The URL with its user and password percent-encoded, as libraries expect it.

    `rtsp://me:a/b@cam/x` becomes `rtsp://me:a%2Fb@cam/x`; encoded characters stay as they are.
    """
    scheme, userinfo, rest = _split_credentials(url)
    if userinfo is None:
        return url
    user, colon, password = userinfo.partition(":")
    return f"{scheme}://{_quote_once(user)}{colon}{_quote_once(password)}@{rest}"


def _quote_once(text: str) -> str:
    parts = re.split(r"(%[0-9a-fA-F]{2})", text)
    return "".join(
        part if index % 2 else quote(os.fsencode(part), safe="") for index, part in enumerate(parts)
    )


def _split_credentials(url: str) -> tuple[str, str | None, str]:
    """Scheme, user and password if any, and the rest; no scheme: ("", None, url).

    An @ ends the credentials if a host follows it, so that a password may hold any of @:/?#;
    only where both readings make a URL (`u:1/2@cam`) the standard's is taken.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or not re.fullmatch(r"[a-z][a-z0-9+.\-]*", scheme, re.IGNORECASE):
        return "", None, url
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if "@" not in authority and _HOST_AND_PORT.fullmatch(authority):
        return scheme, None, rest
    for at in (match.start() for match in re.finditer("@", rest)):
        host = re.split(r"[/?#]", rest[at + 1 :], maxsplit=1)[0]
        if _HOST_AND_PORT.fullmatch(host):
            return scheme, rest[:at], rest[at + 1 :]
    return scheme, None, rest


def is_ambiguous(url: str) -> bool:
    """Whether the URL's host may be a piece of a password that holds @, /, ? or # as typed.

    `rtsp://me:a@b/c@cam/x` names the host b by the standard, and cam if the password is `a@b/c`.
    """
    _, userinfo, rest = _split_credentials(url)
    host = re.split(r"[/?#]", rest, maxsplit=1)[0]
    behind = rest[len(host) :]
    if userinfo is None and (":" not in host or _ADDRESS.fullmatch(host.rpartition(":")[0])):
        return False
    if (userinfo is not None and ":" not in userinfo + host) or _IN_QUERY.fullmatch(behind):
        return False
    hosts = (re.split(r"[/?#]", text, maxsplit=1)[0] for text in behind.split("@")[1:])
    return any(_HOST_AND_PORT.fullmatch(text) for text in hosts)
