"""Backgrounds for the demo model's pictures: procedural ones, and real photographs.

Everything is drawn from a `numpy.random.Generator`; pictures are (side, side, 3) uint8 BGR.
The photographs are those that three packages' wheels carry and whose licences
are free: NASA and CC0 pictures (scikit-image), two CC BY 2.0 pictures (scikit-learn), a public-
domain portrait (matplotlib).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

ByteArray = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float32]
Rng = np.random.Generator

PHOTOGRAPHS = {
    "skimage": (
        "data/astronaut.png",
        "data/brick.png",
        "data/camera.png",
        "data/chelsea.png",
        "data/grass.png",
        "data/gravel.png",
        "data/hubble_deep_field.jpg",
        "data/rocket.jpg",
    ),
    "matplotlib": ("mpl-data/sample_data/grace_hopper.jpg",),
    "sklearn": ("datasets/images/china.jpg", "datasets/images/flower.jpg"),
}
"""Package → pictures in it. Left out: those with a circle in them (coffee, coins, moon, ...)."""

PHOTO_SHARE = 0.34
"""How many of a pool's backgrounds are crops of photographs, where there are any."""

_WORDS = ("the", "of", "stream", "camera", "map", "look", "paper", "light", "2026", "37 %")


@dataclass(frozen=True)
class Background:
    kind: str
    image_bgr: ByteArray
    """(side, side, 3) uint8."""


def package_photographs() -> list[ByteArray]:
    """Read the training photographs; packages that are not installed are left out."""
    pictures = []
    for package, names in PHOTOGRAPHS.items():
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            continue
        for name in names:
            picture = cv2.imread(str(Path(spec.origin).parent / name), cv2.IMREAD_COLOR)
            if picture is not None:
                pictures.append(np.asarray(picture, np.uint8))
    return pictures


def folder_photographs(folder: Path) -> list[ByteArray]:
    """Read every picture of a folder, and a few frames of every video in it."""
    pictures = []
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in {".jpg", ".jpeg", ".png"}:
            picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
            if picture is not None:
                pictures.append(np.asarray(picture, np.uint8))
        elif path.suffix.lower() in {".mp4", ".mkv", ".avi"}:
            pictures.extend(_video_frames(path, every=40))
    return pictures


def make_pool(
    rng: Rng,
    count: int,
    side_px: int,
    photographs: list[ByteArray],
    photo_share: float = PHOTO_SHARE,
) -> list[Background]:
    """Draw a pool of backgrounds, some of which are crops of the photographs."""
    kinds = list(_DRAWERS)
    weights = np.array([_WEIGHTS[kind] for kind in kinds])
    pool = []
    for _ in range(count):
        if photographs and rng.random() < photo_share:
            # A photograph with few colours is a texture: half as often as the others.
            picture = photographs[rng.integers(len(photographs))]
            if _is_texture(picture) and rng.random() < 0.6:
                picture = photographs[rng.integers(len(photographs))]
            pool.append(Background("photo", photo_crop(rng, picture, side_px)))
            continue
        kind = kinds[rng.choice(len(kinds), p=weights / weights.sum())]
        image = _DRAWERS[kind](rng, side_px)
        pool.append(Background(kind, np.clip(image, 0, 255).astype(np.uint8)))
    return pool


def _is_texture(picture_bgr: ByteArray) -> bool:
    """Whether a picture looks alike in its four quarters."""
    small = cv2.resize(picture_bgr, (2, 2), interpolation=cv2.INTER_AREA).astype(np.float32)
    return float(small.std(axis=(0, 1)).max()) < 12


def photo_crop(rng: Rng, picture_bgr: ByteArray, side_px: int) -> ByteArray:
    """Cut a square or squeezed rectangle out of a photograph, resized to (side, side)."""
    height, width = picture_bgr.shape[:2]
    share = rng.uniform(0.2, 1.0)
    cut_h = max(48, int(height * share))
    cut_w = min(width, max(48, int(cut_h * rng.choice([1.0, 1.33, 1.78, 0.75]))))
    y, x = rng.integers(height - cut_h + 1), rng.integers(width - cut_w + 1)
    cut = picture_bgr[y : y + cut_h, x : x + cut_w]
    shrink = cv2.INTER_AREA if cut_h > side_px else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(cut, (side_px, side_px), interpolation=shrink), np.uint8)


