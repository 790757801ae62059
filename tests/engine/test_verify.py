"""Engines that are the network pass their gate, those that are slightly not fail it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.networks import untrained
from support.toy_engine import KEY, Change, ToyBuilder, ToyEngine, toy_net
from torch import Tensor

from stream_cam.engine.builder import EngineRequest
from stream_cam.engine.manifest import Figures
from stream_cam.engine.openvino import OpenVinoBuilder
from stream_cam.engine.options import Batch
from stream_cam.engine.prepare import load_or_build
from stream_cam.engine.store import EngineStore
from stream_cam.engine.verify import GATES, N_DRAWN, N_RANDOM, compare, verify
from stream_cam.errors import EngineError
from stream_cam.model.camnet import CamNet

PERFECT = Figures(0.0, 0.0, 1.0, 0.0, 1.0)


def spoilt(change: Change, precision: str = "fp32") -> ToyEngine:
    return ToyEngine(toy_net(), change, precision)


def louder_logits(share: float) -> Change:
    """All logits a little larger: nothing that a map would show."""

    def change(logits: Tensor, features: Tensor) -> None:
        logits.mul_(1 + share)

    return change


def louder_features(share: float) -> Change:
    def change(logits: Tensor, features: Tensor) -> None:
        features.mul_(1 + share)

    return change


def tilted(share: float) -> Change:
    """Features that grow from left to right: the map's peak wanders."""

    def change(logits: Tensor, features: Tensor) -> None:
        features.mul_(1 + share * torch.linspace(-1, 1, features.shape[3]))

    return change


def test_the_network_itself_is_perfect() -> None:
    figures = compare(ToyEngine(toy_net()), toy_net())
    assert figures.cam_correlation == pytest.approx(1.0, abs=1e-12)
    assert replace(figures, cam_correlation=1.0) == PERFECT


@pytest.mark.parametrize("spoil", [louder_logits, louder_features])
def test_fp32_gate_is_at_a_thousandth(spoil: Callable[[float], Change]) -> None:
    verify(spoilt(spoil(0.9e-3)), toy_net())
    with pytest.raises(EngineError, match=r"difference 0\.001(1|09).*--engine eager"):
        verify(spoilt(spoil(1.1e-3)), toy_net())


@pytest.mark.parametrize("precision", ["fp16", "bf16", "int8"])
def test_gates_of_lower_precisions_are_about_the_map(precision: str) -> None:
    gate = GATES[precision]
    small, large = 1e-4, 1.0
    for _ in range(16):
        middle = math.sqrt(small * large)
        passes = not gate.failures(compare(spoilt(tilted(middle), precision), toy_net()))
        small, large = (middle, large) if passes else (small, middle)
    assert 2e-3 < small < 0.9
    verify(spoilt(tilted(small * 0.98), precision), toy_net())
    with pytest.raises(EngineError, match="give --precision fp32"):
        verify(spoilt(tilted(large * 1.02), precision), toy_net())


BOUNDARIES = [
    ("fp32", "logits_difference", 1e-3, 1.001e-3),
    ("fp32", "cam_difference", 1e-3, 1.001e-3),
    ("fp16", "logits_difference", 1e-2, 1.001e-2),
    ("fp16", "cam_correlation", 0.9995, 0.99949),
    ("fp16", "heat_difference", 2 / 255, 2.001 / 255),
    ("bf16", "logits_difference", 3e-2, 3.001e-2),
    ("bf16", "cam_correlation", 0.999, 0.99899),
    ("bf16", "heat_difference", 8 / 255, 8.001 / 255),
    ("int8", "cam_correlation", 0.99, 0.98999),
    ("int8", "top1_agreement", 0.98, 0.97999),
]


@pytest.mark.parametrize(("precision", "name", "good", "bad"), BOUNDARIES)
def test_gates_hold_at_their_limits(precision: str, name: str, good: float, bad: float) -> None:
    gate = GATES[precision]
    assert gate.failures(replace(PERFECT, **{name: good})) == []
    for value in (bad, math.nan):
        (failure,) = gate.failures(replace(PERFECT, **{name: value}))
        assert f"{value:.6g}" in failure
        assert f"{good:.6g} is asked for" in failure


