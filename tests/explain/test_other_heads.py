"""Networks whose head is not one linear layer: their maps, predictions and the ways to them."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from support.networks import LABELS, small_network
from torch import Tensor, nn

from stream_cam import LookConfig, SteadyMaps, draw_overlay
from stream_cam.config import EngineName
from stream_cam.explain.explainer import Explainer
from stream_cam.frame import BgrImage, FloatArray
from stream_cam.model.camnet import CamNet

N = len(LABELS)


def with_head(*layers: nn.Module) -> nn.Sequential:
    """The small network, whose features have 16 planes, with other layers after the pooling."""
    torch.manual_seed(5)
    network = small_network()[:-1]
    for layer in layers:
        network.append(layer)
    for parameter in network.parameters():
        nn.init.normal_(parameter, 0.0, 0.3)
    return network.eval()


def perceptron() -> nn.Sequential:
    return with_head(nn.Linear(16, 32), nn.ReLU(inplace=True), nn.Dropout(0.5), nn.Linear(32, N))


def noise(seed: int) -> BgrImage:
    return np.random.default_rng(seed).integers(0, 256, (96, 128, 3), np.uint8)


def derivative_map(network: nn.Sequential, features: Tensor, target: int) -> FloatArray:
    """By autograd through the pooling as well: Σ_k f_k · Σ_xy ∂logit/∂f_k(x, y)."""
    given = features.clone().requires_grad_()
    network[4:](given)[0, target].backward()
    assert given.grad is not None
    weight = given.grad.sum((2, 3))[0]
    return torch.einsum("k,khw->hw", weight, features[0]).numpy()


@pytest.mark.parametrize("engine", ["eager", "openvino"])
def test_maps_are_the_derivative_of_the_head(engine: EngineName) -> None:
    network = perceptron()
    explainer = Explainer.from_module(network, labels=LABELS, input_size=96, engine=engine)
    explanation = explainer.explain(noise(0), ["dog", "owl"], n_maps=4, keep_features=True)
    assert explainer.method == explanation.method == "grad-cam (head)"
    assert explanation.features is not None
    features = torch.from_numpy(explanation.features.values)[None]
    with torch.inference_mode():
        logits = network[4:](features)[0].numpy()
    np.testing.assert_allclose(explanation.logits, logits, rtol=1e-4, atol=1e-4)
    assert len(explanation.targets) == 4
    for shown, cam in zip(explanation.targets, explanation.cams, strict=True):
        wanted = derivative_map(network, features, shown.index)
        np.testing.assert_allclose(cam, wanted, rtol=1e-4, atol=1e-4 * np.abs(wanted).max())
        np.testing.assert_allclose(explanation.features.cam(shown.index), cam, rtol=1e-5, atol=1e-5)


def test_each_frame_has_class_weights_of_its_own() -> None:
    explainer = Explainer.from_module(perceptron(), input_size=96, engine="eager")
    one, other = (explainer.explain(noise(seed), 0, keep_features=True) for seed in (0, 1))
    assert one.features is not None
    assert other.features is not None
    rows = [kept.class_weight[[0]] for kept in (one.features, other.features)]
    assert np.abs(rows[0] - rows[1]).max() > 1e-3


def test_threads_and_pickles_work_as_with_any_network() -> None:
    explainer = Explainer.from_module(perceptron(), input_size=96, engine="eager", parallel=2)
    frames = [noise(seed) for seed in range(6)]
    alone = [explainer.explain(frame).cam for frame in frames]
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(lambda frame: explainer.explain(frame).cam, frames * 3))
    for cam, wanted in zip(together, alone * 3, strict=True):
        np.testing.assert_allclose(cam, wanted, rtol=1e-5, atol=1e-6)
    with torch.inference_mode():
        twin = pickle.loads(pickle.dumps(explainer))
    np.testing.assert_allclose(twin.explain(frames[0]).cam, alone[0], rtol=1e-5, atol=1e-6)


def test_a_held_class_has_its_map_of_every_frame() -> None:
    explainer = Explainer.from_module(perceptron(), input_size=96, engine="eager")
    shades = [np.full((96, 128, 3), shade, np.uint8) for shade in (0, 60, 120, 180, 255)]
    frames = [noise(0), *(frame + noise(1) // 4 for frame in shades)]
    best = [explainer.explain(frame).targets[0].index for frame in frames]
    assert set(best) != {best[0]}  # else no class is held
    steady, look = SteadyMaps(), LookConfig(smooth=0.0, hold=60.0)
    for frame in frames:
        held = steady.update(explainer.explain(frame, keep_features=True), look)
        assert held.targets[0].index == best[0]
        np.testing.assert_allclose(
            held.cams[0], explainer.explain(frame, best[0]).cam, rtol=1e-4, atol=1e-5
        )
        assert draw_overlay(frame, held, look).shape == frame.shape


def test_no_graph_is_opened_for_a_head_that_is_not_linear(
    caplog: pytest.LogCaptureFixture,
) -> None:
    explainer = Explainer.from_module(perceptron(), input_size=96, engine="eager")
    for _ in range(2):
        explainer._open_graphs("cuda:0")
    assert explainer.graphs is None
    assert caplog.text.count("its derivative and the maps are computed in host memory") == 1


@pytest.mark.parametrize(
    ("layers", "method"),
    [
        ([nn.Linear(16, N), nn.Softmax(1)], "cam"),
        ([nn.Linear(16, N), nn.LogSoftmax(1)], "cam"),
        ([nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, N), nn.Softmax(-1)], "grad-cam (head)"),
        ([nn.Linear(16, 1), nn.Sigmoid()], "cam"),
        ([nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 1), nn.Sigmoid()], "grad-cam (head)"),
        ([nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 1)], "grad-cam (head)"),
    ],
)
def test_a_softmax_or_sigmoid_at_the_end_is_taken_off(layers: list[nn.Module], method: str) -> None:
    network = with_head(*layers)
    net = CamNet.from_module(network, probe_hw=(96, 96))
    assert net.method == method
    batch = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        logits, _ = net(batch)
        own = network(batch)
    if isinstance(layers[-1], nn.LogSoftmax):
        own = own.exp()
    if net.n_logits == 1:
        positive = own if isinstance(layers[-1], nn.Sigmoid) else own.sigmoid()
        own = torch.cat([1 - positive, positive], 1)
    torch.testing.assert_close(logits.softmax(1), own, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "layers",
    [
        [nn.Linear(16, 8), nn.Dropout(0.3), nn.Linear(8, N)],
        [nn.BatchNorm1d(16), nn.Linear(16, 8, bias=False), nn.Identity(), nn.Linear(8, N)],
        [],
    ],
    ids=["two linear layers", "batch norm", "none"],
)
def test_affine_layers_are_one_linear_layer(layers: list[nn.Module]) -> None:
    network = with_head(*layers)
    net = CamNet.from_module(network, probe_hw=(96, 96))
    assert net.head is None
    batch = torch.randn(2, 3, 96, 96)
    with torch.inference_mode():
        logits, features = net(batch)
        own = network(batch)
    torch.testing.assert_close(logits, own, rtol=1e-4, atol=1e-4)
    maps = torch.einsum("ck,nkhw->nchw", net.weight, features)
    torch.testing.assert_close(maps.mean((2, 3)) + net.bias, own, rtol=1e-4, atol=1e-4)


def test_fingerprint_changes_with_the_heads_parameters_and_layers() -> None:
    known = CamNet.from_module(perceptron(), probe_hw=(96, 96)).fingerprint()
    assert CamNet.from_module(perceptron(), probe_hw=(96, 96)).fingerprint() == known
    moved = perceptron()
    with torch.no_grad():
        moved.get_parameter("9.bias")[0] += 1.0
    activated = perceptron()
    activated[7] = nn.LeakyReLU(0.1)
    sloped = perceptron()
    sloped[7] = nn.LeakyReLU(0.2)
    all_of_them = {
        CamNet.from_module(network, probe_hw=(96, 96)).fingerprint()
        for network in (moved, activated, sloped)
    }
    assert len(all_of_them | {known}) == 4


class Sizes(nn.Module):
    """Asks the features for the number of frames, as people's networks do."""

    def __init__(self, ask: Callable[[Tensor], int]) -> None:
        super().__init__()
        self.body, self.ask = small_network()[:4], ask
        self.head = nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, N))

    def forward(self, batch: Tensor) -> Tensor:
        features = self.body(batch)
        pooled = nn.functional.adaptive_avg_pool2d(features, 1).view(self.ask(features), -1)
        logits: Tensor = self.head(pooled)
        return logits


@pytest.mark.parametrize("ask", [lambda f: f.size(0), lambda f: f.shape[0], lambda f: f.size()[0]])
def test_a_head_may_ask_for_the_number_of_frames(ask: Callable[[Tensor], int]) -> None:
    network = Sizes(ask).eval()
    net = CamNet.from_module(network, probe_hw=(96, 96))
    assert net.head is not None
    batch = torch.randn(3, 3, 96, 64)
    with torch.inference_mode():
        torch.testing.assert_close(net(batch)[0], network(batch), rtol=1e-4, atol=1e-5)


class Mixing(nn.Module):
    """A head that looks at the other frames."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.fc = small_network()[:4], nn.Linear(16, N)

    def forward(self, batch: Tensor) -> Tensor:
        pooled = self.body(batch).mean((2, 3))
        logits: Tensor = self.fc(torch.relu(pooled) - pooled.mean(0, keepdim=True))
        return logits


def test_a_head_that_mixes_frames_is_refused() -> None:
    from stream_cam.errors import NoCamError

    with pytest.raises(NoCamError):
        CamNet.from_module(Mixing(), probe_hw=(96, 96))
