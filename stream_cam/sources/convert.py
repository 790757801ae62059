"""Conversion of decoded video pictures to upright BGR arrays with the right colours."""

from __future__ import annotations

from fractions import Fraction
from typing import Any, Final

import av
import numpy as np
from av.sidedata.sidedata import SideDataContainer
from av.sidedata.sidedata import Type as SideDataType
from av.video.reformatter import VideoReformatter

from stream_cam.frame import BgrImage, Colour
from stream_cam.sources.orientation import orientation_of_matrix, upright
from stream_cam.sources.pictures import over_white

_BT601: Final = 5
_BT709: Final = 1
# AVColorSpace of the frame (ITU-T H.273) → swscale's matrix (SWS_CS_*).
_MATRICES: Final = {1: _BT709, 4: 4, 5: _BT601, 6: _BT601, 7: 7, 9: 9, 10: 9}
_FULL_RANGE: Final = 2
_HD_HEIGHT: Final = 720
_HD_WIDTH: Final = 1280
_MOST_ASPECT: Final = 8
"""The largest ratio of a pixel's sides; anamorphic films have 2."""


def _unknown_side_data(cls: type[SideDataType], value: Any) -> SideDataType:
    member = object.__new__(cls)
    member._name_, member._value_ = f"UNKNOWN_{value}", value
    return member


# FFmpeg attaches more kinds of side data than PyAV lists (EXIF is 31, and 18.1 ends at 27), and
# PyAV refuses all of a picture's for one that it does not know, the display matrix with it.
SideDataType._missing_ = classmethod(_unknown_side_data)  # type: ignore[assignment,method-assign]


class BgrConverter:
    """Converts decoded pictures of any format; keeps swscale's tables from one to the next.

    Args:
        stream: their stream, which says the shape of their pixels.
    """

    def __init__(self, stream: av.VideoStream) -> None:
        self._reformatter = VideoReformatter()
        self._stream = stream
        codec = stream.codec_context
        said = stream.sample_aspect_ratio
        # A container's word counts more than the codec's, which may change on the way.
        self._said = said if said and said != codec.sample_aspect_ratio else None
        self._aspect: Fraction | None = None
        self._formats: dict[str, tuple[bool, bool]] = {}

    def __call__(self, picture: av.VideoFrame) -> BgrImage:
        """Give the picture as (H, W, 3) uint8 BGR 0..255, full range, turned as players do.

        The matrix is the one the stream is tagged with. Untagged streams are BT.709 from 720
        lines or 1280 columns on and BT.601 below, as players guess; swscale by itself takes
        BT.601 for all of them, which makes untagged HD too green. Alpha goes over white. Pixels
        that are not square are made so, by more columns or more rows.
        """
        is_rgb, has_alpha = self._format_of(picture)
        matrix = None if is_rgb else _matrix_of(picture)
        if picture.key_frame or not self._aspect:
            # The decoder is ahead of its pictures; another shape begins with a key frame.
            self._aspect = self._said or self._stream.codec_context.sample_aspect_ratio
        width, height = _square(picture.width, picture.height, self._aspect)
        converted = self._reformatter.reformat(
            picture,
            width,
            height,
            format="bgra" if has_alpha else "bgr24",
            src_colorspace=matrix,
            # BGR has no matrix, but PyAV before 17 takes no notice of the source's where it
            # equals this one, nor of the range unless it is told.
            dst_colorspace=None if matrix is None else _BT601 if matrix == _BT709 else _BT709,
            src_color_range=int(picture.color_range) or None,
            dst_color_range=_FULL_RANGE,
        )
        array: np.ndarray[Any, np.dtype[Any]] = converted.to_ndarray()
        image = over_white(array) if has_alpha else np.asarray(array, dtype=np.uint8)
        # Not `picture.side_data`: the picture would keep that, and that the picture, so that
        # hundreds of decoded pictures wait for Python's garbage collector to find them. PyAV's type
        # stub lacks its constructor's argument.
        side_data = SideDataContainer(picture)  # type: ignore[call-arg]
        turn = side_data.get("DISPLAYMATRIX")
        if turn is None:
            return image
        return upright(image, orientation_of_matrix(bytes(turn)))

    def _format_of(self, picture: av.VideoFrame) -> tuple[bool, bool]:
        name = picture.format.name
        known = self._formats.get(name)
        if known is None:
            has_alpha = any(component.is_alpha for component in picture.format.components)
            known = self._formats[name] = (
                picture.format.is_rgb or picture.format.has_palette,
                has_alpha or picture.format.has_palette,
            )
        return known


def _square(width: int, height: int, aspect: Fraction | None) -> tuple[int, int]:
    """The size with square pixels, in even numbers where it is another."""
    if not aspect or not 1 / _MOST_ASPECT <= aspect <= _MOST_ASPECT:
        return width, height  # nobody said it, or a damaged header did
    if aspect > 1:
        wide = 2 * round(width * aspect / 2)
        return (wide if abs(wide - width) > 1 else width), height
    high = 2 * round(height / aspect / 2)
    return width, (high if abs(high - height) > 1 else height)


def colour_of(picture: av.VideoFrame) -> Colour | None:
    """How a picture is tagged; None where nothing says which matrix or range it has."""
    matrix, range_ = int(picture.colorspace), int(picture.color_range)
    if matrix not in _MATRICES and range_ != _FULL_RANGE:
        return None
    return Colour(
        matrix=matrix if matrix in _MATRICES else _matrix_of(picture),
        primaries=int(picture.color_primaries),
        transfer=int(picture.color_trc),
        full_range=range_ == _FULL_RANGE,
    )


def _matrix_of(picture: av.VideoFrame) -> int:
    hd = picture.height >= _HD_HEIGHT or picture.width >= _HD_WIDTH
    return _MATRICES.get(int(picture.colorspace), _BT709 if hd else _BT601)
