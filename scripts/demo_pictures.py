"""Pictures with known contents for training and measuring the demo model.

One picture: a background, distractors, one of the ten shapes, several or none, then a webcam's
    distortions. Pictures of every aspect are drawn as the network sees them, stretched to a square.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt
from demo_backgrounds import Background, ByteArray, FloatArray, Rng, fractal, random_colour

from stream_cam.sources.demo.outlines import (
    NOTHING,
    SHAPE_NAMES,
    Outline,
    outline,
    resampled,
    rotated,
)
from stream_cam.sources.demo.shapes import BoxXyxy, clip_to_frame, mask_box, render_mask

LABELS = (*SHAPE_NAMES, NOTHING)
ASPECTS = {"1:1": 1.0, "4:3": 4 / 3, "16:9": 16 / 9, "3:4": 3 / 4, "9:16": 9 / 16}
FULL_SIDE_PX = 288
"""The network's input: at 224 px a small shape in a 16:9 frame falls between the map's cells, and
more is named right at 288 px than at 256."""
BACKGROUND_PX = 320
"""Backgrounds are kept at this side and cut from."""
_NO_BOX: BoxXyxy = (0.0, 0.0, 0.0, 0.0)
_LETTERS = "ABEFHJKLMNPRSTUWYZ2345679&#?"
_NOISE_SIDE = 512
_SHARES = np.array([{"arrow": 2.2, "star": 1.4}.get(name, 1.0) for name in SHAPE_NAMES])
_SHARES /= _SHARES.sum()
"""How often each shape is drawn; an arrow has more looks than the others, in every direction, and
a star is the one most often overlooked."""


@dataclass(frozen=True)
class Picture:
    """One drawn picture and the truth about it."""

    image_bgr: ByteArray
    """(side, side, 3) uint8: the frame after stretching."""
    label: int
    """Index into LABELS."""
    box_xyxy: BoxXyxy
    """In pixels of `image_bgr`; all zero for `nothing`."""
    background: str
    aspect: str
    """Aspect ratio of the frame before stretching; a key of ASPECTS."""
    size_share: float
    """Height of the box as a share of the picture's height."""
    others: tuple[tuple[int, BoxXyxy], ...] = ()
    """Further shapes, each of a label of its own: index into LABELS, box."""


