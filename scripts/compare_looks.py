"""A sheet of colours and strengths on several pictures, to choose the default look by looking.

    python scripts/compare_looks.py looks.jpg [PICTURE …] [--model NAME] [--weights NAME]

Each row is a picture, each column a look. Without pictures: two frames of the demo's scene, and the
same room dark and bright.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from stream_cam.config import LookConfig  # noqa: E402
from stream_cam.draw.hud import captioned  # noqa: E402
from stream_cam.draw.overlay import draw_overlay  # noqa: E402
from stream_cam.explain.explainer import Explainer  # noqa: E402
from stream_cam.frame import BgrImage  # noqa: E402
from stream_cam.sources import open_source  # noqa: E402

LOOKS = (
    LookConfig(colormap="turbo", alpha=0.4, alpha_mode="constant", upsampling="bilinear"),
    LookConfig(colormap="turbo", alpha=0.6, alpha_mode="heat"),
    LookConfig(colormap="inferno", alpha=0.5, alpha_mode="constant"),
    LookConfig(colormap="inferno", alpha=0.8, alpha_mode="heat"),
    LookConfig(colormap="magma", alpha=0.8, alpha_mode="heat"),
    LookConfig(colormap="viridis", alpha=0.7, alpha_mode="heat"),
)
_WIDTH_PX = 400


def name_of(look: LookConfig) -> str:
    return f"{look.colormap} {look.alpha:g} {look.alpha_mode}"


def demo_pictures() -> list[BgrImage]:
    """Two moments of the scene, in a dark and in a bright room as well."""
    with open_source("demo://shapes?size=640x360&seconds=4") as source:
        frames = [frame.image_bgr for frame in source]
    first, second = frames[30], frames[-1]
    dark = np.asarray(cv2.convertScaleAbs(first, alpha=0.3), np.uint8)
    bright = np.asarray(cv2.convertScaleAbs(second, alpha=1.0, beta=90), np.uint8)
    return [first, dark, second, bright]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("out", type=Path)
    parser.add_argument("pictures", type=Path, nargs="*")
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--weights", default="demo")
    options = parser.parse_args()
    explainer = Explainer.load(options.model, weights=options.weights)
    images = [cv2.imread(str(path)) for path in options.pictures] or demo_pictures()
    rows = []
    for image in images:
        if image is None:
            print("compare_looks: one of the pictures cannot be read", file=sys.stderr)
            return 1
        height = round(image.shape[0] * _WIDTH_PX / image.shape[1])
        size = (_WIDTH_PX, height)
        small = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
        explanation = explainer.explain(small)
        said = explanation.targets[0]
        cells = [
            captioned(draw_overlay(small, explanation, look), name_of(look), said.label)
            for look in LOOKS
        ]
        rows.append(np.hstack(cells))
    cv2.imwrite(str(options.out), np.vstack(rows), [cv2.IMWRITE_JPEG_QUALITY, 88])
    return 0


if __name__ == "__main__":
    sys.exit(main())
