"""Networks with several labels a picture, and with several outputs."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from support.graph_parts import SIDE, picture
from support.networks import LABELS, small_network
from torch import Tensor, nn

from stream_cam.config import Activation
from stream_cam.errors import UsageError
from stream_cam.explain.explainer import Explainer
from stream_cam.frame import Explanation, FloatArray


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAM_CAM_ENGINES", str(tmp_path / "engines"))


def explainer_of(module: nn.Module, **options: Any) -> Explainer:
    usual: dict[str, Any] = {"engine": "eager", "device": "cpu", "input_size": SIDE}
    return Explainer.from_module(module, **{"labels": LABELS, **usual, **options})


def sigmoid(logits: FloatArray) -> FloatArray:
    return torch.from_numpy(logits).sigmoid().numpy()


def assert_sigmoid(got: Explanation) -> None:
    expected = sigmoid(got.logits)
    for prediction in (*got.predictions, *got.targets):
        assert prediction.probability == pytest.approx(expected[prediction.index], rel=1e-5)
        assert got.probability(prediction.index) == pytest.approx(prediction.probability, rel=1e-5)
    order = np.argsort(-expected, kind="stable")[:5]
    assert [prediction.index for prediction in got.predictions] == order.tolist()
    assert sum(prediction.probability for prediction in got.predictions) > 1.2


def test_with_sigmoid_each_class_has_a_probability_of_its_own() -> None:
    explainer = explainer_of(small_network(), activation="sigmoid")
    assert_sigmoid(explainer.explain(picture(0), [2, 5]))
    assert_sigmoid(pickle.loads(pickle.dumps(explainer)).explain(picture(0)))
    softmax = explainer_of(small_network()).explain(picture(0))
    assert sum(softmax.probability(index) for index in range(len(LABELS))) == pytest.approx(1)


def test_with_sigmoid_graphs_say_the_same() -> None:
    pytest.importorskip("triton", reason="no Triton for this system")
    from support.simulated_gpu import SimulatedGpu

    from stream_cam.explain.graph.scheduler import FrameGraphs

    explainer = explainer_of(small_network(), activation="sigmoid", precision="fp32")
    explainer.graphs = FrameGraphs(SimulatedGpu(1), explainer.weights, explainer._class_weight)
    got = explainer.explain_drawn(picture(1))
    assert got.drawn is not None
    assert_sigmoid(got)


@pytest.mark.parametrize(
    ("activation", "expected"), [(None, "sigmoid"), ("sigmoid", "sigmoid"), ("softmax", "softmax")]
)
def test_a_network_that_ends_in_a_sigmoid_keeps_it(
    activation: Activation | None, expected: str
) -> None:
    whole = nn.Sequential(small_network(), nn.Sigmoid()).eval()
    explainer = explainer_of(whole, activation=activation)
    assert explainer.activation == expected
    got = explainer.explain(picture(2))
    plain = explainer_of(small_network()).explain(picture(2))
    np.testing.assert_allclose(got.logits, plain.logits, atol=1e-6)
    np.testing.assert_allclose(got.cams, plain.cams, atol=1e-5)
    if expected == "sigmoid":
        assert_sigmoid(got)


def test_one_logit_is_its_sigmoid_with_either_activation() -> None:
    network = nn.Sequential(*list(small_network())[:-1], nn.Linear(16, 1)).eval()
    found = [
        explainer_of(network, labels=["ant"], activation=activation).explain(picture(3), "ant")
        for activation in (None, "softmax", "sigmoid")
    ]
    for got in found:
        logit = float(got.logits[1] - got.logits[0])
        assert got.targets[0].probability == pytest.approx(1 / (1 + np.exp(-logit)), rel=1e-5)


class Fields(NamedTuple):
    scores: Tensor
    features: Tensor


@dataclass
class Data:
    features: Tensor
    scores: Tensor
    loss: None = None


class Several(nn.Module):
    """Logits and features together, in the user's own form."""

    def __init__(self, form: Callable[[Tensor, Tensor], object]) -> None:
        super().__init__()
        layers = list(small_network())
        self.backbone, self.head = nn.Sequential(*layers[:4]), nn.Sequential(*layers[4:])
        self._form = form

    def forward(self, batch: Tensor) -> object:
        features = self.backbone(batch)
        return self._form(self.head(features), features)


@pytest.mark.parametrize(
    ("form", "output"),
    [
        (lambda scores, features: {"features": features, "scores": scores}, "scores"),
        (lambda scores, features: (features, scores), 1),
        (lambda scores, features: [scores, features], "0"),
        (Fields, "scores"),
        (lambda scores, features: Data(features, scores), "scores"),
        (lambda scores, features: {"only": scores}, None),
    ],
    ids=["dict", "tuple", "list", "named tuple", "dataclass", "one"],
)
def test_the_logits_are_one_of_several_outputs(
    form: Callable[[Tensor, Tensor], object], output: str | int | None
) -> None:
    expected = explainer_of(small_network()).explain(picture(4), [0, 1])
    got = explainer_of(Several(form), output=output).explain(picture(4), [0, 1])
    np.testing.assert_allclose(got.logits, expected.logits, atol=1e-6)
    np.testing.assert_allclose(got.cams, expected.cams, atol=1e-6)


def test_outputs_that_are_not_clear_are_named() -> None:
    several = Several(lambda scores, features: {"features": features, "scores": scores})
    with pytest.raises(
        UsageError, match="2 outputs \\(features 1×16×2×2, scores 1×7\\): give --out"
    ):
        explainer_of(several)
    with pytest.raises(UsageError, match=r"has no output 'logits': .* one of features, scores"):
        explainer_of(several, output="logits")
    with pytest.raises(UsageError, match="returns one tensor: leave out --output-name"):
        explainer_of(small_network(), output="scores")
    with pytest.raises(UsageError, match="unknown activation 'relu'; known are sigmoid, softmax"):
        explainer_of(small_network(), activation="relu")
