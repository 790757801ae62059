"""The kinds of outputs: one specification object each, in one table."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Final

from stream_cam.config import RecordConfig, WebConfig
from stream_cam.errors import UsageError, unknown_name
from stream_cam.settings import Settings
from stream_cam.sinks.base import Sink, StreamInfo
from stream_cam.uri import redact_uri, scheme_of

_TABLE: Final = (
    "stream_cam.sinks.window:WINDOW",
    "stream_cam.web.kind:WEB",
    "stream_cam.sinks.null:NULL",
    "stream_cam.sinks.pipe:PIPE",
    "stream_cam.sinks.video.kind:VIDEO",
    "stream_cam.sinks.images:PICTURE",
    "stream_cam.sinks.images:FOLDER",
)
"""All kinds; the first one that matches a URI is its kind. They are given by import path because
some of them live in packages above this one."""
_PLANNED: Final = ("rtsp", "rtsps")


@dataclass(frozen=True)
class Output:
    """One output as it was asked for: all that its kind needs to check it and to make its sink."""

    uri: str
    overwrite: bool = False
    """Replace files that exist."""
    source: str | None = None
    """The URI that is read; no output may overwrite it."""
    record: RecordConfig | None = None
    """How videos are written. None: each kind's default, and no option of it is checked."""
    web: WebConfig = field(default_factory=WebConfig)
    """How pages are served."""
    settings: Settings | None = None
    """The settings that viewers change."""
    stream: StreamInfo = field(default_factory=StreamInfo)
    """The source's properties, known once it is open."""

    @property
    def path(self) -> Path:
        return Path(os.path.expanduser(self.uri))

    @property
    def segmented(self) -> bool:
        """Whether segments of it are written, and not the file itself."""
        return self.record is not None and self.record.segment is not None


@dataclass(frozen=True)
class SinkKind:
    """One kind of output. A new one needs its own module and a line in the table above."""

    name: str
    usage: str
    """How its URIs look, for error messages, such as `web://HOST:PORT`."""
    make: Callable[[Output], Sink]
    """The sink; it writes nothing before its first picture."""
    check: Callable[[Output], None] = lambda output: None
    """Raises a StreamCamError if the output cannot be written. Loads nothing slow."""
    schemes: tuple[str, ...] = ()
    """Such as `web` for `web://HOST:PORT`."""
    words: tuple[str, ...] = ()
    """Whole URIs, such as `window`."""
    suffixes: tuple[str, ...] = ()
    """Such as `.png`, in lower case."""
    claims: Callable[[str], bool] = lambda uri: False
    """Whether a URI without a scheme is of this kind, although neither word nor suffix say so."""
    place: Callable[[str], str] = lambda uri: os.path.realpath(os.path.expanduser(uri))
    """Equal for two URIs of one place; a run may write to a place once."""
    watched: bool = False
    """Whether people look at it during the run."""
    discards: bool = False
    """Whether it keeps nothing, so that a run may have several."""
    options: Mapping[str, str] = field(default_factory=dict)
    """Fields of `RecordConfig` that need an output of this kind, and the error without one."""

    def matches(self, uri: str) -> bool:
        """Whether a URI names an output of this kind."""
        scheme = scheme_of(uri)
        if scheme:
            return scheme in self.schemes
        return uri in self.words or _suffix(uri) in self.suffixes or self.claims(uri)


@cache
def sink_kinds() -> tuple[SinkKind, ...]:
    """All kinds, in the order in which they are tried."""
    paths = (entry.partition(":") for entry in _TABLE)
    return tuple(getattr(import_module(module), name) for module, _, name in paths)


def kind_of(uri: str) -> SinkKind:
    """The kind of output that a URI names.

    Raises:
        UsageError: no kind matches; the message has the nearest names.
    """
    for kind in sink_kinds():
        if kind.matches(uri):
            return kind
    raise _unknown_output(uri)


def _unknown_output(uri: str) -> UsageError:
    scheme, suffix, kinds = scheme_of(uri), _suffix(uri), sink_kinds()
    usages = ", ".join(kind.usage for kind in kinds)
    if scheme in _PLANNED:
        return UsageError(f"{scheme}:// outputs are not in this version yet; give {usages}")
    if scheme:
        return UsageError(f"{redact_uri(uri)} cannot be written to; give {usages}")
    if suffix:
        known = [suffix for kind in kinds for suffix in kind.suffixes]
        return unknown_name("type of output", suffix, known)
    words = [word for kind in kinds for word in (*kind.words, *(f"{s}://" for s in kind.schemes))]
    error = unknown_name("output", uri, words)
    return UsageError(f"{error}; files have a name such as {uri}.mp4 or {uri}/")


def _suffix(uri: str) -> str:
    is_folder = uri.endswith(("/", os.sep))
    return "" if is_folder else Path(uri).suffix.lower()
