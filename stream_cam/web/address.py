"""`web://HOST:PORT`: the address of a page."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from stream_cam.errors import SinkError, UsageError
from stream_cam.uri import redact_uri

DEFAULT_PORT: Final = 8080
_BACKLOG: Final = 64


@dataclass(frozen=True)
class WebAddress:
    """Host and port of a page."""

    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    """0: any free port."""

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def is_everywhere(self) -> bool:
        """Whether it stands for every address of this machine."""
        return self.host in ("0.0.0.0", "::")

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def parse_web_uri(uri: str) -> WebAddress:
    """Reads `web://`, `web://:8080`, `web://HOST` or `web://HOST:PORT`.

    Raises:
        UsageError: it is none of these.
    """
    try:
        parts = urlsplit(uri)
        port = DEFAULT_PORT if parts.port is None else parts.port
    except ValueError:
        raise UsageError(
            f"{redact_uri(uri)}: a port is a number from 0 to 65535, such as web://127.0.0.1:8080"
        ) from None
    if parts.username is not None or parts.path not in ("", "/") or parts.query or parts.fragment:
        raise UsageError(
            f"{redact_uri(uri)}: a page's address is web://HOST:PORT, such as web://127.0.0.1:8080"
        )
    return WebAddress(parts.hostname or "127.0.0.1", port)


def listen(address: WebAddress) -> socket.socket:
    """A socket that listens there; it accepts no connection yet.

    Raises:
        SinkError: the port is taken or not permitted, or the host is not this machine.
    """
    try:
        found = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (OSError, UnicodeError) as exc:
        raise SinkError(
            f"web://{address}: {address.host} is not known ({exc}); give 127.0.0.1, or "
            "0.0.0.0 for all addresses of this machine"
        ) from exc
    family, kind, protocol, _, place = found[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(place)
        listener.listen(_BACKLOG)
    except OSError as exc:
        listener.close()
        raise SinkError(f"web://{address} cannot be served: {_advice(exc, address)}") from exc
    return listener


def _advice(error: OSError, address: WebAddress) -> str:
    if isinstance(error, PermissionError):
        return f"port {address.port} is not permitted; give one from 1024 on"
    if "in use" in (error.strerror or ""):
        return f"port {address.port} is in use; give another one, or 0 for one that is free"
    return f"{error.strerror}; give 127.0.0.1, or an address of this machine"


def address_of_this_machine() -> str:
    """The address under which others are most likely to reach this machine."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing: asks for the route only
            return str(probe.getsockname()[0])
        except OSError:
            return socket.gethostname()
