"""Fused layers: the same network, with fewer kernels. On a CPU they compute by their reference."""

from __future__ import annotations

import logging
import operator

import pytest
import torch
from support.networks import untrained
from torch import fx, nn

from stream_cam.engine.backends import find_backend
from stream_cam.engine.builder import EngineRequest
from stream_cam.engine.fused import FusedEngine, fused_net
from stream_cam.engine.fused_layers import FusedConvolution
from stream_cam.engine.load import _open_first
from stream_cam.engine.verify import verify
from stream_cam.errors import UnsuitableEngineError
from stream_cam.model.camnet import CamNet

HW = (64, 64)


def net_of(name: str) -> CamNet:
    return CamNet.from_module(untrained(name, 13), name=name, probe_hw=HW)


def request_of(net: CamNet) -> EngineRequest:
    return EngineRequest(net, "abc", HW)


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnext50_32x4d", "regnet_x_400mf"])
def test_fused_layers_compute_the_same_network(name: str) -> None:
    net = net_of(name)
    fused = fused_net(request_of(net), "fp32")
    batch = torch.randn(2, 3, *HW, generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        logits, features = fused(batch)
        own_logits, own_features = net(batch)
    # float32 rounds sums of another order; a missing bias or addition differs by 0.01 and more.
    for got, own in ((logits, own_logits), (features, own_features)):
        torch.testing.assert_close(got, own, rtol=0.0, atol=1e-5 * float(own.abs().max()))


def test_resnet18_has_one_operation_for_each_convolution() -> None:
    backbone = fused_net(request_of(net_of("resnet18")), "fp32").backbone
    assert isinstance(backbone, fx.GraphModule)
    layers = [
        type(backbone.get_submodule(str(node.target)))
        for node in backbone.graph.nodes
        if node.op == "call_module"
    ]
    assert layers.count(FusedConvolution) == 17
    assert layers.count(nn.Conv2d) == 3, "the downsamples"
    assert layers.count(nn.MaxPool2d) == 1
    assert len(layers) == 21
    assert not any(node.target is operator.add for node in backbone.graph.nodes)


def test_a_downsample_has_no_addition_of_its_own() -> None:
    backbone = fused_net(request_of(net_of("resnet18")), "fp32").backbone
    plain = [layer for layer in backbone.modules() if isinstance(layer, nn.Conv2d)]
    assert [layer.bias for layer in plain] == [None, None, None]


def test_the_engine_passes_the_gate_of_every_engine() -> None:
    net = net_of("resnet18")
    engine = FusedEngine(request_of(net))
    assert engine.info.name == "fused"
    verify(engine, net)


def test_a_wrong_addition_fails_the_gate() -> None:
    net = net_of("resnet18")
    engine = FusedEngine(request_of(net))
    layer = next(
        each for each in engine._net.backbone.modules() if isinstance(each, FusedConvolution)
    )
    layer.bias.add_(0.5)
    with pytest.raises(Exception, match=r"correlation|differ"):
        verify(engine, net)


def test_biases_are_added_before_they_are_rounded() -> None:
    net = net_of("resnet18")
    exact = fused_net(request_of(net), "fp32")
    rounded = fused_net(request_of(net), "fp16")
    for one, other in zip(exact.backbone.modules(), rounded.backbone.modules(), strict=True):
        if isinstance(one, FusedConvolution) and isinstance(other, FusedConvolution):
            assert torch.equal(one.bias.half(), other.bias)


@pytest.mark.parametrize(
    ("name", "n_fused"), [("densenet121", "of 120"), ("efficientnet_b0", "0 of 81")]
)
def test_networks_of_another_kind_are_left_to_other_engines(
    name: str, n_fused: str, caplog: pytest.LogCaptureFixture
) -> None:
    request = request_of(net_of(name))
    with pytest.raises(UnsuitableEngineError, match=n_fused):
        FusedEngine(request)
    with caplog.at_level(logging.WARNING):
        attempts = [(find_backend("fused"), request), (find_backend("eager"), request)]
        assert _open_first(attempts, any_precision=True).info.name == "eager"
    assert caplog.messages == [], "another engine serves it better, which is no failure"


def test_shared_and_reused_layers_are_left_alone() -> None:
    class Reused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(3, 6, 3, padding=1)
            self.twice = nn.Conv2d(6, 6, 3, padding=1)
            self.words = nn.Conv2d(6, 6, 3, padding="same")
            self.last = nn.Conv2d(6, 6, 1)
            self.fc = nn.Linear(6, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = torch.relu(self.first(x))
            y = torch.relu(self.twice(x))
            y = torch.relu(self.twice(y) + y)
            y = self.words(y).relu()
            z = self.last(y)
            y = torch.relu(z + y) + z
            pooled: torch.Tensor = self.fc(y.mean((2, 3)))
            return pooled

    torch.manual_seed(1)
    net = CamNet.from_module(Reused().eval(), probe_hw=HW)
    with pytest.raises(UnsuitableEngineError, match="1 of 4 convolutions"):
        fused_net(request_of(net), "fp32")
