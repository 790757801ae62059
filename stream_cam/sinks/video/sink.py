"""Video files that play anywhere, with the source's times and its audio."""

from __future__ import annotations

import errno
import logging
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Final

import av
import av.error
from av.container import OutputContainer

from stream_cam._version import __version__
from stream_cam.atomic_files import replace_durably
from stream_cam.config import RecordConfig
from stream_cam.errors import OutputExistsError, SinkError
from stream_cam.frame import BgrImage
from stream_cam.sinks.base import Picture, Sink, StreamInfo
from stream_cam.sinks.video.audio import AudioSpan
from stream_cam.sinks.video.encoders import CONTAINERS, check_codec, choose_encoder
from stream_cam.sinks.video.finalize import (
    APPLE_HEVC_TAG,
    FINALIZE_ERRORS,
    count_pictures,
    finalize,
    start_tags,
)
from stream_cam.sinks.video.lock import RecordingLock
from stream_cam.sinks.video.recording_names import part_path
from stream_cam.sinks.video.timestamps import Timestamps
from stream_cam.sinks.video.writer import VideoWriter
from stream_cam.sinks.video.yuv import letterboxed, padded_to_even
from stream_cam.uri import printable

logger = logging.getLogger(__name__)

_MOST_HELD_FPS: Final = Fraction(60)
_KEYFRAME_SECONDS: Final = 2
_ASSUMED_RATE: Final = Fraction(30)
_NEAR_END_SECONDS: Final = 0.5
_SPACE_CHECK_PICTURES: Final = 30
"""The free disk space is checked once per this many pictures, first before there is a file."""
_COPY_FACTOR: Final = 1.125
"""Times the part file's size: room for its copy, the audio and pictures recorded meanwhile."""
_CRASH_SAFE: Final = {
    # Fragments of a second that play as they are; an ordinary index when the file is closed.
    "movflags": "+hybrid_fragmented+frag_keyframe+use_metadata_tags",
    "frag_duration": "1000000",
}
_CRASH_SAFE_MATROSKA: Final = {"cluster_time_limit": "1000"}