class Painter:
    """Draws pictures over a pool of backgrounds."""

    def __init__(self, pool: Sequence[Background], seed: int) -> None:
        self._pool = pool
        noise = np.random.default_rng(seed).normal(0, 1, (_NOISE_SIDE, _NOISE_SIDE, 3))
        self._noise = noise.astype(np.float32)

    def paint(
        self,
        rng: Rng,
        side_px: int = FULL_SIDE_PX,
        label: int | None = None,
        *,
        most: int = 1,
        ease: float = 0.0,
    ) -> Picture:
        """Draw one picture; a side below FULL_SIDE_PX shows a cut-out of a picture of that side.

        Args:
            rng: everything random comes from here.
            side_px: height and width of the picture.
            label: index into LABELS; None draws `nothing` one time in eight.
            most: up to so many shapes, apart from each other; one alone is as frequent as several.
            ease: the share of pictures with a nearly plain background, nothing beside the shapes
                and a perfect camera.
        """
        easy = rng.random() < ease
        if label is None:
            empty = rng.random() < 0.125
            label = len(SHAPE_NAMES) if empty else int(rng.choice(len(_SHARES), p=_SHARES))
        aspect = str(rng.choice(list(ASPECTS), p=[0.25, 0.2, 0.35, 0.05, 0.15]))
        background = self._any_background(rng)
        image = self._backdrop(rng, background, side_px)
        if easy:
            image = _faded(rng, image)
        elif rng.random() < 0.25:
            image = _mixed(rng, image, self._backdrop(rng, self._any_background(rng), side_px))
        shapes: list[tuple[int, BoxXyxy]] = []
        nothing = label == len(SHAPE_NAMES)
        if not easy:
            count = int(rng.integers(0, 9)) if nothing else _few(rng, 6)
            _add_distractors(rng, image, count, bold=nothing or rng.random() < 0.3)
        if not nothing:
            shapes = self._add_shapes(rng, image, label, most, 1 / ASPECTS[aspect], background)
        if not easy:
            if not nothing and rng.random() < 0.15:
                _add_thin_distractor(rng, image)
            image = self._seen_by_webcam(rng, image, ASPECTS[aspect])
        box = shapes[0][1] if shapes else _NO_BOX
        share = (box[3] - box[1]) / side_px
        return Picture(image, label, box, background.kind, aspect, share, tuple(shapes[1:]))

    def _add_shapes(
        self,
        rng: Rng,
        image: ByteArray,
        label: int,
        most: int,
        squeeze: float,
        background: Background,
    ) -> list[tuple[int, BoxXyxy]]:
        """Draw the labelled shape, and maybe others where there is room for them."""
        several = most > 1 and rng.random() < 0.5
        count = int(rng.integers(2, most + 1)) if several else 1
        rest = [other for other in rng.permutation(len(SHAPE_NAMES)).tolist() if other != label]
        shapes: list[tuple[int, BoxXyxy]] = []
        for name in [label, *rest[: count - 1]]:
            taken = [box for _, box in shapes]
            largest = 0.74 if count == 1 else rng.uniform(0.2, 1.2 / count)
            box = self._add_shape(
                rng, image, SHAPE_NAMES[name], squeeze, background, taken, largest
            )
            if box is not None:
                shapes.append((name, box))
        return shapes

    def _any_background(self, rng: Rng) -> Background:
        return self._pool[int(rng.integers(len(self._pool)))]

    def _backdrop(self, rng: Rng, background: Background, side_px: int) -> ByteArray:
        source = background.image_bgr
        full = source.shape[0]
        cut_w, cut_h = (int(full * rng.uniform(0.45, 1.0)) for _ in range(2))
        x, y = rng.integers(full - cut_w + 1), rng.integers(full - cut_h + 1)
        cut = source[y : y + cut_h, x : x + cut_w]
        if rng.random() < 0.5:
            cut = cut[:, ::-1]
        image = np.asarray(cv2.resize(cut, (side_px, side_px), interpolation=cv2.INTER_AREA))
        if rng.random() < 0.25:
            image = image[..., rng.permutation(3)]
        gain, lift = rng.uniform(0.65, 1.3), max(0.0, rng.uniform(-30, 30))
        return np.ascontiguousarray(cv2.convertScaleAbs(image, None, gain, lift), np.uint8)

    def _add_shape(
        self,
        rng: Rng,
        image: ByteArray,
        name: str,
        squeeze: float,
        background: Background,
        taken: Sequence[BoxXyxy],
        largest: float,
    ) -> BoxXyxy | None:
        """Draw one shape and give its box; None where the taken boxes leave no room."""
        side = image.shape[0]
        by_hand = rng.random() < (0.6 if background.kind in {"paper", "text"} else 0.25)
        lined = rng.random() < (0.75 if by_hand else 0.45)
        shape = rotated(outline(name, rng), rng.uniform(-33, 33), rng.normal(0, 0.05))
        width = _line_width(rng, shape, lined)
        if by_hand:
            shape = hand_drawn(rng, shape, leave_open=lined and not shape.filled_only)
        size_px = _size_px(rng, shape, side, squeeze, largest)
        mask, _ = render_mask(shape, size_px, scale_xy=(squeeze, 1.0), line_width=width)
        if by_hand and lined and rng.random() < 0.15:
            again, _ = render_mask(
                hand_drawn(rng, shape, leave_open=False),
                size_px,
                scale_xy=(squeeze, 1.0),
                line_width=width,
            )
            again = np.asarray(cv2.resize(again, mask.shape[::-1]), np.uint8)
            mask = np.asarray(np.maximum(mask, again), np.uint8)
        for trial in range(12):
            placed = clip_to_frame(mask, _place(rng, mask.shape, side), image.shape)
            if placed is None:
                continue
            # A thin mask may have no room where nine tenths of it are seen.
            if trial < 11 and (placed[0] > 127).sum() <= 0.9 * (mask > 127).sum():
                continue
            cut, (x, y) = placed
            box = mask_box(cut)
            if box is None:
                raise RuntimeError(f"a {name} came out empty at {size_px:.0f} px")
            moved = (box[0] + x, box[1] + y, box[2] + x, box[3] + y)
            if not any(_touch(moved, other) for other in taken):
                _paint_mask(rng, image, cut, (x, y), self._pool, pen=by_hand)
                return moved
        if not taken:
            raise RuntimeError("a shape found no place in its picture")
        return None

    def _seen_by_webcam(self, rng: Rng, image: ByteArray, aspect: float) -> ByteArray:
        side = image.shape[0]
        if rng.random() < 0.4:
            light = rng.uniform(0.55, 1.2, (int(rng.integers(2, 5)), int(rng.integers(2, 5))))
            gain = cv2.resize(light.astype(np.float32), (side, side), interpolation=cv2.INTER_CUBIC)
            image = np.clip(image * gain[..., None], 0, 255).astype(np.uint8)
        if rng.random() < 0.18:
            native_h = rng.uniform(0.5, 1.0) * side
            native = (int(min(side, native_h * aspect)), int(native_h))
            small = cv2.resize(image, native, interpolation=cv2.INTER_AREA)
            image = np.asarray(cv2.resize(small, (side, side), interpolation=cv2.INTER_LINEAR))
        if rng.random() < 0.35:
            sigma = rng.uniform(0.3, 1.0) if rng.random() < 0.7 else rng.uniform(1.0, 1.8)
            image = np.asarray(cv2.GaussianBlur(image, (0, 0), sigma))
        elif rng.random() < 0.1:
            length = int(rng.integers(3, 8))
            kernel = np.zeros((length, length), np.float32)
            ends = rng.integers(0, length, 4).tolist()
            cv2.line(kernel, tuple(ends[:2]), tuple(ends[2:]), 1.0)
            image = np.asarray(cv2.filter2D(image, -1, kernel / max(kernel.sum(), 1)))
        if rng.random() < 0.55:
            image = self._noisy(rng, image)
        if rng.random() < 0.5:
            image = np.asarray(cv2.LUT(image, _tone_curve(rng)), np.uint8)
        if rng.random() < 0.35:
            quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(22, 92))]
            packed = cv2.imencode(".jpg", image, quality)[1]
            image = np.asarray(cv2.imdecode(packed, cv2.IMREAD_COLOR), np.uint8)
        return np.ascontiguousarray(image, np.uint8)

    def _noisy(self, rng: Rng, image: ByteArray) -> ByteArray:
        side = image.shape[0]
        y, x = rng.integers(_NOISE_SIDE - side, size=2)
        noise = self._noise[y : y + side, x : x + side]
        if rng.random() < 0.4:
            noise = noise[..., :1]
        sigma = rng.uniform(1, 8) if rng.random() < 0.6 else rng.uniform(8, 20)
        return np.clip(image + noise * np.float32(sigma), 0, 255).astype(np.uint8)


