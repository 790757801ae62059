"""Inspection of clamped beams: trained on healthy or damaged alone, the map finds the damage.

pip install stream-cam
python cantilever.py                           # writes cantilever.jpg and cantilever_maps/
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from lesson_parts import accuracy, as_frame, cell, enlarged, grid, save, show, train
from torch import Tensor, nn

from stream_cam import Explainer, LookConfig, draw_overlay

SIDE = 128
"""Pixels of a picture."""
CLAMP, END = 14, 114
"""The beam's ends, in pixels from the left."""
CELL = 8
"""Pixels of a cell of the map, which is 16×16."""
Box = tuple[float, float, float, float]
LOOK = LookConfig(scale="own", relu=True)


@dataclass(frozen=True)
class Beam:
    """A picture of a beam; `damage_xyxy` is the box around the damage, None where there is none."""

    image: np.ndarray
    damage_xyxy: Box | None


def deflection(x: np.ndarray, tip: float, crack_at: float | None, softness: float) -> np.ndarray:
    """Euler–Bernoulli: a clamped beam under a force P at its end, x from 0 to 1.

    w(x) = P x² (3 − x) / 6EI, here w = tip · x² (3 − x) / 2. A crack at a is a hinge with a spring:
    behind it the slope grows by an angle in proportion to the bending moment there, P (1 − a).
    """
    bent = np.asarray(tip * x**2 * (3 - x) / 2)
    if crack_at is None:
        return bent
    return bent + softness * tip * (1 - crack_at) * np.maximum(x - crack_at, 0)


def draw_beam(random: np.random.Generator, damaged: bool) -> Beam:
    """One picture as an inspection camera would take it; nothing but the damage tells the class."""
    canvas = np.full((SIDE, SIDE), random.uniform(0.25, 0.6))
    canvas += np.linspace(random.uniform(-0.1, 0.1), random.uniform(-0.1, 0.1), SIDE)
    _draw_clutter(canvas, random, 5)
    half, steel = random.uniform(5, 8), random.uniform(0.65, 0.85)
    middle, tip = random.uniform(40, 62), random.uniform(2, 28)
    at = float(random.uniform(0.12, 0.85)) if damaged else None
    x = np.linspace(0, 1, END - CLAMP + 1)
    axis = middle + deflection(x, tip, at, random.uniform(0.1, 0.5))
    columns = np.arange(CLAMP, END + 1)
    edge = np.concatenate(
        [np.stack([columns, axis - half], 1), np.stack([columns, axis + half], 1)[::-1]]
    )
    cv2.fillPoly(canvas, [_fine(edge)], steel, cv2.LINE_AA, shift=4)
    cv2.rectangle(canvas, (0, int(middle) - 26), (CLAMP, int(middle) + 26), 0.2, -1)
    above = int(axis[-1] - half)
    force = (END - 3, above - 22), (END - 3, above - 3)
    cv2.arrowedLine(canvas, *force, 0.1, 2, tipLength=0.3)
    box = None
    if at is not None:
        where = CLAMP + at * (END - CLAMP), float(np.interp(at, x, axis))
        box = _draw_damage(canvas, random, *where, half)
    blurred = cv2.GaussianBlur(canvas, (0, 0), random.uniform(0.5, 0.9))
    canvas = blurred + random.normal(0, random.uniform(0.02, 0.06), canvas.shape)
    return Beam((canvas.clip(0, 1) * 255).round().astype(np.uint8), box)


def _draw_clutter(canvas: np.ndarray, random: np.random.Generator, count: int) -> None:
    """Cables and bolts behind the beam; dark lines too, so that these alone say nothing."""
    for _ in range(count):
        x, y = (int(at) for at in random.integers(0, SIDE, 2))
        dx, dy = (int(step) for step in random.integers(-25, 26, 2))
        value = float(random.uniform(0.05, 0.9))
        if random.random() < 0.5:
            thick = int(random.integers(1, 4))
            cv2.line(canvas, (x, y), (x + dx, y + dy), value, thick, cv2.LINE_AA)
        else:
            cv2.circle(canvas, (x, y), int(random.integers(2, 9)), value, -1, cv2.LINE_AA)


