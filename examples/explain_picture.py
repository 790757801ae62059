"""Explains one picture, prints the best classes and saves the picture with its map.

python explain_picture.py                          # a frame of the drawn scene
python explain_picture.py photo.jpg --weights imagenet
"""

from __future__ import annotations

import argparse

import cv2

from stream_cam import Explainer, draw_overlay, open_source


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("picture", nargs="?", default="demo://shapes?seconds=1&seed=3")
    parser.add_argument("--weights", default="demo")
    parser.add_argument("--out", default="explained.png")
    options = parser.parse_args()

    explainer = Explainer.load("resnet18", weights=options.weights)
    with open_source(options.picture) as source:
        frame = next(iter(source))
    explanation = explainer.explain(frame)

    for prediction in explanation.predictions[:3]:
        print(f"{prediction.label:12} {prediction.probability:.3f}")
    x, y = explanation.peak_xy()
    print(f"the map's peak is at x={x:.0f}, y={y:.0f}")
    cv2.imwrite(options.out, draw_overlay(frame, explanation))
    print(f"wrote {options.out}")


if __name__ == "__main__":
    main()
