"""Annotates a video frame by frame, and counts how often each class was the best one.

python annotate_video.py                           # two seconds of the drawn scene
python annotate_video.py clip.mp4 out.mp4 --weights imagenet
"""

from __future__ import annotations

import argparse
from collections import Counter

from stream_cam import (
    Explainer,
    LookConfig,
    Picture,
    SteadyMaps,
    StreamInfo,
    draw_overlay,
    open_sink,
    open_source,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("video", nargs="?", default="demo://shapes?size=320x240&fps=10&seconds=2")
    parser.add_argument("out", nargs="?", default="annotated.mp4")
    parser.add_argument("--weights", default="demo")
    options = parser.parse_args()

    explainer = Explainer.load("resnet18", weights=options.weights)
    steady, look = SteadyMaps(), LookConfig(smooth=0.3)
    counts: Counter[str] = Counter()
    with open_source(options.video) as source:
        stream = StreamInfo(fps=source.info.fps)
        with open_sink(options.out, stream, overwrite=True) as sink:
            for frame in source:
                explanation = steady.update(explainer.explain(frame), look)
                counts[explanation.predictions[0].label] += 1
                picture_bgr = draw_overlay(frame, explanation, look)
                sink.write(Picture(picture_bgr, frame, explanation))

    for label, n_frames in counts.most_common(3):
        print(f"{label:12} {n_frames} frames")
    print(f"wrote {options.out}")


if __name__ == "__main__":
    main()
