"""`stream-cam recover`: what a run that was killed left becomes a recording."""

from __future__ import annotations

from fractions import Fraction
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
    for left in (left for name in command.recording for left in _meant(Path(name))):
        try:
            path, n_pictures, seconds = recover(
                left, sound_of=command.sound_of, overwrite=command.overwrite
            )
        except StreamCamError as error:  # noqa: PERF203
            failure = failure or error
        else:
            print(f"recovered {path}: {n_pictures} pictures, {seconds:.1f} s", flush=True)
    if failure is not None:
        raise failure


def _meant(path: Path) -> list[Path]:
    """The recording itself, or what is left of its segments."""
    if path.stem.endswith(".part") or part_path(path).exists():
        return [path]
    parts = [
        each.path for live in (False, True) for each in segments_of(path, live=live, part=True)
    ]
    return parts or [path]


def recover(
    path: Path, *, sound_of: Path | None = None, overwrite: bool = False
) -> tuple[Path, int, float]:
    """Make an ordinary recording of what a killed run left beside it.

    Args:
        path: the recording's name, or its part file's.

    Returns:
        The recording, how many pictures are in it, and how many seconds it lasts.

    Raises:
        SourceError: there is nothing to recover, or no picture in it.
        OutputExistsError: the recording is there as well, or is still being made.
        SinkError: it cannot be written.
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
        n_pictures, seconds = _recovered(part, path, sound_of)
    return path, n_pictures, float(seconds)


def _recovered(part: Path, path: Path, sound_of: Path | None) -> tuple[int, Fraction]:
    """`recover`, once the part file is ours."""
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
    """When the last picture ends."""
    end = Fraction(0)
    with av.open(f"file:{part}") as container:
        for packet in container.demux(video=0):
            if packet.pts is not None and not packet.is_corrupt:
                base = Fraction(packet.time_base)
                end = max(end, (packet.pts + (packet.duration or 0)) * base)
    return end
