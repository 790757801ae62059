"""Explainer: what it says of a frame, for every fit, target, engine and from several threads."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from networks import LABELS, small_network
from pipeline_parts import DEADLINE_SECONDS, wait
from torch import nn

from stream_cam.cam import reference
from stream_cam.cam.colormaps import color_table
from stream_cam.cam.geometry import plan_fit
from stream_cam.config import Fit, LookConfig
from stream_cam.engine import Engine, load_engine
from stream_cam.errors import NoCamError, UsageError
from stream_cam.explain import Explainer
from stream_cam.frame import BgrImage, Frame


def small_explainer(**options: object) -> Explainer:
    options = {"engine": "eager", "device": "cpu", "input_size": 64, **options}
    return Explainer.from_module(small_network(), labels=LABELS, **options)  # type: ignore[arg-type]


def random_frame(size_hw: tuple[int, int] = (90, 160), seed: int = 0) -> BgrImage:
    return np.random.default_rng(seed).integers(0, 256, (*size_hw, 3), dtype=np.uint8)


@pytest.mark.parametrize("engine", ["eager", "openvino"])
@pytest.mark.parametrize("fit", ["stretch", "crop", "letterbox", "native"])
def test_explanation_is_the_formula_on_the_networks_own_features(
    fit: Fit, engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STREAM_CAM_ENGINES", str(tmp_path))
    explainer = small_explainer(fit=fit, engine=engine)
    frame = random_frame()
    explanation = explainer.explain(frame, target=list(range(len(LABELS))))
    network = small_network().eval()
    plan = plan_fit(fit, (90, 160), 64)
    batch = reference.preprocess(
        torch.from_numpy(frame), plan, explainer.weights.mean, explainer.weights.std
    )
    head = network[6]
    assert isinstance(head, nn.Linear)
    with torch.inference_mode():
        features = network[:4](batch)
        logits = network(batch)[0]
        classes = torch.arange(len(LABELS))[None]
        maps = reference.class_activation_maps(features, head.weight, classes)[0]
    # The explainer's input went through uint8 after resizing: half a level of 255.
    assert explanation.cams.shape == maps.shape
    assert np.abs(explanation.cams - maps.numpy()).max() <= 0.02 * float(maps.abs().max())
    assert np.abs(explanation.logits - logits.numpy()).max() <= 0.02
    means = explanation.cams.mean(axis=(1, 2)) + head.bias.detach().numpy()
    assert np.abs(means - explanation.logits).max() <= 1e-5
    assert explanation.region == plan.region


def test_predictions_are_the_five_best_of_a_softmax() -> None:
    explanation = small_explainer().explain(random_frame())
    probabilities = torch.softmax(torch.from_numpy(explanation.logits), 0)
    best = probabilities.topk(5)
    assert [p.index for p in explanation.predictions] == best.indices.tolist()
    assert [p.label for p in explanation.predictions] == [LABELS[i] for i in best.indices.tolist()]
    got = [p.probability for p in explanation.predictions]
    assert got == pytest.approx(best.values.tolist(), abs=1e-6)
    assert explanation.logits.dtype == np.float32
    assert explanation.cam.dtype == np.float32


def test_targets_by_index_label_and_several() -> None:
    explainer = small_explainer()
    frame = random_frame()
    top = explainer.explain(frame)
    assert top.cam.shape == (2, 2)
    assert top.targets[0] == top.predictions[0]
    by_index = explainer.explain(frame, 2)
    by_label = explainer.explain(frame, "dog")
    assert np.array_equal(by_index.cam, by_label.cam)
    assert by_label.targets[0].label == "dog"
    both = explainer.explain(frame, ["dog", 5])
    assert both.cam.shape == (2, 2, 2)
    # Not bit for bit: some processors' libraries round a sum of one row otherwise than of two.
    np.testing.assert_allclose(both.cam[0], by_label.cam, rtol=1e-5, atol=1e-7)
    assert [target.index for target in both.targets] == [2, 5]
    with pytest.raises(UsageError, match="did you mean horse"):
        explainer.explain(frame, "hose")
    with pytest.raises(UsageError):
        explainer.explain(frame, 7)


def test_further_maps_are_the_best_classes_that_are_not_targets() -> None:
    explainer = small_explainer()
    frame = random_frame()
    best = [p.index for p in explainer.explain(frame).predictions]
    five = explainer.explain(frame, n_maps=5)
    assert [target.index for target in five.targets] == best
    worst = next(i for i in range(len(LABELS)) if i not in best)
    with_target = explainer.explain(frame, worst, n_maps=5)
    assert [target.index for target in with_target.targets] == [worst, *best[:4]]


def test_several_threads_get_what_one_gets() -> None:
    explainer = small_explainer(parallel=2)
    frames = [random_frame((60 + 7 * i, 100), seed=i) for i in range(12)]
    alone = [explainer.explain(frame).cams for frame in frames]
    with ThreadPoolExecutor(5) as pool:
        together = list(pool.map(lambda frame: explainer.explain(frame).cams, frames * 4))
    for number, cams in enumerate(together):
        assert np.array_equal(cams, alone[number % len(frames)])


def test_explanations_do_not_change_when_the_next_frame_is_explained() -> None:
    explainer = small_explainer()
    first = explainer.explain(random_frame(seed=1))
    kept = first.logits.copy(), first.cams.copy()
    explainer.explain(random_frame(seed=2))
    assert np.array_equal(first.logits, kept[0])
    assert np.array_equal(first.cams, kept[1])


def test_a_frames_times_travel_with_its_explanation() -> None:
    frame = Frame(random_frame(), 7, 21, Fraction(1, 30), 12345)
    explanation = small_explainer().explain(frame)
    assert explanation.frame_index == 7
    assert explanation.pts_seconds == pytest.approx(0.7)
    assert explanation.captured_ns == 12345
    assert explanation.explained_ns > 0


@pytest.mark.parametrize("fit", ["stretch", "crop", "letterbox", "native"])
def test_overlay_shows_the_map_where_the_network_looked(fit: Fit) -> None:
    look = LookConfig(alpha=1.0, upsampling="nearest", colormap="jet")
    explainer = small_explainer(fit=fit, look=look)
    frame = random_frame((96, 160))
    explanation = explainer.explain(frame)
    picture = explainer.overlay(frame, explanation)
    x, y = explanation.peak_xy()
    assert np.array_equal(picture[round(y), round(x)], color_table("jet")[255])
    region = explanation.region
    if region.x0 >= 1.0:
        assert np.array_equal(picture[:, : int(region.x0)], frame[:, : int(region.x0)])
    half = np.asarray(cv2.resize(frame, (80, 48)), np.uint8)
    assert explainer.overlay(half, explanation).shape == half.shape


def test_overlay_of_another_map_and_in_place() -> None:
    explainer = small_explainer()
    frame = random_frame()
    both = explainer.explain(frame, ["bird", "cat"])
    second = explainer.overlay(frame, both, target=1)
    assert np.array_equal(second, explainer.overlay(frame, explainer.explain(frame, "cat")))
    copy = frame.copy()
    assert explainer.overlay(copy, both, target=1, out=copy) is copy
    assert np.array_equal(copy, second)


@pytest.mark.parametrize("size_hw", [(1, 1), (1, 64), (3000, 2)])
@pytest.mark.parametrize("fit", ["stretch", "crop", "letterbox", "native"])
def test_tiny_and_narrow_frames(size_hw: tuple[int, int], fit: Fit) -> None:
    explainer = small_explainer(fit=fit)
    frame = random_frame(size_hw)
    explanation = explainer.explain(frame)
    assert np.isfinite(explanation.cam).all()
    assert explainer.overlay(frame, explanation).shape == frame.shape


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (np.zeros((10, 10), np.uint8), "COLOR_GRAY2BGR"),
        (np.zeros((10, 10, 1), np.uint8), "COLOR_GRAY2BGR"),
        (np.zeros((10, 10, 4), np.uint8), "COLOR_BGRA2BGR"),
        (np.zeros((10, 10, 3), np.float32), "scale its values"),
        (np.zeros((1, 10, 10, 3), np.uint8), "give one frame"),
        (np.zeros((0, 10, 3), np.uint8), "no pixels"),
        (None, "None, which cv2.imread gives"),
        ("cat.jpg", "got a str"),
        (torch.zeros(10, 10, 3, dtype=torch.uint8), "got a Tensor"),
    ],
    ids=["grey", "grey-3d", "alpha", "float", "batch", "empty", "none", "path", "tensor"],
)
def test_what_is_not_a_frame_is_refused(frame: Any, said: str) -> None:
    explainer = small_explainer()
    with pytest.raises(ValueError, match=r"\(H, W, 3\) uint8 BGR") as caught:
        explainer.explain(frame)
    assert said in str(caught.value)


def test_a_frame_that_may_not_be_written_to_is_as_good() -> None:
    explainer, frame = small_explainer(), random_frame()
    expected = explainer.explain(frame).cam
    frame.flags.writeable = False
    np.testing.assert_array_equal(explainer.explain(frame).cam, expected)


@pytest.mark.parametrize("target", [True, 2.0, [None], [1.5], np.True_])
def test_what_is_no_class_is_refused(target: Any) -> None:
    with pytest.raises(UsageError, match="a class is an index or a label, got"):
        small_explainer().explain(random_frame(), target)


def test_indices_of_any_integer_type_become_ints() -> None:
    explainer = small_explainer()
    indices: Any = np.array([2, 1], np.int64)
    found = explainer.explain(random_frame(), indices)
    assert [type(target.index) for target in found.targets] == [int, int]
    assert [target.index for target in found.targets] == [2, 1]


def test_wrong_options_name_what_there_is() -> None:
    with pytest.raises(UsageError, match="letterbox"):
        small_explainer(fit="leterbox")
    with pytest.raises(UsageError, match="openvino"):
        small_explainer(engine="openvimo")
    with pytest.raises(UsageError, match="device"):
        small_explainer(device="gpu")
    with pytest.raises(UsageError, match="labels"):
        Explainer.from_module(small_network(), labels=("a", "b"), input_size=64, engine="eager")


def test_a_network_without_a_cam_is_refused() -> None:
    flat = nn.Sequential(nn.Conv2d(3, 4, 3, stride=8), nn.Flatten(), nn.Linear(4 * 8 * 8, 3))
    with pytest.raises(NoCamError):
        Explainer.from_module(flat, input_size=64, engine="eager")


def test_engine_info_does_not_wait_for_another_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures name it; they go on while the engine of a new shape is made."""
    making, go_on = threading.Event(), threading.Event()
    explainer = small_explainer(fit="native")
    assert explainer.engine_info is None
    explainer.explain(random_frame((64, 64)))
    first = explainer.engine_info

    def slowly(*args: Any, **options: Any) -> Engine:
        making.set()
        wait(go_on)
        return load_engine(*args, **options)

    monkeypatch.setattr("stream_cam.explain.load_engine", slowly)
    with ThreadPoolExecutor(2) as pool:
        other = pool.submit(explainer.explain, random_frame((64, 128)))
        try:
            wait(making)
            assert pool.submit(lambda: explainer.engine_info).result(DEADLINE_SECONDS) is first
        finally:
            go_on.set()
        other.result(DEADLINE_SECONDS)
    assert explainer.engine_info is not None
    assert explainer.engine_info.input_shape == (1, 3, 64, 128)
