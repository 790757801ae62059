"""MNIST's ten classes: where a 4 is a 4 and not a 9, and how well maps find digits.

pip install 'stream-cam[learn]'
python mnist_maps.py                           # writes why_not.jpg, canvases.jpg and digits_maps/
"""

from __future__ import annotations

import argparse

import cv2
import numpy as np
import torch
from lesson_parts import accuracy, as_frame, cell, enlarged, grid, mnist, save, show, train
from torch import Tensor, nn

from stream_cam import Explainer, LookConfig, draw_overlay

LABELS = [str(digit) for digit in range(10)]
SIDE, CANVAS = 168, 112
"""Pixels of a cell in the pictures, and of a canvas."""
LOOK = LookConfig(scale="own", relu=True)
THRESHOLDS = (0.5, 0.65, 0.8)
Box = tuple[float, float, float, float]


def network(*layers: tuple[int, int, int, bool]) -> nn.Sequential:
    """Convolutions (inputs, outputs, stride, pool), global average pooling, one linear layer."""
    torch.manual_seed(0)
    parts: list[nn.Module] = []
    for inputs, outputs, stride, pool in layers:
        parts += [nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)]
        parts += [nn.BatchNorm2d(outputs), nn.ReLU(), *([nn.MaxPool2d(2)] if pool else [])]
    return nn.Sequential(
        *parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10, bias=False)
    )


def digit_network() -> nn.Sequential:
    """28×28 → 14×14 cells of 2 pixels: fine enough to show a stroke."""
    return network((1, 16, 1, True), (16, 32, 1, False), (32, 64, 1, False))


def canvas_network() -> nn.Sequential:
    """112×112 → 14×14 cells of 8 pixels, each of which sees a whole digit."""
    return network((1, 16, 2, True), (16, 32, 1, True), (32, 64, 1, False), (64, 64, 1, False))


def place(digits: Tensor, seed: int) -> tuple[Tensor, list[Box]]:
    """Each digit somewhere on a canvas between six pieces of other digits, 8×8 pixels each.

    Returns:
        canvases (N, 1, 112, 112), and the box around the ink of each digit: x0, y0, x1, y1.
    """
    random = np.random.default_rng(seed)
    canvases = torch.zeros(len(digits), 1, CANVAS, CANVAS)
    boxes: list[Box] = []
    for canvas, digit in zip(canvases, digits, strict=True):
        for _ in range(6):
            piece = digits[random.integers(len(digits)), 0, 8:16, 10:18]
            x, y = (int(at) for at in random.integers(0, CANVAS - 8, 2))
            canvas[0, y : y + 8, x : x + 8] = piece
        x, y = (int(at) for at in random.integers(0, CANVAS - 28, 2))
        canvas[0, y : y + 28, x : x + 28] = digit[0]
        left, top, wide, high = cv2.boundingRect((digit[0] > 0.3).byte().numpy())
        boxes.append((x + left, y + top, x + left + wide, y + top + high))
    return canvases, boxes


def hot_box(cam: np.ndarray, threshold: float) -> Box:
    """The box around the connected region at the peak above a share of the peak, in pixels."""
    fine = cv2.resize(cam, (CANVAS, CANVAS), interpolation=cv2.INTER_LINEAR)
    at = np.unravel_index(fine.argmax(), fine.shape)
    hot = (fine > threshold * fine.max()).astype(np.uint8)
    _, regions, boxes, _ = cv2.connectedComponentsWithStats(hot)
    left, top, wide, high = (int(side) for side in boxes[regions[at]][:4])
    return left, top, left + wide, top + high


def overlap(a: Box, b: Box) -> float:
    """Intersection over union of two boxes."""
    wide = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    high = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return wide * high / (areas - wide * high)