def fractal(rng: Rng, side_px: int, roughness: float = 0.5, first: int = 2) -> FloatArray:
    """Multi-octave value noise, (side, side) float32 in 0..1."""
    total = np.zeros((side_px, side_px), np.float32)
    cells, weight = first, 1.0
    while cells < side_px and weight > 0.02:
        grid = rng.random((cells + 1, cells + 1), dtype=np.float32)
        total += weight * cv2.resize(grid, (side_px, side_px), interpolation=cv2.INTER_CUBIC)
        cells, weight = cells * 2, weight * roughness
    low, high = float(total.min()), float(total.max())
    return (total - low) / (high - low + 1e-6)


def random_colour(rng: Rng) -> FloatArray:
    """A colour, (3,) float32 0..255 BGR: vivid, muted or grey."""
    value = rng.uniform(20, 255)
    tint = rng.random(3) if rng.random() < 0.75 else np.ones(3)
    tint = tint / tint.max()
    muted = rng.uniform(0, 1)
    return np.asarray(value * (muted + (1 - muted) * tint), np.float32)


def _palette(rng: Rng, count: int) -> FloatArray:
    base = random_colour(rng)
    spread = rng.choice([25.0, 60.0, 120.0])
    if rng.random() < 0.35:
        return np.stack([random_colour(rng) for _ in range(count)])
    return np.clip(base + rng.normal(0, spread, (count, 3)), 0, 255).astype(np.float32)


def _mapped(field: FloatArray, colours: FloatArray) -> FloatArray:
    stops = np.linspace(0, 1, len(colours))
    return np.stack([np.interp(field, stops, colours[:, c]) for c in range(3)], axis=2).astype(
        np.float32
    )


def _plane(rng: Rng, side: int) -> FloatArray:
    """A linear or radial ramp, 0..1."""
    y, x = np.mgrid[0:side, 0:side].astype(np.float32) / side
    if rng.random() < 0.3:
        field = np.hypot(x - rng.uniform(-0.2, 1.2), y - rng.uniform(-0.2, 1.2))
    else:
        angle = rng.uniform(0, 2 * np.pi)
        field = np.cos(angle) * x + np.sin(angle) * y
    return np.asarray((field - field.min()) / (np.ptp(field) + 1e-6), np.float32)


def _wall(rng: Rng, side: int) -> FloatArray:
    grain = fractal(rng, side, rng.uniform(0.5, 0.9), int(rng.integers(2, 24)))[..., None]
    light = _plane(rng, side)[..., None]
    image = random_colour(rng) + (grain - 0.5) * rng.uniform(0, 60)
    return np.asarray(image * (1 - rng.uniform(0, 0.5) * light), np.float32)


def _gradient(rng: Rng, side: int) -> FloatArray:
    return _mapped(_plane(rng, side), _palette(rng, int(rng.integers(2, 4))))


def _noise(rng: Rng, side: int) -> FloatArray:
    field = fractal(rng, side, rng.uniform(0.4, 0.85), int(rng.integers(2, 8)))
    image = _mapped(field, _palette(rng, int(rng.integers(2, 6))))
    if rng.random() < 0.3:
        image += rng.normal(0, rng.uniform(5, 40), image.shape).astype(np.float32)
    return image


def _blob(rng: Rng, radius: float, centre: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """An irregular closed line that is none of the ten shapes."""
    family = rng.integers(4)
    if family == 3:
        return rng.normal(centre, radius * 0.6, (int(rng.integers(5, 9)), 2))
    if family == 0:
        angles = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(6, 12)))
        radii = radius * rng.uniform(0.3, 1.0, len(angles))
    elif family == 1:
        angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
        wave = sum(
            rng.uniform(0.12, 0.35) / k**0.5 * np.cos(k * angles + rng.uniform(0, 6.3))
            for k in rng.choice(np.arange(2, 7), 3, replace=False)
        )
        radii = radius * (0.75 + wave)
    else:
        long, thin, turn = radius, radius * rng.uniform(0.05, 0.33), rng.uniform(0, np.pi)
        corners = np.array([[-long, -thin], [long, -thin], [long, thin], [-long, thin]])
        corners += rng.normal(0, 0.12 * thin, corners.shape)
        cos, sin = np.cos(turn), np.sin(turn)
        return np.asarray(corners @ np.array([[cos, -sin], [sin, cos]]) + centre)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1) * radii[:, None] + centre


