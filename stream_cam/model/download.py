"""Files fetched over the network, whole or not at all.

Not by `torch.hub.download_url_to_file`: it has no timeout, so a silent server would hold the start
for ever, and it draws its bar into pipes and log files too (torch 2.14).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from email.message import Message
from pathlib import Path
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

_CHUNK_BYTES = 1 << 18
_TIMEOUT_SECONDS = 20.0


class Response(Protocol):
    """The parts of an HTTP response that a download needs."""

    headers: Message

    def read(self, amount: int, /) -> bytes: ...

    def close(self) -> None: ...


OpenUrl = Callable[[str], Response]


def open_url(url: str) -> Response:
    """The response to a GET; a silent server is given up after 20 seconds."""
    request = urllib.request.Request(url, headers={"User-Agent": "stream-cam"})
    response: Response = urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS)
    return response


def fetch(url: str, path: Path, sha256_prefix: str, progress: bool, opener: OpenUrl) -> None:
    """Downloads a file, under its own name only when it is whole.

    Args:
        sha256_prefix: the beginning of the file's SHA-256, in hex.
        progress: show a bar, where there is a terminal.

    Raises:
        OSError, http.client.HTTPException: network or disk fail, or the checksum is wrong.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(prefix=f"{path.name}.", suffix=".partial", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file, contextlib.closing(opener(url)) as response:
            digest = hashlib.sha256()
            for chunk in _chunks(response, path.name, progress):
                digest.update(chunk)
                file.write(chunk)
        if not digest.hexdigest().startswith(sha256_prefix):
            raise OSError("the download is another file (wrong checksum)")
        Path(partial).chmod(0o644)
        Path(partial).replace(path)
    finally:
        Path(partial).unlink(missing_ok=True)


def _chunks(response: Response, title: str, progress: bool) -> Iterator[bytes]:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Progress(
        *columns,
        TransferSpeedColumn(),
        console=console,
        disable=not (progress and console.is_terminal),
    ) as bar:
        length = response.headers.get("Content-Length", "")
        task = bar.add_task(title, total=int(length) if length.isdigit() else None)
        while chunk := response.read(_CHUNK_BYTES):
            bar.advance(task, len(chunk))
            yield chunk


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def reason_of(exc: BaseException) -> str:
    """The innermost cause in one line, such as `Name or service not known`."""
    inner = getattr(exc, "reason", None)
    if isinstance(inner, BaseException):
        return reason_of(inner)
    if isinstance(exc, OSError) and exc.strerror:
        return exc.strerror
    lines = str(exc).strip().splitlines()
    return lines[0] if lines else type(exc).__name__
