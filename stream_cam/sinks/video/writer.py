"""Encodes pictures into a container that is open, at the source's times."""

from __future__ import annotations

from fractions import Fraction
from typing import Final

import av
import numpy as np
import numpy.typing as npt
from av.container import OutputContainer

from stream_cam.frame import BgrImage, Colour
from stream_cam.host import scheduling_kept
from stream_cam.sinks.base import Picture
from stream_cam.sinks.video.encoders import Encoding
from stream_cam.sinks.video.timestamps import Timestamps, clamp_duration
from stream_cam.sinks.video.yuv import Matrix, bgr_to_yuv420, letterboxed, yuv_matrix

_HD_HEIGHT: Final = 720
_BT709, _BT601 = 1, 6
"""Code points of ITU-T H.273; 6 is BT.601 with 525 lines, the same matrix as with 625."""
_MATRICES: Final[dict[int, Matrix]] = {1: "bt709", 5: "bt601", 6: "bt601", 9: "bt2020"}
_LIMITED_RANGE, _FULL_RANGE = 1, 2


class VideoWriter:
    """The video stream of one container.

    A packet is muxed when the next one comes, since only then its duration is known.

    Args:
        container: open; its metadata are set.
        encoding: the encoder and its options.
        timestamps: of this file.
        size_hw: of all its pictures; others are letterboxed. Both sides are even.
        rate: pictures per second, for the header.
        keyframe_pictures: distance of key frames.
        colour: the source's tags; None: it has none.
        codec_tag: of the stream; "": FFmpeg's default.

    Raises:
        av.error.FFmpegError: the encoder or the container refuse it.
    """

    def __init__(
        self,
        container: OutputContainer,
        encoding: Encoding,
        timestamps: Timestamps,
        *,
        size_hw: tuple[int, int],
        rate: Fraction,
        keyframe_pictures: int,
        colour: Colour | None,
        codec_tag: str = "",
    ) -> None:
        self._container = container
        self._timestamps = timestamps
        self._size_hw = size_hw
        self._pending: av.Packet[av.VideoStream] | None = None
        self._last_yuv: npt.NDArray[np.uint8] = np.empty((0, 0), np.uint8)
        self.n_packets = 0
        """Packets in the container so far."""
        self.last_duration_seconds = Fraction(0)
        """The last picture's duration, as the source says; 0: it does not."""
        stream = container.add_stream(encoding.encoder, rate=rate, options=dict(encoding.options))
        assert isinstance(stream, av.VideoStream)
        self._stream = stream
        stream.height, stream.width = size_hw
        stream.pix_fmt = "yuv420p"
        codec = stream.codec_context
        if codec_tag:
            codec.codec_tag = codec_tag
        codec.time_base = timestamps.tick
        codec.gop_size = keyframe_pictures
        codec.thread_count = encoding.threads
        if encoding.bit_rate is not None:
            codec.bit_rate = encoding.bit_rate
        if encoding.encoder == "libx264":
            # PyAV asks for slices otherwise, which costs compression.
            codec.thread_type = "FRAME"
        self._tag_colour(codec, _colour_tags(colour, size_hw[0]))
        with scheduling_kept():
            container.start_encoding()  # shows at the first picture that nothing can be written

    def write(self, image_bgr: BgrImage, picture: Picture) -> None:
        """Encode a picture at its frame's time.

        Args:
            image_bgr: (H, W, 3) uint8, the picture's image, perhaps padded to even sides.
            picture: with the frame, and the image to be letterboxed if the size changed midway.
        """
        if image_bgr.shape[:2] != self._size_hw:
            image_bgr = letterboxed(picture.image_bgr, self._size_hw)
        yuv = bgr_to_yuv420(image_bgr, self._matrix)
        frame = picture.frame
        pts, repeats = self._timestamps.append(frame.pts * frame.time_base)
        for repeat_pts in repeats:
            self._encode(self._last_yuv, repeat_pts)
        self._last_yuv = yuv
        self.last_duration_seconds = frame.duration * frame.time_base
        self._encode(yuv, pts)

    def flush(self, end_seconds: Fraction) -> None:
        """Write all that the encoder holds.

        Args:
            end_seconds: the last picture's end, in the source's time.
        """
        self._mux(self._stream.encode(None))
        if self._pending is not None:
            ticks = self._timestamps.duration_until(end_seconds, self._pending.pts or 0)
            self._mux_packet(self._pending, ticks)
            self._pending = None

    def _encode(self, yuv: npt.NDArray[np.uint8], pts: int) -> None:
        """yuv: (H·3/2, W) uint8, planar 4:2:0."""
        frame = av.VideoFrame.from_ndarray(yuv, "yuv420p")
        frame.color_range = self._range
        frame.pts, frame.time_base = pts, self._timestamps.tick
        self._mux(self._stream.encode(frame))

    def _mux(self, packets: list[av.Packet[av.VideoStream]]) -> None:
        for packet in packets:
            if self._pending is not None:
                self._mux_packet(self._pending, (packet.pts or 0) - (self._pending.pts or 0))
            self._pending = packet

    def _mux_packet(self, packet: av.Packet[av.VideoStream], ticks: int) -> None:
        packet.duration = clamp_duration(ticks)
        self._container.mux(packet)
        self.n_packets += 1

    def _tag_colour(self, codec: av.VideoCodecContext, colour: Colour) -> None:
        self._matrix = yuv_matrix(_MATRICES[colour.matrix], full_range=colour.full_range)
        codec.colorspace = colour.matrix
        codec.color_primaries = colour.primaries
        codec.color_trc = colour.transfer
        codec.color_range = _FULL_RANGE if colour.full_range else _LIMITED_RANGE
        self._range = int(codec.color_range)


def _colour_tags(colour: Colour | None, height: int) -> Colour:
    """The source's tags, or those that players assume for untagged pictures of that height.

    Drawn pictures have the primaries and the transfer of screens, whatever the matrix.
    """
    if colour is not None and colour.matrix in _MATRICES:
        return colour
    full = colour is not None and colour.full_range
    return Colour(_BT709 if height >= _HD_HEIGHT else _BT601, _BT709, _BT709, full)