def _faded(rng: Rng, image: ByteArray) -> ByteArray:
    """A background that is hardly there before a plain colour."""
    return np.asarray(image * 0.15 + random_colour(rng) * 0.85, np.float32).astype(np.uint8)


def _mixed(rng: Rng, first: ByteArray, second: ByteArray) -> ByteArray:
    """Two backgrounds in one: shining through each other, or each in its own region."""
    if rng.random() < 0.4:
        share = rng.uniform(0.25, 0.75)
        return np.asarray(cv2.addWeighted(first, share, second, 1 - share, 0), np.uint8)
    field = fractal(rng, first.shape[0], 0.35, int(rng.integers(1, 5)))
    weight = np.clip((field - 0.5) * rng.uniform(4, 60) + 0.5, 0, 1).astype(np.float32)
    return np.asarray(cv2.blendLinear(first, second, weight, 1 - weight), np.uint8)


def hand_drawn(rng: Rng, shape: Outline, *, leave_open: bool) -> Outline:
    """Make an outline wobble, and maybe not quite meet itself, like a felt pen's."""
    amount = rng.uniform(0.004, 0.022)
    contours = [_wobbled(rng, line, amount, closed=True) for line in shape.contours]
    strokes = [_wobbled(rng, line, amount, closed=False) for line in shape.strokes]
    if leave_open and rng.random() < 0.6:
        for line in contours:
            start, missing = int(rng.integers(len(line))), rng.uniform(-0.06, 0.05)
            turned = np.roll(line, -start, axis=0)
            if missing > 0:
                turned = turned[: -max(1, round(missing * len(line)))]
            else:
                turned = np.concatenate([turned, turned[: max(1, round(-missing * len(line)))]])
                drift = np.linspace(0, 1, len(turned))[:, None] ** 3
                turned = turned + drift * rng.normal(0, 0.02, 2)
            strokes.append(turned)
        contours = []
    return replace(shape, contours=tuple(contours), strokes=tuple(strokes))


