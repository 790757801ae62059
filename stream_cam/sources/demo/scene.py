"""The demo camera's scene: a lit wall over a desk, and shapes that glide in front of it.

The scenery is painted once; a frame costs one saturating addition of sensor noise and the patch
under the shape, so that no pipeline waits for this source.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from stream_cam.frame import Truth
from stream_cam.sources.demo.outlines import SHAPE_NAMES, Outline, outline, rotated
from stream_cam.sources.demo.shapes import (
    BoxXyxy,
    ByteArray,
    clip_to_frame,
    mask_box,
    render_mask,
)

SHAPE_SECONDS: Final = 1.65
"""Six shapes come and go in ten seconds."""
_APPEAR_SECONDS: Final = 0.3
_VANISH_SECONDS: Final = 0.2
_GAP_SECONDS: Final = 0.12
_LEAST_OPACITY: Final = 0.4
"""A shape that is in the truth can be seen: it starts and ends at this opacity."""

_NOISE_LEVEL: Final = 9
"""Sensor noise is 0..2 of these grey levels, added to a scene painted one of them darker."""
_NOISE_SHIFT_PX: Final = 61

_SHADOW_DEPTH: Final = 0.4
"""How much light a shape's shadow takes from the wall, 0..1."""

_COLOURS_BGR: Final = (
    (58, 62, 222),
    (52, 140, 245),
    (70, 208, 250),
    (92, 176, 66),
    (176, 158, 30),
    (196, 112, 40),
    (164, 66, 132),
    (146, 84, 230),
    (62, 48, 40),
    (240, 244, 246),
)
_WALLS_BGR: Final = ((196, 208, 214), (206, 202, 186), (186, 206, 196), (190, 196, 216))


@dataclass(frozen=True)
class _Turn:
    """One shape's time before the camera: its look and its path."""

    shape: Outline
    size_px: float
    line_width: float | None
    colour_bgr: tuple[int, int, int]
    from_xy: tuple[float, float]
    to_xy: tuple[float, float]
    angles_deg: tuple[float, float]


