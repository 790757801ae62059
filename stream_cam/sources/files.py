"""Kinds of sources that lie at a path: videos, SDP files, pipes; and the standard input."""

from __future__ import annotations

import os
import stat
import sys
from dataclasses import replace
from typing import Final

from stream_cam.errors import UsageError
from stream_cam.sources.base import Source
from stream_cam.sources.kinds import Input, SourceKind, kind_of
from stream_cam.sources.paths import check_readable
from stream_cam.sources.reconnecting import ReconnectingSource
from stream_cam.uri import pipe_number

_FFMPEG: Final = frozenset({"ffmpeg_option"})


def _check_path(source: Input) -> None:
    if source.path is not None:
        check_readable(source.path)


def _make_video(source: Input) -> Source:
    from stream_cam.sources.video import VideoSource

    return VideoSource(source.path or "", source.config, live=False)


def _make_sdp(source: Input) -> Source:
    from stream_cam.sources.video import VideoSource

    path = source.path or ""
    return ReconnectingSource(
        path, lambda: VideoSource(path, source.config, source.live), source.config
    )


def _is_pipe(source: Input) -> bool:
    if source.path is None:
        return pipe_number(source.uri, 0) is not None
    is_file = os.path.isfile(source.path) or os.path.isdir(source.path)
    return os.path.exists(source.path) and not is_file


def _check_pipe(source: Input) -> None:
    descriptor = pipe_number(source.uri, 0)
    if descriptor is None:
        _check_path(source)
        return
    try:
        os.fstat(descriptor)
    except OSError as exc:
        raise UsageError(f"{source.uri} is not open: nothing is piped into stream-cam") from exc
    if os.isatty(descriptor):
        raise UsageError(
            f"{source.uri} is the terminal: pipe a video into it, as in "
            "`ffmpeg … -f mpegts - | stream-cam run -`"
        )
    if (redirected := _redirected_file(source)) is not None:
        kind_of(redirected).check(redirected)


def _redirected_file(source: Input) -> Input | None:
    """The file that was redirected into a descriptor; Linux opens it anew, with its sound."""
    descriptor = pipe_number(source.uri, 0)
    path = f"/dev/fd/{descriptor}"
    if descriptor is None or sys.platform != "linux" or not os.path.exists(path):
        return None
    is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
    return replace(source, uri=path) if is_file else None


def _make_pipe(source: Input) -> Source:
    from stream_cam.sources.pipe import PipeSource

    if (redirected := _redirected_file(source)) is not None:
        return kind_of(redirected).make(redirected)
    descriptor = pipe_number(source.uri, 0)
    if descriptor is None:
        path = source.path or ""
        return PipeSource(path, path, source.config, source.live)
    name = source.uri if descriptor else "stdin"
    return PipeSource(name, descriptor, source.config, source.live)


PIPE: Final = SourceKind(
    "pipe", make=_make_pipe, check=_check_pipe, claims=_is_pipe, options=_FFMPEG
)
SDP: Final = SourceKind(
    "SDP file",
    make=_make_sdp,
    check=_check_path,
    claims=lambda source: (source.path or "").lower().endswith(".sdp"),
    options=_FFMPEG,
)
VIDEO: Final = SourceKind(
    "video file",
    make=_make_video,
    check=_check_path,
    claims=lambda source: source.path is not None,
    options=_FFMPEG,
)
"""The last kind in the table: any path is a video file unless it is something else."""
