"""Video files that play anywhere, at the source's own times, with its sound."""

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
import numpy as np
import numpy.typing as npt
from av.container import OutputContainer

from stream_cam._version import __version__
from stream_cam.atomic_files import replace_durably
from stream_cam.config import RecordConfig
from stream_cam.errors import OutputExistsError, SinkError
from stream_cam.frame import BgrImage, Colour
from stream_cam.host import scheduling_kept
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
from stream_cam.sinks.video.timestamps import Timestamps, duration
from stream_cam.sinks.video.yuv import (
    Matrix,
    coefficients,
    letterboxed,
    padded_to_even,
    yuv420_of_bgr,
)
from stream_cam.uri import printable

logger = logging.getLogger(__name__)

_HD_HEIGHT: Final = 720
_BT709, _BT601 = 1, 6
"""Code points of ITU-T H.273; 6 is BT.601 with 525 lines, the same matrix as with 625."""
_MATRICES: Final[dict[int, Matrix]] = {1: "bt709", 5: "bt601", 6: "bt601", 9: "bt2020"}
_LIMITED_RANGE, _FULL_RANGE = 1, 2
_MOST_HELD_FPS: Final = Fraction(60)
_KEYFRAME_SECONDS: Final = 2
_ASSUMED_RATE: Final = Fraction(30)
_EARLY_SECONDS: Final = 0.5
_PICTURES_A_LOOK: Final = 30
"""So often is looked how much of the disk is free, first before there is a file."""
_COPY_ROOM: Final = 1.125
"""Of the part file's size: for its copy, its sound, and what is recorded meanwhile."""
_CRASH_SAFE: Final = {
    # Fragments of a second that play as they are; an ordinary index when the file is closed.
    "movflags": "+hybrid_fragmented+frag_keyframe+use_metadata_tags",
    "frag_duration": "1000000",
}
_CRASH_SAFE_MATROSKA: Final = {"cluster_time_limit": "1000"}