def _leaves(rng: Rng, side: int) -> FloatArray:
    """Dead leaves: overlapping random blobs, large to small; photographs' edge statistics."""
    count = int(rng.choice([30, 80, 200]))
    colours = _palette(rng, 8)
    image = np.empty((side, side, 3), np.uint8)
    image[:] = colours[0].astype(np.uint8)
    largest, smallest = rng.uniform(0.25, 0.6) * side, rng.uniform(0.015, 0.06) * side
    radii = smallest * (largest / smallest) ** (rng.random(count) ** 1.6)
    if rng.random() < 0.6:
        radii = np.sort(radii)[::-1]
    for radius in radii:
        line = _blob(rng, radius, rng.uniform(0, side, 2))
        colour = colours[rng.integers(8)] + rng.normal(0, 12)
        points = [np.round(line * 16).astype(np.int32)]
        cv2.fillPoly(image, points, np.clip(colour, 0, 255).tolist(), cv2.LINE_AA, 4)
    shade = fractal(rng, side, rng.uniform(0.5, 0.9), int(rng.integers(2, 32)))[..., None]
    out = image.astype(np.float32) * (1 - rng.uniform(0, 0.6) * shade)
    return np.asarray(cv2.GaussianBlur(out, (0, 0), rng.uniform(0.3, 3.0)), np.float32)


def _confetti(rng: Rng, side: int) -> FloatArray:
    """Hard-edged things in any colours, close together: the busiest background there is."""
    image = np.empty((side, side, 3), np.uint8)
    image[:] = rng.integers(0, 256, 3)
    largest = rng.uniform(0.08, 0.3) * side
    for _ in range(int(rng.integers(8, 45))):
        at, radius = rng.uniform(0, side, 2), rng.uniform(0.15, 1.0) * largest
        colour, kind = rng.integers(0, 256, 3).tolist(), rng.integers(6)
        if kind <= 2:
            corners = rng.normal(at, radius * 0.7, (int(rng.integers(4, 9)), 2))
        elif kind <= 4:
            corners = _blob(rng, radius, at)
        else:
            width, reach = int(rng.integers(2, 14)), rng.uniform(0.5, 3.0)
            ends = np.stack([at, at + rng.normal(0, reach * radius, 2)]).astype(int).tolist()
            cv2.line(image, ends[0], ends[1], colour, width, cv2.LINE_AA)
            continue
        cv2.fillPoly(image, [np.round(corners * 16).astype(np.int32)], colour, cv2.LINE_AA, 4)
    return image.astype(np.float32)


def _stripes(rng: Rng, side: int) -> FloatArray:
    """Stripes, checks, wood grain: warped waves."""
    y, x = np.mgrid[0:side, 0:side].astype(np.float32) / side
    angle = rng.uniform(0, np.pi)
    warp = fractal(rng, side) * rng.choice([0.0, 0.03, 0.15])
    u = (np.cos(angle) * x + np.sin(angle) * y + warp) * rng.uniform(3, 24)
    v = (-np.sin(angle) * x + np.cos(angle) * y + warp) * rng.uniform(3, 24)
    field = np.sin(2 * np.pi * u)
    if rng.random() < 0.4:
        field = field * np.sin(2 * np.pi * v)
    if rng.random() < 0.5:
        field = np.tanh(field * 8)
    image = _mapped((field * 0.5 + 0.5).astype(np.float32), _palette(rng, 2))
    return image * (0.7 + 0.3 * fractal(rng, side, 0.7)[..., None])


def _bricks(rng: Rng, side: int) -> FloatArray:
    high, wide = rng.uniform(0.06, 0.2), rng.uniform(0.15, 0.5)
    image = np.empty((side, side, 3), np.uint8)
    image[:] = np.clip(random_colour(rng), 0, 255).astype(np.uint8)
    base, gap = random_colour(rng), rng.uniform(0.006, 0.025)
    for row in range(int(1 / high) + 2):
        for column in range(-1, int(1 / wide) + 2):
            x = (column + (row % 2) * 0.5) * wide
            low = (int((x + gap) * side), int((row * high + gap) * side))
            far = (int((x + wide) * side), int((row + 1) * high * side))
            colour = np.clip(base + rng.normal(0, 14), 0, 255).tolist()
            cv2.rectangle(image, low, far, colour, -1)
    shade = fractal(rng, side, 0.75, 8)[..., None]
    return np.asarray(image * (0.65 + 0.35 * shade), np.float32)


