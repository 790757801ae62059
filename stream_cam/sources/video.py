"""Video files and streams through PyAV: exact times, right colours, upright."""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Iterable, Iterator
from fractions import Fraction
from functools import partial
from typing import Any, Final, Protocol

import av
import av.error
from av.container import InputContainer

from stream_cam.config import CaptureConfig
from stream_cam.errors import SourceError
from stream_cam.frame import Colour, Frame
from stream_cam.sources.base import Source, SourceInfo, StreamState
from stream_cam.sources.container import audio_lead, decoder_of, rate_of, video_stream
from stream_cam.sources.convert import BgrConverter
from stream_cam.sources.ffmpeg_errors import explain_file_error, explain_network_error
from stream_cam.sources.filters import Filters
from stream_cam.sources.paths import check_readable
from stream_cam.sources.playout import (
    SEGMENTED_FORMATS,
    SEGMENTED_OPTIONS,
    SEGMENTED_PATIENCE,
    names_segments,
)
from stream_cam.sources.timestamps import MonotonicTimestamps, TimedPicture, without_wild_timestamps
from stream_cam.sources.truncation import TruncationCheck, duration_seconds
from stream_cam.uri import NETWORK_SCHEMES, TAG_ERRORS, quoted_url, redact_uri, scheme_of

logger = logging.getLogger(__name__)

_REPAIR_SECONDS: Final = 2.0
"""Pictures of a live stream without key frames are shown again so long after damage."""
_MAX_UNREADABLE_IN_A_ROW: Final = 100
_ASSUMED_RATE: Final = Fraction(25)
_LOW_DELAY: Final = 1 << 19
"""AV_CODEC_FLAG_LOW_DELAY; PyAV's name for it has moved between versions."""
_SHORT_PROBING: Final = {"fpsprobesize": "1", "analyzeduration": "1000000"}
"""FFmpeg otherwise watches 20 frames go by for their rate: 0.6 s more to connect at 30 fps, 2 s at
10 fps. It waits 5 s for the sound of an RTMP or HTTP-FLV stream without any (measured)."""
_SDP_PROTOCOLS: Final = "file,udp,rtp,srtp,tcp,crypto,data"
"""An SDP file names addresses, which FFmpeg follows only if it may."""
_MAY_BE_FILES: Final = frozenset({"http", "https", "ftp"})


class ByteStream(Protocol):
    """A connection that is open already."""

    def read(self, most: int, /) -> bytes: ...


