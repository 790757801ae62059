"""A part file becomes the recording: ordinary, seekable from its first byte on, with its sound."""

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

from stream_cam.sinks.video.audio import AudioSpan, sound_rows
from stream_cam.sinks.video.encoders import CONTAINERS
from stream_cam.uri import TAG_ERRORS, printable

logger = logging.getLogger(__name__)

APPLE_HEVC_TAG: Final = "hvc1"
"""The tag of HEVC in MP4 and MOV without which Apple's players show nothing."""
FINALIZE_ERRORS: Final = (av.error.FFmpegError, OSError, ValueError)
"""What `finalize` raises; PyAV calls a codec it does not know a wrong value."""
_START_TAG, _CUT_TAG, _LEAD_TAG = "stream_cam_start", "stream_cam_cut", "stream_cam_lead"
_KEPT_METADATA: Final = ("title", "artist", "album", "date", "creation_time", "location", "genre")


def start_tags(
    start_seconds: Fraction, *, cut: bool, lead_seconds: Fraction = Fraction(0)
) -> dict[str, str]:
    """What a part file says of its place in the source, for the case that its run is killed."""
    tags = {_START_TAG: str(start_seconds)} | ({_CUT_TAG: "yes"} if cut else {})
    return tags | ({_LEAD_TAG: str(lead_seconds)} if lead_seconds else {})


def audio_of_part(part: Path, source: str, length_seconds: Fraction) -> AudioSpan:
    """The sound that belongs to a part file's first `length_seconds`."""
    with av.open(f"file:{part}") as container:
        tags = {key.lower(): value for key, value in container.metadata.items()}
    first, lead = Fraction(tags.get(_START_TAG, "0")), Fraction(tags.get(_LEAD_TAG, "0"))
    return AudioSpan(source, first - lead, first + length_seconds, _CUT_TAG in tags, lead)


def finalize(
    part: Path,
    whole: Path,
    suffix: str,
    sound: AudioSpan | None,
    metadata: Mapping[str, str],
    *,
    tags_of: str | None = None,
) -> None:
    """Copy a closed part file's pictures, and the sound, into an ordinary file.

    AudioSpan that cannot be copied is left out, with a warning.

    Args:
        part: what was recorded.
        whole: the new file.
        suffix: of the recording's name, `.mp4`.
        sound: None for a silent recording.
        tags_of: the file whose title, date and the like are kept.
        metadata: written into the file, over what is kept of the source's.

    Raises:
        FINALIZE_ERRORS: it cannot be done; `part` is as it was.
    """
    tags = _kept_of(tags_of) | dict(metadata)
    if sound is not None:
        try:
            _copy(part, whole, suffix, sound, tags)
        except OSError:
            raise  # a full disk is no fault of the sound
        except FINALIZE_ERRORS as exc:
            if not sound.later:
                logger.warning("%s: the recording has no sound: %s", sound.source, exc)
        else:
            return
    _copy(part, whole, suffix, None, tags)


def _copy(
    part: Path, whole: Path, suffix: str, sound: AudioSpan | None, tags: Mapping[str, str]
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
        lead = Fraction(0) if sound is None else sound.lead_seconds
        rows: list[Iterator[av.Packet[Any]]] = [_copied(pictures, video_in, video_out, lead)]
        out.metadata.update(tags)
        if sound is None:
            _mux(out, rows, [])
            return
        with av.open("file:" + sound.source, metadata_errors=TAG_ERRORS) as source:
            damage: list[str] = []
            rows += sound_rows(source, out, suffix, sound, damage)
            _mux(out, rows, damage)
        if damage:
            logger.warning(
                "%s: damaged parts of its sound that are left out: %d", sound.source, len(damage)
            )


def _kept_of(path: str | None) -> dict[str, str]:
    if path is None:
        return {}
    with av.open("file:" + path, metadata_errors=TAG_ERRORS) as source:
        return {k: printable(v) for k, v in source.metadata.items() if k.lower() in _KEPT_METADATA}


def _mux(out: OutputContainer, rows: list[Iterator[av.Packet[Any]]], damage: list[str]) -> None:
    """Write packets of all streams in the order of their times."""
    for packet in heapq.merge(*rows, key=_when):
        is_sound = packet.stream.type == "audio"
        try:
            out.mux(packet)
        except av.error.FFmpegError as exc:
            if not is_sound or isinstance(exc, OSError):
                raise
            damage.append(str(exc))  # a container takes no packet whose header is broken


def _when(packet: av.Packet[Any]) -> Fraction:
    at = packet.dts if packet.dts is not None else packet.pts or 0
    return at * Fraction(packet.time_base or 0)


def _copied(
    container: InputContainer, stream: Any, out_stream: Any, lead_seconds: Fraction
) -> Iterator[av.Packet[Any]]:
    lead = round(lead_seconds / Fraction(stream.time_base))
    for packet in container.demux(stream):
        if packet.dts is None or packet.is_corrupt:
            continue  # the empty packet at the end, one that was cut off
        packet.pts, packet.dts = (packet.pts or 0) + lead, packet.dts + lead
        packet.stream = out_stream
        yield packet


def count_pictures(path: Path) -> int:
    """How many pictures can be read from a video file, also from one that is not complete."""
    count = 0
    try:
        with av.open(f"file:{path}") as container:
            for packet in container.demux(video=0):
                count += packet.size > 0 and not packet.is_corrupt
    except (av.error.FFmpegError, IndexError):
        pass  # what came before can be read
    return count
