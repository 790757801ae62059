"""Where frames come from: a URI becomes a source."""

from __future__ import annotations

import os
import stat
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from stream_cam.config import CaptureConfig
from stream_cam.errors import UsageError, unknown_name
from stream_cam.sources.base import Source, SourceInfo
from stream_cam.sources.camera import CameraSource, camera_index, check_camera, list_cameras
from stream_cam.sources.images import ImagesSource
from stream_cam.sources.paths import check_readable, is_pattern, is_picture
from stream_cam.sources.playout import PlayoutSource, SeenFrames
from stream_cam.sources.reconnecting import ReconnectingSource
from stream_cam.uri import (
    NETWORK_SCHEMES,
    is_ambiguous,
    local_path,
    pipe_number,
    quoted_url,
    redact_uri,
    remember_secrets,
    scheme_of,
)

if TYPE_CHECKING:
    from stream_cam.sources.network import NetworkSource
    from stream_cam.sources.video import VideoSource

_SCHEMES = (*NETWORK_SCHEMES, "demo", "file")
_VARIANTS = ("rtsps", "rtmps", "rtmpt", "rtmpts", "srtp", "tls")
"""Nobody who mistypes a scheme means one of these first."""
_RECORDINGS = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".webm")
"""No one expects a video file to come back when it is not there."""
_MAY_LISTEN = ("udp", "rtp", "srtp", "tcp", "tls", "srt")
"""A host may be left out: the other side connects, or sends, to this machine."""
_PLAYLISTS = (".m3u8", ".mpd", ".sdp")

__all__ = [
    "CameraSource",
    "ImagesSource",
    "ReconnectingSource",
    "Source",
    "SourceInfo",
    "VideoSource",
    "check_camera",
    "check_source",
    "list_cameras",
    "open_source",
]


def __getattr__(name: str) -> Any:
    # PyAV is not everywhere: engines are verified on drawn scenes, and need no video.
    if name == "VideoSource":
        from stream_cam.sources.video import VideoSource

        return VideoSource
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def open_source(uri: str, config: CaptureConfig | None = None, live: bool | None = None) -> Source:
    """Choose the source that a URI names; it opens when it is entered.

    Cameras and network streams reconnect by themselves (ReconnectingSource), unless every frame
    counts.

    What can be checked without opening is checked here, before anything slow is loaded: that a
    file or folder is there and may be read.

    Args:
        uri: a camera (`0`, `/dev/video0`), `demo://…`, a URL, a picture, a folder of pictures,
            a glob, a video file, a FIFO, or `-` for the standard input.
        config: how streams are read; default: CaptureConfig's defaults.
        live: whether the newest frame wins; default: as `info.live`. Of cameras it always does. Of
            a file it does not here: who wants it live paces it (PacedSource).

    Raises:
        UsageError: a kind of URI that is not known, no host or port, a camera that is to wait.
        SourceError: there is nothing that could be opened.
    """
    if not uri.strip():
        raise UsageError(
            "the source has no name: give 0, a file, a folder, rtsp://… or demo://shapes"
        )
    config = config or CaptureConfig()
    scheme = scheme_of(uri)
    remember_secrets(uri)
    _check_options(uri, config, live)
    if scheme == "demo":
        from stream_cam.sources.demo.source import DemoSource

        demo = DemoSource(uri)
        if live is False and demo.info.live:
            raise UsageError(
                f"{uri} is live and its frames do not wait: leave out --no-live or live=1"
            )
        return demo
    if scheme in NETWORK_SCHEMES:
        _check_address(uri)
        if config.poll is not None:
            return _polled(uri, config.poll, config)
        recording = scheme in ("http", "https", "ftp") and _ends_with(uri, _RECORDINGS)
        if live is False or (recording and not live):
            return _open_url(uri, config, live)
        seen = SeenFrames()
        healing = ReconnectingSource(
            uri, lambda: PlayoutSource(_open_url(uri, healing.patient_config), seen), config
        )
        return healing
    if scheme == "file":
        return _open_path(str(local_path(uri)), config, live)
    if scheme:
        known = [f"{name}://" for name in _SCHEMES if name not in _VARIANTS]
        raise unknown_name("kind of source", f"{scheme}://", known)
    if _is_camera(uri):
        camera_index(uri)  # what names none is a mistake to be told now
        if live is False:
            raise UsageError(
                f"camera {uri} is live and its frames do not wait: leave out --no-live"
            )
        return ReconnectingSource(uri, lambda: CameraSource(uri, config), config)
    number = pipe_number(uri, 0)
    if number is not None:
        return _open_descriptor(uri, number, config, live)
    kind, colon, _ = uri.partition(":")
    if colon and kind.lower() in _SCHEMES and not os.path.exists(uri):
        # Without what follows: there may be a password in it.
        raise UsageError(f"a source of the kind {kind.lower()} begins with {kind.lower()}://")
    return _open_path(uri, config, live)


