"""Sinks: a URI becomes a sink. The table of kinds is in `sinks/kinds.py`."""

from __future__ import annotations

from collections.abc import Sequence

from stream_cam.config import RecordConfig, WebConfig
from stream_cam.errors import OutputExistsError, UsageError
from stream_cam.settings import Settings
from stream_cam.sinks.base import Picture, Sink, StreamInfo
from stream_cam.sinks.images import FolderSink, PictureSink
from stream_cam.sinks.kinds import Output, SinkKind, kind_of, sink_kinds
from stream_cam.sinks.null import NullSink
from stream_cam.sinks.pipe import PipeSink
from stream_cam.sinks.video.segments import SegmentSink
from stream_cam.sinks.video.sink import VideoSink
from stream_cam.sinks.window import WindowSink, display_problem

__all__ = [
    "FolderSink",
    "NullSink",
    "Output",
    "Picture",
    "PictureSink",
    "PipeSink",
    "SegmentSink",
    "Sink",
    "SinkKind",
    "StreamInfo",
    "VideoSink",
    "WindowSink",
    "check_output",
    "check_outputs",
    "display_problem",
    "kind_of",
    "open_sink",
    "sink_kinds",
]


def open_sink(
    uri: str,
    stream: StreamInfo,
    *,
    overwrite: bool,
    source: str | None = None,
    record: RecordConfig | None = None,
    web: WebConfig | None = None,
    settings: Settings | None = None,
) -> Sink:
    """Make the sink that a URI names; it writes nothing before its first picture.

    Args:
        uri: `window`, `web://HOST:PORT` (a page in the browser), `null`, a video (`out.mp4`), a
            picture (`out.png`), a folder (`frames/`, or one that exists), or `-` for the standard
            output.
        stream: the source's properties.
        overwrite: replace files that exist.
        source: the URI that is read; a page shows it, and no output may overwrite it.
        record: how videos are written.
        web: how pages are served.
        settings: changed by a window's keys and by pages.

    Raises:
        UsageError: an unknown kind of output.
        SinkError: it cannot be written, or exists.
    """
    web = web or WebConfig()
    output = Output(uri, overwrite, source, record, web, settings, stream)
    kind = kind_of(uri)
    kind.check(output)
    return kind.make(output)


def check_output(
    uri: str,
    *,
    overwrite: bool,
    source: str | None = None,
    record: RecordConfig | None = None,
    web: WebConfig | None = None,
) -> None:
    """Find out, before anything slow is loaded, whether an output can be written.

    Args:
        source: the URI that is read; no output may overwrite it.

    Raises:
        UsageError: an unknown kind, wrong options, or the source itself.
        OutputExistsError: it is there, and `overwrite` is not given.
        SinkError: no display, no such folder, no permission.
    """
    kind_of(uri).check(Output(uri, overwrite, source, record, web or WebConfig()))


def check_outputs(
    uris: Sequence[str],
    *,
    overwrite: bool,
    source: str | None = None,
    record: RecordConfig | None = None,
    web: WebConfig | None = None,
) -> None:
    """`check_output` for all outputs of a run; no two of them may be the same place.

    Raises:
        UsageError, OutputExistsError, SinkError: as `check_output`; or an option has no output
            that it is for.
    """
    places: set[tuple[str, str]] = set()
    existing: list[str] = []
    for uri in uris:
        kind = kind_of(uri)
        try:
            check_output(uri, overwrite=overwrite, source=source, record=record, web=web)
        except OutputExistsError as error:
            if not error.names:
                raise
            existing += error.names
        place = kind.name, kind.place(uri)
        if place in places and not kind.discards:
            raise UsageError(f"{uri} is given twice as an output; give each a name of its own")
        places.add(place)
    _check_options(uris, record)
    if existing:
        raise OutputExistsError.of(*existing)


def _check_options(uris: Sequence[str], record: RecordConfig | None) -> None:
    """Raises UsageError for an option without an output of the kind that it is for."""
    given = {kind_of(uri).name for uri in uris}
    for kind in sink_kinds():
        for option, problem in kind.options.items():
            if getattr(record, option, None) is not None and kind.name not in given:
                raise UsageError(problem)