class Scene:
    """The wall, the light and the shapes in front of it."""

    def __init__(self, width_px: int, height_px: int, seed: int) -> None:
        self._width_px, self._height_px, self._seed = width_px, height_px, seed
        rng = np.random.default_rng([seed, 0])
        self._wall_bgr = _WALLS_BGR[int(rng.integers(len(_WALLS_BGR)))]
        lit, light = _scenery(rng, width_px, height_px, self._wall_bgr)
        self._scenery, self._light = lit, light
        tile = rng.normal(
            _NOISE_LEVEL, 2.6, (height_px + _NOISE_SHIFT_PX, width_px + _NOISE_SHIFT_PX)
        )
        tinted = tile[..., None] + rng.normal(0, 1.0, (*tile.shape, 3)).astype(np.float32)
        self._noise = np.clip(np.round(tinted), 0, 2 * _NOISE_LEVEL).astype(np.uint8)
        self._turn_number, self._turn = -1, self._make_turn(0)

    def frame(self, index: int, seconds: float) -> tuple[ByteArray, tuple[Truth, ...]]:
        """Paint one frame.

        Returns:
            The picture, (H, W, 3) uint8 BGR, and the shape in it, if there is one.
        """
        # Two large primes spread the noise's offset over the tile without a generator a frame.
        dx, dy = (index * 7919 + 13) % _NOISE_SHIFT_PX, (index * 104_729) % _NOISE_SHIFT_PX
        noise = self._noise[dy : dy + self._height_px, dx : dx + self._width_px]
        image = np.asarray(cv2.add(self._scenery, noise), np.uint8)
        number, into = divmod(seconds, SHAPE_SECONDS)
        shown_seconds = SHAPE_SECONDS - _GAP_SECONDS
        if into >= shown_seconds:
            return image, ()
        if int(number) != self._turn_number:
            self._turn_number, self._turn = int(number), self._make_turn(int(number))
        box = self._draw(image, noise, self._turn, into, shown_seconds)
        return image, () if box is None else (Truth(self._turn.shape.name, box),)

    def _make_turn(self, number: int) -> _Turn:
        cycle, place = divmod(number, len(SHAPE_NAMES))
        order = np.random.default_rng([self._seed, 1, cycle]).permutation(len(SHAPE_NAMES))
        rng = np.random.default_rng([self._seed, 2, number])
        shape = outline(SHAPE_NAMES[int(order[place])], rng)
        width, height = self._width_px, self._height_px
        size_px = min(rng.uniform(0.36, 0.56) * height, 0.6 * width)
        reach = 0.62 * size_px / width, 0.62 * size_px / height
        ends = [rng.uniform((0, 0), (1, 1)) for _ in range(2)]
        ends[1] = ends[0] + np.clip(ends[1] - ends[0], -0.5, 0.5)
        low, high = np.array(reach), 1 - np.array(reach)
        from_xy, to_xy = ((low + end * (high - low)) * (width, height) for end in ends)
        turn = 360.0 if shape.name == "arrow" else 0.0
        start, stop = rng.uniform(-26, 26, 2) + rng.uniform(0, 1) * turn
        lined = bool(shape.contours) and not shape.filled_only and rng.random() < 0.35
        return _Turn(
            shape,
            float(size_px),
            float(rng.uniform(0.07, 0.11)) if lined else None,
            self._colour(rng),
            (float(from_xy[0]), float(from_xy[1])),
            (float(to_xy[0]), float(to_xy[1])),
            (float(start), float(stop)),
        )

    def _colour(self, rng: np.random.Generator) -> tuple[int, int, int]:
        """A colour that stands out from the wall."""
        far = [c for c in _COLOURS_BGR if math.dist(c, self._wall_bgr) > 110]
        return far[int(rng.integers(len(far)))]

    def _draw(
        self, image: ByteArray, noise: ByteArray, turn: _Turn, into: float, shown: float
    ) -> BoxXyxy | None:
        opacity, scale = _entrance(into, shown)
        eased = _smooth(into / shown)
        angle = turn.angles_deg[0] + (turn.angles_deg[1] - turn.angles_deg[0]) * eased
        x, y = (a + (b - a) * eased for a, b in zip(turn.from_xy, turn.to_xy, strict=True))
        y += 0.012 * self._height_px * math.sin(2 * math.pi * into / 1.3)
        mask, corner = render_mask(
            rotated(turn.shape, angle),
            turn.size_px * scale,
            line_width=turn.line_width,
            offset_xy=(x % 1, y % 1),
        )
        depth_px = max(2, round(0.03 * turn.size_px))
        rim = 2 * depth_px
        mask = np.asarray(
            cv2.copyMakeBorder(mask, rim, rim, rim, rim, cv2.BORDER_CONSTANT, value=0), np.uint8
        )
        left, top = math.floor(x) + corner[0] - rim, math.floor(y) + corner[1] - rim
        placed = clip_to_frame(mask, (left, top), image.shape)
        if placed is None:
            return None
        cut, (left, top) = placed
        area = np.s_[top : top + cut.shape[0], left : left + cut.shape[1]]
        lit = _lit_patch(self._scenery[area], self._light[area], cut, turn, opacity, depth_px)
        image[area] = cv2.add(lit, noise[area])
        box = mask_box(cut)
        return None if box is None else (box[0] + left, box[1] + top, box[2] + left, box[3] + top)


