"""The description of a network beside its engines: found again, or loaded anew."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from stream_cam.explain.explainer import Explainer
from stream_cam.explain.networks import KeptNetwork, LoadedNetwork, NetworkSource
from stream_cam.model.weights import DEMO_PATH

pytest.importorskip("openvino", reason="kept engines on a CPU are OpenVINO's")

FRAME = np.random.default_rng(5).integers(0, 256, (60, 80, 3), np.uint8)


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STREAM_CAM_ENGINES", str(tmp_path / "engines"))
    return Path(shutil.copy(DEMO_PATH, tmp_path / "own.safetensors"))


def load(weights: Path, **options: object) -> Explainer:
    return Explainer.load(weights=str(weights), input_size=64, **options)  # type: ignore[arg-type]


def test_kept_network_explains_as_the_loaded_one(weights: Path) -> None:
    loaded, kept = load(weights), load(weights)
    assert isinstance(loaded._network, LoadedNetwork)
    assert isinstance(kept._network, KeptNetwork)
    for name in ("labels", "mean", "std", "interpolation", "name", "sha256", "n_classes", "file"):
        assert getattr(kept.weights, name) == getattr(loaded.weights, name)
    one, other = loaded.explain(FRAME), kept.explain(FRAME)
    assert np.array_equal(one.logits, other.logits)
    assert np.array_equal(one.cams, other.cams)
    assert kept._network._loaded is None
    # An input without a kept engine: the network is loaded after all.
    wide = load(weights, fit="native")
    assert wide.explain(FRAME).cams.shape == (1, 2, 3)
    assert isinstance(wide._network, KeptNetwork)
    assert wide._network._loaded is not None


def test_labels_of_a_call_take_the_place_of_the_kept_ones(weights: Path) -> None:
    names = [f"class {index}" for index in range(load(weights).weights.n_classes)]
    assert load(weights, labels=names).labels == tuple(names)
    assert load(weights).labels != tuple(names)


def test_changed_file_is_loaded_anew_and_kept_anew(weights: Path) -> None:
    load(weights)
    tensors = load_file(weights)
    save_file({name: tensor.copy() for name, tensor in tensors.items()}, weights)
    changed = load(weights)
    assert isinstance(changed._network, LoadedNetwork)
    assert isinstance(load(weights)._network, KeptNetwork)


@pytest.mark.parametrize("spoil", [b"", b"\x08\0\0\0\0\0\0\0{}      ", b"not one" * 100])
def test_damaged_description_is_passed_over_and_mended(weights: Path, spoil: bytes) -> None:
    load(weights)
    path = NetworkSource("resnet18", str(weights)).path()
    path.write_bytes(spoil)
    assert isinstance(load(weights)._network, LoadedNetwork)
    assert isinstance(load(weights)._network, KeptNetwork)


def test_oldest_descriptions_go(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream_cam.explain.networks._MAX_KEPT", 1)
    other = Path(shutil.copy(weights, weights.with_name("other.safetensors")))
    load(weights)
    load(other)
    folder = NetworkSource("resnet18", str(weights)).path().parent
    assert [path.name for path in folder.iterdir()] == [
        NetworkSource("resnet18", str(other)).path().name
    ]
