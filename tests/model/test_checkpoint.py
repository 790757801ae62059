"""Checkpoints of training tools: the network's own tensors are found inside any wrapper."""

from __future__ import annotations

import argparse
import collections
import datetime
import logging
import os
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from stream_cam.errors import WeightsError
from stream_cam.model.camnet import build_network, load_parameters
from stream_cam.model.parameter_names import to_torchvision_names
from stream_cam.model.state_dicts import find_parameters, fits
from stream_cam.model.torchvision_models import shapes_of
from stream_cam.model.weights import Weights, load_weights

MODEL = "shufflenet_v2_x0_5"
"""torchvision's smallest network whose head is called fc, as ResNet's is."""
LABELS = ("ant", "bee", "wasp")

State = dict[str, Tensor]


@pytest.fixture(scope="module")
def state() -> State:
    torch.manual_seed(0)
    return build_network(MODEL, 3).state_dict()


@pytest.fixture(scope="module")
def other(state: State) -> State:
    return {key: value + 1 for key, value in state.items()}


def under(prefix: str, state: State) -> State:
    return {prefix + key: value for key, value in state.items()}


def saved(tmp_path: Path, content: object, name: str = "mine.pth") -> Path:
    torch.save(content, tmp_path / name)
    return tmp_path / name


def load(path: Path, **options: Any) -> Weights:
    return load_weights(str(path), MODEL, **options)


def assert_whole(weights: Weights, state: State) -> None:
    """They are the network's, and the network takes them."""
    assert weights.state_dict.keys() == state.keys()
    assert all(torch.equal(weights.state_dict[key], value) for key, value in state.items())
    load_parameters(build_network(MODEL, weights.n_classes), weights.state_dict, weights.name)


# Where the tensors are


@pytest.mark.parametrize(
    "prefix",
    [
        *("", "model.", "module.", "net.", "network.", "backbone.", "resnet.", "encoder."),
        *("_forward_module.", "_fsdp_wrapped_module.", "_orig_mod.", "classifier.", "a.b.c.d."),
        *("_orig_mod.module.", "module._orig_mod.", "model._forward_module.module."),
    ],
)
@pytest.mark.parametrize(
    "wrapper",
    [
        *(None, "state_dict", "model_state_dict", "model", "net", "network", "weights", "params"),
        *("model_state", "net_state_dict", "module", "something_else"),
    ],
)
def test_any_prefix_and_any_wrapper(prefix: str, wrapper: str | None, state: State) -> None:
    groups = {wrapper or "": under(prefix, state)}
    found = find_parameters(groups, MODEL, "mine.pth")
    assert found.state_dict.keys() == state.keys()
    assert all(found.state_dict[key] is value for key, value in state.items())