def _wobbled(
    rng: Rng, line: npt.NDArray[np.float64], amount: float, *, closed: bool
) -> npt.NDArray[np.float64]:
    count = 144 if closed or len(line) > 20 else 40
    points = resampled(line, count, closed=closed)
    along = np.linspace(0, 2 * np.pi, count, endpoint=not closed)
    for wave in range(2, 8):
        phase = rng.uniform(0, 2 * np.pi, 2)
        push = rng.normal(0, amount * 2 / wave, 2)
        points = points + push * np.cos(wave * along[:, None] + phase)
    return points


def _line_width(rng: Rng, shape: Outline, lined: bool) -> float | None:
    if not shape.contours or shape.filled_only:
        return None
    if not lined:
        return None
    return float(rng.uniform(0.03, 0.15) if rng.random() < 0.6 else rng.uniform(0.04, 0.09))


def _touch(first: BoxXyxy, second: BoxXyxy, apart_px: float = 6) -> bool:
    """Whether two boxes overlap or come closer than `apart_px`."""
    return (
        first[0] < second[2] + apart_px
        and second[0] < first[2] + apart_px
        and first[1] < second[3] + apart_px
        and second[1] < first[3] + apart_px
    )


def _size_px(rng: Rng, shape: Outline, side: int, squeeze: float, largest: float) -> float:
    """Pixels for one unit: the shape is 14 % to `largest` of a full picture, and fits in."""
    points = np.concatenate(shape.contours + shape.strokes)
    wide, high = np.ptp(points, axis=0)
    low, top = 0.14 * FULL_SIDE_PX, largest * FULL_SIDE_PX
    size = rng.uniform(low, top) if rng.random() < 0.6 else low * (top / low) ** rng.random()
    room = 0.93 * side
    return float(max(16.0, min(size, room / high, room / (wide * squeeze))))


def _place(rng: Rng, mask_shape: tuple[int, ...], side: int) -> tuple[int, int]:
    """The mask's top-left corner; now and then a little of the shape is outside the picture."""
    spill = 0.08 if rng.random() < 0.08 else 0.0
    corner = []
    for extent in (mask_shape[1], mask_shape[0]):
        low, high = -3 - spill * extent, side - extent + 3 + spill * extent
        corner.append(round(rng.uniform(min(low, high), max(low, high))))
    return corner[0], corner[1]