def _lit_patch(
    scenery: ByteArray,
    light: ByteArray,
    mask: ByteArray,
    turn: _Turn,
    opacity: float,
    depth_px: int,
) -> ByteArray:
    """The scenery's patch with the shape's soft shadow and the shape, under the scene's light."""
    around = cv2.blur(mask, (2 * depth_px + 1, 2 * depth_px + 1))
    shift = np.array([[1, 0, 0.5 * depth_px], [0, 1, depth_px]], np.float32)
    shadow = cv2.warpAffine(around, shift, mask.shape[::-1], flags=cv2.INTER_NEAREST)
    deep = _SHADOW_DEPTH * opacity
    clear = cv2.convertScaleAbs(cv2.bitwise_not(shadow), None, deep, 255 * (1 - deep))
    base = cv2.multiply(scenery, cv2.merge([clear] * 3), scale=1 / 255)
    paint = cv2.merge([cv2.convertScaleAbs(light, None, c / 255) for c in turn.colour_bgr])
    cover = cv2.convertScaleAbs(mask, None, opacity)
    over = cv2.multiply(paint, cv2.merge([cover] * 3), scale=1 / 255)
    under = cv2.multiply(base, cv2.merge([cv2.bitwise_not(cover)] * 3), scale=1 / 255)
    return np.asarray(cv2.add(over, under), np.uint8)


def _entrance(into: float, shown: float) -> tuple[float, float]:
    """Opacity and scale of a shape that pops in with a little overshoot and fades out."""
    if into < _APPEAR_SECONDS:
        part = into / _APPEAR_SECONDS
        overshoot = 1 + 2.2 * (part - 1) ** 3 + 1.2 * (part - 1) ** 2
        return _LEAST_OPACITY + (1 - _LEAST_OPACITY) * part, 0.7 + 0.3 * overshoot
    part = min(1.0, (shown - into) / _VANISH_SECONDS)
    return _LEAST_OPACITY + (1 - _LEAST_OPACITY) * part, 0.85 + 0.15 * part


def _smooth(share: float) -> float:
    """Ease in and out: 0..1 to 0..1, still at both ends."""
    return share * share * (3 - 2 * share)


def _scenery(
    rng: np.random.Generator, width: int, height: int, wall_bgr: tuple[int, int, int]
) -> tuple[ByteArray, ByteArray]:
    """A plastered wall over a wooden desk, (H, W, 3) uint8, and the light on it, (H, W) uint8.

    The scenery is already darker by the noise's mean, which every frame adds again.
    """
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    x, y = x / width, y / height
    plaster = 0.5 * _texture(rng, width, height, (5, 8))
    plaster += 0.5 * _texture(rng, width, height, (90, 160))
    wall = np.asarray(wall_bgr, np.float32) * (0.93 + 0.14 * plaster[..., None])
    grain = 0.7 * _texture(rng, width, height, (150, 5))
    grain += 0.3 * _texture(rng, width, height, (40, 3))
    desk = np.array((74, 112, 158), np.float32) * (0.72 + 0.5 * grain[..., None])
    edge = float(rng.uniform(0.76, 0.82))
    soft = np.clip((y - edge) * height / (0.006 * height + 1) + 0.5, 0, 1)[..., None]
    contact = 1 - 0.35 * np.exp(-np.abs(y - edge) / 0.018)[..., None]
    lamp_x, lamp_y = rng.uniform(0.2, 0.8), rng.uniform(-0.1, 0.25)
    far = np.hypot((x - lamp_x) * 1.2, y - lamp_y)
    vignette = 1 - 0.5 * ((x - 0.5) ** 2 + (y - 0.5) ** 2)
    light = np.clip((1.12 - 0.38 * far) * vignette, 0.3, 1.0)
    lit = (wall * (1 - soft) + desk * soft) * contact * light[..., None]
    lit = cv2.GaussianBlur(lit, (0, 0), max(0.4, height / 900))
    scenery = np.clip(np.round(lit) - _NOISE_LEVEL, 0, 255 - 2 * _NOISE_LEVEL).astype(np.uint8)
    return scenery, (light * 255).astype(np.uint8)


def _texture(
    rng: np.random.Generator, width: int, height: int, cells_hw: tuple[int, int]
) -> npt.NDArray[np.float32]:
    """Smooth noise of a given fineness plus an octave below it, (H, W) float32 in about 0..1."""
    total = np.zeros((height, width), np.float32)
    for octave, weight in ((1, 0.65), (2, 0.35)):
        grid = rng.random((cells_hw[0] * octave, cells_hw[1] * octave), dtype=np.float32)
        total += weight * np.asarray(
            cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC), np.float32
        )
    return total
