"""Where pictures go: a URI becomes a sink."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Final, Literal

from stream_cam.config import RecordConfig
from stream_cam.errors import OutputExistsError, SinkError, UsageError, unknown_name
from stream_cam.settings import Settings
from stream_cam.sinks.base import Picture, Sink, StreamInfo
from stream_cam.sinks.images import PICTURE_SUFFIXES, FolderSink, PictureSink
from stream_cam.sinks.null import NullSink
from stream_cam.sinks.pipe import STREAM_SUFFIXES, PipeSink, is_pipe, is_terminal
from stream_cam.sinks.video.encoders import CONTAINERS, check_codec, check_settings
from stream_cam.sinks.video.lock import refuse_claimed
from stream_cam.sinks.video.segment_names import is_segment_of
from stream_cam.sinks.video.segments import SegmentSink
from stream_cam.sinks.video.sink import VideoSink, part_of
from stream_cam.sinks.window import WindowSink, display_problem
from stream_cam.uri import folder_of_pattern, local_path, redact_uri, scheme_of

__all__ = [
    "FolderSink",
    "NullSink",
    "Picture",
    "PictureSink",
    "PipeSink",
    "SegmentSink",
    "Sink",
    "StreamInfo",
    "VideoSink",
    "WindowSink",
    "check_output",
    "check_outputs",
    "display_problem",
    "open_sink",
]

Kind = Literal["window", "web", "null", "video", "picture", "folder", "pipe"]

_PLANNED: Final = ("rtsp", "rtsps")
_STILLS_A_SECOND: Final = 1
_TEMPORARY_BYTES: Final = 7
"""So much longer is `.out.mp4.whole` than `out.mp4`."""
_SEGMENT_BYTES: Final = 20
"""And `out-20261122T101500_100.mp4`."""


def open_sink(
    uri: str,
    stream: StreamInfo,
    *,
    overwrite: bool,
    record: RecordConfig | None = None,
    settings: Settings | None = None,
) -> Sink:
    """Make the sink that a URI names; it writes nothing before its first picture.

    Args:
        uri: `window`, `null`, a video (`out.mp4`), a picture (`out.png`), a folder (`frames/`, or
            one that exists), or `-` for the standard output.
        stream: what is known of the source.
        overwrite: replace what is there.
        record: how videos are written.
        settings: what a window's keys change.

    Raises:
        UsageError: a kind of output that is not known.
        SinkError: it cannot be written, or exists.
    """
    kind = kind_of(uri)
    segmented = kind == "video" and record is not None and record.segment is not None
    check_output(uri, overwrite=overwrite, segmented=segmented)
    path = os.path.expanduser(uri)
    if kind == "window":
        return WindowSink(settings=settings)
    if kind == "null":
        return NullSink()
    if kind == "web":
        raise UsageError(f"{uri} belongs to a run: `stream-cam run`, or stream_cam.serve()")
    if kind == "pipe":
        return PipeSink(uri, stream, record or RecordConfig(format="matroska"))
    if kind == "picture":
        return PictureSink(path, overwrite=overwrite)
    if kind == "folder":
        return FolderSink(path, overwrite=overwrite)
    if stream.still:
        stream = replace(stream, fps=Fraction(_STILLS_A_SECOND))
    if segmented:
        assert record is not None
        return SegmentSink(path, stream, record, overwrite=overwrite)
    return VideoSink(path, stream, record, overwrite=overwrite)


def kind_of(uri: str) -> Kind:
    """What kind of sink a URI names.

    Raises:
        UsageError: none that is known; the message has the nearest names.
    """
    scheme = scheme_of(uri)
    files = f"{_suffixes(CONTAINERS)}, {_suffixes(PICTURE_SUFFIXES)} or a folder/"
    there_is = f"window, web://HOST:PORT, null, {files}"
    if scheme == "web":
        return "web"
    if scheme in _PLANNED:
        raise UsageError(f"{scheme}:// outputs are not in this version yet; give {there_is}")
    if scheme:
        raise UsageError(f"{redact_uri(uri)} cannot be written to; give {there_is}")
    if is_pipe(uri):
        return "pipe"
    if uri in ("window", "null"):
        return "window" if uri == "window" else "null"
    path = Path(os.path.expanduser(uri))
    suffix = path.suffix.lower()
    is_folder = os.path.isdir(path)
    if uri.endswith(("/", os.sep)) or (
        is_folder and suffix not in [*CONTAINERS, *PICTURE_SUFFIXES]
    ):
        return "folder"
    if is_folder:
        raise UsageError(f"{uri} is a folder; for pictures in it give {uri}/")
    if suffix in CONTAINERS:
        return "video"
    if suffix in PICTURE_SUFFIXES:
        return "picture"
    if suffix:
        raise unknown_name("type of output", suffix, [*CONTAINERS, *PICTURE_SUFFIXES])
    error = unknown_name("output", uri, ["window", "web://", "null"])
    raise UsageError(f"{error}; files have a name such as {uri}.mp4 or {uri}/")


def check_outputs(
    uris: Sequence[str],
    *,
    overwrite: bool,
    source: str | None = None,
    record: RecordConfig | None = None,
) -> None:
    """`check_output` for all of them, that no two are the same place, and videos' codecs."""
    seen: set[str] = set()
    there: list[str] = []
    for uri in uris:
        video = record is not None and kind_of(uri) == "video"
        segmented = False
        if record is not None and video:
            check_settings(check_codec(Path(uri).suffix.lower(), record.codec), record)
            segmented = record.segment is not None
        if record is not None and kind_of(uri) == "pipe":
            _check_pipe(uri, record)
        try:
            check_output(uri, overwrite=overwrite, source=source, segmented=segmented)
        except OutputExistsError as error:
            if not error.names:
                raise
            there += error.names
        place = os.path.realpath(os.path.expanduser(uri))
        if place in seen and kind_of(uri) != "null":
            raise UsageError(f"{uri} is given twice as an output; give each a name of its own")
        seen.add(place)
    if record is not None and record.format is not None and "pipe" not in map(kind_of, uris):
        raise UsageError("--format is for what is piped: give - as output; files have suffixes")
    segmented = record is not None and record.segment is not None
    if segmented and "video" not in map(kind_of, uris):
        raise UsageError("--segment is for recordings: give a video as output, such as out.mp4")
    if there:
        raise OutputExistsError.of(*there)