class VideoSink(Sink):
    """Writes an MP4, MKV, MOV or WebM.

    Times are the source's, variable rate included, shifted so that the recording begins at 0, with
    its first picture, or with sound that begins well before. MKV and WebM round them to 1 ms, and
    sources that count finer than 1 µs are rounded to 1/90000 s, live ones to 0.1 ms. What lasts
    longer than MP4 can say is written once more. There are no B-frames, so that every player starts
    at the first picture. Odd sides grow by a repeated row or column, since 4:2:0 has none; a size
    that changes midway is letterboxed into the first. Its pixels are square. Matrix and range are
    the source's; where it is not tagged, BT.709 from 720 lines on and BT.601 below, in limited
    range.

    The file is written as `name.part.mp4` beside its place: in fragments, so that whatever ends
    the process, all but the last two seconds play (`stream-cam recover` makes a recording of it);
    of fewer than two pictures a second, all but the last three pictures. Nobody else recovers or
    replaces it meanwhile. On closing it becomes an ordinary file with the source's sound, and takes
    its name. Leaving with an exception completes it as well.

    Args:
        path: where to; a suffix of `CONTAINERS`.
        stream: what is known of the source; its rate is for the header and for the last frame's
            duration, its file for sound and metadata.
        record: codec, quality, size, sound.
        threads: the encoder's threads; 0 is as many as it thinks fit.
        begun_seconds: when the whole recording began, in the source's time, if this is a later
            segment of it.
        make_room: asked, when less than `--min-free` is left, whether so many bytes could be freed.

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
        begun_seconds: Fraction | None = None,
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
        self._begun_seconds = begun_seconds
        self._make_room = make_room
        self._until_seconds: Fraction | None = None
        self._claim: RecordingLock | None = None
        self._source_ended = False
        self._last_lasts = Fraction(0)
        """How long the last picture is shown, s, as the source says; 0: it does not."""
        self._container: OutputContainer | None = None
        self._newest: av.Packet[av.VideoStream] | None = None
        self.takes_repeats = stream.live and self._config.on_gap == "hold"
        self.repeat_seconds = float(1 / min(self._fps, _MOST_HELD_FPS))
        self.published = False
        """Whether the file has its name."""
        self.written = 0
        """Pictures given to the encoder so far."""
        self._first_seconds = self._lead_seconds = Fraction(0)
        """The first picture's time in the source, and how much earlier the sound begins."""
        self._ticks: Timestamps | None = None
        self._last_yuv: npt.NDArray[np.uint8] = np.empty((0, 0), np.uint8)

    @property
    def repaired_times(self) -> int:
        """Pictures whose time did not increase, so far."""
        return 0 if self._ticks is None else self._ticks.repaired

    @property
    def start_seconds(self) -> Fraction:
        """The time in the source that is 0 in the recording, once it has a picture."""
        return self._first_seconds - self._lead_seconds

    def close(self) -> None:
        if self._container is None:
            return
        problem = self._finish(flush=True)
        if problem is not None:
            raise self._error(problem) from problem

    def source_ended(self) -> None:
        self._source_ended = True

    def end_at(self, seconds: Fraction) -> None:
        """Its last picture and its sound last until then, a time of the source's."""
        self._until_seconds = seconds

    def write(self, picture: Picture) -> bool:
        image = picture.image_bgr
        wanted_hw = self._config.size_hw
        if wanted_hw is not None and image.shape[:2] != wanted_hw:
            image = letterboxed(image, wanted_hw)
        image = padded_to_even(image)
        try:
            if self.written % _PICTURES_A_LOOK == 0:
                self._check_space()
            if self._container is None:
                self._open(image, picture)
            self._encode(image, picture)
        except (av.error.FFmpegError, OSError, _DiskNearlyFullError) as exc:
            if self._container is not None:
                self._finish(flush=isinstance(exc, _DiskNearlyFullError))
            elif self._claim is not None:
                self._part.unlink(missing_ok=True)
                self._release()
            raise self._error(exc) from exc
        return True

    def _check_space(self) -> None:
        disk = shutil.disk_usage(self._part.parent)
        free = disk.free
        lacking = self._config.min_free_bytes - free
        # What has no size, such as /proc, is no disk.
        if disk.total and lacking > 0 and not self._make_room(lacking):
            raise _DiskNearlyFullError(
                f"its disk has only {free / 1e6:.0f} MB free (--min-free {self._config.min_free})"
            )

    def _open(self, image: BgrImage, picture: Picture) -> None:
        if self.written:
            raise SinkError(f"{self.name} is closed")
        self._refuse_to_replace()
        height, width = self._size_hw = image.shape[:2]
        frame = picture.frame
        self._first_seconds = frame.pts * frame.time_base
        if frame.index == 0 and self._has_sound():
            self._lead_seconds = self._info.audio_lead_seconds
        self._ticks = Timestamps(
            self._first_seconds,
            frame.time_base,
            matroska=self._is_matroska(),
            live=self._info.live,
        )
        self._packets = 0
        # libvpx takes no picture that lasts less than a tick, as it would if a rate was assumed.
        rate = min(self._fps, 1 / self._ticks.tick)
        encoding = choose_encoder(self._codec, self._config, fps=rate, threads=self._threads)
        self._container = self._open_container()
        self._container.metadata.update(
            self._metadata()
            | start_tags(self._first_seconds, cut=self._is_cut(), lead_seconds=self._lead_seconds)
        )
        stream = self._container.add_stream(
            encoding.encoder, rate=rate, options=dict(encoding.options)
        )
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        if self._codec == "hevc" and self._suffix in (".mp4", ".mov"):
            stream.codec_context.codec_tag = APPLE_HEVC_TAG
        codec = stream.codec_context
        codec.time_base = self._ticks.tick
        codec.gop_size = max(1, round(_KEYFRAME_SECONDS * self._fps))
        codec.thread_count = encoding.threads
        if encoding.bit_rate is not None:
            codec.bit_rate = encoding.bit_rate
        if encoding.encoder == "libx264":
            # PyAV asks for slices otherwise, which costs compression.
            codec.thread_type = "FRAME"
        self._tag(codec, self._colour_of(height))
        self._stream = stream
        with scheduling_kept():
            self._container.start_encoding()  # what cannot be written shows at the first picture

    def _open_container(self) -> OutputContainer:
        self._claim = RecordingLock(self._part, create=True)
        return av.open(
            f"file:{self._part}",  # or FFmpeg takes "a:b.mp4" for a protocol named a
            "w",
            format=CONTAINERS[self._suffix],
            container_options={
                "flush_packets": "1",
                **(_CRASH_SAFE_MATROSKA if self._is_matroska() else _CRASH_SAFE),
            },
        )

    def _colour_of(self, height: int) -> Colour:
        """The source's, or what players expect of untagged pictures of that height.

        Primaries and transfer of what was drawn are those of screens, whatever the matrix.
        """
        colour = self._info.colour
        if colour is not None and colour.matrix in _MATRICES:
            return colour
        full = colour is not None and colour.full_range
        return Colour(_BT709 if height >= _HD_HEIGHT else _BT601, _BT709, _BT709, full)

    def _tag(self, codec: av.VideoCodecContext, colour: Colour) -> None:
        self._matrix = coefficients(_MATRICES[colour.matrix], full_range=colour.full_range)
        codec.colorspace = colour.matrix
        codec.color_primaries = colour.primaries
        codec.color_trc = colour.transfer
        codec.color_range = _FULL_RANGE if colour.full_range else _LIMITED_RANGE
        self._range = int(codec.color_range)

    def _encode(self, image: BgrImage, picture: Picture) -> None:
        if image.shape[:2] != self._size_hw:
            image = letterboxed(picture.image_bgr, self._size_hw)
        yuv = yuv420_of_bgr(image, self._matrix)
        assert self._ticks is not None
        ticks, between = self._ticks.next(picture.frame.pts * picture.frame.time_base)
        for again in between:
            self._encode_at(again, self._last_yuv, self._ticks.tick)
        self._last_yuv = yuv
        self._last_lasts = picture.frame.duration * picture.frame.time_base
        self.written += 1
        self._encode_at(ticks, yuv, self._ticks.tick)

    def _encode_at(self, pts: int, yuv: npt.NDArray[np.uint8], tick: Fraction) -> None:
        """yuv: (H·3/2, W) uint8, planar 4:2:0."""
        frame = av.VideoFrame.from_ndarray(yuv, "yuv420p")
        frame.color_range = self._range
        frame.pts, frame.time_base = pts, tick
        self._mux(self._stream.encode(frame))

    def _mux(self, packets: list[av.Packet[av.VideoStream]]) -> None:
        for packet in packets:
            if self._newest is not None:
                self._put(self._newest, (packet.pts or 0) - (self._newest.pts or 0))
            self._newest = packet

    def _put(self, packet: av.Packet[av.VideoStream], ticks: int) -> None:
        assert self._container is not None
        packet.duration = duration(ticks)
        self._container.mux(packet)
        self._packets += 1

    def _put_last(self) -> None:
        if self._newest is not None and self._ticks is not None:
            until = self._ticks.until(self._last_second(), self._newest.pts or 0)
            self._put(self._newest, until)

    def _is_matroska(self) -> bool:
        return self._suffix in (".mkv", ".webm")

    def _metadata(self) -> dict[str, str]:
        made_by = f"stream-cam {__version__}"
        return {"comment": printable(f"{made_by}; {self._info.description}".rstrip("; "))}

    def _finish(self, *, flush: bool) -> Exception | None:
        """Complete the file and give it its name, or remove it; gives what went wrong."""
        assert self._container is not None
        container = self._container
        problem: Exception | None = None
        try:
            if flush:
                self._mux(self._stream.encode(None))
                self._put_last()
        except av.error.FFmpegError as exc:
            problem = exc
        finally:
            self._container = self._newest = None
        try:
            container.close()
        except (av.error.FFmpegError, OSError) as exc:
            problem = problem or exc
        try:
            if self._packets == 0:
                raise SinkError(f"{self.name}: no picture was encoded")
            self._refuse_to_replace()
            self._publish(complete=problem is None)
            self.published = True
        except OutputExistsError as exc:
            return exc
        except (av.error.FFmpegError, OSError, SinkError) as exc:
            self._remove_part()
            return problem or exc
        finally:
            self._release()
        logger.debug("%s: %d pictures", self.name, self.written)
        return problem

    def _remove_part(self) -> None:
        with suppress(OSError):
            self._part.unlink()

    def _release(self) -> None:
        if self._claim is not None:
            self._claim.close()
            self._claim = None

    def _publish(self, *, complete: bool) -> None:
        """The part file becomes the recording; if it cannot be copied, as it is."""
        sound = self._sound()
        if self._info.file is None and complete and self._is_matroska():
            replace_durably(self._part, self._path)
            return
        whole = self._path.with_name(f".{self._path.name}.whole")
        if count_pictures(self._part) == 0:
            raise SinkError(f"{self.name}: no picture can be read from what was recorded")
        try:
            self._check_room_for_copy()
            finalize(
                self._part,
                whole,
                self._suffix,
                sound,
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
        """It may not take the room that the next segment is being written into."""
        n_bytes = self._part.stat().st_size
        lacking = round(_COPY_ROOM * n_bytes) - shutil.disk_usage(self._part.parent).free
        if lacking > 0 and not self._make_room(lacking):
            raise OSError(errno.ENOSPC, "its disk has no room for a second copy of it")

    def _has_sound(self) -> bool:
        return self._info.file is not None and self._config.audio

    def _sound(self) -> AudioSpan | None:
        if self._info.file is None or not self._has_sound():
            return None
        start, ended = self.start_seconds, self._last_second()
        begun = self._first_seconds if self._begun_seconds is None else self._begun_seconds
        part = self._config.start_seconds is not None or self._config.end_seconds is not None
        length = self._info.duration_seconds
        near_end = length is not None and ended - begun >= length - _EARLY_SECONDS
        # It may go on after the last picture.
        goes_on = (self._source_ended or near_end) and not (part or self._until_seconds is not None)
        return AudioSpan(
            self._info.file,
            start,
            None if goes_on else ended,
            cut=self._is_cut(),
            lead_seconds=self._lead_seconds,
            later=self._begun_seconds is not None,
        )

    def _last_second(self) -> Fraction:
        """When the last picture ends, in the source's time."""
        if self._until_seconds is not None:
            return self._until_seconds
        assert self._ticks is not None
        lasts = self._last_lasts if self._source_ended else 0
        return self._ticks.last_seconds + (lasts or 1 / self._fps)

    def _is_cut(self) -> bool:
        return self._config.start_seconds is not None or self._begun_seconds is not None

    def _refuse_to_replace(self) -> None:
        if not self._overwrite and self._path.exists():
            kept = f"; the recording is in {self._part}" if self._part.exists() else ""
            raise OutputExistsError(f"{self.name} exists; give --overwrite to replace it{kept}")

    def _error(self, exc: Exception) -> SinkError:
        if isinstance(exc, SinkError) and not isinstance(exc, _DiskNearlyFullError):
            return exc
        kept = self._kept()
        if isinstance(exc, _DiskNearlyFullError):
            return SinkError(f"{self.name}: the recording was ended: {exc}; {kept}")
        if isinstance(exc, OSError) and exc.errno == errno.ENOSPC:
            return SinkError(f"{self.name}: the disk is full; {kept}; free some space")
        reason = getattr(exc, "strerror", None) or type(exc).__name__
        return SinkError(f"{self.name} cannot be written: {reason}; {kept}")

    def _kept(self) -> str:
        """What is left of a recording that failed."""
        n_kept = count_pictures(self._path) if self.published else 0
        return f"the first {n_kept} pictures are in it" if n_kept else "nothing was kept"


class _DiskNearlyFullError(SinkError):
    """Less is free than is to stay free."""