def test_wrappers_inside_of_keys_are_taken_out(state: State) -> None:
    """FSDP and activation checkpointing wrap layers, not only the whole network."""
    inside = {
        key.replace("stage2.", "stage2._fsdp_wrapped_module.").replace(
            "fc.", "_checkpoint_wrapped_module.fc."
        ): value
        for key, value in state.items()
    }
    assert find_parameters({"": inside}, MODEL, "mine.pth").state_dict.keys() == state.keys()


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"state_dict": under("net.", state), "epoch": 3},
        lambda state: {"state_dict": {**under("model.", state), "criterion.weight": torch.ones(3)}},
        lambda state: {
            "state_dict": {**under("model.", state), "val_acc.confmat": torch.zeros(3, 3).long()}
        },
        lambda state: {"net": under("module.", state), "acc": 93.1},
        lambda state: {**state, "criterion.weight": torch.ones(3), "n_averaged": torch.tensor(1)},
        lambda state: {**state, "total_ops": torch.ones(1), "fc.total_params": torch.ones(1)},
        lambda state: {
            "model": state,
            "optimizer": {"state": {0: {"exp_avg": state["fc.weight"]}}, "param_groups": [{}]},
        },
        lambda state: {"models": [state], "best": True},
        lambda state: {"a": state, "b": dict(state)},
    ],
)
def test_the_one_network_in_a_file_is_found(
    tmp_path: Path,
    state: State,
    wrap: Callable[[State], object],
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert_whole(load(saved(tmp_path, wrap(state))), state)
    assert caplog.text == ""


@pytest.mark.parametrize(
    "name", ["a.ckpt", "a.th", "a.bin", "a.pth.tar", "a.PTH", "a.pt", "a.safetensors"]
)
def test_suffixes(tmp_path: Path, state: State, name: str) -> None:
    if name.endswith("safetensors"):
        save_file(under("net.", state), tmp_path / name)
    else:
        saved(tmp_path, {"state_dict": under("net.", state)}, name)
    assert_whole(load(tmp_path / name), state)


@pytest.mark.parametrize(
    "head",
    [
        lambda: nn.Sequential(nn.Dropout(0.3), nn.Linear(1024, 3)),
        lambda: nn.Sequential(nn.Linear(1024, 3)),
        lambda: nn.Sequential(collections.OrderedDict(linear=nn.Linear(1024, 3))),
    ],
)
def test_a_head_of_one_linear_layer_in_a_container(head: Callable[[], nn.Module]) -> None:
    network: Any = build_network(MODEL, 3)
    network.fc = head()
    own = network.state_dict()
    found = find_parameters({"": own}, MODEL, "mine.pth").state_dict
    assert fits(found, shapes_of(MODEL))
    assert found["fc.weight"] is next(own[key] for key in own if own[key].shape == (3, 1024))


def test_a_head_of_two_layers_is_refused_by_name(tmp_path: Path) -> None:
    network: Any = build_network(MODEL, 3)
    network.fc = nn.Sequential(nn.Linear(1024, 8), nn.ReLU(), nn.Linear(8, 3))
    weights = load(saved(tmp_path, network.state_dict()))
    with pytest.raises(WeightsError, match=r"2 missing \(fc.weight, fc.bias\); 4 unexpected"):
        load_parameters(build_network(MODEL, 3), weights.state_dict, weights.name)


def test_a_layer_more_is_not_left_out(tmp_path: Path, state: State) -> None:
    """Between the network's own layers it may be part of the network's function."""
    weights = load(saved(tmp_path, {**state, "attention.weight": torch.ones(3, 3)}))
    with pytest.raises(WeightsError, match=r"1 unexpected \(attention.weight\)"):
        load_parameters(build_network(MODEL, 3), weights.state_dict, weights.name)


def test_a_layer_beside_the_network_is_named(
    tmp_path: Path, state: State, caplog: pytest.LogCaptureFixture
) -> None:
    content = {"state_dict": {**under("backbone.", state), "head.weight": torch.ones(5, 3)}}
    assert_whole(load(saved(tmp_path, content)), state)
    assert "the network is at state_dict.backbone; beside it are 1 tensors (head.weight)" in (
        caplog.text
    )


def test_the_right_model_is_named_behind_any_wrapper(tmp_path: Path) -> None:
    content = {"net": under("module.", build_network("mobilenet_v2", 4).state_dict())}
    weights = load(saved(tmp_path, content))
    with pytest.raises(WeightsError, match="it is a mobilenet_v2: give --model mobilenet_v2"):
        load_parameters(build_network(MODEL, 4), weights.state_dict, weights.name)


# Several networks


@pytest.mark.parametrize(
    ("wrap", "places"),
    [
        (
            lambda one, two: {"state_dict": one, "state_dict_ema": two},
            ["state_dict", "state_dict_ema"],
        ),
        (
            lambda one, two: {"model": under("module.", one), "model_ema": two},
            ["model.module", "model_ema"],
        ),
        (
            lambda one, two: {"state_dict": under("module.q.", one) | under("module.k.", two)},
            ["state_dict.module.q", "state_dict.module.k"],
        ),
        (lambda one, two: {**one, "ema": {"shadow": two}}, ["the top level", "ema.shadow"]),
    ],
)
def test_of_two_networks_one_must_be_chosen(
    tmp_path: Path,
    state: State,
    other: State,
    wrap: Callable[[State, State], object],
    places: list[str],
) -> None:
    path = saved(tmp_path, wrap(state, other))
    with pytest.raises(WeightsError, match=r"2 networks that fit .*--checkpoint-key") as caught:
        load(path)
    for place, wanted in zip(places, (state, other), strict=True):
        average = "ema" in place
        assert f"{place} (EMA" in str(caught.value) if average else place in str(caught.value)
        if place != "the top level":
            weights = load(path, checkpoint_key=place)
            assert_whole(weights, wanted)
            assert place in weights.name
            assert ("EMA" in weights.name) is average


def test_a_lone_moving_average_is_named(
    tmp_path: Path, state: State, caplog: pytest.LogCaptureFixture
) -> None:
    weights = load(saved(tmp_path, {"model_ema": {"n_averaged": torch.tensor(5), **state}}))
    assert_whole(weights, state)
    assert weights.name == "mine.pth, model_ema (EMA)"
    assert "the weights are a moving average (EMA), from model_ema" in caplog.text


def test_a_moving_average_behind_a_prefix_is_used_with_one_warning(
    tmp_path: Path, state: State, caplog: pytest.LogCaptureFixture
) -> None:
    load(saved(tmp_path, {"model_ema": {f"module.{key}": each for key, each in state.items()}}))
    assert "the weights are a moving average (EMA), from model_ema.module" in caplog.text
    assert "is not used" not in caplog.text


def test_a_moving_average_in_another_form_is_named(
    tmp_path: Path, state: State, caplog: pytest.LogCaptureFixture
) -> None:
    content = {"model": state, "ema": {"decay": 0.99, "shadow_params": list(state.values())}}
    assert_whole(load(saved(tmp_path, content)), state)
    assert "the moving average (EMA) at ema.shadow_params is not used" in caplog.text


def test_a_key_that_is_not_there_names_those_that_are(tmp_path: Path, state: State) -> None:
    path = saved(tmp_path, {"state_dict": state})
    with pytest.raises(WeightsError, match="no tensors at model; it has some at state_dict"):
        load(path, checkpoint_key="model")


# transformers


def hugging_face(model: str, prefix: str = "") -> State:
    """Keys as ResNetForImageClassification has them; each tensor holds one number of its own."""
    convolutions = 2 if model == "resnet18" else 3
    blocks = (2, 2, 2, 2) if model == "resnet18" else (3, 4, 6, 3)
    pairs = [("resnet.embedder.embedder", "conv1", "bn1")]
    for stage, count in enumerate(blocks):
        for block in range(count):
            theirs = f"resnet.encoder.stages.{stage}.layers.{block}"
            ours = f"layer{stage + 1}.{block}"
            pairs += [
                (f"{theirs}.layer.{index}", f"{ours}.conv{index + 1}", f"{ours}.bn{index + 1}")
                for index in range(convolutions)
            ]
            pairs.append((f"{theirs}.shortcut", f"{ours}.downsample.0", f"{ours}.downsample.1"))
    names = {"classifier.1.": "fc."}
    for theirs, conv, norm in pairs:
        names |= {f"{theirs}.convolution.": f"{conv}.", f"{theirs}.normalization.": f"{norm}."}
    shapes = shapes_of(model)
    return {
        prefix + theirs + key.removeprefix(ours): numbered(key, shapes)
        for theirs, ours in names.items()
        for key in shapes
        if key.startswith(ours)
    }


def numbered(key: str, shapes: Any) -> Tensor:
    shape = [3 if side == -1 else side for side in shapes[key]]
    return torch.tensor(float(list(shapes).index(key))).expand(shape)


@pytest.mark.parametrize("prefix", ["", "model.", "module.net."])
@pytest.mark.parametrize("model", ["resnet18", "resnet50"])
def test_resnet_of_transformers(model: str, prefix: str) -> None:
    theirs = hugging_face(model, prefix)
    found = find_parameters({"": theirs}, model, "model.safetensors").state_dict
    assert found.keys() == shapes_of(model).keys()
    for key in found:
        assert torch.equal(found[key], numbered(key, shapes_of(model))), key


def test_other_networks_of_transformers_keep_their_names() -> None:
    keys = {"vit.embeddings.cls_token": torch.ones(1), "classifier.1.weight": torch.ones(1)}
    assert to_torchvision_names(keys).keys() == keys.keys()


# Data beside the weights


BESIDE: dict[str, object] = {
    "numpy float": np.float64(0.93),
    "numpy int": np.int32(3),
    "numpy bool": np.bool_(True),
    "numpy text": np.str_("a"),
    "numpy array": np.arange(4).reshape(2, 2),
    "numpy objects": np.array([{"a": 1}, None], object),
    "namespace": argparse.Namespace(lr=0.1, out=Path("runs"), nested=argparse.Namespace(a=1)),
    "path": Path("/tmp/a"),
    "pure path": PurePosixPath("a"),
    "time": datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc),
    "duration": datetime.timedelta(3),
    "default dict": collections.defaultdict(list, {"a": [1]}),
    "counter": collections.Counter("aab"),
    "random state": np.random.RandomState(0).get_state(),
    "set": {1, 2},
    "frozen set": frozenset({1}),
    "type": torch.float16,
    "version": torch.__version__,
}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("kind", BESIDE)
def test_data_beside_the_weights(tmp_path: Path, kind: str, zipped: bool) -> None:
    path = tmp_path / "mine.pth"
    content = {"state_dict": {"fc.weight": torch.ones(3, 4)}, "beside": BESIDE[kind]}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    assert load_weights(str(path), "resnet18").n_classes == 3