def _check_pipe(uri: str, record: RecordConfig) -> None:
    if record.format is None:
        raise UsageError(
            f"{uri} is read while it is written: give its --format, {', '.join(STREAM_SUFFIXES)}"
        )
    if is_terminal(uri):
        raise UsageError(f"{uri} is the terminal: pipe it into a program, or give out.mp4")
    check_settings(check_codec(STREAM_SUFFIXES[record.format], record.codec), record)


def check_output(
    uri: str, *, overwrite: bool, source: str | None = None, segmented: bool = False
) -> None:
    """Find out, before anything slow is loaded, whether an output can be written.

    Args:
        uri: the output.
        overwrite: whether it may replace what is there.
        source: the URI that is read, which must not be overwritten by its own result.
        segmented: it is not written itself, but segments of it are.

    Raises:
        UsageError: an unknown kind, or the source itself.
        OutputExistsError: it is there, and `overwrite` is not given.
        SinkError: no display, no such folder, no permission.
    """
    kind = kind_of(uri)
    if kind in ("null", "web", "pipe"):
        return
    if kind == "window":
        problem = display_problem()
        if problem is not None:
            raise SinkError(problem)
        return
    path = Path(os.path.expanduser(uri))
    read = None if source is None else local_path(source)
    if read is not None:
        _check_not_source(kind, path, read)
        if segmented and is_segment_of(read, path):
            raise UsageError(f"{source} is called like a segment of {uri}; give another name")
    if kind == "folder":
        _check_folder(path, overwrite=overwrite)
    else:
        _check_parent(path, _SEGMENT_BYTES if segmented else 0)
        if segmented:
            return  # check_segments does the rest, once it is known whether the source is live
        if os.path.exists(path) and not overwrite:
            raise OutputExistsError.of(uri)
        if kind == "video":
            _check_part(uri, part_of(path), overwrite=overwrite)


