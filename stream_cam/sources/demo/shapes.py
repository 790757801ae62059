"""Antialiased drawing of the ten demo shapes, with Numpy and OpenCV only.

The training pictures of the demo model and the `demo://` source draw with the same code, so
the demo shows the shapes that the model has learnt.
"""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from stream_cam.sources.demo.outlines import FloatArray, Outline

ByteArray = npt.NDArray[np.uint8]
BoxXyxy = tuple[float, float, float, float]

_SUBPIXEL_BITS: Final = 4


def render_mask(
    shape: Outline,
    size_px: float,
    *,
    scale_xy: tuple[float, float] = (1.0, 1.0),
    line_width: float | None = None,
    offset_xy: tuple[float, float] = (0.0, 0.0),
) -> tuple[ByteArray, tuple[int, int]]:
    """Draw the shape as an antialiased coverage mask.

    Args:
        shape: the outline to draw, already rotated.
        size_px: pixels for one unit of the outline.
        scale_xy: stretches the finished mask, lines included, as resizing a frame does.
        line_width: outline width as a share of the size; None fills the contours.
        offset_xy: the centre's sub-pixel part, 0..1.

    Returns:
        The mask, (h, w) uint8 0..255, and the whole-pixel position (x, y) of its top-left
        corner relative to the shape's centre.
    """
    points = np.concatenate(shape.contours + shape.strokes)
    stroke_px = shape.stroke_width * size_px if line_width is None else line_width * size_px
    margin_px = stroke_px / 2 + 3
    low = np.floor(points.min(axis=0) * size_px - margin_px).astype(int)
    high = np.ceil(points.max(axis=0) * size_px + margin_px).astype(int) + 1
    mask = np.zeros((high[1] - low[1], high[0] - low[0]), np.uint8)
    thickness = max(1, round(stroke_px))

    def pixels(line: FloatArray) -> npt.NDArray[np.int32]:
        moved = line * size_px - low + np.asarray(offset_xy)
        return np.asarray(np.round(moved * (1 << _SUBPIXEL_BITS)), np.int32)

    closed = [pixels(line) for line in shape.contours]
    opened = [pixels(line) for line in shape.strokes]
    if closed and (line_width is None or shape.filled_only):
        cv2.fillPoly(mask, closed, 255, cv2.LINE_AA, _SUBPIXEL_BITS)
    elif closed:
        cv2.polylines(mask, closed, True, 255, thickness, cv2.LINE_AA, _SUBPIXEL_BITS)
    if opened:
        cv2.polylines(mask, opened, False, 255, thickness, cv2.LINE_AA, _SUBPIXEL_BITS)
    if scale_xy == (1.0, 1.0):
        return mask, (int(low[0]), int(low[1]))
    width = max(1, round(mask.shape[1] * scale_xy[0]))
    height = max(1, round(mask.shape[0] * scale_xy[1]))
    stretched = np.asarray(cv2.resize(mask, (width, height), interpolation=cv2.INTER_AREA))
    corner = (round(low[0] * scale_xy[0]), round(low[1] * scale_xy[1]))
    return stretched.astype(np.uint8, copy=False), corner


def mask_box(mask: ByteArray) -> BoxXyxy | None:
    """The tight box (x0, y0, x1, y1) of the pixels that a mask covers at least half."""
    x, y, width, height = cv2.boundingRect((mask > 127).astype(np.uint8))
    if width == 0:
        return None
    return float(x), float(y), float(x + width), float(y + height)


def draw(
    frame_bgr: ByteArray,
    shape: Outline,
    centre_xy: tuple[float, float],
    size_px: float,
    *,
    colour_bgr: tuple[float, float, float],
    opacity: float = 1.0,
    line_width: float | None = None,
    scale_xy: tuple[float, float] = (1.0, 1.0),
) -> BoxXyxy | None:
    """Draw a shape into a frame, in place, and touch only the patch that it covers.

    Args:
        frame_bgr: (H, W, 3) uint8, changed in place.
        shape: the outline to draw, already rotated.
        centre_xy: where its centre comes to lie, in pixels; parts outside are cut off.
        size_px: pixels for one unit of the outline.
        colour_bgr: 0..255 each.
        opacity: 0..1.
        line_width: outline width as a share of the size; None fills the contours.
        scale_xy: stretches the shape and its lines.

    Returns:
        The tight box (x0, y0, x1, y1) in pixels of the visible part; None if nothing is visible.
    """
    whole_x, whole_y = int(np.floor(centre_xy[0])), int(np.floor(centre_xy[1]))
    offset_xy = (centre_xy[0] - whole_x, centre_xy[1] - whole_y)
    mask, corner = render_mask(
        shape, size_px, scale_xy=scale_xy, line_width=line_width, offset_xy=offset_xy
    )
    placed = clip_to_frame(mask, (whole_x + corner[0], whole_y + corner[1]), frame_bgr.shape)
    if placed is None:
        return None
    mask, (x, y) = placed
    patch = frame_bgr[y : y + mask.shape[0], x : x + mask.shape[1]]
    blend_colour(patch, mask, colour_bgr, opacity)
    box = mask_box(mask)
    return None if box is None else (box[0] + x, box[1] + y, box[2] + x, box[3] + y)


def clip_to_frame(
    mask: ByteArray, corner_xy: tuple[int, int], frame_shape: tuple[int, ...]
) -> tuple[ByteArray, tuple[int, int]] | None:
    """Cut a mask at the frame's edges; gives the rest and its corner, None if nothing is left."""
    x, y = corner_xy
    height, width = frame_shape[:2]
    cut = mask[max(0, -y) : max(0, height - y), max(0, -x) : max(0, width - x)]
    return None if cut.size == 0 else (cut, (max(0, x), max(0, y)))


def blend_colour(
    patch_bgr: ByteArray,
    mask: ByteArray,
    colour_bgr: tuple[float, float, float],
    opacity: float = 1.0,
) -> None:
    """Blend one colour into a patch, in place, weighted by a mask (h, w) uint8 0..255."""
    colour = np.empty_like(patch_bgr)
    colour[:] = np.clip(np.round(colour_bgr), 0, 255).astype(np.uint8)
    weight = mask.astype(np.float32) * np.float32(opacity / 255)
    cv2.blendLinear(colour, patch_bgr, weight, 1 - weight, patch_bgr)
