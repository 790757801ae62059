"""Where frames come from: a URI becomes a source. The kinds of sources stand in `kinds.py`."""

from __future__ import annotations

from stream_cam.config import CaptureConfig
from stream_cam.sources.base import Source, SourceInfo
from stream_cam.sources.kinds import Input, SourceKind, check_options, kind_of, source_kinds
from stream_cam.uri import remember_secrets

__all__ = [
    "Input",
    "Source",
    "SourceInfo",
    "SourceKind",
    "check_source",
    "kind_of",
    "open_source",
    "source_kinds",
]


def open_source(uri: str, config: CaptureConfig | None = None, live: bool | None = None) -> Source:
    """Make the source that a URI names; it opens when it is entered.

    Cameras and network streams reconnect by themselves (ReconnectingSource), unless every frame
    counts. Mistakes that show without opening are raised here, before anything slow is loaded: an
    unknown scheme, a file that is missing or may not be read.

    Args:
        uri: a camera (`0`, `/dev/video0`), `demo://…`, a URL, a picture, a folder of pictures,
            a glob, a video file, a FIFO, or `-` for the standard input.
        config: how streams are read; default: CaptureConfig's defaults.
        live: whether the newest frame wins; default: as `info.live`. For cameras it always does.
            For a file it does not; PacedSource plays a file as if it were live.

    Raises:
        UsageError: an unknown kind of source, no host or port, or a live source with `live=False`.
        SourceError: there is nothing that could be opened.
    """
    source = Input(uri, config or CaptureConfig(), live)
    remember_secrets(uri)
    kind = kind_of(source)
    check_options(kind, source)
    kind.check(source)
    return kind.make(source)


def check_source(uri: str) -> None:
    """Find out, before anything slow is loaded, whether a source can be opened at all.

    Raises:
        UsageError, SourceError: as `open_source`.
    """
    source = Input(uri)
    kind_of(source).check(source)
