"""`stream-cam recover`: completes the recordings of killed runs."""

from __future__ import annotations

from fractions import Fraction
from itertools import chain
from pathlib import Path

import av
import av.error

from stream_cam.atomic_files import replace_durably
from stream_cam.cli.options import RecoverCommand
from stream_cam.errors import (
    OutputExistsError,
    SinkError,
    SourceError,
    StreamCamError,
    UsageError,
)
from stream_cam.sinks.video.encoders import CONTAINERS
from stream_cam.sinks.video.finalize import FINALIZE_ERRORS, audio_of_part, count_pictures, finalize
from stream_cam.sinks.video.lock import RecordingLock
from stream_cam.sinks.video.recording_names import part_path
from stream_cam.sinks.video.segment_names import segments_of
from stream_cam.sources.ffmpeg_errors import explain_file_error
from stream_cam.sources.paths import check_readable, refuse_pipe
from stream_cam.uri import TAG_ERRORS


def recover_command(command: RecoverCommand) -> None:
    """Finishes each recording, and prints its length.

    A recording in segments is given as one of its segments, or as its own name for all of them.

    Raises:
        StreamCamError: the error of the first recording that failed; the others are recovered.
    """
    if not command.recording:
        raise UsageError("which recording? give its name, such as out.mp4")
    failure: StreamCamError | None = None
    for path in chain.from_iterable(map(_recordings, map(Path, command.recording))):
        try:
            recording, n_pictures, seconds = recover(
                path, sound_of=command.sound_of, overwrite=command.overwrite
            )
        except StreamCamError as error:  # noqa: PERF203
            failure = failure or error
        else:
            print(f"recovered {recording}: {n_pictures} pictures, {seconds:.1f} s", flush=True)
    if failure is not None:
        raise failure


def _recordings(path: Path) -> list[Path]:
    """The recording itself, or its unfinished segments."""
    if path.stem.endswith(".part") or part_path(path).exists():
        return [path]
    parts = [
        each.path for live in (False, True) for each in segments_of(path, live=live, part=True)
    ]
    return parts or [path]


def recover(
    path: Path, *, sound_of: Path | None = None, overwrite: bool = False
) -> tuple[Path, int, float]:
    """Makes an ordinary recording of the part file that a killed run left.

    Args:
        path: the recording, or its part file.

    Returns:
        The recording, its number of pictures, and its length in seconds.

    Raises:
        SourceError: there is nothing to recover, or the part file has no picture.
        OutputExistsError: the recording exists too, or is still being written.
        SinkError: the recording cannot be written.
    """
    if path.stem.endswith(".part"):
        part, path = path, path.with_name(path.stem.removesuffix(".part") + path.suffix)
    else:
        part = part_path(path)
    suffix = path.suffix.lower()
    if suffix not in CONTAINERS:
        raise UsageError(f"{path} is not a recording: its name ends in {', '.join(CONTAINERS)}")
    if not part.is_file():
        raise SourceError(f"there is no {part}: nothing to recover for {path.name}")
    if path.exists() and not overwrite:
        raise OutputExistsError(f"{path} exists; give --overwrite to replace it")
    try:
        claim = RecordingLock(part)
    except OSError as exc:
        raise SourceError(f"{part} cannot be read: {exc.strerror}") from exc
    with claim:
        n_pictures, seconds = _recover_locked(part, path, sound_of)
    return path, n_pictures, float(seconds)


def _recover_locked(part: Path, path: Path, sound_of: Path | None) -> tuple[int, Fraction]:
    """`recover`, with the lock of the part file."""
    n_pictures = count_pictures(part)
    if not n_pictures:
        raise SourceError(f"no picture can be read from {part}; remove it")
    if sound_of is not None:
        _check_sound(sound_of)
    whole = path.with_name(f".{path.name}.whole")
    try:
        with av.open(f"file:{part}") as container:
            metadata = {k: v for k, v in container.metadata.items() if k.lower() == "comment"}
        seconds = _last_second(part)
        sound = None if sound_of is None else audio_of_part(part, str(sound_of), seconds)
        tags_of = None if sound_of is None else str(sound_of)
        finalize(part, whole, path.suffix.lower(), sound, metadata, tags_of=tags_of)
        replace_durably(whole, path)
    except FINALIZE_ERRORS as exc:
        whole.unlink(missing_ok=True)
        reason = getattr(exc, "strerror", None) or type(exc).__name__
        raise SinkError(f"{path} cannot be written: {reason}; {part} is as it was") from exc
    part.unlink()
    return n_pictures, seconds


def _check_sound(source: Path) -> None:
    try:
        refuse_pipe(str(source), "--sound-of")
        check_readable(str(source))
        with av.open(f"file:{source}", metadata_errors=TAG_ERRORS) as container:
            n_tracks = len(container.streams.audio)
    except av.error.FFmpegError as exc:
        raise explain_file_error(str(source), exc) from exc
    if not n_tracks:
        raise SourceError(f"{source} has no sound in it; leave out --sound-of")


def _last_second(part: Path) -> Fraction:
    """The end of the last picture, in seconds."""
    end = Fraction(0)
    with av.open(f"file:{part}") as container:
        for packet in container.demux(video=0):
            if packet.pts is not None and not packet.is_corrupt:
                base = Fraction(packet.time_base)
                end = max(end, (packet.pts + (packet.duration or 0)) * base)
    return end
