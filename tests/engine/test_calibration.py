"""Frames for int8 engines are those that `run` would see, spread over the whole source."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from stream_cam.cam.cpu import CpuPreprocessor
from stream_cam.config import Fit
from stream_cam.engine.calibration import (
    LEAST_FRAMES,
    MOST_FRAMES,
    Calibration,
    read_calibration,
)
from stream_cam.errors import UsageError
from stream_cam.explain.explainer import Explainer
from stream_cam.model.camnet import CamNet
from stream_cam.model.weights import Weights
from stream_cam.sources import open_source

SIDE = 64


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 9, stride=8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 7),
    ).eval()


@pytest.fixture
def weights(network: nn.Module) -> Weights:
    """With a normalisation that is no network's default."""
    return Weights.of_module(network, 7, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7), input_size=SIDE)


def read(uri: str, weights: Weights, fit: Fit = "stretch") -> Calibration:
    return read_calibration(open_source(uri), weights, fit, SIDE, lambda stage: None)


@pytest.mark.parametrize(
    ("n_frames", "step"), [(20, 1), (300, 1), (301, 2), (600, 2), (601, 4), (700, 4)]
)
@pytest.mark.parametrize("fit", ["stretch", "letterbox"])
def test_every_nth_frame_calibrates_or_validates_in_turns(
    n_frames: int, step: int, fit: Fit, weights: Weights
) -> None:
    uri = f"demo://shapes?size=96x64&fps=10&seconds={n_frames / 10}"
    calibration = read(uri, weights, fit)
    plan = weights.plan(fit, (64, 96), SIDE)
    preprocess = CpuPreprocessor(plan, weights.mean, weights.std, weights.interpolation)
    expected = []
    with open_source(uri) as source:
        for frame in list(source)[::step]:
            out = np.empty((3, SIDE, SIDE), np.float32)
            preprocess(frame.image_bgr, out)
            expected.append(torch.from_numpy(out)[None])
    assert len(expected) <= MOST_FRAMES
    for got, wanted in (
        (calibration.calibrating, expected[::2]),
        (calibration.validating, expected[1::2]),
    ):
        assert len(got) == len(wanted)
        assert torch.equal(torch.cat(got), torch.cat(wanted))


@pytest.mark.parametrize("fit", ["stretch", "crop", "letterbox"])
def test_calibration_prepares_frames_as_a_run_does(
    fit: Fit, weights: Weights, network: nn.Module
) -> None:
    uri = "demo://shapes?size=96x64&fps=10&seconds=2"
    net = CamNet.from_module(network, name="small", probe_hw=(SIDE, SIDE))
    explainer = Explainer(net, weights, engine="eager", device="cpu", fit=fit)
    with open_source(uri) as source:
        first = explainer.explain(next(iter(source)))
    calibration = read(uri, weights, fit)
    with torch.inference_mode():
        logits, _ = net(calibration.calibrating[0])
    np.testing.assert_allclose(first.logits, logits[0].numpy(), rtol=1e-5, atol=1e-5)


def test_pictures_of_several_sizes(weights: Weights, tmp_path: Path) -> None:
    noise = np.random.default_rng(0)
    for number in range(LEAST_FRAMES):
        picture = noise.integers(0, 256, (50 + number % 3, 70 + number % 2, 3), dtype=np.uint8)
        cv2.imwrite(str(tmp_path / f"{number:02}.png"), picture)
    calibration = read(str(tmp_path), weights)
    assert len(calibration.calibrating) == len(calibration.validating) == LEAST_FRAMES // 2
    assert {tuple(frame.shape) for frame in calibration.validating} == {(1, 3, SIDE, SIDE)}


def test_too_few_frames_are_refused(weights: Weights) -> None:
    with pytest.raises(UsageError, match=r"has 19 frames; at least 20 are needed"):
        read("demo://shapes?size=96x64&fps=10&seconds=1.9", weights)


@pytest.mark.parametrize(
    "uri", ["0", "rtsp://user:secret@nowhere.invalid/stream", "demo://shapes?live=1"]
)
def test_an_endless_source_is_refused_before_it_is_read(uri: str, weights: Weights) -> None:
    with pytest.raises(UsageError, match=r"read to its end.*give a video file") as error:
        read(uri, weights)
    assert "secret" not in str(error.value)


def test_reading_says_how_far_it_is(weights: Weights) -> None:
    stages: list[str] = []
    source = open_source("demo://shapes?size=96x64&fps=10&seconds=12")
    read_calibration(source, weights, "stretch", SIDE, stages.append)
    assert stages == ["reading frame 0 for", "reading frame 50 for", "reading frame 100 for"]