def _check_part(uri: str, part: Path, *, overwrite: bool) -> None:
    refuse_claimed(part)
    if os.path.exists(part) and not overwrite:
        raise OutputExistsError(
            f"{part} is there, what a run that was killed left: `stream-cam recover {uri}` makes "
            "a recording of it, --overwrite replaces it"
        )


def _check_not_source(kind: Kind, path: Path, source: Path) -> None:
    place = source
    if kind == "picture" and _is_one_of(path, source):
        place = path
    if kind == "folder" and not os.path.isdir(source):
        if os.path.isfile(source) and source.suffix.lower() not in PICTURE_SUFFIXES:
            return  # a video's frames have names of their own
        # A picture's result, or a glob's, could have the source's name.
        place = source.parent if os.path.exists(source) else folder_of_pattern(str(source))
    if os.path.realpath(place) == os.path.realpath(path) or (
        os.path.exists(path) and os.path.exists(place) and os.path.samefile(path, place)
    ):
        raise UsageError(f"{path} is where the source is; give the output another name")


def _is_one_of(picture: Path, source: Path) -> bool:
    """Whether a picture lies in the folder, or is one of the pattern's, that is read."""
    if os.path.isdir(source):
        return os.path.isfile(picture) and os.path.samefile(picture.parent, source)
    if os.path.exists(source):
        return False
    found = glob.glob(str(source), recursive=True)
    return os.path.realpath(picture) in map(os.path.realpath, found)


def _check_folder(path: Path, *, overwrite: bool) -> None:
    if not os.path.exists(path):
        _check_parent(path)
        return
    if not os.path.isdir(path):
        raise SinkError(f"{path} is a file, not a folder; give another name")
    _check_writable(path)
    held = sorted(entry.name for entry in path.iterdir() if entry.suffix in PICTURE_SUFFIXES)
    if held and not overwrite:
        raise OutputExistsError(
            f"{path}/ holds {len(held)} pictures already ({held[0]}); give --overwrite to replace "
            f"those of the same name, or another folder"
        )


def _check_parent(path: Path, more_bytes: int = 0) -> None:
    parent = path.parent
    if not os.path.exists(parent):
        raise SinkError(f"there is no folder {parent} for {path.name}; make it: mkdir -p {parent}")
    if not os.path.isdir(parent):
        raise SinkError(f"{parent} is a file, not a folder; give another name for {path.name}")
    _check_writable(parent)
    _check_length(path, more_bytes)


def _check_length(path: Path, more_bytes: int) -> None:
    """Whether the names that it has while it is made are as short as a file's must be."""
    try:
        most = os.pathconf(path.parent, "PC_NAME_MAX") - _TEMPORARY_BYTES - more_bytes
    except (AttributeError, OSError, ValueError):
        return  # the system does not say
    n_bytes = len(os.fsencode(path.name))
    if n_bytes > most:
        raise SinkError(f"{path.name} is too long a name: {n_bytes} bytes, at most {most} here")


def _check_writable(folder: Path) -> None:
    effective = os.access in os.supports_effective_ids
    if not os.access(folder, os.W_OK | os.X_OK, effective_ids=effective):
        raise SinkError(f"the folder {folder} may not be written to; choose another, or chmod it")


def _suffixes(suffixes: Iterable[str]) -> str:
    return " ".join(f"*{suffix}" for suffix in suffixes)
