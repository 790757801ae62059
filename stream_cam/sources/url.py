"""Cameras, streams and files at a URL: how one is checked, read and reconnected."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from stream_cam.errors import UsageError
from stream_cam.sources.base import Source
from stream_cam.sources.kinds import Input, SourceKind
from stream_cam.sources.playout import PlayoutSource, SeenFrames
from stream_cam.sources.reconnecting import ReconnectingSource
from stream_cam.uri import NETWORK_SCHEMES, is_ambiguous, quoted_url, redact_uri, scheme_of

if TYPE_CHECKING:
    from stream_cam.sources.network import NetworkSource
    from stream_cam.sources.video import VideoSource

_RECORDINGS: Final = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".webm")
"""A video file on a server is not waited for when it is not there."""
_PLAYLISTS: Final = (".m3u8", ".mpd", ".sdp")
_MAY_LISTEN: Final = ("udp", "rtp", "srtp", "tcp", "tls", "srt")
"""A host may be left out: the other side connects, or sends, to this machine."""


def _check_url(source: Input) -> None:
    config, scheme = source.config, scheme_of(source.uri)
    if config.poll is not None:
        if scheme not in ("http", "https"):
            raise UsageError(f"--poll fetches a picture at http:// or https://, got {source.shown}")
        if source.live is False:
            raise UsageError("--poll is live: leave out --no-live")
        if config.ffmpeg_option:
            raise UsageError(
                "FFmpeg does not read the pictures of --poll: leave out --ffmpeg-option"
            )
    _check_address(source.uri)


def _check_address(url: str) -> None:
    """Raises UsageError for a missing host, an impossible port, or a URL with two readings."""
    shown = redact_uri(url)
    if is_ambiguous(url):
        # A wrong guess would send a piece of the password to a name server.
        raise UsageError(
            f"{shown} can be read in two ways, because a password or path holds @, /, ? or #: "
            "write %40 for @, %2F for /, %3F for ?, %23 for #"
        )
    parts = urlsplit(quoted_url(url))
    try:
        port = parts.port
    except ValueError as exc:
        raise UsageError(f"{shown} has no port from 1 to 65535 after its host") from exc
    if port == 0:
        raise UsageError(f"{shown} has no port from 1 to 65535 after its host")
    if not parts.hostname and parts.scheme not in _MAY_LISTEN:
        raise UsageError(
            f"{shown} names no host; an address reads {parts.scheme}://192.168.1.20/stream"
        )


def _make_source(source: Input) -> Source:
    """One connection if every frame counts, or else a source that reconnects."""
    url, live = source.uri, source.live
    if source.config.poll is not None:
        return _make_polled(source, source.config.poll)
    may_be_file = scheme_of(url) in ("http", "https", "ftp")
    if live is False or (may_be_file and _ends_with(url, _RECORDINGS) and not live):
        return _connection(source)
    seen = SeenFrames()

    def connect() -> PlayoutSource:
        # Without `live`: a recorded file is played at its own times, once.
        patient = replace(source, config=reconnecting.patient_config, live=None)
        return PlayoutSource(_connection(patient), seen)

    reconnecting = ReconnectingSource(url, connect, source.config)
    return reconnecting


def _make_polled(source: Input, interval_seconds: float) -> ReconnectingSource:
    from stream_cam.sources.poll import LatestPicture, PollSource

    url, config, latest = source.uri, source.config, LatestPicture()
    fetch_seconds = config.open_timeout_seconds + config.read_timeout_seconds
    patient = replace(config, read_timeout_seconds=interval_seconds + fetch_seconds)
    return ReconnectingSource(
        url, lambda: PollSource(url, interval_seconds, config, latest), patient
    )


def _connection(source: Input) -> NetworkSource | VideoSource:
    """One connection: by FFmpeg, or by NetworkSource, which looks at the first bytes."""
    from stream_cam.sources.network import NetworkSource
    from stream_cam.sources.video import VideoSource

    url, scheme = source.uri, scheme_of(source.uri)
    is_http = scheme in ("http", "https") and not _ends_with(url, (*_RECORDINGS, *_PLAYLISTS))
    # With a query, as in tcp://0.0.0.0:8000?listen=1, FFmpeg is told how to connect.
    is_plain_tcp = scheme == "tcp" and "?" not in url
    if (is_http or is_plain_tcp) and not source.config.ffmpeg_option:
        return NetworkSource(url, source.config, source.live)
    return VideoSource(url, source.config, source.live)


def _ends_with(url: str, suffixes: tuple[str, ...]) -> bool:
    return urlsplit(quoted_url(url)).path.lower().endswith(suffixes)


STREAM: Final = SourceKind(
    "stream",
    make=_make_source,
    check=_check_url,
    schemes=NETWORK_SCHEMES,
    options=frozenset({"poll", "ffmpeg_option"}),
)
