"""The ten demo shapes as lines in unit coordinates, with proportions drawn at random.

An outline's larger side is 1, it is centred on (0, 0), and y points down, as in pictures.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

SHAPE_NAMES: Final = (
    "circle",
    "square",
    "triangle",
    "pentagon",
    "star",
    "heart",
    "cross",
    "crescent",
    "arrow",
    "spiral",
)
"""The shapes in the order of the demo model's classes."""

NOTHING: Final = "nothing"
"""The demo model's eleventh class: no shape is in the picture."""

_CONTOUR_POINTS: Final = 144


@dataclass(frozen=True)
class Outline:
    """A shape as lines in unit coordinates, y down, larger side 1, centred on (0, 0)."""

    name: str
    """One of SHAPE_NAMES."""
    contours: tuple[FloatArray, ...]
    """Closed lines, (N, 2) each: filled, or drawn as a line."""
    strokes: tuple[FloatArray, ...] = ()
    """Open lines, (N, 2) each: always drawn as a line."""
    stroke_width: float = 0.08
    """The strokes' own width, as a share of the shape's size."""
    filled_only: bool = False
    """Whether the contours are always filled (an arrow's solid head on a line)."""


def outline(name: str, rng: np.random.Generator) -> Outline:
    """Draw one shape's proportions at random: a star's inner radius, a spiral's turns, ...

    Args:
        name: one of SHAPE_NAMES.
        rng: where the proportions come from.

    Raises:
        ValueError: for a name that is not in SHAPE_NAMES.
    """
    if name not in _OUTLINES:
        raise ValueError(f"unknown shape {name!r}; the shapes are {', '.join(SHAPE_NAMES)}")
    return _normalised(_OUTLINES[name](rng))


def rotated(shape: Outline, angle_deg: float, shear: float = 0.0) -> Outline:
    """Turn an outline clockwise by an angle, after an optional horizontal shear."""
    cos, sin = np.cos(np.deg2rad(angle_deg)), np.sin(np.deg2rad(angle_deg))
    matrix = np.array([[cos, -sin], [sin, cos]]) @ np.array([[1.0, shear], [0.0, 1.0]])
    return replace(
        shape,
        contours=tuple(points @ matrix.T for points in shape.contours),
        strokes=tuple(points @ matrix.T for points in shape.strokes),
    )


def resampled(line: FloatArray, count: int, *, closed: bool) -> FloatArray:
    """Give `count` points at equal distances along a line (N, 2)."""
    if closed:
        line = np.concatenate([line, line[:1]])
    steps = np.hypot(*np.diff(line, axis=0).T)
    along = np.concatenate([[0.0], np.cumsum(steps)])
    at = np.linspace(0.0, along[-1], count, endpoint=not closed)
    return np.stack([np.interp(at, along, line[:, axis]) for axis in (0, 1)], axis=1)


def _rounded(corners: FloatArray, radius: float) -> FloatArray:
    """Round a closed line's corners by smoothing it over `radius` of its length."""
    line = resampled(corners, _CONTOUR_POINTS, closed=True)
    half = round(radius * _CONTOUR_POINTS)
    if half < 1:
        return corners
    kernel = np.hanning(2 * half + 3)[1:-1]
    padded = np.concatenate([line[-half:], line, line[:half]])
    columns = [np.convolve(padded[:, axis], kernel / kernel.sum(), "valid") for axis in (0, 1)]
    return np.stack(columns, axis=1)


def _corner_radius(rng: np.random.Generator) -> float:
    return 0.0 if rng.random() < 0.5 else float(rng.uniform(0.0, 0.035))


def _normalised(shape: Outline) -> Outline:
    points = np.concatenate(shape.contours + shape.strokes)
    low, high = points.min(axis=0), points.max(axis=0)
    centre, scale = (low + high) / 2, 1.0 / float((high - low).max())
    return replace(
        shape,
        contours=tuple((line - centre) * scale for line in shape.contours),
        strokes=tuple((line - centre) * scale for line in shape.strokes),
    )


def _polar(angles_deg: npt.ArrayLike, radii: npt.ArrayLike = 1.0) -> FloatArray:
    """Points at clock angles: 0 is up, clockwise."""
    angles, lengths = np.broadcast_arrays(np.deg2rad(angles_deg), radii)
    return np.asarray(np.stack([np.sin(angles), -np.cos(angles)], axis=1) * lengths[:, None])


