"""Two galleries of maps on photographs: the five best classes of one, and one class through many.

pip install 'stream-cam[photos]'
python galleries.py                            # writes top_five.jpg and one_class.jpg
python galleries.py --photo cat.jpg --target tabby
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from stream_cam import Explainer, LookConfig, draw_overlay, open_source

CELL_WIDTH, CELL_HEIGHT = 320, 240
OWN_RANGE = LookConfig(scale="own", colormap="turbo", alpha=0.4, alpha_mode="constant")
"""Each map from blue, its lowest value, to red, its highest."""


def cell(image_bgr: np.ndarray, lines: Sequence[str]) -> np.ndarray:
    """A picture of (240, 320, 3) uint8 with lines of text below it."""
    small = cv2.resize(image_bgr, (CELL_WIDTH, CELL_HEIGHT), interpolation=cv2.INTER_AREA)
    text = np.full((18 * len(lines) + 8, CELL_WIDTH, 3), 255, np.uint8)
    for number, line in enumerate(lines):
        place = (6, 18 * (number + 1))
        cv2.putText(text, line, place, cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 1, cv2.LINE_AA)
    return np.vstack([small, text])


def photographs(source: str) -> list[tuple[str, np.ndarray]]:
    """Names and pictures of a folder or a file; of `demo://photos`, the first five."""
    if source.startswith("demo://photos"):
        names = ("chelsea", "coffee", "motorcycle", "camera", "rocket")
        # Each is seen for four seconds: the frame in the middle of each.
        with open_source("demo://photos?seconds=20&fps=1&size=800x600") as camera:
            seen = [frame.image_bgr for frame in camera if frame.index % 4 == 2]
        return list(zip(names, seen, strict=True))
    with open_source(source) as pictures:
        return [(Path(frame.name or source).stem, frame.image_bgr.copy()) for frame in pictures]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photo", default="demo://photos")
    parser.add_argument("--photos", default="demo://photos")
    parser.add_argument("--target", default="espresso")
    options = parser.parse_args()
    explainer = Explainer.load("efficientnet_lite0")

    name, image_bgr = photographs(options.photo)[0]
    explanation = explainer.explain(image_bgr, n_maps=5)
    cells = [cell(image_bgr, [name, "the photograph"])]
    print(f"{name}:")
    for number, prediction in enumerate(explanation.targets):
        peak = float(explanation.cams[number].max())
        shown = draw_overlay(image_bgr, explanation, OWN_RANGE, target=number)
        cells.append(
            cell(shown, [f"{prediction.label} {prediction.probability:.1%}", f"peak {peak:.1f}"])
        )
        print(f"  {prediction.label:16} {prediction.probability:6.1%}  peak {peak:5.1f}")
    cv2.imwrite("top_five.jpg", np.vstack([np.hstack(cells[:3]), np.hstack(cells[3:])]))

    own_range, by_probability = [], []
    print(f"{options.target}:")
    for name, image_bgr in photographs(options.photos)[:5]:
        explanation = explainer.explain(image_bgr, options.target)
        wanted, peak = explanation.targets[0], float(explanation.cam.max())
        best = explanation.predictions[0].label
        lines = [f"{wanted.label} {wanted.probability:.1%}", f"peak {peak:.1f} | {best}"]
        own_range.append(cell(draw_overlay(image_bgr, explanation, OWN_RANGE), lines))
        by_probability.append(cell(draw_overlay(image_bgr, explanation), lines))
        print(f"  {name:12} {wanted.probability:6.1%}  peak {peak:5.1f}  best: {best}")
    cv2.imwrite("one_class.jpg", np.vstack([np.hstack(own_range), np.hstack(by_probability)]))
    print("wrote top_five.jpg and one_class.jpg")


if __name__ == "__main__":
    main()