class Runs:
    """Runs a function when it is unpickled."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (os.mkdir, ("ran",)),
        (os.system, ("mkdir ran",)),
        (eval, ("__import__('os').mkdir('ran')",)),
        (getattr, (Path("ran"), "mkdir")),
        (Path.mkdir, (Path("ran"),)),
        (np.save, ("ran", [1])),
        (torch.save, ({}, "ran")),
        (np.load, ("ran",)),
        (argparse.FileType("w"), ("ran",)),
    ],
)
@pytest.mark.parametrize("where", ["beside", "inside of data"])
def test_code_beside_the_weights_is_named_and_not_run(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    function: Callable[..., object],
    arguments: tuple[object, ...],
    where: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    code: object = Runs(function, *arguments)
    content = code if where == "beside" else argparse.Namespace(a=code)
    path = saved(tmp_path, {"state_dict": {"fc.weight": torch.ones(3, 4)}, "x": content})
    with pytest.raises(WeightsError, match=r"holds code \(.+\), which is not run"):
        load_weights(str(path), "resnet18")
    assert {each.name for each in tmp_path.iterdir()} == {"mine.pth"}


def test_safe_globals_are_restored_after_loading(tmp_path: Path) -> None:
    before = set(torch.serialization.get_safe_globals())
    load_weights(str(saved(tmp_path, {"fc.weight": torch.ones(3, 4)})), "resnet18")
    assert set(torch.serialization.get_safe_globals()) == before


# Labels in the file


@pytest.mark.parametrize(
    "beside",
    [
        {"class_to_idx": {"wasp": 2, "ant": 0, "bee": 1}},
        {"classes": ["ant", "bee", "wasp"]},
        {"classes": np.array(["ant", "bee", "wasp"])},
        {"classes": np.array(["ant", "bee", "wasp"], object)},
        {"classes": ("ant", "bee", "wasp"), "class_to_idx": {"ant": 0, "bee": 1, "wasp": 2}},
        {"id2label": {0: "ant", 1: "bee", 2: "wasp"}},
        {"config": {"id2label": {"0": "ant", "1": "bee", "2": "wasp"}}},
        {"hyper_parameters": {"class_names": ["ant", "bee", "wasp"], "lr": 1}},
        {"idx_to_class": {np.int64(0): "ant", np.int64(1): "bee", np.int64(2): "wasp"}},
        {"class_to_idx": {"ant": 0, "bee": 1, "wasp": 2}, "classes": 3},
    ],
)
def test_labels_in_the_file_are_used(tmp_path: Path, beside: dict[str, object]) -> None:
    path = saved(tmp_path, {"state_dict": {"fc.weight": torch.ones(3, 4)}, **beside})
    assert load_weights(str(path), "resnet18").labels == LABELS
    assert load_weights(str(path), "resnet18", ("a", "b", "c")).labels == ("a", "b", "c")


def test_labels_in_a_safetensors_header(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    header = {"id2label": '{"0": "ant", "1": "bee", "2": "wasp"}', "classes": "3"}
    save_file({"fc.weight": torch.ones(3, 4)}, path, header)
    assert load_weights(str(path), "resnet18").labels == LABELS


def test_labels_that_do_not_fit_are_not_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    content = {"state_dict": {"fc.weight": torch.ones(3, 4)}, "classes": ["ant", "bee"]}
    with caplog.at_level(logging.WARNING):
        weights = load_weights(str(saved(tmp_path, content)), "resnet18")
    assert weights.labels == ("0", "1", "2")
    assert "labels in it are not used: classes: 2 labels, but the network has 3" in caplog.text


def test_labels_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    content = {
        "state_dict": {"fc.weight": torch.ones(3, 4)},
        "classes": ["ant", "bee", "wasp"],
        "hyper_parameters": {"class_to_idx": {"bee": 0, "ant": 1, "wasp": 2}},
    }
    with pytest.raises(WeightsError, match="different labels at classes and hyper_parameters"):
        load_weights(str(saved(tmp_path, content)), "resnet18")