def _paper(rng: Rng, side: int) -> FloatArray:
    """A sheet under uneven light, blank, ruled or squared, maybe on a desk."""
    image = np.empty((side, side, 3), np.float32)
    image[:] = rng.uniform(195, 255) + rng.normal(0, 5, 3)
    if rng.random() < 0.35:
        step, ink = int(rng.integers(9, 28)), random_colour(rng)
        strength = rng.uniform(0.15, 0.6)
        rows = [image[rng.integers(step) :: step]]
        if rng.random() < 0.5:
            rows.append(image[:, rng.integers(step) :: step])
        for line in rows:
            line[:] = line * (1 - strength) + ink * strength
    if rng.random() < 0.35:
        desk = _DRAWERS[str(rng.choice(["wall", "stripes", "noise"]))](rng, side)
        turn = cv2.getRotationMatrix2D((side / 2, side / 2), rng.uniform(-12, 12), 1.0)
        sheet = np.zeros((side, side), np.float32)
        low, far = rng.uniform(-0.1, 0.16, 2) * side, rng.uniform(0.84, 1.1, 2) * side
        cv2.rectangle(sheet, low.astype(int).tolist(), far.astype(int).tolist(), 1.0, -1)
        sheet = np.asarray(cv2.warpAffine(sheet, turn, (side, side)), np.float32)[..., None]
        image = image * sheet + desk * (1 - sheet)
    light = 0.5 * _plane(rng, side) + 0.5 * fractal(rng, side, 0.3, 2)
    return np.asarray(image * (1 - rng.uniform(0.05, 0.6) * light[..., None]), np.float32)


def _bokeh(rng: Rng, side: int) -> FloatArray:
    field = cv2.GaussianBlur(_leaves(rng, side), (0, 0), rng.uniform(4, 14))
    return np.asarray(field, np.float32)


def _text(rng: Rng, side: int) -> FloatArray:
    image = np.clip(_paper(rng, side), 0, 255).astype(np.uint8)
    scale = rng.uniform(0.25, 0.7)
    ink = (random_colour(rng) * 0.5).tolist()
    for row in range(int(scale * 30), side, int(scale * 44)):
        words = " ".join(rng.choice(_WORDS, 12))
        start = (int(rng.integers(-20, 30)), row)
        cv2.putText(image, words, start, int(rng.integers(0, 8)), scale, ink, 1, cv2.LINE_AA)
    return image.astype(np.float32)


def _room(rng: Rng, side: int) -> FloatArray:
    """Wall, desk and a few long or cut-off things, as a webcam sees them indoors."""
    wall, desk = _wall(rng, side), _DRAWERS[str(rng.choice(["wall", "stripes"]))](rng, side)
    y, x = np.mgrid[0:side, 0:side].astype(np.float32) / side
    below = (y + rng.uniform(-0.25, 0.25) * (x - 0.5) > rng.uniform(0.4, 1.0))[..., None]
    image = np.clip(np.where(below, desk, wall), 0, 255).astype(np.uint8)
    for _ in range(int(rng.integers(1, 9))):
        radius, at = rng.uniform(0.1, 0.45) * side, rng.uniform(-0.1, 1.1, 2) * side
        points = [np.round(_blob(rng, radius, at) * 16).astype(np.int32)]
        cv2.fillPoly(image, points, random_colour(rng).tolist(), cv2.LINE_AA, 4)
    light = fractal(rng, side, 0.4)[..., None]
    out = image.astype(np.float32) * (1 - rng.uniform(0, 0.6) * light)
    return np.asarray(cv2.GaussianBlur(out, (0, 0), rng.uniform(0.4, 4.0)), np.float32)


def _video_frames(path: Path, every: int) -> list[ByteArray]:
    video, frames, index = cv2.VideoCapture(str(path)), [], 0
    while True:
        good, frame = video.read()
        if not good:
            break
        if index % every == 0:
            frames.append(np.asarray(frame, np.uint8))
        index += 1
    video.release()
    return frames


_DRAWERS: dict[str, Callable[[Rng, int], FloatArray]] = {
    "wall": _wall,
    "gradient": _gradient,
    "noise": _noise,
    "leaves": _leaves,
    "confetti": _confetti,
    "stripes": _stripes,
    "bricks": _bricks,
    "paper": _paper,
    "bokeh": _bokeh,
    "text": _text,
    "room": _room,
}
_WEIGHTS = {
    "wall": 2.0,
    "gradient": 1.0,
    "noise": 2.0,
    "leaves": 4.5,
    "confetti": 10.0,
    "stripes": 1.5,
    "bricks": 0.7,
    "paper": 3.0,
    "bokeh": 1.0,
    "text": 0.7,
    "room": 2.5,
}


def kinds(pool: Sequence[Background]) -> list[str]:
    """The kinds of background that a pool holds, sorted."""
    return sorted({background.kind for background in pool})
