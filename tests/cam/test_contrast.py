"""Contrast maps: why this class and not those."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from support.networks import LABELS, small_network
from torch import nn

from stream_cam import LookConfig, Settings, SteadyMaps
from stream_cam.cam.interpolation import interpolate
from stream_cam.errors import UsageError
from stream_cam.explain.explainer import Explainer
from stream_cam.frame import NEXT, BgrImage, Explanation, Frame
from stream_cam.model.camnet import CamNet
from stream_cam.targets import Target, resolve_against


def noise(seed: int) -> BgrImage:
    return np.random.default_rng(seed).integers(0, 256, (96, 128, 3), np.uint8)


@pytest.fixture(scope="module")
def module() -> nn.Module:
    return small_network().eval()


@pytest.fixture(scope="module")
def explainer(module: nn.Module) -> Explainer:
    return Explainer.from_module(module, labels=LABELS, input_size=96, engine="eager")


@pytest.mark.parametrize("weight", [1.0, 0.6, 0.0])
@pytest.mark.parametrize("against", ["owl", ["owl", 2, "fish"], "next", "next:3", ["owl", "next"]])
def test_mean_of_the_map_is_the_difference_of_logits(
    module: nn.Module, explainer: Explainer, against: Target | list[Target], weight: float
) -> None:
    bias = CamNet.from_module(module, probe_hw=(96, 96)).bias.numpy()
    explanation = explainer.explain(noise(0), n_maps=4, against=against, against_weight=weight)
    assert len(explanation.targets) == 4
    for number, (shown, cam) in enumerate(zip(explanation.targets, explanation.cams, strict=True)):
        others = list(explanation.others(number))
        assert shown.index not in others
        wanted, biases = explanation.logits[shown.index], bias[shown.index]
        if others:
            wanted = wanted - weight * explanation.logits[others].mean()
            biases = biases - weight * bias[others].mean()
        else:
            assert (shown.label, against) == ("owl", "owl")  # not against itself
        assert float(cam.mean()) + biases == pytest.approx(float(wanted), abs=1e-5)


def test_others_are_named_ones_and_the_best_that_are_left(explainer: Explainer) -> None:
    plain = explainer.explain(noise(0))
    order = [int(index) for index in np.argsort(-plain.logits, kind="stable")]
    best = order[0]
    assert plain.others() == ()
    assert plain.shown() == plain.targets[0]
    one = explainer.explain(noise(0), against="next")
    assert one.others() == (order[1],)
    assert one.shown().label == f"{LABELS[best]}, not {LABELS[order[1]]}"
    three = explainer.explain(noise(0), against="next:3")
    assert three.others() == tuple(order[1:4])
    named = explainer.explain(noise(0), order[2], against=[order[1], "next"])
    assert named.others() == (order[1], order[0])
    # Against itself alone nothing is left: the map is the plain one.
    itself = explainer.explain(noise(0), against=best)
    assert itself.shown().label == LABELS[best]
    np.testing.assert_array_equal(itself.cam, plain.cam)
    everyone = explainer.explain(noise(0), against="next:10")
    assert len(everyone.others()) == len(LABELS) - 1


def test_a_head_that_is_not_linear_is_differentiated_for_all_of_them(module: nn.Module) -> None:
    torch.manual_seed(4)
    layers = [nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, len(LABELS))]
    network = nn.Sequential(*list(module)[:-1], *layers).eval()  # type: ignore[call-overload]
    explainer = Explainer.from_module(network, labels=LABELS, input_size=96, engine="eager")
    explanation = explainer.explain(
        noise(1), "dog", against="next:3", against_weight=0.6, keep_features=True
    )
    assert explanation.features is not None
    features = torch.from_numpy(explanation.features.values)[None].requires_grad_()
    logits = network[4:](features)[0]
    (logits[2] - 0.6 * logits[list(explanation.others())].mean()).backward()
    assert features.grad is not None
    weight = features.grad.sum((2, 3))[0]
    wanted = torch.einsum("k,khw->hw", weight, features[0].detach()).numpy()
    cam = explanation.cam
    np.testing.assert_allclose(cam, wanted, rtol=1e-4, atol=1e-4 * np.abs(wanted).max())


def test_a_held_class_and_filtered_maps_stay_contrast_maps() -> None:
    torch.manual_seed(5)
    network = small_network()
    for parameter in network.parameters():
        nn.init.normal_(parameter, 0.0, 0.3)
    explainer = Explainer.from_module(network, labels=LABELS, input_size=96, engine="eager")

    def explain(seed: int) -> Explanation:
        shade = np.full((96, 128, 3), 50 * (seed % 5), np.uint8) + noise(seed) // 5
        return explainer.explain(shade, against="next", keep_features=True)

    steady, look = SteadyMaps(), LookConfig(smooth=0.0, hold=60.0)
    first = steady.update(explain(0), look)
    other = next(
        made
        for made in map(explain, range(1, 40))
        if made.targets[0].index != first.targets[0].index
    )
    held = steady.update(other, look)
    assert held.targets[0].index == first.targets[0].index
    assert held.targets[0].index not in held.others()
    assert held.features is not None
    mean_features = held.features.values.reshape(16, -1).mean(1)
    rows = explainer.class_weight_of(held.features.values)
    difference = rows[[held.targets[0].index]][0] - rows[[held.others()[0]]][0]
    assert float(held.cams[0].mean()) == pytest.approx(float(difference @ mean_features), abs=1e-4)

    # A plain map and a contrast map of one class are not mixed by the filter.
    steady, look = SteadyMaps(), LookConfig(smooth=60.0)
    plain = explainer.explain(noise(0))
    steady.update(plain, look)
    contrast = explainer.explain(noise(0), against="next")
    np.testing.assert_allclose(steady.update(contrast, look).cam, contrast.cam, rtol=1e-5)


def test_maps_against_different_classes_are_not_interpolated(explainer: Explainer) -> None:
    frame = Frame(noise(0), 0, 0, Fraction(1, 30), 500)
    plain = replace(explainer.explain(noise(0)), captured_ns=0)
    contrast = explainer.explain(noise(0), against="next")
    after = replace(contrast, captured_ns=1000)
    assert interpolate(plain, after, frame).between_frames is None
    before = replace(contrast, captured_ns=0)
    assert interpolate(before, after, frame).between_frames == (0, 0)


def test_against_is_read_by_label_number_and_next() -> None:
    labels = (*LABELS, "next:2")
    assert resolve_against(labels, ["owl", 2, "3", "owl"]) == (5, 2, 3)
    assert resolve_against(labels, ["next", "owl", "next"]) == (5, NEXT, NEXT)
    assert resolve_against(labels, ["next:3"]) == (NEXT,) * 3
    assert resolve_against(labels, ["next:2"]) == (len(LABELS),)  # a class of that name
    assert resolve_against(labels, [NEXT, 1]) == (1, NEXT)
    for wrong in ("next:0", "next:11", "nobody", 99):
        with pytest.raises(UsageError):
            resolve_against(labels, [wrong])


def test_against_is_a_live_setting() -> None:
    settings = Settings(labels=LABELS)
    assert settings.now.contrast is None
    settings.change(against="next", against_weight=0.6)
    assert settings.now.against == (NEXT,)
    assert settings.against == ("next",)
    settings.against = ["owl", "next"]
    assert settings.against == ("owl", "next")
    with pytest.raises(UsageError, match="unknown class 'nobody'"):
        settings.change(against="nobody", alpha=0.1)
    with pytest.raises(UsageError, match="against-weight is a number from 0"):
        settings.change(against_weight=-1.0)
    assert settings.against == ("owl", "next")
    settings.change(against=None)
    assert not settings.now.against