class VideoSource(Source):
    """A video file or a network stream.

    The first frame is decoded on entering. So `info` tells the truth about size and rotation, and
    a video that cannot be decoded fails at once.

    Args:
        uri: a path, or a URL with one of `NETWORK_SCHEMES`.
        config: time limits, RTSP transport.
        live: whether the newest frame wins; default: streams without a known duration.
        connection: where the bytes come from, instead of FFmpeg's opening the path or URL.
    """

    corrupt_frames = 0

    def __init__(
        self,
        uri: str,
        config: CaptureConfig | None = None,
        live: bool | None = None,
        connection: ByteStream | None = None,
    ) -> None:
        self._uri = uri
        self._config = config or CaptureConfig()
        self._live = live
        self._connection = connection
        self._is_sdp = not scheme_of(uri) and uri.lower().endswith(".sdp")
        self._network = scheme_of(uri) in NETWORK_SCHEMES or self._is_sdp
        self._in_segments = self._network and names_segments(quoted_url(uri))
        self._container: InputContainer | None = None
        self._frames: Iterator[Frame] | None = None
        self._first: Frame | None = None
        self._colour: Colour | None = None
        self._stopped = False
        self._packets_read = 0
        self._awaits_key_frame = False

    @property
    def stream_state(self) -> StreamState:
        patience = SEGMENTED_PATIENCE if self._in_segments else 1
        return StreamState(
            self._packets_read,
            self._awaits_key_frame,
            self._config.read_timeout_seconds * patience,
            self._in_segments,
        )

    def __enter__(self) -> VideoSource:
        self._container = self._open()
        try:
            self._start(self._container)
        except BaseException:
            self.close()
            raise
        return self

    def __iter__(self) -> Iterator[Frame]:
        if self._first is not None:
            first, self._first = self._first, None
            yield first
        if self._frames is not None:
            yield from self._frames

    def seek(self, seconds: Fraction) -> None:
        """Go to the last key frame at or before a time of a file; where that cannot be, go on."""
        if self._container is None:
            raise ValueError("the source is not open; use it in a with-statement")
        try:
            self._container.seek(int(seconds * av.time_base))
        except av.error.FFmpegError as exc:
            logger.debug("%s cannot be sought in: %s", redact_uri(self._uri), type(exc).__name__)
            return
        self._first = None
        self._frames = self._restart()

    def stop(self) -> None:
        """Ends the iteration at the next packet or time limit, from any thread."""
        self._stopped = True

    def _open(self) -> InputContainer:
        problem: SourceError
        start = time.monotonic()
        try:
            if self._connection is not None:
                return self._open_connection()
            if not self._network:
                check_readable(self._uri)
                return av.open(
                    # Without the prefix FFmpeg takes "a:b.mp4" for a protocol named a.
                    "file:" + self._uri,
                    options=self._config.ffmpeg_options,
                    metadata_errors=TAG_ERRORS,
                )
            container = self._open_url()
            if container.format.name in SEGMENTED_FORMATS and not self._in_segments:
                # Its name did not say so, and a container's time limits cannot be changed.
                self._in_segments = True
                container.close()
                container = self._open_url()
            return container
        except (av.error.FFmpegError, ValueError) as exc:
            names = ", ".join(self._config.ffmpeg_options)
            seconds = self._config.open_timeout_seconds
            late = time.monotonic() - start >= seconds
            if names and getattr(exc, "errno", None) == errno.EINVAL:
                what = f"FFmpeg does not take a value that --ffmpeg-option gives ({names})"
                shown = redact_uri(self._uri)
                problem = SourceError(f"{shown} cannot be opened: {what}", kind="codec")
            elif not self._network:
                raise explain_file_error(self._uri, exc) from exc
            else:
                problem = explain_network_error(self._uri, exc, "opened", seconds, late=late)
        # Outside the handler: FFmpeg's own error holds the URL with its password, and an
        # exception raised inside would carry it along as its context.
        raise problem

    def _open_connection(self) -> InputContainer:
        options = _SHORT_PROBING if self._network else self._config.ffmpeg_options
        return av.open(self._connection, mode="r", options=options, metadata_errors=TAG_ERRORS)

    def _open_url(self) -> InputContainer:
        scheme = scheme_of(self._uri)
        opened = partial(
            av.open,
            "file:" + self._uri if self._is_sdp else quoted_url(self._uri),
            timeout=(self._config.open_timeout_seconds, self.stream_state.read_timeout_seconds),
            metadata_errors=TAG_ERRORS,
        )
        # Not fflags=nobuffer: it drops the packets that were read to recognise the stream, with the
        # key frame among them. The first picture then waits for the next one (maybe for ever).
        options: dict[str, str] = {**(SEGMENTED_OPTIONS if self._in_segments else {})}
        if scheme in ("rtsp", "rtsps"):
            options["rtsp_transport"] = self._config.rtsp_transport
        if self._is_sdp:
            options["protocol_whitelist"] = _SDP_PROTOCOLS
        asked = self._config.ffmpeg_options
        if scheme not in _MAY_BE_FILES:
            container = opened(options={**options, **_SHORT_PROBING, **asked})
            if container.streams.video:
                return container
            container.close()  # its pictures begin late
        return opened(options={**options, **asked})

    def _start(self, container: InputContainer) -> None:
        stream = video_stream(container, redact_uri(self._uri))
        length_seconds = duration_seconds(container, stream)
        picture = container.format.name.endswith("_pipe") or container.format.name == "image2"
        live = self._live
        if live is None:
            # A URL that says how long it is, is a file that happens to be far away.
            recorded = scheme_of(self._uri) in _MAY_BE_FILES and (
                length_seconds is not None or picture
            )
            live = self._network and not recorded
        # Decoding frames on several threads at once holds as many frames back as there are
        # threads: good for files, a delay for live streams.
        stream.codec_context.thread_type = "SLICE" if live else "AUTO"
        if live:
            stream.codec_context.flags |= _LOW_DELAY
        fps = rate_of(stream)
        self._restart = partial(self._decode, container, stream, fps or _ASSUMED_RATE, live)
        self._frames = self._restart()
        self._first = next(self._frames, None)
        if self._first is None:
            raise SourceError(f"{redact_uri(self._uri)} holds a video, but no frame can be decoded")
        file = None if self._network or self._connection is not None or live else self._uri
        self._info = SourceInfo(
            name=redact_uri(self._uri),
            size_hw=self._first.size_hw,
            fps=fps,
            n_frames=stream.frames or None,
            live=live,
            duration_seconds=length_seconds,
            still=picture,
            colour=self._colour,
            audio_lead_seconds=audio_lead(container, self._first) if file else Fraction(0),
            file=file,
        )

    def _decode(
        self, container: InputContainer, stream: av.VideoStream, fps: Fraction, live: bool
    ) -> Iterator[Frame]:
        to_bgr, filters = BgrConverter(stream), Filters(self._config.deinterlace)
        timestamps = MonotonicTimestamps(fps)
        base = stream.time_base or 1 / fps
        truncation = TruncationCheck(container, stream)
        packets = self._packets(container, stream, truncation, live)
        pictures: Iterable[TimedPicture] = (
            (picture, picture.pts) for picture in self._pictures(packets, decoder_of(stream), live)
        )
        if not live:
            pictures = without_wild_timestamps(pictures, fps, base, lambda: self.corrupt_frames > 0)
        for index, (picture, said_pts) in enumerate(filters(pictures)):
            captured_ns = time.monotonic_ns()
            time_base = picture.time_base or base
            pts = timestamps.next(said_pts, time_base)
            if index == 0:
                self._colour = filters.colour
            yield Frame(
                to_bgr(picture),
                index,
                pts,
                Fraction(time_base),
                captured_ns,
                duration=picture.duration or 0,
            )
            truncation.add_picture(pts * time_base, (picture.duration or 0) * time_base)
        if truncation.is_truncated and not live and not self._stopped:
            self.corrupt_frames += 1
            logger.warning(
                "%s: its pictures end after %.1f of %.1f s: it was cut off or is damaged",
                redact_uri(self._uri),
                truncation.pictures_seconds,
                truncation.header_seconds,
            )

    def _pictures(
        self, packets: Iterable[av.Packet[Any]], decoder: av.VideoCodecContext, live: bool
    ) -> Iterator[av.VideoFrame]:
        """Decoded pictures; damaged ones are counted and left out.

        In files, where every frame counts, a picture that decodes with damage is kept. Live streams
        leave out the pictures that were predicted from damage as well: all up to the next key
        frame, or for two seconds where none comes. Packets before the first key frame of a live
        stream are not counted as damage: nobody could decode them.
        """
        damaged_at: float | None = None
        joined = not live
        for packet in packets:
            joined = joined or packet.is_keyframe
            self._awaits_key_frame = not joined or (live and damaged_at is not None)
            # A file's packet that its container marks as damaged may be missing without an error.
            known = packet.is_corrupt and not live
            self.corrupt_frames += known
            try:
                pictures = decoder.decode(packet)
            except av.error.FFmpegError as exc:
                self.corrupt_frames += joined and not known
                damaged_at = time.monotonic()
                logger.debug("damaged packet: %s", type(exc).__name__)
                continue
            for picture in pictures:
                if not isinstance(picture, av.VideoFrame):
                    continue
                if picture.is_corrupt:
                    damaged_at = time.monotonic()
                elif damaged_at is not None and (
                    picture.key_frame or time.monotonic() - damaged_at > _REPAIR_SECONDS
                ):
                    damaged_at = None
                if picture.is_corrupt or (live and damaged_at is not None):
                    self.corrupt_frames += joined and not known
                    if live:
                        continue
                yield picture

    def _packets(
        self,
        container: InputContainer,
        stream: av.VideoStream,
        truncation: TruncationCheck,
        live: bool,
    ) -> Iterator[av.Packet[av.VideoStream]]:
        """Packets to the end, past places that cannot be demuxed.

        Such a place counts once, however often FFmpeg fails at it. At the end of a network stream
        it is no damage, but the end.
        """
        streams: list[Any] = [stream] if live else list(container.streams)
        problem: SourceError
        unreadable = 0
        packet: av.Packet[Any]
        while True:
            try:
                for packet in container.demux(*streams):
                    if self._stopped:
                        return
                    self.corrupt_frames += unreadable > 0
                    unreadable = 0
                    truncation.add_packet(packet)
                    if packet.stream is stream:
                        self._packets_read += 1
                        yield packet
                self.corrupt_frames += unreadable > 0 and not self._network
                return
            except av.error.InvalidDataError:  # noqa: PERF203
                unreadable += 1
                if unreadable >= _MAX_UNREADABLE_IN_A_ROW:
                    self.corrupt_frames += not self._network
                    return
            except av.error.FFmpegError as exc:
                if not self._network:
                    raise explain_file_error(self._uri, exc, "read") from exc
                problem = explain_network_error(
                    self._uri, exc, "read", self.stream_state.read_timeout_seconds
                )
                break
        raise problem  # outside the handler, for the password's sake: see _open

    def close(self) -> None:
        frames, self._frames, self._first = self._frames, None, None
        if frames is not None:
            frames.close()  # type: ignore[attr-defined]
        if self._container is not None:
            self._container.close()
            self._container = None
            info = self._info
            if self.corrupt_frames and info is not None and not info.live:
                logger.warning("%s: %d damaged parts", info.name, self.corrupt_frames)
