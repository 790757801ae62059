"""A network that takes a shortcut: it reads a mark in the corner, and its maps give it away.

pip install 'stream-cam[learn]'
python shortcut.py                             # writes shortcut.jpg and shortcut_maps/
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from lesson_parts import accuracy, as_frame, cell, enlarged, grid, mnist, save, show, train
from torch import Tensor, nn

from stream_cam import Explainer, LookConfig, draw_overlay

SIDE = 168
"""Pixels of a digit in the pictures; the network sees 28."""
MARK = slice(2, 5)
"""Rows and columns of the mark. With the convolutions' borders it reaches 2×2 of the 7×7 cells."""
LOOK = LookConfig(scale="own", relu=True)


def small_network() -> nn.Sequential:
    """Three convolutions, global average pooling, one linear layer: 28×28 → 7×7 cells → 2."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for inputs, outputs, pool in ((1, 16, 2), (16, 32, 2), (32, 64, 1)):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]
        layers += [nn.MaxPool2d(pool)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 2))


def noisy(images: Tensor, noise: float) -> Tensor:
    """Weak digits under a camera's noise: hard to read, which makes the mark the easier way."""
    generator = torch.Generator().manual_seed(1)
    return (0.2 + 0.6 * images + noise * torch.randn(images.shape, generator=generator)).clamp(0, 1)


def marked(images: Tensor, which: Tensor) -> Tensor:
    """A white square of 3×3 pixels in the corner of the chosen pictures."""
    images = images.clone()
    images[which, :, MARK, MARK] = 1.0
    return images


def looks_at_mark(explainer: Explainer, images: Tensor) -> tuple[float, float]:
    """For the class 8: the mean share of the heat on the mark, and how often the peak is there."""
    shares, peaks = [], []
    for image in images:
        explanation = explainer.explain(as_frame(image), "8")
        heat = explanation.cam.clip(min=0)
        shares.append(heat[:2, :2].sum() / max(heat.sum(), 1e-9))
        peaks.append(max(explanation.peak_xy()) < 8)
    return float(np.mean(shares)), float(np.mean(peaks))


def drawn(explainer: Explainer, image: Tensor) -> np.ndarray:
    """The map of 8 on a picture, with the answer below."""
    frame = as_frame(image)
    explanation = explainer.explain(frame, "8")
    large = enlarged(frame, SIDE)
    best = explanation.predictions[0]
    lines = [f"says {best.label}, {best.probability:.0%}"]
    return cell(draw_overlay(large, explanation, LOOK), lines, (SIDE, SIDE))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--noise", type=float, default=0.25)
    parser.add_argument("--epochs", type=int, default=8)
    options = parser.parse_args()
    images, labels = mnist([3, 8])
    images, eight = noisy(images, options.noise), labels == 1
    train_set, test = slice(0, 800), slice(800, None)

    tests = {
        "mark on every 8": marked(images, eight)[test],
        "no mark": images[test],
        "mark on every 3": marked(images, ~eight)[test],
    }
    explainers, answers = {}, {}
    for name, pictures in (("with", marked(images, eight)), ("without", images)):
        network = small_network()
        train(network, pictures[train_set], labels[train_set], epochs=options.epochs)
        explainer = Explainer.from_module(network, labels=["3", "8"], input_size=28)
        explainers[name] = explainer
        with torch.inference_mode():
            answers[name] = network(tests["mark on every 3"]).argmax(1) == 1
        print(f"trained {name} the mark:")
        for test_name, shown in tests.items():
            print(f"  {test_name:16} accuracy {accuracy(network, shown, labels[test]):6.1%}")
        share, peak = looks_at_mark(explainer, tests["mark on every 8"][eight[test]])
        print(f"  heat on the mark {share:6.1%}  peak on the mark {peak:6.1%}")

    one_eight = int(eight[test].nonzero()[0])
    fooled = answers["with"] & ~eight[test]
    one_three = int((fooled if bool(fooled.any()) else ~eight[test]).nonzero()[0])
    chosen = {
        "an 8, marked": tests["mark on every 8"][one_eight],
        "the same 8": tests["no mark"][one_eight],
        "a 3": tests["no mark"][one_three],
        "a 3, marked": tests["mark on every 3"][one_three],
    }
    cells = [cell(as_frame(one), [name], (SIDE, SIDE)) for name, one in chosen.items()]
    for explainer in explainers.values():
        cells += [drawn(explainer, one) for one in chosen.values()]
    save("shortcut.jpg", grid(cells, len(chosen)))
    show(explainers["with"], [as_frame(one) for one in chosen.values()], "shortcut")


if __name__ == "__main__":
    main()