def _paint_mask(
    rng: Rng,
    image: ByteArray,
    mask: ByteArray,
    corner_xy: tuple[int, int],
    pool: Sequence[Background],
    *,
    pen: bool,
) -> None:
    """Blend a shape's colour in: plain, shaded or textured, maybe translucent, with a shadow."""
    x, y = corner_xy
    height, width = mask.shape
    patch = image[y : y + height, x : x + width]
    behind = patch.reshape(-1, 3).mean(axis=0)
    opacity = 1.0 if rng.random() < 0.65 else rng.uniform(0.6, 1.0)
    colour = _visible_colour(rng, behind, opacity, dark=pen and rng.random() < 0.7)
    paint: FloatArray = np.empty((height, width, 3), np.float32)
    paint[:] = colour
    style = rng.random()
    if style < 0.2:
        slope = np.linspace(-1, 1, max(height, width), dtype=np.float32) * rng.uniform(5, 40)
        paint += slope[:height, None, None] if rng.random() < 0.5 else slope[None, :width, None]
    elif style < 0.32:
        texture = pool[int(rng.integers(len(pool)))].image_bgr[:height, :width].astype(np.float32)
        texture -= texture.reshape(-1, 3).mean(axis=0)
        paint += texture * rng.uniform(0.1, 0.4)
    if rng.random() < 0.12:
        shift = rng.integers(-4, 5, 2)
        shadow = cv2.GaussianBlur(np.roll(mask, shift, (0, 1)), (0, 0), rng.uniform(0.8, 4))
        dark = 1 - shadow.astype(np.float32) * (rng.uniform(0.2, 0.6) / 255)
        patch[:] = (patch * dark[..., None]).astype(np.uint8)
    weight = mask.astype(np.float32)[..., None] * np.float32(opacity / 255)
    if pen and rng.random() < 0.4:
        grain = fractal(rng, max(height, width), 0.8, 8)[:height, :width, None]
        weight *= 1 - rng.uniform(0.1, 0.45) * grain
    patch[:] = np.clip(patch * (1 - weight) + paint * weight, 0, 255).astype(np.uint8)
    if rng.random() < 0.08:
        edge = cv2.morphologyEx((mask > 127).astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((3, 3)))
        patch[edge > 0] = np.clip(random_colour(rng), 0, 255).astype(np.uint8)


def _visible_colour(rng: Rng, behind: FloatArray, opacity: float, *, dark: bool) -> FloatArray:
    """A colour that differs from its background by at least 62 levels (Euclidean, BGR)."""
    needed = 62 if rng.random() < 0.3 else 95
    best, best_far = random_colour(rng), -1.0
    for _ in range(12):
        colour = random_colour(rng)
        if dark:
            colour = colour * np.float32(rng.uniform(0.0, 0.5))
        far = float(np.linalg.norm(colour - behind)) * opacity
        if far > best_far:
            best, best_far = colour, far
        if far > needed:
            return colour
    return best


def _few(rng: Rng, most: int) -> int:
    return 0 if rng.random() < 0.35 else int(rng.integers(1, most + 1))


def _add_distractors(rng: Rng, image: ByteArray, count: int, *, bold: bool) -> None:
    """Draw scribbles, lines, dots, text, grids and arcs; `bold` ones may be large and thick."""
    for _ in range(count):
        kind = rng.integers(9 if bold else 6)
        if kind <= 2:
            _add_thin_distractor(rng, image)
        elif kind == 3:
            _add_dots(rng, image)
        elif kind == 4:
            _add_text(rng, image, 0.3, 0.9)
        elif kind == 5:
            _add_grid(rng, image)
        elif kind == 6:
            _add_text(rng, image, 1.5, 5.0)
        elif kind == 7:
            _add_scribble(rng, image, int(rng.integers(3, 16)))
        else:
            _add_polygons(rng, image)


def _add_thin_distractor(rng: Rng, image: ByteArray) -> None:
    side, thickness = image.shape[0], int(rng.integers(1, 4))
    colour = random_colour(rng).tolist()
    kind = rng.integers(3)
    if kind == 0:
        ends = rng.integers(-20, side + 20, 4).tolist()
        cv2.line(image, tuple(ends[:2]), tuple(ends[2:]), colour, thickness, cv2.LINE_AA)
    elif kind == 1:
        _add_scribble(rng, image, thickness)
    else:
        centre = rng.integers(0, side, 2).tolist()
        axes = (rng.uniform(0.05, 0.4, 2) * side).astype(int).tolist()
        start, sweep = rng.uniform(0, 360), rng.uniform(30, 160)
        turn = rng.uniform(0, 180)
        cv2.ellipse(image, centre, axes, turn, start, start + sweep, colour, thickness, cv2.LINE_AA)


