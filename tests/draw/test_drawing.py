"""One picture with and without its labels, each drawn when it is asked for."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import nn

from stream_cam.config import LayoutName, LookConfig
from stream_cam.draw.hud import HudStatus
from stream_cam.draw.layouts import LAYOUTS
from stream_cam.draw.renderer import Renderer
from stream_cam.explain.explainer import Explainer
from stream_cam.frame import Frame
from stream_cam.settings import SettingsSnapshot


@pytest.fixture(scope="module")
def explainer() -> Explainer:
    torch.manual_seed(0)
    return Explainer.from_module(
        nn.Sequential(
            nn.Conv2d(3, 8, 9, stride=8, padding=4),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(8, 12),
        ),
        input_size=64,
        engine="eager",
        device="cpu",
    )


STATUS = HudStatus(engine="eager fp32", fps=30.0)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_labels_are_optional_in_every_layout(explainer: Explainer, layout: LayoutName) -> None:
    image = np.random.default_rng(0).integers(0, 255, (360, 640, 3), np.uint8)
    frame = Frame(image, 0, 0, Fraction(1), 0)
    explanation = explainer.explain(frame, n_maps=LAYOUTS[layout].n_maps)
    with_hud, without = (SettingsSnapshot(LookConfig(layout, hud=hud)) for hud in (True, False))
    renderer = Renderer()
    drawing = renderer.draw(frame, explanation, with_hud, STATUS)
    full = renderer.render(frame, explanation, with_hud, STATUS)
    bare = renderer.render(frame, explanation, without, STATUS)
    assert not np.array_equal(full, bare)
    assert np.array_equal(drawing.as_set(), full)
    assert drawing.as_set() is drawing.labelled(True), "drawn once"
    assert np.array_equal(renderer.draw(frame, explanation, without, STATUS).as_set(), bare)
    beside_a_panel = drawing.labelled(False)
    if layout == "top5":  # the panel does not say which map is whose
        assert not np.array_equal(beside_a_panel, bare)
        assert np.array_equal(beside_a_panel[:180, :320], bare[:180, :320])
    else:
        assert np.array_equal(beside_a_panel, bare)
    nothing = renderer.draw(frame, None, with_hud)
    assert nothing.labelled(True) is nothing.labelled(False)
