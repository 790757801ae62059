"""The audio of a recording: copied from its source or transcoded, without damaged packets."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from itertools import chain
from typing import Any, Final

import av
import av.error
import numpy as np
from av.audio.resampler import AudioResampler
from av.container import InputContainer, OutputContainer

from stream_cam.frame import JUMP_SECONDS, LEAD_IN_SECONDS

logger = logging.getLogger(__name__)

_COPIED_CODECS: Final[Mapping[str, frozenset[str]]] = {
    ".mp4": frozenset({"aac", "mp3", "ac3", "eac3", "opus", "flac", "alac"}),
    ".mov": frozenset({"aac", "mp3", "ac3", "eac3", "alac", "pcm_s16le", "pcm_s24le"}),
    ".webm": frozenset({"opus", "vorbis"}),
}
"""Audio codecs that players expect in each container. Matroska holds all."""
_ENCODERS: Final = {".webm": ("libopus", 48_000)}
_DEFAULT_ENCODER: Final = ("aac", None)
_MAX_UNREADABLE_IN_A_ROW: Final = 100
_MAX_AHEAD: Final = 100
"""Packets of about 20 ms. A jump in time that lasts for this many is the source's own."""


@dataclass(frozen=True)
class AudioSpan:
    """The part of a file's audio that belongs to a recording."""

    path: str
    start_seconds: Fraction
    """The time in the source that is 0 in the recording."""
    end_seconds: Fraction | None
    """None: the audio's own end."""
    cut: bool = False
    """Whether the recording begins later than the source."""
    lead_seconds: Fraction = Fraction(0)
    """How long the recording has audio before its first picture."""
    later_segment: bool = False
    """An earlier segment has warned of audio that cannot be kept."""


def audio_packets(
    source: InputContainer, out: OutputContainer, suffix: str, span: AudioSpan, damage: list[str]
) -> list[Iterator[av.Packet[Any]]]:
    """The audio's packets for the new file, with their times there; one iterator for the stream.

    Args:
        damage: gets an entry for each part that could not be read.
    """
    best = _best_stream(source, span)
    if best is None:
        return []
    # The codec's name, not the decoder's: MP3 is decoded by `mp3float`.
    codec = best.codec_context.codec.canonical_name
    if suffix not in _COPIED_CODECS or codec in _COPIED_CODECS[suffix]:
        stream: Any = out.add_stream_from_template(best)
        _keep_language(best, stream)
        # An edit list tells MP4 players to skip audio before 0, an encoder's lead-in. Matroska has
        # none: it would begin with the lead-in and show the first picture late.
        edits = suffix in (".mp4", ".mov")
        lead_in = LEAD_IN_SECONDS if edits and not span.cut else Fraction(0)
        earliest = span.start_seconds - lead_in
        packets = _packets(source, best, span, earliest, damage, whole=not edits)
        return [_shifted(packets, best, stream, span)]
    encoder, rate = _ENCODERS.get(suffix, _DEFAULT_ENCODER)
    rate = rate or _nearest_rate(encoder, best.codec_context.sample_rate)
    logger.info("the sound is transcoded from %s to %s: *%s cannot hold it", codec, encoder, suffix)
    stream = out.add_stream(encoder, rate=rate)
    _keep_language(best, stream)
    stream.codec_context.layout = "stereo" if best.codec_context.channels > 1 else "mono"
    # With the packets before it, a decoder begins without a click.
    earliest = span.start_seconds - LEAD_IN_SECONDS
    packets = _packets(source, best, span, earliest, damage)
    return [_transcoded(packets, stream, span, damage)]


def _best_stream(source: InputContainer, span: AudioSpan) -> Any:
    """The best audio stream whose codec FFmpeg knows; None: there is none."""
    streams: list[Any] = list(source.streams.audio)
    known = [stream for stream in streams if stream.codec_context is not None]
    if streams and not known and not span.later_segment:
        logger.warning("%s: the recording has no sound: FFmpeg does not know its codec", span.path)
    best: Any = source.streams.best("audio")
    return best if best in known else next(iter(known), None)


def _keep_language(source: Any, out_stream: Any) -> None:
    language = source.metadata.get("language")
    if language:
        out_stream.metadata["language"] = language


def _nearest_rate(encoder: str, rate: int) -> int:
    """The highest sample rate of an encoder that is not above `rate`, else its lowest one."""
    taken = av.Codec(encoder, "w").audio_rates
    if not taken or rate in taken:
        return rate
    return max((each for each in taken if each <= rate), default=min(taken))


def _demuxed(source: InputContainer, stream: Any, damage: list[str]) -> Iterator[av.Packet[Any]]:
    """The stream's packets; unreadable places are skipped, as they are for pictures."""
    in_a_row = 0
    while in_a_row < _MAX_UNREADABLE_IN_A_ROW:
        try:
            for packet in source.demux(stream):
                in_a_row = 0
                yield packet
            return
        except av.error.InvalidDataError as exc:  # noqa: PERF203
            in_a_row += 1
            damage.append(str(exc))


