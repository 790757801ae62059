"""A second, separate way of drawing the demo's pictures, to judge the model with.

Written apart from `demo_pictures.py` on purpose: Pillow masks instead of OpenCV outlines, other
definitions of the shapes, frames at native sizes and aspects instead of stretched squares, and
photographs that the training never saw. So the model's scores here show its real ability.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops, ImageDraw, ImageFilter

ByteArray = npt.NDArray[np.uint8]
Rng = np.random.Generator
Point = tuple[float, float]

FRAMES = {
    "1:1": ((224, 224), (480, 480), (720, 720)),
    "4:3": ((320, 240), (640, 480), (1024, 768)),
    "16:9": ((320, 180), (854, 480), (1280, 720)),
    "9:16": ((180, 320), (480, 854), (720, 1280)),
}
"""Aspect → (width, height) in pixels."""


@dataclass(frozen=True)
class Judged:
    image_bgr: ByteArray
    """(H, W, 3) uint8 at its native size."""
    label: str
    box_xyxy: tuple[float, float, float, float]
    background: str
    aspect: str
    size_share: float
    """Height of the box as a share of the frame's height."""


def judge_picture(rng: Rng, label: str, photographs: list[ByteArray]) -> Judged:
    """Draw one frame that shows `label` (`nothing`: no shape)."""
    aspect = str(rng.choice(list(FRAMES)))
    width, height = FRAMES[aspect][rng.integers(3)]
    kinds = ["wall", "gradient", "noise", "clutter", "paper"]
    kinds += ["photo"] * (5 if photographs else 0)
    kind = str(rng.choice(kinds))
    image = _background(rng, kind, width, height, photographs)
    for _ in range(int(rng.integers(0, 6))):
        _scribble(rng, image)
    box = (0.0, 0.0, 0.0, 0.0)
    if label != "nothing":
        box = _put_shape(rng, image, label)
    image = _spoil(rng, image)
    share = (box[3] - box[1]) / height
    return Judged(np.asarray(image)[..., ::-1].copy(), label, box, kind, aspect, share)


def _put_shape(rng: Rng, image: Image.Image, label: str) -> tuple[float, float, float, float]:
    width, height = image.size
    size = min(rng.uniform(0.15, 0.7) * height, 0.95 * width)
    side = int(size * 1.6) + 8
    filled = rng.random() < 0.5
    mask = _shape_mask(rng, label, side, size, filled)
    turn = rng.uniform(0, 360) if label == "arrow" else rng.uniform(-30, 30)
    mask = mask.rotate(turn, resample=Image.Resampling.BICUBIC)
    tight = mask.point(lambda v: 255 * (v > 127)).getbbox()
    if tight is None:
        raise RuntimeError(f"an empty {label}")
    wide, high = tight[2] - tight[0], tight[3] - tight[1]
    if wide > width or high > height:
        mask = mask.resize((int(side * 0.62), int(side * 0.62)), Image.Resampling.LANCZOS)
        tight = mask.point(lambda v: 255 * (v > 127)).getbbox() or (0, 0, 1, 1)
        wide, high = tight[2] - tight[0], tight[3] - tight[1]
    x = int(rng.integers(0, max(1, width - wide)))
    y = int(rng.integers(0, max(1, height - high)))
    patch = np.asarray(image.crop((x, y, x + wide, y + high)), np.float32).reshape(-1, 3)
    colour = rng.integers(0, 256, 3)
    while np.abs(colour - patch.mean(axis=0)).max() < 60:
        colour = rng.integers(0, 256, 3)
    if rng.random() < 0.2:
        mask = mask.point(lambda v: int(v * 0.75))
    image.paste(tuple(int(v) for v in colour), (x - tight[0], y - tight[1]), mask)
    return float(x), float(y), float(x + wide), float(y + high)


