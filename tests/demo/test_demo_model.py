"""The shipped model reaches the figures of its card, on the demo's scene and on new pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from stream_cam.config import CaptureConfig
from stream_cam.explain.explainer import Explainer
from stream_cam.sinks.base import Picture
from stream_cam.sinks.score import TruthScore
from stream_cam.sources import open_source

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


@pytest.fixture(scope="module")
def explainer() -> Explainer:
    return Explainer.load("resnet18", weights="demo", engine="eager", device="cpu")


def test_demo_model_follows_the_shapes_of_the_demo(explainer: Explainer) -> None:
    score = TruthScore()
    # Twenty seconds of another seed than the demo's default: every shape comes once.
    uri = "demo://shapes?size=640x360&fps=4&seconds=20&seed=5"
    with open_source(uri, CaptureConfig()) as source:
        for frame in source:
            explanation = explainer.explain(frame)
            score.write(Picture(frame.image_bgr, frame, explanation))
    assert score.n_frames >= 60
    assert score.n_correct >= 0.93 * score.n_frames
    assert score.n_hits >= 0.93 * score.n_frames


def test_demo_model_names_shapes_of_another_painter(
    explainer: Explainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`scripts/demo_judge.py` draws with Pillow, and shares no line with the training's painter."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    from check_demo import cell_centres, heat_beside
    from demo_judge import judge_picture

    rng = np.random.default_rng(20261122)
    labels = [*explainer.labels] * 10
    right = hits = shapes = 0
    beside = []
    for label in labels:
        picture = judge_picture(rng, label, [])
        explanation = explainer.explain(picture.image_bgr)
        right += explanation.predictions[0].label == label
        if label != "nothing":
            shapes += 1
            of_label = explainer.explain(picture.image_bgr, label)
            x, y = of_label.peak_xy()
            left, top, right_edge, bottom = picture.box_xyxy
            hits += left <= x <= right_edge and top <= y <= bottom
            height, width = picture.image_bgr.shape[:2]
            cells_xy = cell_centres(of_label.cam.shape, width, height)
            beside.append(heat_beside(of_label.cam, cells_xy, picture.box_xyxy))
    # A floor for the shipped model, below its goal of 95 %: raise it with the next model.
    assert right >= 0.87 * len(labels)
    assert hits >= 0.93 * shapes
    assert np.nanmean(beside) <= 0.15, "a map is warm on its shape, and not on the wall"