def _turned(points: FloatArray, angle_deg: float) -> FloatArray:
    cos, sin = np.cos(np.deg2rad(angle_deg)), np.sin(np.deg2rad(angle_deg))
    return np.asarray(points @ np.array([[cos, sin], [-sin, cos]]))


def _circle(rng: np.random.Generator) -> Outline:
    points = _polar(np.arange(0, 360, 3)) * [rng.uniform(0.93, 1.07), 1.0]
    return Outline("circle", (points,))


def _square(rng: np.random.Generator) -> Outline:
    corners = np.array([[-1.0, -1], [1, -1], [1, 1], [-1, 1]]) * [rng.uniform(0.9, 1.1), 1.0]
    return Outline("square", (_rounded(corners, _corner_radius(rng)),))


def _triangle(rng: np.random.Generator) -> Outline:
    tall, lean = rng.uniform(0.72, 1.2), rng.uniform(-0.12, 0.12)
    corners = np.array([[lean, -tall], [0.5, 0.0], [-0.5, 0.0]])
    return Outline("triangle", (_rounded(corners, _corner_radius(rng)),))


def _pentagon(rng: np.random.Generator) -> Outline:
    corners = _polar(np.arange(0, 360, 72.0), rng.uniform(0.95, 1.05, 5))
    return Outline("pentagon", (_rounded(corners, _corner_radius(rng) * 0.7),))


def _star(rng: np.random.Generator) -> Outline:
    if rng.random() < 0.12:
        pentagram = _polar(np.arange(5) * 144.0)
        return Outline("star", (), (np.concatenate([pentagram, pentagram[:1]]),), 0.06)
    inner = rng.uniform(0.3, 0.6)
    corners = _polar(np.arange(0, 360, 36.0), np.tile([1.0, inner], 5))
    return Outline("star", (_rounded(corners, _corner_radius(rng) * 0.6),))


def _bezier(control: FloatArray, count: int = 24) -> FloatArray:
    t = np.linspace(0.0, 1.0, count, endpoint=False)[:, None]
    a, b, c, d = control
    return np.asarray(
        (1 - t) ** 3 * a + 3 * (1 - t) ** 2 * t * b + 3 * (1 - t) * t**2 * c + t**3 * d
    )


def _heart(rng: np.random.Generator) -> Outline:
    family = rng.integers(3)
    if family == 0:
        t = np.deg2rad(np.arange(0, 360, 3.0))
        x = 16 * np.sin(t) ** 3
        y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
        return Outline("heart", (np.stack([x, -y * rng.uniform(0.85, 1.15)], axis=1),))
    if family == 1:
        return Outline("heart", (_two_disc_heart(rng.uniform(0.8, 1.25)),))
    dip, tip = rng.uniform(0.15, 0.38), rng.uniform(0.95, 1.3)
    wide, lobe = rng.uniform(0.9, 1.15), rng.uniform(0.05, 0.3)
    right = np.concatenate(
        [
            _bezier(np.array([[0, dip - 0.5], [0.15, -0.85], [wide, -0.9], [wide, -lobe]])),
            _bezier(np.array([[wide, -lobe], [wide, 0.35], [0.35, tip - 0.45], [0, tip]])),
        ]
    )
    left = np.concatenate([[[0, tip]], right[:0:-1]]) * [-1, 1]
    return Outline("heart", (np.concatenate([right, left]),))


def _two_disc_heart(tall: float) -> FloatArray:
    """Two half discs on a square that stands on its corner."""
    arc = np.deg2rad(np.arange(0, 181, 6.0))
    lobe = np.stack([-np.cos(arc), -np.sin(arc)], axis=1)
    right = _turned(lobe, 45.0) + np.sqrt(0.5) * np.array([1.0, -1.0])
    left = (right * [-1, 1])[::-1]
    tip = np.array([[0.0, 2 * np.sqrt(0.5)]])
    return np.concatenate([left, right, tip]) * [1.0, tall]