def _in_order(
    packets: Iterator[av.Packet[Any]], base: Fraction, damage: list[str]
) -> Iterator[av.Packet[Any]]:
    """Drop packets whose time a damaged header made wrong: back, or ahead for a while.

    Args:
        base: the times' base, in seconds.
    """
    last: int | None = None
    ahead: list[av.Packet[Any]] = []
    for packet in packets:
        if packet.pts is None or packet.dts is None:
            continue
        if packet.is_corrupt:
            damage.append("a packet that its container knows to be damaged")
            continue
        newest = ahead[-1].dts if ahead else last
        if newest is not None and packet.dts <= newest:
            damage.append("a time that goes back")
            if not ahead or last is None or packet.dts <= last:
                continue
            damage += ["a time that lies ahead"] * (len(ahead) - 1)
            ahead = []  # the times go on where they were before the jump
        ahead.append(packet)
        jumped = last is not None and ((ahead[0].dts or 0) - last) * base > JUMP_SECONDS
        if not jumped or len(ahead) == _MAX_AHEAD:
            last = packet.dts  # read now: muxing changes it to other ticks
            yield from ahead
            ahead = []
    yield from ahead


def _packets(
    source: InputContainer,
    stream: Any,
    span: AudioSpan,
    earliest: Fraction,
    damage: list[str],
    *,
    whole: bool = False,
) -> Iterator[av.Packet[Any]]:
    """The packets from `earliest` to the span's end.

    Args:
        earliest: the time in the source after which a packet must end.
        whole: it must also begin there at the earliest.
    """
    if span.cut:
        source.seek(int(span.start_seconds * av.time_base))
    base = Fraction(stream.time_base)
    for packet in _in_order(_demuxed(source, stream, damage), base, damage):
        begin = (packet.pts or 0) * base
        if begin + (packet.duration or 0) * base <= earliest or (whole and begin < earliest):
            continue
        if span.end_seconds is not None and begin >= span.end_seconds:
            return
        yield packet


def _shifted(
    packets: Iterator[av.Packet[Any]], stream: Any, out_stream: Any, span: AudioSpan
) -> Iterator[av.Packet[Any]]:
    base = Fraction(stream.time_base)
    shift = round(span.start_seconds / base)
    end = None if span.end_seconds is None else round(span.end_seconds / base)
    for packet in packets:
        assert packet.pts is not None
        assert packet.dts is not None
        if end is not None:
            # The file is no longer than its pictures, so that segments can be put together.
            packet.duration = max(1, min(packet.duration or 0, end - packet.pts))
        packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
        packet.stream = out_stream
        yield packet


def _transcoded(
    packets: Iterator[av.Packet[Any]], out_stream: Any, span: AudioSpan, damage: list[str]
) -> Iterator[av.Packet[Any]]:
    codec: Any = out_stream.codec_context
    resampler = AudioResampler(
        format=codec.format,
        layout=codec.layout,
        rate=codec.sample_rate,
        frame_size=codec.frame_size or 960,
    )
    shift = round(span.start_seconds * codec.sample_rate)
    trim = partial(_trimmed, start=span.start_seconds, end=span.end_seconds)

    def encoded(frames: Iterable[Any]) -> Iterator[av.Packet[Any]]:
        for frame in frames:
            if frame is not None:
                frame.pts = max(0, round(frame.pts * frame.time_base * codec.sample_rate) - shift)
                frame.time_base = Fraction(1, codec.sample_rate)
            for packet in codec.encode(frame):
                packet.stream = out_stream
                yield packet

    for packet in packets:
        try:
            frames: Sequence[Any] = packet.decode()
            resampled = [resampler.resample(frame) for frame in filter(None, map(trim, frames))]
        except (av.error.FFmpegError, ValueError) as exc:
            damage.append(str(exc))
            continue
        yield from encoded(chain.from_iterable(resampled))
    yield from encoded([*resampler.resample(None), None])


def _trimmed(
    frame: av.AudioFrame, *, start: Fraction, end: Fraction | None
) -> av.AudioFrame | None:
    """The frame's samples between two times of the source; None: there are none."""
    rate, begin = frame.sample_rate, (frame.pts or 0) * Fraction(frame.time_base or 0)
    first = max(0, round((start - begin) * rate))
    last = frame.samples if end is None else min(frame.samples, round((end - begin) * rate))
    if first >= last:
        return None
    part = frame
    if (first, last) != (0, frame.samples):
        # Planar: (channels, samples); packed: (1, samples · channels).
        n_each = 1 if frame.format.is_planar else frame.layout.nb_channels
        samples: Any = frame.to_ndarray()[:, first * n_each : last * n_each]
        part = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(samples), frame.format.name, frame.layout.name
        )
        part.sample_rate = rate
    # Set for all frames: a resampler takes the first frame's time base for all that follow.
    part.time_base, part.pts = Fraction(1, rate), round(begin * rate) + first
    return part
