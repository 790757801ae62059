"""A part file becomes the recording: ordinary, seekable from its first byte on, with its sound."""

from __future__ import annotations

import heapq
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, Final

import av
import av.error
import numpy as np
from av.audio.resampler import AudioResampler
from av.container import InputContainer, OutputContainer

from stream_cam.sinks.encoders import CONTAINERS

logger = logging.getLogger(__name__)

_AUDIO_COPIED: Final[Mapping[str, frozenset[str]]] = {
    ".mp4": frozenset({"aac", "mp3", "ac3", "eac3", "opus", "flac", "alac"}),
    ".mov": frozenset({"aac", "mp3", "ac3", "eac3", "alac", "pcm_s16le", "pcm_s24le"}),
    ".webm": frozenset({"opus", "vorbis"}),
}
"""What players expect to hear from them; Matroska holds everything."""
_AUDIO_ENCODERS: Final = {".webm": ("libopus", 48_000)}
_AUDIO_ENCODER: Final = ("aac", None)
APPLES_HEVC: Final = "hvc1"
"""The tag of HEVC in MP4 and MOV without which Apple's players show nothing."""
_LEAD_IN_SECONDS: Final = Fraction(1, 4)
CANNOT_FINISH: Final = (av.error.FFmpegError, OSError, ValueError)
"""What `finish` raises; PyAV calls a codec it does not know a wrong value."""
_START_TAG, _CUT_TAG = "stream_cam_start", "stream_cam_cut"
_KEPT_METADATA: Final = ("title", "artist", "album", "date", "creation_time", "location", "genre")


@dataclass(frozen=True)
class Sound:
    """Which part of which file's sound belongs to a recording."""

    source: str
    """The file's path."""
    start_seconds: Fraction
    """The time in the source that is 0 in the recording."""
    end_seconds: Fraction | None
    """None: to the sound's own end."""
    cut: bool = False
    """Whether the recording begins later than the source."""


def start_tags(start_seconds: Fraction, *, cut: bool) -> dict[str, str]:
    """What a part file says of its place in the source, for the case that its run is killed."""
    return {_START_TAG: str(start_seconds)} | ({_CUT_TAG: "yes"} if cut else {})


def sound_of_part(part: Path, source: str, length_seconds: Fraction) -> Sound:
    """The sound that belongs to a part file's first `length_seconds`."""
    with av.open(str(part)) as container:
        tags = {key.lower(): value for key, value in container.metadata.items()}
    start = Fraction(tags.get(_START_TAG, "0"))
    return Sound(source, start, start + length_seconds, cut=_CUT_TAG in tags)


def finish(
    part: Path, whole: Path, suffix: str, sound: Sound | None, metadata: Mapping[str, str]
) -> None:
    """Copy a closed part file's pictures, and the sound, into an ordinary file.

    Args:
        part: what was recorded.
        whole: the new file.
        suffix: of the recording's name, `.mp4`.
        sound: None for a silent recording.
        metadata: written into the file, over what is kept of the source's.

    Raises:
        CANNOT_FINISH: it cannot be done; `part` is as it was.
    """
    options = {"movflags": "+faststart+use_metadata_tags"} if suffix in (".mp4", ".mov") else {}
    with (
        av.open(str(part)) as pictures,
        av.open(str(whole), "w", format=CONTAINERS[suffix], container_options=options) as out,
    ):
        video_in = pictures.streams.video[0]
        # PyAV looks for an encoder of the decoder's name, and libdav1d is a decoder only.
        decoder_only = video_in.codec_context.name == "libdav1d"
        video_out = out.add_stream_from_template(video_in, opaque=decoder_only)
        video_out.time_base = video_in.time_base
        if video_in.codec_context.name == "hevc" and suffix in (".mp4", ".mov"):
            video_out.codec_context.codec_tag = APPLES_HEVC
        rows: list[Iterator[av.Packet[Any]]] = [_copied(pictures, video_in, video_out)]
        if sound is None:
            out.metadata.update(metadata)
            _mux(out, rows)
            return
        with av.open("file:" + sound.source) as source:
            kept = {k: v for k, v in source.metadata.items() if k.lower() in _KEPT_METADATA}
            out.metadata.update(kept | dict(metadata))
            rows += _sound_rows(source, out, suffix, sound)
            _mux(out, rows)


