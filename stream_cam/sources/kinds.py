"""The kinds of sources: one specification object each, in one table."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from typing import Final

from stream_cam.config import CaptureConfig
from stream_cam.errors import UsageError, unknown_name
from stream_cam.sources.base import Source
from stream_cam.uri import local_path, redact_uri, scheme_of

_TABLE: Final = (
    "stream_cam.sources.demo.source:DEMO",
    "stream_cam.sources.screen:SCREEN",
    "stream_cam.sources.url:STREAM",
    "stream_cam.sources.camera:CAMERA",
    "stream_cam.sources.images:PICTURES",
    "stream_cam.sources.files:PIPE",
    "stream_cam.sources.files:SDP",
    "stream_cam.sources.files:VIDEO",
)
"""All kinds; the first one that matches a URI is its kind. These modules load PyAV only when a
source that needs it is made."""
_SECONDARY_SCHEMES: Final = frozenset({"rtsps", "rtmps", "rtmpt", "rtmpts", "srtp", "tls"})
"""Left out of the suggestions for an unknown scheme."""
_PROBLEMS: Final = {
    "poll": "--poll fetches a picture at http:// or https://, got {}",
    "ffmpeg_option": "FFmpeg does not read {}: leave out --ffmpeg-option",
}
"""Fields of `CaptureConfig` that only some kinds take, and the error for the others."""


@dataclass(frozen=True)
class Input:
    """One input as it was asked for: all that its kind needs to check it and to make its source."""

    uri: str
    config: CaptureConfig = field(default_factory=CaptureConfig)
    live: bool | None = None
    """Whether the newest frame wins; None: as the source itself is."""

    @property
    def shown(self) -> str:
        """The URI with its secrets redacted."""
        return redact_uri(self.uri)

    @property
    def path(self) -> str | None:
        """The path that the URI names; None for streams, the standard input and `demo://`."""
        path = local_path(self.uri)
        return None if path is None else str(path)


@dataclass(frozen=True)
class SourceKind:
    """One kind of source. A new one needs its own module and a line in the table above."""

    name: str
    make: Callable[[Input], Source]
    """The source, not yet open. It is made only after `check`."""
    check: Callable[[Input], None] = lambda source: None
    """Raises a StreamCamError if the source cannot be opened. Loads nothing slow."""
    schemes: tuple[str, ...] = ()
    """Such as `demo` for `demo://shapes`."""
    claims: Callable[[Input], bool] = lambda source: False
    """Whether an input without a scheme, or with `file://`, is of this kind."""
    options: frozenset[str] = frozenset()
    """Those fields of `CaptureConfig` that it takes and others do not: `poll`, `ffmpeg_option`."""

    def matches(self, source: Input) -> bool:
        """Whether an input is of this kind."""
        scheme = scheme_of(source.uri)
        return scheme in self.schemes if scheme not in ("", "file") else self.claims(source)


@cache
def source_kinds() -> tuple[SourceKind, ...]:
    """All kinds, in the order in which they are tried."""
    paths = (entry.partition(":") for entry in _TABLE)
    return tuple(getattr(import_module(module), name) for module, _, name in paths)


def kind_of(source: Input) -> SourceKind:
    """The kind of an input.

    Raises:
        UsageError: no kind matches; the message has the nearest names.
    """
    uri = source.uri
    if not uri.strip():
        raise UsageError(
            "the source has no name: give 0, a file, a folder, rtsp://… or demo://shapes"
        )
    schemes = ("file", *(scheme for kind in source_kinds() for scheme in kind.schemes))
    before_colon = uri.partition(":")[0].lower()
    if not scheme_of(uri) and before_colon in schemes and ":" in uri and not os.path.exists(uri):
        # The rest of the URI is not shown: it may hold a password.
        raise UsageError(f"a source of the kind {before_colon} begins with {before_colon}://")
    for kind in source_kinds():
        if kind.matches(source):
            return kind
    known = [f"{scheme}://" for scheme in schemes if scheme not in _SECONDARY_SCHEMES]
    raise unknown_name("kind of source", f"{scheme_of(uri)}://", known)


def check_options(kind: SourceKind, source: Input) -> None:
    """Find out whether a kind of source takes the options that are given.

    Raises:
        UsageError: it does not, or FFmpeg has no option of that name.
    """
    for option, problem in _PROBLEMS.items():
        if getattr(source.config, option) and option not in kind.options:
            raise UsageError(problem.format(source.shown))
    if source.config.ffmpeg_option:
        from stream_cam.sources.ffmpeg_options import check_option_names

        check_option_names(source.config.ffmpeg_options)
