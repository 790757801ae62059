"""Turns a part file into the recording: an ordinary file with audio, its index at the front."""

from __future__ import annotations

import heapq
import logging
from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import av
import av.error
from av.container import InputContainer, OutputContainer

from stream_cam.sinks.video.audio import AudioSpan, audio_packets
from stream_cam.sinks.video.encoders import CONTAINERS
from stream_cam.uri import TAG_ERRORS, printable

logger = logging.getLogger(__name__)

APPLE_HEVC_TAG: Final = "hvc1"
"""The tag of HEVC in MP4 and MOV without which Apple's players show nothing."""
FINALIZE_ERRORS: Final = (av.error.FFmpegError, OSError, ValueError)
"""Errors of `finalize`. PyAV raises ValueError for a codec that it does not know."""
_START_TAG, _CUT_TAG, _LEAD_TAG = "stream_cam_start", "stream_cam_cut", "stream_cam_lead"
_KEPT_METADATA: Final = ("title", "artist", "album", "date", "creation_time", "location", "genre")


def start_tags(
    start_seconds: Fraction, *, cut: bool, lead_seconds: Fraction = Fraction(0)
) -> dict[str, str]:
    """Metadata with a part file's place in the source, for the case that its run is killed."""
    tags = {_START_TAG: str(start_seconds)} | ({_CUT_TAG: "yes"} if cut else {})
    return tags | ({_LEAD_TAG: str(lead_seconds)} if lead_seconds else {})


def audio_of_part(part: Path, source: str, length_seconds: Fraction) -> AudioSpan:
    """The audio that belongs to a part file's first `length_seconds`."""
    with av.open(f"file:{part}") as container:
        tags = {key.lower(): value for key, value in container.metadata.items()}
    first, lead = Fraction(tags.get(_START_TAG, "0")), Fraction(tags.get(_LEAD_TAG, "0"))
    return AudioSpan(source, first - lead, first + length_seconds, _CUT_TAG in tags, lead)


def finalize(
    part: Path,
    whole: Path,
    suffix: str,
    audio: AudioSpan | None,
    metadata: Mapping[str, str],
    *,
    tags_of: str | None = None,
) -> None:
    """Copy a closed part file's pictures, and the sound, into an ordinary file.

    AudioSpan that cannot be copied is left out, with a warning.

    Args:
        part: the part file.
        whole: the new file.
        suffix: of the recording's name, `.mp4`.
        audio: None for a silent recording.
        metadata: written into the file; overrides metadata kept from `tags_of`.
        tags_of: the source's file, of which title, date and the like are kept.

    Raises:
        FINALIZE_ERRORS: it cannot be done; `part` is as it was.
    """
    tags = _kept_of(tags_of) | dict(metadata)
    if audio is not None:
        try:
            _copy(part, whole, suffix, audio, tags)
        except OSError:
            raise  # a full disk is no fault of the audio
        except FINALIZE_ERRORS as exc:
            if not audio.later_segment:
                logger.warning("%s: the recording has no sound: %s", audio.path, exc)
        else:
            return
    _copy(part, whole, suffix, None, tags)


def _copy(
    part: Path, whole: Path, suffix: str, audio: AudioSpan | None, tags: Mapping[str, str]
) -> None:
    options = {"movflags": "+faststart+use_metadata_tags"} if suffix in (".mp4", ".mov") else {}
    with (
        av.open(f"file:{part}") as pictures,
        av.open(f"file:{whole}", "w", format=CONTAINERS[suffix], container_options=options) as out,
    ):
        video_in = pictures.streams.video[0]
        # PyAV looks for an encoder of the decoder's name, and libdav1d is a decoder only.
        decoder_only = video_in.codec_context.name == "libdav1d"
        video_out = out.add_stream_from_template(video_in, opaque=decoder_only)
        video_out.time_base = video_in.time_base
        if video_in.codec_context.name == "hevc" and suffix in (".mp4", ".mov"):
            video_out.codec_context.codec_tag = APPLE_HEVC_TAG
        lead = Fraction(0) if audio is None else audio.lead_seconds
        streams: list[Iterator[av.Packet[Any]]] = [_copied(pictures, video_in, video_out, lead)]
        out.metadata.update(tags)
        if audio is None:
            _mux(out, streams, [])
            return
        with av.open("file:" + audio.path, metadata_errors=TAG_ERRORS) as source:
            damage: list[str] = []
            streams += audio_packets(source, out, suffix, audio, damage)
            _mux(out, streams, damage)
        if damage:
            logger.warning(
                "%s: damaged parts of its sound that are left out: %d", audio.path, len(damage)
            )


def _kept_of(path: str | None) -> dict[str, str]:
    if path is None:
        return {}
    with av.open("file:" + path, metadata_errors=TAG_ERRORS) as source:
        return {k: printable(v) for k, v in source.metadata.items() if k.lower() in _KEPT_METADATA}


def _mux(out: OutputContainer, streams: list[Iterator[av.Packet[Any]]], damage: list[str]) -> None:
    """Write packets of all streams in the order of their times."""
    for packet in heapq.merge(*streams, key=_time_of):
        is_audio = packet.stream.type == "audio"
        try:
            out.mux(packet)
        except av.error.FFmpegError as exc:
            if not is_audio or isinstance(exc, OSError):
                raise
            damage.append(str(exc))  # the container refuses a packet with a broken header


def _time_of(packet: av.Packet[Any]) -> Fraction:
    at = packet.dts if packet.dts is not None else packet.pts or 0
    return at * Fraction(packet.time_base or 0)


def _copied(
    container: InputContainer, stream: Any, out_stream: Any, lead_seconds: Fraction
) -> Iterator[av.Packet[Any]]:
    lead = round(lead_seconds / Fraction(stream.time_base))
    for packet in container.demux(stream):
        if packet.dts is None or packet.is_corrupt:
            continue  # the empty packet at the end, or one that was cut off
        packet.pts, packet.dts = (packet.pts or 0) + lead, packet.dts + lead
        packet.stream = out_stream
        yield packet


def count_pictures(path: Path) -> int:
    """The number of pictures that can be read from a video file, complete or not."""
    count = 0
    try:
        with av.open(f"file:{path}") as container:
            for packet in container.demux(video=0):
                count += packet.size > 0 and not packet.is_corrupt
    except (av.error.FFmpegError, IndexError):
        pass  # the pictures before it can be read
    return count
