"""Video files that play anywhere: H.264, yuv420p, the source's own times."""

from __future__ import annotations

import errno
import logging
import os
from fractions import Fraction
from pathlib import Path
from typing import Final

import av
import av.error
from av.container import OutputContainer

from stream_cam.errors import OutputExistsError, SinkError
from stream_cam.frame import BgrImage
from stream_cam.sinks.base import Picture, Sink
from stream_cam.sinks.yuv import Matrix, coefficients, letterboxed, padded_to_even, yuv420_of_bgr

logger = logging.getLogger(__name__)

CONTAINERS: Final = {".mp4": "mp4", ".mkv": "matroska", ".mov": "mov"}

_HD_HEIGHT: Final = 720
_COLORSPACE: Final = {"bt709": 1, "bt601": 6}
"""Matrix tags of ITU-T H.273; 6 is BT.601 with 525 lines, the same matrix as with 625."""
_BT709: Final = 1
_LIMITED_RANGE: Final = 1
_MATROSKA_TICK: Final = Fraction(1, 1000)
_FINE_TICK: Final = Fraction(1, 90_000)
_FINEST_TICK: Final = Fraction(1, 1_000_000)
"""MP4 keeps a frame's duration in 32 bits of ticks; nanoseconds would overflow after 4 s."""
_KEYFRAME_SECONDS: Final = 2
_LEAN: Final = {"preset": "ultrafast", "x264-params": "cabac=1:deblock=0,0"}
"""x264's fastest preset, with its entropy coder and its deblocking put back.

90 overlays of 1280×720 at crf 22 take 6.4 ms of one core each, where `veryfast` at crf 20 takes
17.2; the file is 17 % smaller and its PSNR 0.2 dB higher (768×432 of a street: 3.3 for 7.3 ms, 5 %
larger, 0.1 dB higher). What costs in `veryfast` is the search for what noise does not have.
"""
_ASSUMED_RATE: Final = Fraction(30)


