"""Explainer: its results for every fit, target and engine, and from several threads."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import shutil
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from support.networks import LABELS, small_network
from support.pipeline_parts import DEADLINE_SECONDS, wait
from torch import nn

from stream_cam.cam import reference
from stream_cam.cam.colormaps import color_table
from stream_cam.cam.geometry import plan_fit
from stream_cam.config import Fit, LookConfig
from stream_cam.draw.overlay import draw_overlay
from stream_cam.engine import Engine, load_engine
from stream_cam.errors import NoCamError, UsageError, WeightsError
from stream_cam.explain.explainer import Explainer
from stream_cam.frame import BgrImage, Frame
from stream_cam.model.camnet import build_network


def small_explainer(**options: object) -> Explainer:
    standard = {"engine": "eager", "device": "cpu", "input_size": 64, "labels": LABELS}
    options = {**standard, **options}
    return Explainer.from_module(small_network(), **options)  # type: ignore[arg-type]


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
    look = LookConfig(alpha=1.0, upsampling="nearest", colormap="jet", scale="own")
    explainer = small_explainer(fit=fit)
    frame = random_frame((96, 160))
    explanation = explainer.explain(frame)
    picture = draw_overlay(frame, explanation, look)
    x, y = explanation.peak_xy()
    assert np.array_equal(picture[round(y), round(x)], color_table("jet")[255])
    region = explanation.region
    if region.x0 >= 1.0:
        assert np.array_equal(picture[:, : int(region.x0)], frame[:, : int(region.x0)])
    half = np.asarray(cv2.resize(frame, (80, 48)), np.uint8)
    assert draw_overlay(half, explanation).shape == half.shape


def test_overlay_of_another_map_and_in_place() -> None:
    explainer = small_explainer()
    frame = random_frame()
    both = explainer.explain(frame, ["bird", "cat"])
    second = draw_overlay(frame, both, target=1)
    assert np.array_equal(second, draw_overlay(frame, explainer.explain(frame, "cat")))
    copy = frame.copy()
    assert draw_overlay(copy, both, target=1, out=copy) is copy
    assert np.array_equal(copy, second)


@pytest.mark.parametrize("size_hw", [(1, 1), (1, 64), (3000, 2)])
@pytest.mark.parametrize("fit", ["stretch", "crop", "letterbox", "native"])
def test_tiny_and_narrow_frames(size_hw: tuple[int, int], fit: Fit) -> None:
    explainer = small_explainer(fit=fit)
    frame = random_frame(size_hw)
    explanation = explainer.explain(frame)
    assert np.isfinite(explanation.cam).all()
    assert draw_overlay(frame, explanation).shape == frame.shape


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


@pytest.mark.parametrize(
    ("target", "labels"),
    [
        (torch.tensor(1), ["cat"]),
        (np.array(1), ["cat"]),
        (torch.tensor([1, 2]), ["cat", "dog"]),
        (np.array([1, 2]), ["cat", "dog"]),
        ([torch.tensor(1), np.int64(2)], ["cat", "dog"]),
        (range(1, 3), ["cat", "dog"]),
    ],
)
def test_targets_of_numpy_and_pytorch(target: Any, labels: list[str]) -> None:
    explanation = small_explainer().explain(random_frame(), target)
    assert [one.label for one in explanation.targets] == labels
    assert explanation.cam.ndim == (2 if getattr(target, "ndim", 1) == 0 else 3)


@pytest.mark.parametrize(
    "target",
    [
        *(True, 2.0, [None], [1.5], np.True_, b"cat", [[1, 2]]),
        *(torch.tensor(1.0), torch.tensor(True), np.array(2.0), torch.tensor([[1, 2]])),
    ],
)
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

    monkeypatch.setattr("stream_cam.explain.networks.load_engine", slowly)
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


def logit_of(network: nn.Module, explainer: Explainer, frame: BgrImage) -> float:
    """The only one, of the network itself."""
    batch = reference.preprocess(
        torch.from_numpy(frame),
        explainer.plan((frame.shape[0], frame.shape[1])),
        explainer.weights.mean,
        explainer.weights.std,
    )
    with torch.inference_mode():
        return float(network(batch)[0, 0])


@pytest.mark.parametrize("offset", [-3.0, 3.0])
def test_one_logit_is_a_class_and_its_opposite(
    offset: float, caplog: pytest.LogCaptureFixture
) -> None:
    network = small_network().eval()
    network[6] = nn.Linear(16, 1)
    with torch.no_grad():
        network[6].get_parameter("bias").fill_(offset)
    explainer = Explainer.from_module(
        network, labels=["ant"], engine="eager", device="cpu", input_size=64
    )
    assert "has one logit: its sigmoid is shown as the probability of 'ant'" in caplog.text
    frame = random_frame()
    explanation = explainer.explain(frame, ["ant", "not ant"])
    expected = 1 / (1 + np.exp(-logit_of(network, explainer, frame)))
    ant, opposite = explanation.targets
    assert (ant.index, opposite.index) == (1, 0)
    assert ant.probability == pytest.approx(expected, abs=1e-3)
    assert ant.probability + opposite.probability == pytest.approx(1)
    assert explanation.predictions[0].label == ("ant" if offset > 0 else "not ant")
    np.testing.assert_allclose(explanation.cams[0], -explanation.cams[1])
    assert explanation.cams[0].std() > 0
    unnamed = Explainer.from_module(network, engine="eager", device="cpu", input_size=64)
    assert unnamed.labels == ("not 0", "0")


def test_labels_may_be_given_as_names(tiny: Path) -> None:
    names = ["a", "b", "c", "d"]
    options: dict[str, Any] = {"engine": "eager", "device": "cpu", "input_size": 64}
    assert Explainer.load(weights=str(tiny), labels=names, **options).labels == tuple(names)
    with pytest.raises(WeightsError, match="3 labels, but the network has 4 classes"):
        Explainer.load(weights=str(tiny), labels=names[1:], **options)
    with pytest.raises(UsageError, match="3 labels, but the network has 7 classes"):
        small_explainer(labels=names[1:])


def test_an_explainer_of_a_module_is_pickled_with_its_network() -> None:
    explainer = small_explainer(fit="letterbox")
    again = pickle.loads(pickle.dumps(explainer))
    frame = random_frame()
    np.testing.assert_array_equal(again.explain(frame).cam, explainer.explain(frame).cam)
    assert again.labels == explainer.labels
    assert again.plan((90, 160)) == explainer.plan((90, 160))


def test_a_loaded_explainer_is_pickled_as_where_it_is_from(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = shutil.copy(tiny, tmp_path / "own.safetensors")
    monkeypatch.chdir(tmp_path)
    explainer = Explainer.load(
        weights="own.safetensors", labels=list("abcd"), engine="eager", device="cpu", input_size=64
    )
    pickled = pickle.dumps(explainer)
    assert len(pickled) < 2000
    monkeypatch.chdir("/")
    again = pickle.loads(pickled)
    frame = random_frame()
    np.testing.assert_array_equal(again.explain(frame, "b").cam, explainer.explain(frame, "b").cam)
    torch.manual_seed(1)
    save_file(build_network("resnet18", 4).state_dict(), own)
    with pytest.raises(WeightsError, match="has changed since the explainer was pickled"):
        pickle.loads(pickled)


def explain_in_worker(explainer: Explainer, frame: BgrImage) -> tuple[int, Any]:
    """Runs in a process of its own."""
    return os.getpid(), explainer.explain(frame).cam


def test_an_explainer_goes_to_spawned_workers() -> None:
    """As docs/networks.md says it."""
    explainer, frame = small_explainer(), random_frame()
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        pid, cam = pool.submit(explain_in_worker, explainer, frame).result(120)
    assert pid != os.getpid()
    np.testing.assert_allclose(cam, explainer.explain(frame).cam, rtol=1e-4, atol=1e-5)