def _mux(out: OutputContainer, rows: list[Iterator[av.Packet[Any]]]) -> None:
    """Write packets of all streams in the order of their times."""
    for packet in heapq.merge(*rows, key=_when):
        out.mux(packet)


def _when(packet: av.Packet[Any]) -> Fraction:
    at = packet.dts if packet.dts is not None else packet.pts or 0
    return at * Fraction(packet.time_base or 0)


def _copied(container: InputContainer, stream: Any, out_stream: Any) -> Iterator[av.Packet[Any]]:
    for packet in container.demux(stream):
        if packet.dts is None or packet.is_corrupt:
            continue  # the empty packet at the end, one that was cut off
        packet.stream = out_stream
        yield packet


def _sound_rows(
    source: InputContainer, out: OutputContainer, suffix: str, sound: Sound
) -> list[Iterator[av.Packet[Any]]]:
    best: Any = source.streams.best("audio")
    if best is None:
        return []
    name = best.codec_context.name
    if suffix not in _AUDIO_COPIED or name in _AUDIO_COPIED[suffix]:
        stream: Any = out.add_stream_from_template(best)
        # MP4 says in an edit list that sound before 0 is an encoder's lead-in and not to be heard;
        # Matroska would begin with it, and show the first picture late.
        edits = suffix in (".mp4", ".mov")
        lead_in = _LEAD_IN_SECONDS if edits and not sound.cut else Fraction(0)
        earliest = sound.start_seconds - lead_in
        return [_moved(source, best, stream, sound, earliest, whole=not edits)]
    encoder, rate = _AUDIO_ENCODERS.get(suffix, _AUDIO_ENCODER)
    rate = rate or best.codec_context.sample_rate
    logger.info("the sound is transcoded from %s to %s: *%s cannot hold it", name, encoder, suffix)
    stream = out.add_stream(encoder, rate=rate)
    stream.codec_context.layout = "stereo" if best.codec_context.channels > 1 else "mono"
    return [_transcoded(source, best, stream, sound)]


def _packets(
    source: InputContainer, stream: Any, sound: Sound, earliest: Fraction, *, whole: bool = False
) -> Iterator[av.Packet[Any]]:
    """The sound's packets that last beyond `earliest`, or (`whole`) begin there at the earliest,
    and that begin before its end.
    """
    if sound.cut:
        source.seek(int(sound.start_seconds * av.time_base))
    base = Fraction(stream.time_base)
    for packet in source.demux(stream):
        if packet.pts is None or packet.dts is None:
            continue
        begin = packet.pts * base
        if begin + (packet.duration or 0) * base <= earliest or (whole and begin < earliest):
            continue
        if sound.end_seconds is not None and begin >= sound.end_seconds:
            return
        yield packet


def _moved(
    source: InputContainer,
    stream: Any,
    out_stream: Any,
    sound: Sound,
    earliest: Fraction,
    *,
    whole: bool,
) -> Iterator[av.Packet[Any]]:
    base = Fraction(stream.time_base)
    shift = round(sound.start_seconds / base)
    end = None if sound.end_seconds is None else round(sound.end_seconds / base)
    for packet in _packets(source, stream, sound, earliest, whole=whole):
        assert packet.pts is not None
        assert packet.dts is not None
        if end is not None:
            # The file is no longer than its pictures, so that segments can be put together.
            packet.duration = max(1, min(packet.duration or 0, end - packet.pts))
        packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
        packet.stream = out_stream
        yield packet


def _transcoded(
    source: InputContainer, stream: Any, out_stream: Any, sound: Sound
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

    # A decoder needs what comes before, to begin without a click.
    for packet in _packets(source, stream, sound, sound.start_seconds - _LEAD_IN_SECONDS):
        frames: Sequence[Any] = packet.decode()
        for frame in filter(None, map(heard, frames)):
            yield from encoded(resampler.resample(frame))
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
    if (first, last) == (0, frame.samples):
        return frame
    # Planar: (channels, samples); packed: (1, samples · channels).
    n_each = 1 if frame.format.is_planar else frame.layout.nb_channels
    samples: Any = frame.to_ndarray()[:, first * n_each : last * n_each]
    part = av.AudioFrame.from_ndarray(
        np.ascontiguousarray(samples), frame.format.name, frame.layout.name
    )
    part.sample_rate, part.time_base = rate, Fraction(1, rate)
    part.pts = round(begin * rate) + first
    return part