class VideoSink(Sink):
    """Writes an MP4, MKV, MOV or WebM.

    Times are the source's, variable rate included. They are shifted so that the recording begins
    at 0, with its first picture or with audio that begins well before. MKV and WebM round them to
    1 ms. Time bases finer than 1 µs are rounded to 1/90000 s, those of live sources to 0.1 ms. A
    picture that lasts longer than MP4 can say is written once more.

    There are no B-frames, so that every player starts at the first picture. Odd sides grow by a
    repeated row or column, since 4:2:0 has none. A size that changes midway is letterboxed into the
    first. Pixels are square. Matrix and range are the source's. An untagged source gets BT.709 from
    720 lines on and BT.601 below, in limited range.

    The recording is written in fragments as `name.part.mp4` beside its place. Whatever ends the
    process, all of it plays but the last two seconds, or below two pictures a second the last three
    pictures. `stream-cam recover` makes a recording of it. A lock keeps other processes from
    recovering or replacing it meanwhile. Closing copies it into an ordinary file with the source's
    audio, under its final name, also after an exception.

    Args:
        path: of the recording, with a suffix of `CONTAINERS`.
        stream: the source's properties. Its rate is for the header and the last frame's duration,
            its file for audio and metadata.
        record: codec, quality, size, audio.
        threads: the encoder's threads; 0: the encoder decides.
        first_seconds: the begin of the whole recording in the source's time, for a later segment
            of it; None: this file is the recording, or its first segment.
        make_room: called when less than `--min-free` is left; tells whether so many bytes could be
            freed.

    Raises:
        UsageError: the codec does not go into such a file.
    """

    def __init__(
        self,
        path: str,
        stream: StreamInfo | None = None,
        record: RecordConfig | None = None,
        *,
        overwrite: bool = False,
        threads: int = 0,
        first_seconds: Fraction | None = None,
        make_room: Callable[[int], bool] = lambda n_bytes: False,
    ) -> None:
        self.name = path
        self._path = Path(path)
        self._suffix = self._path.suffix.lower()
        self._part = part_path(self._path)
        self._config = record or RecordConfig()
        self._codec = check_codec(self._suffix, self._config.codec)
        self._info = stream = stream or StreamInfo()
        self._fps = stream.fps or _ASSUMED_RATE
        self._overwrite = overwrite
        self._threads = threads
        self._recording_seconds = first_seconds
        self._make_room = make_room
        self._fixed_end_seconds: Fraction | None = None
        self._lock: RecordingLock | None = None
        self._source_ended = False
        self._container: OutputContainer | None = None
        self._writer: VideoWriter | None = None
        self.takes_repeats = stream.live and self._config.on_gap == "hold"
        self.repeat_seconds = float(1 / min(self._fps, _MOST_HELD_FPS))
        self.published = False
        """Whether the file has its name."""
        self.written = 0
        """Pictures given to the encoder so far."""
        self._first_seconds = self._lead_seconds = Fraction(0)
        """The first picture's time in the source, and how much earlier the audio begins."""
        self._timestamps: Timestamps | None = None

    @property
    def repaired_times(self) -> int:
        """Pictures whose time did not increase, so far."""
        return 0 if self._timestamps is None else self._timestamps.repaired

    @property
    def start_seconds(self) -> Fraction:
        """The time in the source that is 0 in the recording, once it has a picture."""
        return self._first_seconds - self._lead_seconds

    def close(self) -> None:
        if self._container is None:
            return
        problem = self._finish(flush=True)
        if problem is not None:
            raise self._described(problem) from problem

    def source_ended(self) -> None:
        self._source_ended = True

    def end_at(self, seconds: Fraction) -> None:
        """Let the last picture and the audio last until this time of the source."""
        self._fixed_end_seconds = seconds

    def write(self, picture: Picture) -> bool:
        image = picture.image_bgr
        wanted_hw = self._config.size_hw
        if wanted_hw is not None and image.shape[:2] != wanted_hw:
            image = letterboxed(image, wanted_hw)
        image = padded_to_even(image)
        try:
            if self.written % _SPACE_CHECK_PICTURES == 0:
                self._check_space()
            if self._container is None:
                self._open(image, picture)
            assert self._writer is not None
            self.written += 1
            self._writer.write(image, picture)
        except (av.error.FFmpegError, OSError, _DiskNearlyFullError) as exc:
            if self._container is not None:
                self._finish(flush=isinstance(exc, _DiskNearlyFullError))
            elif self._lock is not None:
                self._part.unlink(missing_ok=True)
                self._unlock()
            raise self._described(exc) from exc
        return True

    def _check_space(self) -> None:
        disk = shutil.disk_usage(self._part.parent)
        free = disk.free
        lacking = self._config.min_free_bytes - free
        # A file system without a size, such as /proc, is no disk.
        if disk.total and lacking > 0 and not self._make_room(lacking):
            raise _DiskNearlyFullError(
                f"its disk has only {free / 1e6:.0f} MB free (--min-free {self._config.min_free})"
            )

    def _open(self, image: BgrImage, picture: Picture) -> None:
        if self.written:
            raise SinkError(f"{self.name} is closed")
        self._check_not_there()
        frame = picture.frame
        self._first_seconds = frame.pts * frame.time_base
        if frame.index == 0 and self._keeps_audio():
            self._lead_seconds = self._info.audio_lead_seconds
        self._timestamps = Timestamps(
            self._first_seconds,
            frame.time_base,
            matroska=self._is_matroska(),
            live=self._info.live,
        )
        # libvpx refuses pictures shorter than a tick; an assumed rate could make them so.
        rate = min(self._fps, 1 / self._timestamps.tick)
        encoding = choose_encoder(self._codec, self._config, fps=rate, threads=self._threads)
        self._container = self._open_container()
        self._container.metadata.update(
            self._metadata()
            | start_tags(self._first_seconds, cut=self._is_cut(), lead_seconds=self._lead_seconds)
        )
        apples = self._codec == "hevc" and self._suffix in (".mp4", ".mov")
        self._writer = VideoWriter(
            self._container,
            encoding,
            self._timestamps,
            size_hw=image.shape[:2],
            rate=rate,
            keyframe_pictures=max(1, round(_KEYFRAME_SECONDS * self._fps)),
            colour=self._info.colour,
            codec_tag=APPLE_HEVC_TAG if apples else "",
        )

    def _open_container(self) -> OutputContainer:
        self._lock = RecordingLock(self._part, create=True)
        return av.open(
            f"file:{self._part}",  # or FFmpeg takes "a:b.mp4" for a protocol named a
            "w",
            format=CONTAINERS[self._suffix],
            container_options={
                "flush_packets": "1",
                **(_CRASH_SAFE_MATROSKA if self._is_matroska() else _CRASH_SAFE),
            },
        )

    def _is_matroska(self) -> bool:
        return self._suffix in (".mkv", ".webm")

    def _metadata(self) -> dict[str, str]:
        made_by = f"stream-cam {__version__}"
        return {"comment": printable(f"{made_by}; {self._info.description}".rstrip("; "))}

    def _finish(self, *, flush: bool) -> Exception | None:
        """Complete the file and give it its name, or remove it; returns the failure, if any."""
        assert self._container is not None
        container = self._container
        problem: Exception | None = None
        try:
            if flush and self._writer is not None:
                self._writer.flush(self._end_seconds())
        except av.error.FFmpegError as exc:
            problem = exc
        finally:
            self._container = None
        try:
            container.close()
        except (av.error.FFmpegError, OSError) as exc:
            problem = problem or exc
        try:
            if self._writer is None or self._writer.n_packets == 0:
                raise SinkError(f"{self.name}: no picture was encoded")
            self._check_not_there()
            self._publish(complete=problem is None)
            self.published = True
        except OutputExistsError as exc:
            return exc
        except (av.error.FFmpegError, OSError, SinkError) as exc:
            self._remove_part()
            return problem or exc
        finally:
            self._unlock()
        logger.debug("%s: %d pictures", self.name, self.written)
        return problem

    def _remove_part(self) -> None:
        with suppress(OSError):
            self._part.unlink()

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _publish(self, *, complete: bool) -> None:
        """Make the part file the recording; if it cannot be copied, by renaming it."""
        audio = self._audio_span()
        if self._info.file is None and complete and self._is_matroska():
            replace_durably(self._part, self._path)
            return
        whole = self._path.with_name(f".{self._path.name}.whole")
        if count_pictures(self._part) == 0:
            raise SinkError(f"{self.name}: no picture can be read from {self._part}")
        try:
            self._check_room_for_copy()
            finalize(
                self._part,
                whole,
                self._suffix,
                audio,
                self._metadata(),
                tags_of=self._info.file,
            )
            replace_durably(whole, self._path)
        except FINALIZE_ERRORS as exc:
            whole.unlink(missing_ok=True)
            reason = getattr(exc, "strerror", None) or exc
            logger.warning("%s is kept as it was recorded, without sound: %s", self.name, reason)
            os.replace(self._part, self._path)
        else:
            self._part.unlink()

    def _check_room_for_copy(self) -> None:
        """Raises OSError if the copy needs room that the next segment is being written into."""
        n_bytes = self._part.stat().st_size
        lacking = round(_COPY_FACTOR * n_bytes) - shutil.disk_usage(self._part.parent).free
        if lacking > 0 and not self._make_room(lacking):
            raise OSError(errno.ENOSPC, "its disk has no room for a second copy of it")

    def _keeps_audio(self) -> bool:
        return self._info.file is not None and self._config.audio

    def _audio_span(self) -> AudioSpan | None:
        if self._info.file is None or not self._keeps_audio():
            return None
        end = self._end_seconds()
        return AudioSpan(
            self._info.file,
            self.start_seconds,
            None if self._reaches_source_end(end) else end,
            cut=self._is_cut(),
            lead_seconds=self._lead_seconds,
            later_segment=self._recording_seconds is not None,
        )

    def _reaches_source_end(self, end: Fraction) -> bool:
        """Whether the audio goes to its own end, which may be after the last picture."""
        config, length = self._config, self._info.duration_seconds
        if config.start_seconds is not None or config.end_seconds is not None:
            return False
        if self._fixed_end_seconds is not None:
            return False
        first = self._first_seconds
        if self._recording_seconds is not None:
            first = self._recording_seconds
        near_end = length is not None and end - first >= length - _NEAR_END_SECONDS
        return self._source_ended or near_end

    def _end_seconds(self) -> Fraction:
        """The end of the last picture, in the source's time."""
        if self._fixed_end_seconds is not None:
            return self._fixed_end_seconds
        assert self._timestamps is not None
        assert self._writer is not None
        duration = self._writer.last_duration_seconds if self._source_ended else 0
        return self._timestamps.last_seconds + (duration or 1 / self._fps)

    def _is_cut(self) -> bool:
        return self._config.start_seconds is not None or self._recording_seconds is not None

    def _check_not_there(self) -> None:
        if not self._overwrite and self._path.exists():
            kept = f"; the recording is in {self._part}" if self._part.exists() else ""
            raise OutputExistsError(f"{self.name} exists; give --overwrite to replace it{kept}")

    def _described(self, exc: Exception) -> SinkError:
        """The failure as an error for the user, with the part that is kept."""
        if isinstance(exc, SinkError) and not isinstance(exc, _DiskNearlyFullError):
            return exc
        kept = self._kept_part()
        if isinstance(exc, _DiskNearlyFullError):
            return SinkError(f"{self.name}: the recording was ended: {exc}; {kept}")
        if isinstance(exc, OSError) and exc.errno == errno.ENOSPC:
            return SinkError(f"{self.name}: the disk is full; {kept}; free some space")
        reason = getattr(exc, "strerror", None) or type(exc).__name__
        return SinkError(f"{self.name} cannot be written: {reason}; {kept}")

    def _kept_part(self) -> str:
        """The part of a failed recording that can be played, in words."""
        n_kept = count_pictures(self._path) if self.published else 0
        return f"the first {n_kept} pictures are in it" if n_kept else "nothing was kept"


class _DiskNearlyFullError(SinkError):
    """Less than `--min-free` is free."""
