"""Streams of a container: which one is the video, its decoder and rate, when the sound begins."""

from __future__ import annotations

from fractions import Fraction
from typing import Final

import av
import av.codec
from av.container import InputContainer
from av.stream import Disposition

from stream_cam.errors import SourceError
from stream_cam.frame import LEAD_IN_SECONDS, Frame

_TEXT_FORMATS: Final = frozenset({"tty", "bin", "xbin", "adf", "idf"})
"""FFmpeg draws text files as ANSI art by their suffix (.txt, .nfo, .asc…) and calls it video."""
_HIGHEST_RATE: Final = Fraction(1000)
"""FFmpeg takes Matroska's ticks for pictures where there are few pictures a second."""
_WITH_ALPHA: Final = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
"""FFmpeg's own decoders of these codecs leave the alpha out."""


def video_stream(container: InputContainer, name: str) -> av.VideoStream:
    """The stream that players choose.

    Raises:
        SourceError: there is none whose pictures can be read.
    """
    if container.format.name in _TEXT_FORMATS:
        raise SourceError(f"{name} is not a video that FFmpeg can read, but text")
    videos = container.streams.video
    streams = [
        stream
        for stream in videos
        if not stream.disposition & (Disposition.attached_pic | Disposition.dependent)
    ]
    if not streams and any(stream.disposition & Disposition.dependent for stream in videos):
        raise SourceError(
            f"{name} is a picture of several tiles, and FFmpeg reads one; "
            f"give it as a file whose name ends in .heic or .avif"
        )
    known = [stream for stream in streams if stream.codec_context is not None]
    if streams and not known:
        raise SourceError(
            f"{name} holds a video of a codec that FFmpeg does not know; "
            f"convert it with the program that made it"
        )
    streams = known
    best = container.streams.best("video")
    if best in streams:
        return streams[streams.index(best)]
    if streams:
        return streams[0]
    kinds = sorted({str(stream.type) for stream in container.streams}) or ["nothing"]
    raise SourceError(
        f"{name} has no video in it, only {' and '.join(kinds)}; "
        f"give a file or stream with pictures"
    )


def decoder_of(stream: av.VideoStream) -> av.VideoCodecContext:
    """The stream's own decoder, or the one that gives the alpha of its pictures as well."""
    own = stream.codec_context
    name = _WITH_ALPHA.get(own.name)
    tags = {key.lower(): value for key, value in stream.metadata.items()}
    if name is None or tags.get("alpha_mode") != "1" or name not in av.codec.codecs_available:
        return own
    decoder = av.CodecContext.create(name, "r")
    assert isinstance(decoder, av.VideoCodecContext)
    decoder.extradata = own.extradata
    return decoder


def rate_of(stream: av.VideoStream) -> Fraction | None:
    """Pictures a second on average; None: that is not known."""
    for rate in (stream.average_rate, stream.guessed_rate, stream.base_rate):
        if rate and 0 < rate < _HIGHEST_RATE:
            return Fraction(rate)
    return None


def audio_lead(container: InputContainer, first: Frame) -> Fraction:
    """How much earlier than the first picture the sound begins, unless it is hardly any."""
    for stream in container.streams.audio:
        if stream.codec_context is not None and stream.start_time is not None and stream.time_base:
            lead = first.pts * first.time_base - stream.start_time * stream.time_base
            return lead if lead > LEAD_IN_SECONDS else Fraction(0)
    return Fraction(0)