def _draw_damage(
    canvas: np.ndarray, random: np.random.Generator, x: float, y: float, half: float
) -> Box:
    """A notch, or a crack, in the upper or the lower side; returns the box around it."""
    side = random.choice([-1, 1])
    depth = random.uniform(0.7, 1.4) * half
    start, tip = y + side * (half + 1), y + side * (half - depth)
    dark, wide = float(random.uniform(0.05, 0.2)), 2.5
    if random.random() < 0.5:
        wide = random.uniform(2.5, 4.5)
        points = np.array([[x - wide, start], [x + wide, start], [x, tip]])
        cv2.fillPoly(canvas, [_fine(points)], dark, cv2.LINE_AA, shift=4)
    else:
        points = np.stack([x + random.uniform(-1.5, 1.5, 5), np.linspace(start, tip, 5)], 1)
        cv2.polylines(canvas, [_fine(points)], False, dark, 1, cv2.LINE_AA, shift=4)
    return x - wide, min(start, tip), x + wide, max(start, tip)


def _fine(points_xy: np.ndarray) -> np.ndarray:
    """Points as OpenCV takes them with `shift=4`: sixteenths of a pixel."""
    return np.round(points_xy * 16).astype(np.int32)


def draw_beams(count: int, seed: int) -> tuple[list[Beam], Tensor, Tensor]:
    """Beams, half of them damaged, with their images (N, 1, 128, 128) and labels (N,)."""
    random = np.random.default_rng(seed)
    beams = [draw_beam(random, damaged=number % 2 == 1) for number in range(count)]
    images = torch.from_numpy(np.stack([beam.image for beam in beams])).float()[:, None] / 255
    return beams, images, torch.arange(count) % 2


def small_network() -> nn.Sequential:
    """Four convolutions, global average pooling, one linear layer: 128×128 → 16×16 cells → 2."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for inputs, outputs, stride in ((1, 16, 2), (16, 32, 1), (32, 64, 1), (64, 64, 1)):
        layers += [nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)]
        layers += [nn.BatchNorm2d(outputs), nn.ReLU()]
        layers += [nn.MaxPool2d(2)] if inputs in (1, 32) else []
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 2))


def distance(point_xy: tuple[float, float], box: Box) -> float:
    """Pixels between a point and a box along the farther axis; 0 inside."""
    x, y = point_xy
    return max(box[0] - x, x - box[2], box[1] - y, y - box[3], 0.0)


def inspect(explainer: Explainer, beams: list[Beam]) -> None:
    """Prints how often the peak of `damaged` lies within a cell of the damage."""
    damaged = [beam for beam in beams if beam.damage_xyxy is not None]
    near: list[bool] = []
    elsewhere: list[bool] = []
    for number, beam in enumerate(damaged):
        peak = explainer.explain(as_frame(beam.image), "damaged").peak_xy()
        for found, one in ((near, beam), (elsewhere, damaged[number - 1])):
            assert one.damage_xyxy is not None
            found.append(distance(peak, one.damage_xyxy) <= CELL)
    print(f"  peak within {CELL} pixels of the damage {np.mean(near):.1%} of {len(near)} beams")
    print(f"  the same with another beam's damage {np.mean(elsewhere):.1%}")


def drawn(explainer: Explainer, beam: Beam) -> tuple[np.ndarray, np.ndarray]:
    """A beam, and the map of `damaged` on it with a box around the true damage."""
    frame = as_frame(beam.image)
    large = enlarged(frame, 224)
    explanation = explainer.explain(frame, "damaged")
    shown = draw_overlay(large, explanation, LOOK)
    if beam.damage_xyxy is not None:
        x0, y0, x1, y1 = (round(side * 224 / SIDE) for side in beam.damage_xyxy)
        cv2.rectangle(shown, (x0 - 2, y0 - 2), (x1 + 2, y1 + 2), (80, 220, 80), 1)
    best = explanation.predictions[0]
    truth = "healthy" if beam.damage_xyxy is None else "damaged"
    return cell(large, [truth], (224, 224)), cell(
        shown, [f"says {best.label}, {best.probability:.0%}"], (224, 224)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--beams", type=int, default=1600)
    parser.add_argument("--epochs", type=int, default=9)
    parser.add_argument("--batch", type=int, default=50)
    options = parser.parse_args()
    _, images, labels = draw_beams(options.beams, seed=1)
    beams, tests, answers = draw_beams(400, seed=2)

    network = small_network()
    train(network, images, labels, epochs=options.epochs, rate=5e-3, batch=options.batch)
    print(f"unseen beams: accuracy {accuracy(network, tests, answers):.1%}")
    explainer = Explainer.from_module(network, labels=["healthy", "damaged"], input_size=SIDE)
    inspect(explainer, beams)
    pairs = [drawn(explainer, beams[number]) for number in (1, 3, 5, 0)]
    save("cantilever.jpg", grid([*(pair[0] for pair in pairs), *(pair[1] for pair in pairs)], 4))
    show(explainer, [as_frame(beam.image) for beam in beams[:4]], "cantilever")


if __name__ == "__main__":
    main()
