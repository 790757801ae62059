"""Networks that do not take RGB, and inputs as small as MNIST's."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from support.graph_parts import assert_drawn_as_on_the_cpu, picture, taken
from torch import Tensor, nn

from stream_cam.config import Channels, EngineName, LookConfig
from stream_cam.errors import ModelError, NoCamError, UsageError
from stream_cam.explain.explainer import Explainer
from stream_cam.frame import BgrImage

SIDE = 28
LABELS = ["four", "nine"]


def lecture_network(n_channels: int = 1) -> nn.Sequential:
    """The GAP network that lectures begin with; features 64×7×7."""
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(n_channels, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, len(LABELS), bias=False),
    )


def own_input(image_bgr: BgrImage, channels: Channels) -> Tensor:
    """(1, 1 or 3, H, W) float32 in 0..1, converted by OpenCV."""
    pixels = image_bgr.astype(np.float32) / 255
    if channels == "gray":
        return torch.from_numpy(cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY))[None, None]
    own = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB) if channels == "rgb" else pixels
    return torch.from_numpy(own).permute(2, 0, 1)[None]


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAM_CAM_ENGINES", str(tmp_path / "engines"))


@pytest.mark.parametrize("engine", ["openvino", "eager"])
@pytest.mark.parametrize("channels", ["gray", "bgr", "rgb"])
def test_a_network_gets_its_own_channels(channels: Channels, engine: EngineName) -> None:
    network = lecture_network(1 if channels == "gray" else 3)
    mean, std = ([100.0], [50.0]) if channels == "gray" else ([90.0, 110, 130], [40.0, 60, 80])
    explainer = Explainer.from_module(
        network,
        labels=LABELS,
        channels=None if channels == "gray" else channels,  # one channel is found out
        mean=mean,
        std=std,
        input_scale="0..255",
        input_size=SIDE,
        engine=engine,
        device="cpu",
    )
    image = picture(0, (SIDE, SIDE))
    values = own_input(image, channels) * 255
    values = (values - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    with torch.inference_mode():
        features, logits = network[:6](values), network(values)
        cams = torch.einsum("ck,khw->chw", network[8].get_parameter("weight"), features[0])
    got = explainer.explain(image, [0, 1])
    np.testing.assert_allclose(got.logits, logits[0], atol=1e-4)
    np.testing.assert_allclose(got.cams, cams, atol=1e-3)


def test_one_channel_and_no_numbers_is_luma_in_0_to_1() -> None:
    network = lecture_network()
    explainer = Explainer.from_module(network, input_size=SIDE, engine="eager", device="cpu")
    image = picture(1, (SIDE, SIDE))
    with torch.inference_mode():
        expected = network(own_input(image, "gray"))[0]
    np.testing.assert_allclose(explainer.explain(image).logits, expected, atol=1e-5)


def test_one_channel_goes_through_graphs_too() -> None:
    pytest.importorskip("triton", reason="no Triton for this system")
    from support.simulated_gpu import SimulatedGpu

    from stream_cam.explain.graph.scheduler import FrameGraphs

    explainer = Explainer.from_module(
        lecture_network(), input_size=SIDE, engine="eager", device="cpu", precision="fp32"
    )
    image = picture(2, (40, 50))
    expected = explainer.explain(image)
    explainer.graphs = FrameGraphs(SimulatedGpu(1), explainer.weights, explainer._class_weight)
    got = explainer.explain_drawn(image)
    np.testing.assert_allclose(got.logits, expected.logits, atol=2e-3)
    assert_drawn_as_on_the_cpu(taken(got, image, LookConfig())[0], image, got, LookConfig())


def test_inputs_that_are_not_possible_are_refused_with_the_reason() -> None:
    four = nn.Sequential(
        nn.Conv2d(4, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2)
    )
    with pytest.raises(ModelError, match=r"does not take a 3×28×28 picture: .*4 channels"):
        Explainer.from_module(four, input_size=SIDE)
    with pytest.raises(ModelError, match=r"does not take a 3×28×28 picture: .*1 channel"):
        Explainer.from_module(lecture_network(), input_size=SIDE, channels="rgb")
    with pytest.raises(
        UsageError,
        match=r"mean is a finite number, one for each channel of gray or one for all, got",
    ):
        Explainer.from_module(lecture_network(), input_size=SIDE, mean=[1, 2])
    with pytest.raises(UsageError, match="std is a number above 0 for each channel, got 0"):
        Explainer.from_module(lecture_network(3), input_size=SIDE, std=0)
    with pytest.raises(UsageError, match="side in pixels from 8 to 4096, got 3"):
        Explainer.from_module(lecture_network(), input_size=3)
    # The layer that makes luma is no convolution of the network's own.
    none = nn.Sequential(nn.AvgPool2d(2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 2))
    with pytest.raises(NoCamError):
        Explainer.from_module(none, input_size=SIDE, channels="gray")