def _shape_mask(rng: Rng, label: str, side: int, size: float, filled: bool) -> Image.Image:
    """An upright shape in the middle of an (side, side) mask, drawn at twice the size."""
    big = Image.new("L", (2 * side, 2 * side))
    pen, radius, middle = ImageDraw.Draw(big), float(size), float(side)
    line = max(3, int(rng.uniform(0.04, 0.13) * 2 * size))
    if label == "spiral":
        turns = rng.uniform(2, 3.5)
        line = int(min(line, 0.5 * radius / turns))
        points = []
        for step in range(400):
            t = step / 399
            angle = 2 * math.pi * turns * t
            points.append(
                (middle + radius * t * math.cos(angle), middle + radius * t * math.sin(angle))
            )
        if rng.random() < 0.5:
            points = [(2 * middle - x, y) for x, y in points]
        pen.line(points, fill=255, width=max(3, line), joint="curve")
    elif label == "crescent":
        pen.ellipse([middle - radius, middle - radius, middle + radius, middle + radius], fill=255)
        shift, bite = rng.uniform(0.35, 0.7) * radius, rng.uniform(0.75, 0.95) * radius
        cut = [middle + shift - bite, middle - bite, middle + shift + bite, middle + bite]
        pen.ellipse(cut, fill=0)
    elif label == "heart" and rng.random() < 0.5:
        lobe = radius * 0.52
        for sign in (-1, 1):
            x = middle + sign * radius * 0.44
            y = middle - radius * 0.3
            pen.ellipse([x - lobe, y - lobe, x + lobe, y + lobe], fill=255)
        pen.polygon(
            [
                (middle - radius * 0.88, middle - radius * 0.02),
                (middle, middle - radius * 0.3),
                (middle + radius * 0.88, middle - radius * 0.02),
                (middle, middle + radius * 0.95),
            ],
            fill=255,
        )
    elif label == "arrow" and rng.random() < 0.4:
        tip = (middle, middle - radius)
        pen.line([tip, (middle, middle + radius)], fill=255, width=line)
        reach, open_deg = rng.uniform(0.5, 0.8) * radius, rng.uniform(28, 45)
        for sign in (-1, 1):
            angle = math.radians(90 + sign * open_deg)
            end = (tip[0] + reach * math.cos(angle), tip[1] + reach * math.sin(angle))
            pen.line([tip, end], fill=255, width=line)
        filled = True
    else:
        points = [(middle + radius * x, middle + radius * y) for x, y in _OUTLINES[label](rng)]
        if not filled and rng.random() < 0.5:
            shake = 0.012 * size
            points = [(x + rng.normal(0, shake), y + rng.normal(0, shake)) for x, y in points]
            pen.line([*points, points[0], points[1]], fill=255, width=line, joint="curve")
            filled = True
        else:
            pen.polygon(points, fill=255)
    if not filled and label != "spiral":
        inner = cv2.erode(np.asarray(big), np.ones((3, 3), np.uint8), iterations=line // 2)
        big = ImageChops.subtract(big, Image.fromarray(inner))
    return big.resize((side, side), Image.Resampling.LANCZOS)


def _regular(corners: int, inner: float | None = None) -> list[Point]:
    count = corners * (2 if inner else 1)
    points = []
    for step in range(count):
        reach = inner if inner and step % 2 else 1.0
        angle = 2 * math.pi * step / count - math.pi / 2
        points.append((reach * math.cos(angle), reach * math.sin(angle)))
    return points


def _square(_: Rng) -> list[Point]:
    return [(-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8)]


def _heart(_: Rng) -> list[Point]:
    points = []
    for step in range(120):
        t = 2 * math.pi * step / 120
        y = 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)
        points.append((math.sin(t) ** 3, -y / 17))
    return points


def _cross(rng: Rng) -> list[Point]:
    a = rng.uniform(0.16, 0.42)
    return [
        (-a, -1), (a, -1), (a, -a), (1, -a), (1, a), (a, a),
        (a, 1), (-a, 1), (-a, a), (-1, a), (-1, -a), (-a, -a),
    ]  # fmt: skip


def _block_arrow(rng: Rng) -> list[Point]:
    shaft, head, neck = rng.uniform(0.14, 0.35), rng.uniform(0.45, 0.85), rng.uniform(-0.4, 0.15)
    return [
        (0, -1), (head, neck), (shaft, neck), (shaft, 1), (-shaft, 1), (-shaft, neck), (-head, neck)
    ]  # fmt: skip