def why_not(explainer: Explainer, images: Tensor, labels: Tensor) -> np.ndarray:
    """Two 4s and two 9s: the maps of both classes, and the difference of the two."""
    cells = []
    for digit, other in ((4, 9), (9, 4)):
        for index in (labels == digit).nonzero()[:2, 0]:
            frame = as_frame(images[index])
            explanation = explainer.explain(frame, [str(digit), str(other)])
            large = enlarged(frame, SIDE)
            cells.append(cell(large, [f"a {digit}"], (SIDE, SIDE)))
            for number, target in enumerate(explanation.targets):
                drawn = draw_overlay(large, explanation, LOOK, target=number)
                line = f"{target.label}: logit {explanation.logits[target.index]:+.1f}"
                cells.append(cell(drawn, [line], (SIDE, SIDE)))
            difference = explainer.explain(frame, str(digit), against=str(other))
            first, second = (explanation.logits[target.index] for target in explanation.targets)
            print(
                f"  a {digit}: logits differ by {first - second:.3f}, "
                f"mean of the contrast map {difference.cams.mean():.3f}"
            )
            line = f"why {digit} and not {other}"
            cells.append(cell(draw_overlay(large, difference, LOOK), [line], (SIDE, SIDE)))
    return grid(cells, 4)


def find_digits(
    explainer: Explainer, canvases: Tensor, boxes: list[Box], labels: Tensor
) -> np.ndarray:
    """Prints pointing game and IoU for each digit's own class; draws eight canvases."""
    near: list[tuple[bool, ...]] = []
    overlaps: list[list[float]] = []
    cells = []
    for number, (canvas, box, label) in enumerate(zip(canvases, boxes, labels, strict=True)):
        frame = as_frame(canvas)
        explanation = explainer.explain(frame, int(label))
        peak, another = explanation.peak_xy(), boxes[number - 1]
        near.append((inside(peak, box, 0), inside(peak, box, 4), inside(peak, another, 4)))
        overlaps.append([overlap(hot_box(explanation.cam, share), box) for share in THRESHOLDS])
        if number < 8:
            drawn = draw_overlay(enlarged(frame, 224), explanation, LOOK)
            for corners, color in (
                (box, (255, 255, 255)),
                (hot_box(explanation.cam, THRESHOLDS[-1]), (80, 220, 80)),
            ):
                x0, y0, x1, y1 = (int(2 * side) for side in corners)
                cv2.rectangle(drawn, (x0, y0), (x1, y1), color, 1)
            line = f"map of {int(label)}, IoU {overlaps[-1][-1]:.2f}"
            cells.append(cell(drawn, [line], (224, 224)))
    exact, half_a_cell, other = np.mean(near, axis=0)
    print(f"  peak in the box {exact:.1%}, or at most half a cell beside it {half_a_cell:.1%}")
    print(f"  the same with another canvas's box {other:.1%}")
    for share, value in zip(THRESHOLDS, np.mean(overlaps, axis=0), strict=True):
        print(f"  box around heat above {share:.0%} of the peak: mean IoU {value:.2f}")
    return grid(cells, 4)


def inside(point_xy: tuple[float, float], box: Box, margin: float) -> bool:
    """Whether a point is in a box that is larger by a margin on all sides."""
    (x, y), (x0, y0, x1, y1) = point_xy, box
    return x0 - margin <= x <= x1 + margin and y0 - margin <= y <= y1 + margin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--digits", type=int, default=4000, help="of 5000, to train on")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--tests", type=int, default=1000)
    options = parser.parse_args()
    images, labels = mnist()
    train_set, test = slice(0, options.digits), slice(4000, 4000 + options.tests)

    small = digit_network()
    train(small, images[train_set], labels[train_set], epochs=3, rate=1e-2)
    print(f"digits: accuracy {accuracy(small, images[test], labels[test]):.1%}")
    explainer = Explainer.from_module(small, labels=LABELS, input_size=28)
    save("why_not.jpg", why_not(explainer, images[test], labels[test]))

    canvases, _ = place(images[train_set], 1)
    tests, boxes = place(images[test], 2)
    large = canvas_network()
    train(large, canvases, labels[train_set], epochs=options.epochs, rate=1e-2)
    print(f"canvases: accuracy {accuracy(large, tests, labels[test]):.1%}")
    explainer = Explainer.from_module(large, labels=LABELS, input_size=CANVAS)
    save("canvases.jpg", find_digits(explainer, tests, boxes, labels[test]))
    show(explainer, [as_frame(canvas) for canvas in tests[:4]], "digits")


if __name__ == "__main__":
    main()