def _add_scribble(rng: Rng, image: ByteArray, thickness: int) -> None:
    side = image.shape[0]
    count = int(rng.integers(4, 14))
    steps = rng.normal(0, rng.uniform(0.03, 0.14) * side, (count, 2))
    points = np.cumsum(steps, axis=0) + rng.uniform(0, side, 2)
    if rng.random() < 0.55:
        at, fine = np.arange(count), np.linspace(0, count - 1, count * 8)
        smooth = np.stack([np.interp(fine, at, points[:, axis]) for axis in (0, 1)], axis=1)
        kernel = np.hanning(15) / np.hanning(15).sum()
        points = np.stack([np.convolve(smooth[:, axis], kernel, "valid") for axis in (0, 1)], 1)
    lines = [np.round(points).astype(np.int32)]
    cv2.polylines(image, lines, False, random_colour(rng).tolist(), thickness, cv2.LINE_AA)


def _add_polygons(rng: Rng, image: ByteArray) -> None:
    """A few jagged areas and long bars, none of them a shape that has a name here."""
    side = image.shape[0]
    for _ in range(int(rng.integers(1, 9))):
        centre = rng.uniform(0, side, 2)
        if rng.random() < 0.7:
            points = rng.normal(centre, rng.uniform(0.02, 0.2) * side, (int(rng.integers(4, 9)), 2))
        else:
            long, turn = rng.uniform(0.1, 0.5) * side, rng.uniform(0, np.pi)
            along = long * np.array([np.cos(turn), np.sin(turn)])
            across = rng.uniform(0.04, 0.2) * along[::-1] * (1, -1)
            points = centre + np.stack(
                [along + across, along - across, -along - across, across - along]
            )
        corners = [np.round(points * 16).astype(np.int32)]
        cv2.fillPoly(image, corners, random_colour(rng).tolist(), cv2.LINE_AA, 4)


def _add_dots(rng: Rng, image: ByteArray) -> None:
    side = image.shape[0]
    for _ in range(int(rng.integers(1, 12))):
        axes = tuple(int(v) for v in rng.integers(1, 7, 2))
        at = tuple(int(v) for v in rng.integers(0, side, 2))
        cv2.ellipse(
            image,
            at,
            axes,
            rng.uniform(0, 180),
            0,
            360,
            random_colour(rng).tolist(),
            -1,
            cv2.LINE_AA,
        )


def _add_text(rng: Rng, image: ByteArray, smallest: float, largest: float) -> None:
    side = image.shape[0]
    scale = rng.uniform(smallest, largest) * side / FULL_SIDE_PX
    count = int(rng.integers(1, 9 if largest < 1 else 3))
    text = "".join(rng.choice(list(_LETTERS), count))
    at = (int(rng.integers(-10, int(side * 0.9))), int(rng.integers(10, side)))
    thickness = int(rng.integers(1, max(2, round(scale * 4))))
    font = int(rng.integers(0, 8))
    cv2.putText(image, text, at, font, scale, random_colour(rng).tolist(), thickness, cv2.LINE_AA)


def _add_grid(rng: Rng, image: ByteArray) -> None:
    step, colour = int(rng.integers(10, 60)), random_colour(rng)
    strength = np.float32(rng.uniform(0.2, 1.0))
    for lines in (image[rng.integers(step) :: step], image[:, rng.integers(step) :: step]):
        lines[:] = (lines * (1 - strength) + colour * strength).astype(np.uint8)
        if rng.random() < 0.4:
            return


def _tone_curve(rng: Rng) -> ByteArray:
    """White balance, gamma, contrast: a (256, 1, 3) lookup table."""
    level = np.linspace(0, 1, 256)[:, None] ** rng.uniform(0.7, 1.4, 1)
    level = (level - 0.5) * rng.uniform(0.75, 1.25) + 0.5 + rng.uniform(-0.1, 0.1)
    curve = level * rng.uniform(0.85, 1.15, 3)
    return np.clip(curve * 255, 0, 255).astype(np.uint8).reshape(256, 1, 3)
