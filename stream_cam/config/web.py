"""How the browser page is served."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_HOST_NAME = re.compile(r"[A-Za-z0-9.-]+(:\d{1,5})?")
_ROOT_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)+")


@dataclass(frozen=True)
class WebConfig:
    """How the browser page is served."""

    viewer_only: bool = False
    """Show a page that nobody can change settings on."""
    web_quality: int = 80
    """Quality of the page's JPEG pictures, from 1 to 100."""
    web_name: str | None = None
    """The host name of the page behind a reverse proxy; the page then needs a token."""
    web_root_path: str = ""
    """The path of the page behind a reverse proxy, such as /cam."""
    web_embed: bool = False
    """Let pages of this machine, such as notebooks, show the page in a frame."""
    tls_cert: Path | None = None
    """A certificate as a PEM file; the page is then served over https."""
    tls_key: Path | None = None
    """The certificate's private key, as a PEM file."""

    def __post_init__(self) -> None:
        if self.web_name is not None and not _HOST_NAME.fullmatch(self.web_name):
            raise ValueError(
                f"--web-name is a host name such as cam.example.org, got {self.web_name}"
            )
        root_path = self.web_root_path.rstrip("/")
        if root_path and not _ROOT_PATH.fullmatch(root_path):
            raise ValueError(
                f"--web-root-path is a path such as /cam, of letters, digits, - . _ ~ and /, got "
                f"{self.web_root_path}"
            )
        object.__setattr__(self, "web_root_path", root_path)
        if not 1 <= self.web_quality <= 100:
            raise ValueError(f"--web-quality is a number from 1 to 100, got {self.web_quality}")