def test_one_of_few_frames_may_have_another_best_class() -> None:
    """A kept int8 engine is compared on twelve frames, not on those it was built from."""
    gate = GATES["int8"]
    assert gate.failures(replace(PERFECT, top1_agreement=11 / 12), 12) == []
    assert gate.failures(replace(PERFECT, top1_agreement=10 / 12), 12)
    assert gate.failures(replace(PERFECT, top1_agreement=122 / 124), 124) == []
    assert gate.failures(replace(PERFECT, top1_agreement=121 / 124), 124)


def not_a_number(logits: Tensor, features: Tensor) -> None:
    features[0, 0, 0, 0] = torch.nan


def zeros(logits: Tensor, features: Tensor) -> None:
    features.zero_()


def another_class(logits: Tensor, features: Tensor) -> None:
    logits.copy_(logits.roll(1))


def does_not_run(logits: Tensor, features: Tensor) -> None:
    raise RuntimeError("unsupported instruction")


@pytest.mark.parametrize("precision", GATES)
@pytest.mark.parametrize("change", [not_a_number, zeros, another_class, does_not_run])
def test_broken_engines_fail_every_gate(change: Change, precision: str) -> None:
    with pytest.raises(EngineError, match="give --"):
        verify(spoilt(change, precision), toy_net())


def test_an_engine_that_fails_is_not_kept(tmp_path: Path) -> None:
    engines = EngineStore(tmp_path)
    builder = ToyBuilder(change=louder_features(0.01))
    with pytest.raises(EngineError, match="it is not used"):
        load_or_build(builder, engines)
    assert engines.read(KEY) is None
    assert engines.entries() == []


def test_a_flat_map_is_no_failure() -> None:
    """Its correlation says nothing: noise against noise."""
    net = toy_net()
    flat = CamNet(net.backbone, torch.zeros_like(net.weight), net.bias.detach(), "flat")
    figures = compare(ToyEngine(flat), flat)
    assert figures.cam_correlation == 1.0
    assert not GATES["fp32"].failures(figures)


def test_verification_sees_as_many_frames_as_it_says() -> None:
    calls: list[Tensor] = []
    compare(spoilt(lambda logits, features: calls.append(logits.clone())), toy_net())
    assert len(calls) == N_DRAWN + N_RANDOM
    assert len({float(logits[0, 0]) for logits in calls}) == len(calls)


class BatchEngine(ToyEngine):
    """Takes several frames at once, and spoils those at one place of one size of batch."""

    def __init__(self, batch: Batch, spoilt_size: int) -> None:
        super().__init__(toy_net())
        self.info = replace(self.info, batch=batch, input_shape=(batch.best, 3, 64, 64))
        self.sizes: list[int] = []
        self._spoilt_size = spoilt_size

    def _run(self, batch: Tensor, logits: Tensor, features: Tensor) -> None:
        super()._run(batch, logits, features)
        self.sizes.append(len(batch))
        if len(batch) == self._spoilt_size:
            features[-1] = features[-1].flip(0)


def test_batches_are_verified_at_their_least_best_and_most() -> None:
    engine = BatchEngine(Batch(1, 5, 7), spoilt_size=0)
    figures = compare(engine, toy_net())
    n_frames = N_DRAWN + N_RANDOM
    assert [engine.sizes.count(size) for size in (1, 5, 7)] == [n_frames, 3, 2]
    # Batches of other sizes are summed in another order.
    assert figures.cam_difference < 1e-5
    for size in (1, 5, 7):
        with pytest.raises(EngineError, match="it is not used"):
            verify(BatchEngine(Batch(1, 5, 7), spoilt_size=size), toy_net())


def test_frames_that_an_engine_leaves_unwritten_fail() -> None:
    class FirstOnly(BatchEngine):
        def _run(self, batch: Tensor, logits: Tensor, features: Tensor) -> None:
            super()._run(batch[:1], logits[:1], features[:1])

    with pytest.raises(EngineError, match="difference nan"):
        verify(FirstOnly(Batch(2, 2, 2), spoilt_size=0), toy_net())


def test_openvino_passes_and_its_figures_are_kept(tmp_path: Path) -> None:
    net = CamNet.from_module(untrained("resnet18", 13), name="resnet18", probe_hw=(64, 64))
    engines = EngineStore(tmp_path)
    prepared = load_or_build(OpenVinoBuilder(EngineRequest(net, "abc", (64, 64))), engines)
    assert prepared.built
    found = engines.read(prepared.manifest.key)
    assert found is not None
    figures = found[1].verification
    assert 0 < figures.cam_difference < 1e-4
    assert figures.cam_correlation > 0.999999
    assert found[1].latency_p50_ms > 0
    assert found[1].build_seconds > 0