def _cross(rng: np.random.Generator) -> Outline:
    tall = rng.uniform(0.88, 1.12)
    if rng.random() < 0.3:
        bars = (np.array([[-1.0, 0], [1, 0]]), np.array([[0.0, -tall], [0, tall]]))
        return Outline("cross", (), bars, rng.uniform(0.07, 0.22))
    w = rng.uniform(0.15, 0.45)
    quarter = np.array([[w, -1.0], [w, -w], [1, -w]])
    corners = np.concatenate([_turned(quarter, 90.0 * turn) for turn in range(4)])
    return Outline("cross", (_rounded(corners * [1.0, tall], _corner_radius(rng) * 0.5),))


def _crescent(rng: np.random.Generator) -> Outline:
    """A disc minus a disc of radius r at distance d; the horns lie where the circles meet."""
    r, thick = rng.uniform(0.72, 1.05), rng.uniform(0.35, 0.95)
    d = thick + r - 1
    if d < 0.12:
        d = 0.12
    meet_x = (d * d + 1 - r * r) / (2 * d)
    if not -0.75 < meet_x < 0.93:
        r, d = 0.85, 0.45
        meet_x = (d * d + 1 - r * r) / (2 * d)
    meet_y = float(np.sqrt(1 - meet_x**2))
    outer_from, inner_from = np.arctan2(meet_y, meet_x), np.arctan2(meet_y, meet_x - d)
    outer = np.linspace(outer_from, 2 * np.pi - outer_from, 64)
    inner = np.linspace(2 * np.pi - inner_from, inner_from, 64)[1:-1]
    points = np.concatenate(
        [
            np.stack([np.cos(outer), np.sin(outer)], axis=1),
            np.stack([np.cos(inner), np.sin(inner)], axis=1) * r + [d, 0.0],
        ]
    )
    if rng.random() < 0.5:
        points = points * [-1, 1]
    return Outline("crescent", (points,))


def _arrow(rng: np.random.Generator) -> Outline:
    """A block arrow, a line with an open V head, or a line with a solid head; any direction."""
    family, turn = rng.integers(4), float(rng.uniform(0, 360))
    head_long, head_wide = rng.uniform(0.2, 0.58), rng.uniform(0.2, 0.45)
    if family <= 1:
        shaft = rng.uniform(0.16, 0.78) * head_wide
        back = head_long + (rng.uniform(-0.1, 0.12) if rng.random() < 0.4 else 0.0)
        half = np.array(
            [[0, -0.5], [head_wide, head_long - 0.5], [shaft, back - 0.5], [shaft, 0.5]]
        )
        corners = np.concatenate([half, (half * [-1, 1])[:0:-1]])
        corners = _rounded(corners, _corner_radius(rng) * 0.4)
        return Outline("arrow", (_turned(corners, turn),))
    width = rng.uniform(0.045, 0.14)
    wings = np.array([[-head_wide, head_long - 0.5], [0, -0.5], [head_wide, head_long - 0.5]])
    start = -0.5 if family == 2 else head_long - 0.52
    shaft_line = _turned(np.array([[0, start], [0, 0.5]]), turn)
    if family == 2:
        return Outline("arrow", (), (shaft_line, _turned(wings, turn)), width)
    return Outline("arrow", (_turned(wings, turn),), (shaft_line,), width, filled_only=True)


def _spiral(rng: np.random.Generator) -> Outline:
    turns = rng.uniform(1.75, 4.0)
    t = np.linspace(0.0, 1.0, round(40 * turns))
    start = rng.uniform(0.0, 0.12)
    radius = start + (1 - start) * t ** rng.uniform(0.8, 1.25)
    if rng.random() < 0.25 and turns < 3.2:
        radius = np.exp((t - 1) * rng.uniform(1.8, 2.8))
    angles = 360 * turns * t + rng.uniform(0, 360)
    points = _polar(angles, radius) * [rng.choice([-1.0, 1.0]), 1.0]
    return Outline("spiral", (), (points,), rng.uniform(0.28, 0.55) * 0.5 / turns)


_OUTLINES: Final[dict[str, Callable[[np.random.Generator], Outline]]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "pentagon": _pentagon,
    "star": _star,
    "heart": _heart,
    "cross": _cross,
    "crescent": _crescent,
    "arrow": _arrow,
    "spiral": _spiral,
}
