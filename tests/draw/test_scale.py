"""Heat on one scale: a class that contributes nothing is cold."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from stream_cam.cam.colormaps import color_table
from stream_cam.config import LookConfig
from stream_cam.draw.overlay import cold_and_hot, draw_heatmap
from stream_cam.explain.explainer import Explainer
from stream_cam.frame import BgrImage, Explanation
from stream_cam.sources import open_source

HEAT = LookConfig(colormap="inferno", hud=False)
"""Its brightness grows with the heat."""


@pytest.fixture(scope="module")
def explainer() -> Explainer:
    return Explainer.load(weights="demo", engine="eager", device="cpu")


@pytest.fixture(scope="module")
def frame() -> BgrImage:
    with open_source("demo://shapes?size=640x360&seconds=2&seed=1") as source:
        frames = list(source)
    return frames[-1].image_bgr


def hottest(frame: BgrImage, explanation: Explanation, look: LookConfig, target: int = 0) -> int:
    """Brightness of the hottest pixel of a map drawn alone, 0..255."""
    heatmap = draw_heatmap(frame, explanation, look, target=target)
    return int(heatmap.astype(int).mean(axis=2).max())


def test_a_class_without_a_share_is_cold_and_the_right_one_hot(
    explainer: Explainer, frame: BgrImage
) -> None:
    right = explainer.explain(frame).predictions[0]
    assert right.probability > 0.9
    wrong = [label for label in explainer.labels if label != right.label]
    explanation = explainer.explain(frame, [right.label, *wrong[:3]])
    hot = hottest(frame, explanation, HEAT)
    assert hot > 150
    for number, target in enumerate(explanation.targets[1:], start=1):
        assert target.probability < 0.05
        assert hottest(frame, explanation, HEAT, number) < 0.5 * hot
        own = hottest(frame, explanation, replace(HEAT, scale="own"), number)
        assert own > 0.8 * hot, "on its own scale it glows as the right class does"


def test_scales_are_chosen_by_the_look(explainer: Explainer, frame: BgrImage) -> None:
    explanation = explainer.explain(frame)
    low, high = float(explanation.cam.min()), float(explanation.cam.max())
    half = replace(explanation, targets=(replace(explanation.targets[0], probability=0.25),))
    assert cold_and_hot(half, LookConfig()) == pytest.approx((low, low + 2.0 * (high - low)))
    assert cold_and_hot(half, LookConfig(scale="own")) is None
    fixed = LookConfig(scale="fixed", scale_low=-1.0, scale_high=3.0)
    assert cold_and_hot(half, fixed) == (-1.0, 3.0)
    none = replace(explanation, targets=(replace(explanation.targets[0], probability=0.0),))
    cold = draw_heatmap(frame, none, HEAT)
    assert np.array_equal(cold, np.broadcast_to(color_table("inferno")[0], cold.shape))


def test_the_scale_follows_the_filtered_range(explainer: Explainer, frame: BgrImage) -> None:
    explanation = explainer.explain(frame)
    filtered = replace(
        explanation,
        ranges=np.array([[-1.0, 3.0]], np.float32),
        targets=(replace(explanation.targets[0], probability=0.25),),
    )
    assert cold_and_hot(filtered, LookConfig()) == pytest.approx((-1.0, 7.0))
    assert cold_and_hot(filtered, LookConfig(relu=True)) == pytest.approx((0.0, 6.0))
    assert cold_and_hot(filtered, LookConfig(scale="own")) == pytest.approx((-1.0, 3.0))


def test_fixed_needs_a_range() -> None:
    with pytest.raises(ValueError, match="--scale-high is a number above --scale-low, got 3 and 3"):
        LookConfig(scale_low=3.0, scale_high=3.0)
