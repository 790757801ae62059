"""The sound of a recording: copied from its source, or transcoded, past what is damaged in it."""

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

_AUDIO_COPIED: Final[Mapping[str, frozenset[str]]] = {
    ".mp4": frozenset({"aac", "mp3", "ac3", "eac3", "opus", "flac", "alac"}),
    ".mov": frozenset({"aac", "mp3", "ac3", "eac3", "alac", "pcm_s16le", "pcm_s24le"}),
    ".webm": frozenset({"opus", "vorbis"}),
}
"""What players expect to hear from them; Matroska holds everything."""
_AUDIO_ENCODERS: Final = {".webm": ("libopus", 48_000)}
_AUDIO_ENCODER: Final = ("aac", None)
_MOST_UNREADABLE_IN_A_ROW: Final = 100
_MOST_AHEAD: Final = 100
"""Packets, of about 20 ms each: after so many a jump in time is the source's own."""


@dataclass(frozen=True)
class AudioSpan:
    """Which part of which file's sound belongs to a recording."""

    source: str
    """The file's path."""
    start_seconds: Fraction
    """The time in the source that is 0 in the recording."""
    end_seconds: Fraction | None
    """None: to the sound's own end."""
    cut: bool = False
    """Whether the recording begins later than the source."""
    lead_seconds: Fraction = Fraction(0)
    """How long the recording has sound before its first picture."""
    later: bool = False
    """Whether it is a later segment's: an earlier one has told of sound that cannot be kept."""


def sound_rows(
    source: InputContainer, out: OutputContainer, suffix: str, sound: AudioSpan, damage: list[str]
) -> list[Iterator[av.Packet[Any]]]:
    """The packets of the sound in the new file, with their times there.

    Args:
        damage: gets a word for each part that could not be read.
    """
    best = _audible(source, sound)
    if best is None:
        return []
    # Of the codec, not of the decoder: MP3 is decoded by `mp3float`.
    name = best.codec_context.codec.canonical_name
    if suffix not in _AUDIO_COPIED or name in _AUDIO_COPIED[suffix]:
        stream: Any = out.add_stream_from_template(best)
        _keep_language(best, stream)
        # MP4 says in an edit list that sound before 0 is an encoder's lead-in and not to be heard;
        # Matroska would begin with it, and show the first picture late.
        edits = suffix in (".mp4", ".mov")
        lead_in = LEAD_IN_SECONDS if edits and not sound.cut else Fraction(0)
        earliest = sound.start_seconds - lead_in
        packets = _packets(source, best, sound, earliest, damage, whole=not edits)
        return [_moved(packets, best, stream, sound)]
    encoder, rate = _AUDIO_ENCODERS.get(suffix, _AUDIO_ENCODER)
    rate = rate or _nearest_rate(encoder, best.codec_context.sample_rate)
    logger.info("the sound is transcoded from %s to %s: *%s cannot hold it", name, encoder, suffix)
    stream = out.add_stream(encoder, rate=rate)
    _keep_language(best, stream)
    stream.codec_context.layout = "stereo" if best.codec_context.channels > 1 else "mono"
    # A decoder needs what comes before, to begin without a click.
    earliest = sound.start_seconds - LEAD_IN_SECONDS
    packets = _packets(source, best, sound, earliest, damage)
    return [_transcoded(packets, stream, sound, damage)]


def _audible(source: InputContainer, sound: AudioSpan) -> Any:
    """The best stream of sound whose codec FFmpeg knows; None: there is none."""
    streams: list[Any] = list(source.streams.audio)
    known = [stream for stream in streams if stream.codec_context is not None]
    if streams and not known and not sound.later:
        logger.warning(
            "%s: the recording has no sound: FFmpeg does not know its codec", sound.source
        )
    best: Any = source.streams.best("audio")
    return best if best in known else next(iter(known), None)


def _keep_language(source: Any, out_stream: Any) -> None:
    language = source.metadata.get("language")
    if language:
        out_stream.metadata["language"] = language


def _nearest_rate(encoder: str, rate: int) -> int:
    """The sample rate that an encoder takes and that is least below the wanted one."""
    taken = av.Codec(encoder, "w").audio_rates
    if not taken or rate in taken:
        return rate
    return max((each for each in taken if each <= rate), default=min(taken))


def _demuxed(source: InputContainer, stream: Any, damage: list[str]) -> Iterator[av.Packet[Any]]:
    """Past places that cannot be read, as the pictures are."""
    in_a_row = 0
    while in_a_row < _MOST_UNREADABLE_IN_A_ROW:
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
    """Without those whose time a damaged header says wrongly: they go back, or ahead for a while.

    Args:
        base: of the times, s.
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
            ahead = []  # the rest goes on where it was before
        ahead.append(packet)
        jumped = last is not None and ((ahead[0].dts or 0) - last) * base > JUMP_SECONDS
        if not jumped or len(ahead) == _MOST_AHEAD:
            last = packet.dts  # now: whoever muxes it counts in other ticks
            yield from ahead
            ahead = []
    yield from ahead


def _packets(
    source: InputContainer,
    stream: Any,
    sound: AudioSpan,
    earliest: Fraction,
    damage: list[str],
    *,
    whole: bool = False,
) -> Iterator[av.Packet[Any]]:
    """The sound's packets that last beyond `earliest`, or (`whole`) begin there at the earliest,
    and that begin before its end.
    """
    if sound.cut:
        source.seek(int(sound.start_seconds * av.time_base))
    base = Fraction(stream.time_base)
    for packet in _in_order(_demuxed(source, stream, damage), base, damage):
        begin = (packet.pts or 0) * base
        if begin + (packet.duration or 0) * base <= earliest or (whole and begin < earliest):
            continue
        if sound.end_seconds is not None and begin >= sound.end_seconds:
            return
        yield packet


def _moved(
    packets: Iterator[av.Packet[Any]], stream: Any, out_stream: Any, sound: AudioSpan
) -> Iterator[av.Packet[Any]]:
    base = Fraction(stream.time_base)
    shift = round(sound.start_seconds / base)
    end = None if sound.end_seconds is None else round(sound.end_seconds / base)
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
    packets: Iterator[av.Packet[Any]], out_stream: Any, sound: AudioSpan, damage: list[str]
) -> Iterator[av.Packet[Any]]:
    codec: Any = out_stream.codec_context
    resampler = AudioResampler(
        format=codec.format,
        layout=codec.layout,
        rate=codec.sample_rate,
        frame_size=codec.frame_size or 960,
    )
    shift = round(sound.start_seconds * codec.sample_rate)
    heard = partial(_trimmed, start=sound.start_seconds, end=sound.end_seconds)

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
            resampled = [resampler.resample(frame) for frame in filter(None, map(heard, frames))]
        except (av.error.FFmpegError, ValueError) as exc:
            damage.append(str(exc))
            continue
        yield from encoded(chain.from_iterable(resampled))
    yield from encoded([*resampler.resample(None), None])


def _trimmed(
    frame: av.AudioFrame, *, start: Fraction, end: Fraction | None
) -> av.AudioFrame | None:
    """What of it is heard between two times of the source's; None: nothing."""
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
    # Of all frames: a resampler takes the first one's for that of those that follow.
    part.time_base, part.pts = Fraction(1, rate), round(begin * rate) + first
    return part