_OUTLINES: dict[str, Callable[[Rng], list[Point]]] = {
    "circle": lambda rng: _regular(90),
    "square": _square,
    "triangle": lambda rng: _regular(3),
    "pentagon": lambda rng: _regular(5),
    "star": lambda rng: _regular(5, rng.uniform(0.36, 0.52)),
    "heart": _heart,
    "cross": _cross,
    "arrow": _block_arrow,
}


def _background(
    rng: Rng, kind: str, width: int, height: int, photographs: list[ByteArray]
) -> Image.Image:
    if kind == "photo":
        photo = Image.fromarray(photographs[rng.integers(len(photographs))][..., ::-1])
        zoom = max(width / photo.width, height / photo.height) * rng.uniform(1.0, 1.5)
        photo = photo.resize((math.ceil(photo.width * zoom), math.ceil(photo.height * zoom)))
        x = int(rng.integers(photo.width - width + 1))
        y = int(rng.integers(photo.height - height + 1))
        return photo.crop((x, y, x + width, y + height))
    first, second = rng.integers(0, 256, 3), rng.integers(0, 256, 3)
    if kind == "gradient":
        ramp = np.linspace(0, 1, width)[None, :, None] * np.ones((height, 1, 1))
        field = first + (second - first) * ramp
    elif kind == "noise":
        small = rng.uniform(0, 1, (int(rng.integers(4, 60)), int(rng.integers(4, 60)), 3)) * 160
        ready = Image.fromarray(small.astype(np.uint8)).resize((width, height))
        field = np.asarray(ready, np.float32) + first / 3
    elif kind == "paper":
        field = np.full((height, width, 3), rng.uniform(200, 250))
        field *= np.linspace(1, rng.uniform(0.6, 1), width)[None, :, None]
    else:
        field = np.ones((height, width, 3)) * first + rng.normal(0, 6, (height, width, 1))
    image = Image.fromarray(np.clip(field, 0, 255).astype(np.uint8))
    if kind == "clutter":
        pen = ImageDraw.Draw(image)
        for _ in range(int(rng.integers(8, 40))):
            at = rng.uniform((0, 0), (width, height))
            spread = rng.uniform(0.03, 0.2) * height
            corners = rng.normal(at, spread, (int(rng.integers(4, 9)), 2))
            colour = tuple(int(v) for v in rng.integers(0, 256, 3))
            pen.polygon([tuple(corner) for corner in corners], fill=colour)
    return image


def _scribble(rng: Rng, image: Image.Image) -> None:
    """A wavy line, a straight line or a word."""
    width, height = image.size
    pen, colour = ImageDraw.Draw(image), tuple(int(v) for v in rng.integers(0, 256, 3))
    thick = max(1, int(rng.uniform(0.004, 0.014) * height))
    kind = rng.integers(3)
    if kind == 0:
        x, y = rng.uniform(0, width), rng.uniform(0, height)
        walk = np.cumsum(rng.normal(0, 0.03 * height, (12, 2)), axis=0) + np.array((x, y))
        pen.line([tuple(p) for p in walk], fill=colour, width=thick, joint="curve")
    elif kind == 1:
        ends = rng.uniform(0, 1, 4) * [width, height, width, height]
        pen.line([tuple(ends[:2]), tuple(ends[2:])], fill=colour, width=thick)
    else:
        at = (rng.uniform(0, width), rng.uniform(0, height))
        pen.text(at, "sample 42", fill=colour, font_size=max(8, int(0.05 * height)))


def _spoil(rng: Rng, image: Image.Image) -> Image.Image:
    """Uneven light, blur, sensor noise, JPEG."""
    width, height = image.size
    if rng.random() < 0.4:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0, 0.006) * height))
    field = np.asarray(image, np.float64)
    if rng.random() < 0.4:
        y, x = np.mgrid[0:height, 0:width]
        far = np.hypot(x / width - rng.random(), y / height - rng.random())
        field = field * (1.15 - rng.uniform(0.2, 0.7) * far[..., None])
    if rng.random() < 0.5:
        field = field + rng.normal(0, rng.uniform(2, 16), field.shape)
    image = Image.fromarray(np.clip(field, 0, 255).astype(np.uint8))
    if rng.random() < 0.5:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=int(rng.integers(30, 95)))
        image = Image.open(buffer).convert("RGB")
    return image
