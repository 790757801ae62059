"""GAP and CAM from nothing: a network of 18 944 numbers tells 3 from 8, and its map is one sum.

pip install 'stream-cam[learn]'
python gap_from_nothing.py                     # writes gap_from_nothing.jpg and gap_maps/
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from lesson_parts import accuracy, as_frame, cell, enlarged, grid, mnist, save, show, train
from torch import Tensor, nn

from stream_cam import Explainer, LookConfig, NoCamError, draw_overlay

DIGITS = ("3", "8")
SIDE = 168
LOOK = LookConfig(scale="own", relu=True)
TRAIN, TEST = slice(0, 800), slice(800, None)


def network(head: str) -> nn.Sequential:
    """28×28×1 → 64 planes of 7×7 → 2 logits; `head` is "gap", as in the lesson, or "flatten"."""
    torch.manual_seed(0)
    features = [
        nn.Conv2d(1, 32, 3, padding=1),  # 3·3·1·32 weights + 32 biases = 320
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1),  # 3·3·32·64 + 64 = 18 496
        nn.ReLU(),
        nn.MaxPool2d(2),
    ]
    if head == "flatten":
        return nn.Sequential(*features, nn.Flatten(), nn.Linear(64 * 7 * 7, 2, bias=False))
    pool = nn.AdaptiveAvgPool2d(1)
    return nn.Sequential(*features, pool, nn.Flatten(), nn.Linear(64, 2, bias=False))  # 128


def count(layers: nn.Sequential) -> list[int]:
    """The parameters of each layer that has any."""
    counts = [sum(part.numel() for part in layer.parameters()) for layer in layers]
    return [number for number in counts if number]


@torch.inference_mode()
def work_through(layers: nn.Sequential, image: Tensor) -> np.ndarray:
    """Prints the sum for one place of one digit; returns the map of 8, (7, 7)."""
    planes = layers[:6](image[None])[0].numpy()
    weight = layers.get_parameter("8.weight").numpy()[1]
    cam = np.tensordot(weight, planes, 1)
    y, x = (int(at) for at in np.unravel_index(cam.argmax(), cam.shape))
    parts = weight * planes[:, y, x]
    order = np.argsort(-np.abs(parts))
    print(f"the map of 8 at row {y}, column {x}:")
    print("   plane k    w[8, k]   f_k(x, y)    product")
    for k in order[:4]:
        print(f"  {k:8}  {weight[k]:9.3f}  {planes[k, y, x]:10.3f}  {parts[k]:9.3f}")
    print(f"  the other {len(order) - 4} planes {'':12} {parts[order[4:]].sum():9.3f}")
    print(f"  M_8(x, y), the sum {'':12} {cam[y, x]:9.3f}")
    logit = float(layers(image[None])[0, 1])
    print(f"mean of the 49 places of the map {cam.mean():.4f}, logit of 8 {logit:.4f}")
    return cam


def drawn(explainer: Explainer, image: Tensor, name: str) -> list[np.ndarray]:
    """A digit, and the maps of both classes on it."""
    frame = as_frame(image)
    large = enlarged(frame, SIDE)
    explanation = explainer.explain(frame, DIGITS)
    cells = [cell(large, [name], (SIDE, SIDE))]
    for number, wanted in enumerate(explanation.targets):
        logit = explanation.logits[wanted.index]
        lines = [f"map of {wanted.label}, logit {logit:+.1f}"]
        picture = draw_overlay(large, explanation, LOOK, target=number)
        cells.append(cell(picture, lines, (SIDE, SIDE)))
    return cells


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=20)
    options = parser.parse_args()
    images, labels = mnist([3, 8])
    moved = torch.roll(images, (-4, 4), (2, 3))

    trained = {}
    for head in ("gap", "flatten"):
        layers = trained[head] = network(head)
        print(f"{head}: {' + '.join(map(str, count(layers)))} = {sum(count(layers))} parameters")
        train(layers, images[TRAIN], labels[TRAIN], epochs=options.epochs)
        right = accuracy(layers, images[TEST], labels[TEST])
        right_moved = accuracy(layers, moved[TEST], labels[TEST])
        print(f"  accuracy {right:.1%}; on digits moved by 4 pixels {right_moved:.1%}")

    tests, names = images[TEST], labels[TEST]
    three, eight = (tests[int((names == number).nonzero()[0])] for number in (0, 1))
    work_through(trained["gap"], eight)

    explainer = Explainer.from_module(trained["gap"], labels=DIGITS, input_size=28)
    try:
        Explainer.from_module(trained["flatten"], labels=DIGITS, input_size=28)
    except NoCamError as error:
        print(f"flatten: {error}")
    cells = drawn(explainer, eight, "an 8") + drawn(explainer, three, "a 3")
    save("gap_from_nothing.jpg", grid(cells, 3))
    show(explainer, [as_frame(eight), as_frame(three)], "gap")


if __name__ == "__main__":
    main()
