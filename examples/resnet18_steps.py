"""ResNet18 step by step: each stage's shape, then from 7×7 cells to a map on a photograph.

pip install 'stream-cam[photos]'
python resnet18_steps.py                       # writes steps.jpg and step_maps/
python resnet18_steps.py --model resnet18      # the same with ResNet18's weights, downloaded
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import cv2
import numpy as np
import torch
from lesson_parts import cell, grid, save, show
from torch import Tensor, nn
from torchvision.models import resnet18

from stream_cam import Explainer, Explanation, Features, LookConfig, draw_overlay, open_source
from stream_cam.config import Upsampling

STAGES = ("conv1", "maxpool", "layer1", "layer2", "layer3", "layer4", "avgpool", "fc")
SIDE = 224
LOOK = LookConfig(scale="own", colormap="turbo", alpha=0.5, alpha_mode="constant")
UPSAMPLINGS: tuple[Upsampling, ...] = ("nearest", "bilinear", "bicubic", "smooth")


def shapes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    """The shape of each stage's output for one picture of 3×224×224."""
    seen: dict[str, tuple[int, ...]] = {}

    def note(name: str) -> None:
        def hook(_layer: nn.Module, _inputs: object, output: Tensor) -> None:
            seen[name] = tuple(output.shape[1:])

        network.get_submodule(name).register_forward_hook(hook)

    for name in STAGES:
        note(name)
    with torch.inference_mode():
        network(torch.zeros(1, 3, 224, 224))
    return seen


def photograph(index: int) -> np.ndarray:
    """The cat or the coffee of scikit-image, (224, 224, 3) uint8 BGR."""
    with open_source("demo://photos?seconds=20&fps=1&size=800x600") as camera:
        frames = [frame.image_bgr.copy() for frame in camera if frame.index == 4 * index + 2]
    return cv2.resize(frames[0], (SIDE, SIDE), interpolation=cv2.INTER_AREA)


def kept(explanation: Explanation) -> Features:
    if explanation.features is None:
        raise ValueError("no features were kept; call explain(..., keep_features=True)")
    return explanation.features


def bias_of(explanation: Explanation, index: int) -> float:
    """A logit without what GAP and the weights give: the bias, the same on every picture."""
    features = kept(explanation)
    return float(
        explanation.logits[index] - features.class_weight[[index]][0] @ features.values.mean((1, 2))
    )


def work_through(explanation: Explanation) -> None:
    """Prints GAP, the linear layer and softmax, computed by hand from the features."""
    features, best = kept(explanation), explanation.predictions[0]
    pooled = features.values.mean((1, 2))
    logit = explanation.logits[best.index]
    powers = np.exp(explanation.logits - explanation.logits.max())
    print(f"  features {named(features.values.shape)}, map {named(explanation.cam.shape)}")
    print(f"  GAP: {len(pooled)} means; mean of the map {explanation.cam.mean():.4f}")
    print(
        f"  FC: Σ w·mean = {features.class_weight[[best.index]][0] @ pooled:.4f}, the same number"
    )
    print(f"  plus the bias {bias_of(explanation, best.index):+.4f} = logit {logit:.4f}")
    print(f"  softmax: {powers[best.index] / powers.sum():.1%} {best.label}")


def named(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))


def gallery(image_bgr: np.ndarray, explanation: Explanation) -> np.ndarray:
    """The photograph, its strongest plane, and the map in four ways of upsampling."""
    features, size = kept(explanation), (SIDE, SIDE)
    best = explanation.predictions[0]
    products = features.class_weight[[best.index]][0] * features.values.mean((1, 2))
    strongest = int(products.argmax())
    plane = features.values[strongest]
    grey = (255 * (plane - plane.min()) / (plane.max() - plane.min())).round().astype(np.uint8)
    cells = [
        cell(image_bgr, ["the photograph, 224×224"], size),
        cell(np.repeat(grey[:, :, None], 3, axis=2), [f"plane {strongest} of the features"], size),
    ]
    for name in UPSAMPLINGS:
        drawn = draw_overlay(image_bgr, explanation, replace(LOOK, upsampling=name))
        cells.append(cell(drawn, [name], size))
    return grid(cells, 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="efficientnet_lite0")
    options = parser.parse_args()

    print("ResNet18, 3×224×224:")
    for name, shape in shapes(resnet18(weights=None).eval()).items():
        print(f"  {name:8} {named(shape)}")

    explainer = Explainer.load(options.model)
    image_bgr = photograph(0)
    explanation = explainer.explain(image_bgr, keep_features=True)
    print(f"{options.model} on a photograph:")
    work_through(explanation)
    other = explainer.explain(photograph(1), keep_features=True)
    bias = bias_of(other, explanation.predictions[0].index)
    print(f"  the bias from another photograph: {bias:+.4f}")
    save("steps.jpg", gallery(image_bgr, explanation))
    show(explainer, [image_bgr], "step")


if __name__ == "__main__":
    main()
