"""What FFmpeg's errors mean to the person who typed the URI."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import av.error

from stream_cam.errors import SourceError, SourceNotFoundError
from stream_cam.uri import redact

_ADVICE: Final[tuple[tuple[type[BaseException], str], ...]] = (
    (av.error.HTTPUnauthorizedError, "wrong or missing user and password (401)"),
    (av.error.HTTPForbiddenError, "the server refuses access (403); check user and rights"),
    (av.error.HTTPNotFoundError, "the server has nothing under this path (404); check it"),
    (av.error.HTTPServerError, "the server failed (5xx); look at its log, try again later"),
    (av.error.HTTPError, "the server refused the request (4xx); check the URL"),
    (av.error.ConnectionRefusedError, "nothing listens there; check host, port and server"),
    (av.error.ConnectionResetError, "the connection was cut; check the server"),
    (av.error.BrokenPipeError, "the connection was cut; check the server"),
    (av.error.TimeoutError, "it does not answer; check host, port and network"),
    (av.error.ProtocolNotFoundError, "this build of FFmpeg does not speak that protocol"),
    (av.error.DecoderNotFoundError, "there is no decoder for its codec; convert it to H.264"),
    (av.error.PermissionError, "permission denied"),
)


def explain_network_error(
    uri: str, exc: BaseException, doing: str, seconds: float, *, late: bool = False
) -> SourceError:
    """The error for a stream, without its secrets and without FFmpeg's text, which holds them.

    Args:
        doing: "opened" or "read".
        seconds: the time limit under which it was done.
        late: that limit has passed; FFmpeg's RTSP then says anything, such as invalid data.
    """
    name = redact(uri)
    if late or isinstance(exc, av.error.ExitError):
        what = f"no answer within {seconds:g} s; check host, port and network"
        return SourceError(f"{name} cannot be {doing}: {what}")
    for kind, what in _ADVICE:
        if isinstance(exc, kind):
            error = SourceNotFoundError if kind is av.error.HTTPNotFoundError else SourceError
            return error(f"{name} cannot be {doing}: {what}")
    if isinstance(exc, av.error.InvalidDataError):
        return SourceError(f"{name} cannot be {doing}: what comes is no video that can be decoded")
    reason = getattr(exc, "strerror", None) or type(exc).__name__
    return SourceError(f"{name} cannot be {doing}: {reason}; check host, port and path")


def explain_file_error(path: str, exc: BaseException) -> SourceError:
    """The error for a local file that FFmpeg does not open."""
    for kind, what in _ADVICE:
        if isinstance(exc, kind):
            return SourceError(f"{path} cannot be opened: {what}")
    if isinstance(exc, av.error.InvalidDataError):
        if _mp4_lacks_index(path):
            return SourceError(
                f"{path} is truncated: an MP4 whose index (moov) is missing, as when a recording "
                f"or a copy was cut off; copy it again, or repair it with a tool such as untrunc"
            )
        return SourceError(f"{path} is not a video that FFmpeg can read, or it is damaged")
    reason = getattr(exc, "strerror", None) or str(exc) or type(exc).__name__
    return SourceError(f"{path} cannot be opened: {redact(str(reason))}")


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
