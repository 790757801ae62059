"""Video files as a kind of output."""

from __future__ import annotations

import os
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Final

from stream_cam.errors import OutputExistsError, UsageError
from stream_cam.sinks.base import Sink
from stream_cam.sinks.kinds import Output, SinkKind
from stream_cam.sinks.path_checks import (
    check_is_no_folder,
    check_not_source,
    check_not_there,
    check_parent,
)
from stream_cam.sinks.video.encoders import CONTAINERS, check_codec, check_settings
from stream_cam.sinks.video.lock import check_unlocked
from stream_cam.sinks.video.recording_names import part_path
from stream_cam.sinks.video.segment_names import is_segment_of
from stream_cam.sinks.video.segments import SegmentSink
from stream_cam.sinks.video.sink import VideoSink
from stream_cam.uri import local_path

_SEGMENT_BYTES: Final = 20
"""`out-20261122T101500_100.mp4` is longer than `out.mp4` by this much."""
_STILLS_A_SECOND: Final = 1


def _check(output: Output) -> None:
    check_is_no_folder(output)
    path, record = output.path, output.record
    if record is not None:
        check_settings(check_codec(path.suffix.lower(), record.codec), record)
    source = None if output.source is None else local_path(output.source)
    if source is not None:
        check_not_source(path, source)
        if output.segmented and is_segment_of(source, path):
            raise UsageError(
                f"{output.source} is called like a segment of {output.uri}; give another name"
            )
    check_parent(path, _SEGMENT_BYTES if output.segmented else 0)
    if not output.segmented:  # check_segments needs to know whether the source is live
        check_not_there(output)
        _check_part(output, part_path(path))


def _check_part(output: Output, part: Path) -> None:
    check_unlocked(part)
    if os.path.exists(part) and not output.overwrite:
        raise OutputExistsError(
            f"{part} is there, left by a run that was killed: `stream-cam recover {output.uri}` "
            "makes a recording of it, --overwrite replaces it"
        )


def _make(output: Output) -> Sink:
    path, stream, record = str(output.path), output.stream, output.record
    if stream.still:
        stream = replace(stream, fps=Fraction(_STILLS_A_SECOND))
    if record is not None and record.segment is not None:
        return SegmentSink(path, stream, record, overwrite=output.overwrite)
    return VideoSink(path, stream, record, overwrite=output.overwrite)


VIDEO: Final = SinkKind(
    "video",
    usage=" ".join(f"*{suffix}" for suffix in CONTAINERS),
    make=_make,
    check=_check,
    suffixes=tuple(CONTAINERS),
    options={"segment": "--segment is for recordings: give a video as output, such as out.mp4"},
)