class VideoSink(Sink):
    """Writes an MP4, MKV or MOV.

    Times are the source's, variable rate included, shifted so that the recording begins at 0;
    MKV rounds them to 1 ms, and sources that count finer than 1 µs are rounded to 1/90000 s.
    There are no B-frames, so that every player starts at the first picture. Odd sides grow by a
    repeated row or column, since 4:2:0 has none; a size that changes midway is letterboxed into
    the first. Colours are BT.709 from 720 lines on, BT.601 below, and tagged.

    The file is written as `name.part.mp4` beside its place and takes its name when it is
    complete. Leaving with an exception completes it as well.

    Args:
        path: where to; `.mp4`, `.mkv` or `.mov`.
        fps: the nominal rate, for the header and the last frame's duration.
        crf: x264's quality, 0 (lossless) to 51.
        preset: x264's speed; default: settings of our own, fast and small on overlays.
        threads: x264's threads; 0 is as many as it thinks fit.
    """

    def __init__(
        self,
        path: str,
        *,
        fps: Fraction | None = None,
        overwrite: bool = False,
        crf: int = 22,
        preset: str | None = None,
        threads: int = 0,
    ) -> None:
        self.name = path
        self._path = Path(path)
        self._part = self._path.with_name(f"{self._path.stem}.part{self._path.suffix}")
        self._fps = fps or _ASSUMED_RATE
        self._overwrite = overwrite
        speed = _LEAN if preset is None else {"preset": preset}
        self._options = {"crf": str(crf), "bf": "0", **speed}
        self._threads = threads
        self._container: OutputContainer | None = None
        self.written = 0
        """Pictures given to the encoder so far."""
        self.repaired_times = 0
        """Pictures whose time did not increase, so far."""

    def close(self) -> None:
        if self._container is None:
            return
        problem = self._finish(flush=True)
        if problem is not None:
            raise self._error(problem) from problem

    def write(self, picture: Picture) -> bool:
        image = padded_to_even(picture.image_bgr)
        try:
            if self._container is None:
                self._open(image, picture)
            self._encode(image, picture)
        except av.error.FFmpegError as exc:
            self._finish(flush=False)
            raise self._error(exc) from exc
        return True

    def _open(self, image: BgrImage, picture: Picture) -> None:
        if self.written:
            raise SinkError(f"{self.name} is closed")
        self._refuse_to_replace()
        height, width = image.shape[:2]
        matrix: Matrix = "bt709" if height >= _HD_HEIGHT else "bt601"
        self._matrix = coefficients(matrix)
        self._size_hw = (height, width)
        self._time_base = self._tick_for(picture.frame.time_base)
        self._start_seconds = picture.frame.pts * picture.frame.time_base
        self._last_pts = -1
        self._packets = 0
        self._container = av.open(
            str(self._part),
            "w",
            format=CONTAINERS[self._path.suffix.lower()],
            container_options={} if self._is_matroska() else {"movflags": "+faststart"},
        )
        stream = self._container.add_stream("libx264", rate=self._fps, options=self._options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        codec = stream.codec_context
        codec.time_base = self._time_base
        codec.gop_size = max(1, round(_KEYFRAME_SECONDS * self._fps))
        codec.thread_count = self._threads
        # PyAV asks for slices otherwise, which costs compression.
        codec.thread_type = "FRAME"
        codec.color_range = _LIMITED_RANGE
        codec.colorspace = _COLORSPACE[matrix]
        # What the pictures hold are the primaries and the transfer of screens, whatever the
        # matrix.
        codec.color_primaries = _BT709
        codec.color_trc = _BT709
        self._stream = stream
        self._container.start_encoding()  # what cannot be written shows at the first picture

    def _encode(self, image: BgrImage, picture: Picture) -> None:
        if image.shape[:2] != self._size_hw:
            image = letterboxed(picture.image_bgr, self._size_hw)
        frame = av.VideoFrame.from_ndarray(yuv420_of_bgr(image, self._matrix), "yuv420p")
        frame.pts = self._pts_of(picture)
        frame.time_base = self._time_base
        self.written += 1
        self._mux(self._stream.encode(frame))

    def _mux(self, packets: list[av.Packet[av.VideoStream]]) -> None:
        assert self._container is not None
        for packet in packets:
            # Only the last one's counts: the others last until the next begins.
            packet.duration = max(1, round(1 / (self._fps * self._time_base)))
            self._container.mux(packet)
            self._packets += 1

    def _pts_of(self, picture: Picture) -> int:
        seconds = picture.frame.pts * picture.frame.time_base - self._start_seconds
        pts = round(seconds / self._time_base)
        if pts <= self._last_pts:
            self.repaired_times += 1
            pts = self._last_pts + 1
        self._last_pts = pts
        return pts

    def _tick_for(self, time_base: Fraction) -> Fraction:
        if self._is_matroska():
            return _MATROSKA_TICK
        return time_base if time_base >= _FINEST_TICK else _FINE_TICK

    def _is_matroska(self) -> bool:
        return self._path.suffix.lower() == ".mkv"

    def _finish(self, *, flush: bool) -> Exception | None:
        """Complete the file and give it its name, or remove it; gives what went wrong."""
        assert self._container is not None
        problem: Exception | None = None
        if flush:
            try:
                self._mux(self._stream.encode(None))
            except av.error.FFmpegError as exc:
                problem = exc
        container, self._container = self._container, None
        try:
            container.close()
            if self._packets == 0:
                raise SinkError(f"{self.name}: no picture was encoded")
            self._refuse_to_replace()
            os.replace(self._part, self._path)
        except OutputExistsError as exc:
            return exc
        except (av.error.FFmpegError, OSError, SinkError) as exc:
            self._part.unlink(missing_ok=True)
            return problem or exc
        logger.debug("%s: %d pictures", self.name, self.written)
        return problem

    def _refuse_to_replace(self) -> None:
        if not self._overwrite and self._path.exists():
            kept = f"; the recording is in {self._part}" if self._container is None else ""
            raise OutputExistsError(f"{self.name} exists; give --overwrite to replace it{kept}")

    def _error(self, exc: Exception) -> SinkError:
        if isinstance(exc, SinkError):
            return exc
        kept = (
            f"the first {self._packets} pictures are in it"
            if self._packets and self._path.exists() and not self._part.exists()
            else "nothing was kept"
        )
        if isinstance(exc, OSError) and exc.errno == errno.ENOSPC:
            return SinkError(f"{self.name}: the disk is full; {kept}; free some space")
        reason = getattr(exc, "strerror", None) or type(exc).__name__
        return SinkError(f"{self.name} cannot be written: {reason}; {kept}")