def check_source(uri: str) -> None:
    """Find out whether a source that has a path is there.

    Raises:
        SourceError: it is not, or may not be read.
    """
    path = local_path(uri)
    if path is not None and not is_pattern(str(path)):
        check_readable(str(path))


def _check_options(uri: str, config: CaptureConfig, live: bool | None) -> None:
    """Options that this kind of source has no use for are mistakes to be told now."""
    scheme, shown = scheme_of(uri), redact_uri(uri)
    if config.poll is not None and scheme not in ("http", "https"):
        raise UsageError(f"--poll fetches a picture at http:// or https://, got {shown}")
    if config.poll is not None and live is False:
        raise UsageError("--poll is live: leave out --no-live")
    if not config.ffmpeg_option:
        return
    if config.poll is not None or scheme == "demo" or _is_camera(uri):
        raise UsageError(f"--ffmpeg-option is for what FFmpeg reads, and it does not read {shown}")
    from stream_cam.sources.ffmpeg_options import check_option_names

    check_option_names(config.ffmpeg_options)


def _is_camera(uri: str) -> bool:
    return (uri.isascii() and uri.isdecimal()) or uri.startswith("/dev/video")


def _polled(url: str, seconds: float, config: CaptureConfig) -> ReconnectingSource:
    from stream_cam.sources.poll import PollSource, Seen

    seen = Seen()
    between = seconds + config.open_timeout_seconds + config.read_timeout_seconds
    patient = replace(config, read_timeout_seconds=between)
    return ReconnectingSource(url, lambda: PollSource(url, seconds, config, seen), patient)


def _check_address(url: str) -> None:
    """A host that is missing, or a port that is none, is a mistake to be told now."""
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
        raise UsageError(f"{shown} names no host, such as {parts.scheme}://192.168.1.20/stream")


def _open_url(
    url: str, config: CaptureConfig, live: bool | None = None
) -> NetworkSource | VideoSource:
    """FFmpeg reads what it alone knows; of the rest the first bytes tell who reads it."""
    from stream_cam.sources.network import NetworkSource
    from stream_cam.sources.video import VideoSource

    scheme = scheme_of(url)
    if config.ffmpeg_option:
        return VideoSource(url, config, live)
    sniffed = scheme in ("http", "https") and not _ends_with(url, (*_RECORDINGS, *_PLAYLISTS))
    # With a query, as in tcp://0.0.0.0:8000?listen=1, FFmpeg is told how to connect.
    if sniffed or (scheme == "tcp" and "?" not in url):
        return NetworkSource(url, config, live)
    return VideoSource(url, config, live)


def _ends_with(url: str, suffixes: tuple[str, ...]) -> bool:
    return urlsplit(quoted_url(url)).path.lower().endswith(suffixes)


def _open_path(path: str, config: CaptureConfig, live: bool | None) -> Source:
    path = os.path.expanduser(path)
    if is_pattern(path):
        return ImagesSource(path)
    mode = check_readable(path).st_mode
    if stat.S_ISDIR(mode) or (stat.S_ISREG(mode) and is_picture(path)):
        return ImagesSource(path)
    if not stat.S_ISREG(mode):
        from stream_cam.sources.pipe import PipeSource

        return PipeSource(path, path, config, live)
    from stream_cam.sources.video import VideoSource

    if path.lower().endswith(".sdp"):
        return ReconnectingSource(path, lambda: VideoSource(path, config, live), config)
    return VideoSource(path, config, live=False)


def _open_descriptor(uri: str, number: int, config: CaptureConfig, live: bool | None) -> Source:
    from stream_cam.sources.pipe import PipeSource

    try:
        mode = os.fstat(number).st_mode
    except OSError as exc:
        raise UsageError(f"{uri} is not open: nothing is piped into stream-cam") from exc
    if os.isatty(number):
        raise UsageError(
            f"{uri} is the terminal: pipe a video into it, as in "
            "`ffmpeg … -f mpegts - | stream-cam run -`"
        )
    path = f"/dev/fd/{number}"
    # Linux opens the file anew from its beginning, with the sound that is in it.
    if sys.platform == "linux" and stat.S_ISREG(mode) and os.path.exists(path):
        return _open_path(path, config, live)
    return PipeSource("stdin" if number == 0 else uri, number, config, live)
