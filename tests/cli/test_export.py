"""`stream-cam export`: the written files, in the runtimes that users have."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from support.own_networks import COLOURS, Brightness, Colours

from stream_cam.cli.main import main
from stream_cam.export.network import ExportedNetwork, _resizing

OWN = str(Path(__file__).parents[1] / "support" / "own_networks.py")
SIDE = 32
Run = Callable[[np.ndarray[Any, Any]], dict[str, np.ndarray[Any, Any]]]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("classes.txt").write_text("\n".join(COLOURS))
    return tmp_path


def opened(name: str, runtime: str) -> Run:
    """The file as a user of another runtime opens it."""
    if runtime == "onnxruntime":
        onnxruntime = pytest.importorskip("onnxruntime", reason="pip install 'stream-cam[export]'")
        session = onnxruntime.InferenceSession(name, providers=["CPUExecutionProvider"])
        (given,) = session.get_inputs()
        return lambda batch: dict(
            zip(
                ("logits", "maps"),
                session.run(["logits", "maps"], {given.name: batch}),
                strict=True,
            )
        )
    import openvino

    compiled = openvino.Core().compile_model(name, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def run(batch: np.ndarray[Any, Any]) -> dict[str, np.ndarray[Any, Any]]:
        results = compiled(batch)
        return {key: np.array(results[key]) for key in ("logits", "maps")}

    return run


def assert_near(got: np.ndarray[Any, Any], expected: torch.Tensor) -> None:
    assert got.shape == expected.shape
    assert np.abs(got - expected.numpy()).max() <= 1e-4 * float(expected.abs().max())


def pictures(height: int, width: int) -> np.ndarray[Any, Any]:
    """(3, H, W, 3) uint8 RGB."""
    return np.random.default_rng(0).integers(0, 256, (3, height, width, 3), np.uint8)


@pytest.mark.parametrize("name", ["net.onnx", "net.xml"])
def test_pictures_of_any_size_give_logits_and_maps(
    name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    if name == "net.onnx":
        pytest.importorskip("onnxscript", reason="pip install 'stream-cam[export]'")
    module = ["--module", f"{OWN}:colours_bgr", "--channels", "bgr", "--labels", "classes.txt"]
    numbers = ["--mean", "30,20,10", "--std", "90,100,110", "--input-scale", "0..255"]
    inside = ["--with-preprocessing", "--resize", "--input-size", str(SIDE)]
    assert main(["export", name, *module, *numbers, *inside]) == 0
    said = capfd.readouterr()
    assert said.err == ""
    assert "input   picture (N, H, W, 3) uint8, rgb" in said.out
    assert re.search(r"checked against PyTorch: openvino \S+e-\d\d", said.out)
    runtimes = ["openvino", "onnxruntime"] if name == "net.onnx" else ["openvino"]
    runs = [opened(name, runtime) for runtime in runtimes]
    network = Colours().eval()
    for size_hw in ((90, 70), (20, 50)):
        batch = pictures(*size_hw)
        planes = torch.from_numpy(batch).float().permute(0, 3, 1, 2)
        small = F.interpolate(planes, (SIDE, SIDE), mode="bilinear", antialias=True)
        own = (small - torch.tensor([10.0, 20, 30])[:, None, None]) / torch.tensor(
            [110.0, 100, 90]
        )[:, None, None]
        with torch.inference_mode():
            logits, features = network(own), network.excess(own).relu()
            maps = F.conv2d(features, network.score.weight[..., None, None])
        for run in runs:
            got = run(batch)
            assert_near(got["logits"], logits)
            assert_near(got["maps"], maps)


def test_a_network_takes_its_own_channels_and_says_so_in_the_file(
    capfd: pytest.CaptureFixture[str],
) -> None:
    module = ["--module", f"{OWN}:brightness", "--input-scale", "0..255", "--mean", "51"]
    assert main(["export", "net.xml", *module, "--input-size", str(SIDE)]) == 0
    out = capfd.readouterr().out
    assert f"input (N, 1, {SIDE}, {SIDE}) float32, normalised gray" in out
    assert "mean [0.2], std [0.00392" in out
    batch = np.random.default_rng(1).normal(100, 30, (3, 1, SIDE, SIDE)).astype(np.float32)
    got = opened("net.xml", "openvino")(batch)
    with torch.inference_mode():
        logit = Brightness()(torch.from_numpy(batch))
    assert_near(got["logits"], torch.cat([-logit / 2, logit / 2], 1))
    bias = torch.tensor([2.0, -2.0])
    assert_near(got["maps"].mean((2, 3)), torch.cat([-logit / 2, logit / 2], 1) - bias)
    import openvino

    facts = openvino.Core().read_model("net.xml").get_rt_info("stream_cam").value
    assert json.loads(facts["labels"]) == ["not 0", "0"]
    assert facts["model"] == "own_networks.brightness"


def test_onnx_names_its_sides_and_labels() -> None:
    pytest.importorskip("onnxscript", reason="pip install 'stream-cam[export]'")
    onnxruntime = pytest.importorskip("onnxruntime", reason="pip install 'stream-cam[export]'")
    module = ["--module", f"{OWN}:colours", "--labels", "classes.txt"]
    assert main(["export", "net.onnx", *module, "--input-size", str(SIDE)]) == 0
    session = onnxruntime.InferenceSession("net.onnx", providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    assert (given.name, given.type) == ("input", "tensor(float)")
    assert given.shape == ["batch", 3, SIDE, SIDE]
    assert [each.shape for each in session.get_outputs()] == [["batch", 3], ["batch", 3, 4, 4]]
    facts = session.get_modelmeta().custom_metadata_map
    assert json.loads(facts["stream_cam.labels"]) == list(COLOURS)
    assert json.loads(facts["stream_cam.mean"]) == [0.485, 0.456, 0.406]


@pytest.mark.parametrize("bicubic", [False, True])
@pytest.mark.parametrize("n_inputs", [5, 32, 33, 400])
def test_the_resizing_is_pytorchs(n_inputs: int, bicubic: bool) -> None:
    line = torch.rand(1, 1, 1, n_inputs, generator=torch.Generator().manual_seed(n_inputs))
    mode = "bicubic" if bicubic else "bilinear"
    expected = F.interpolate(line, (1, SIDE), mode=mode, antialias=True)[0, 0, 0]
    got = _resizing(n_inputs, SIDE, bicubic=bicubic) @ line[0, 0, 0]
    torch.testing.assert_close(got, expected, atol=2e-6, rtol=0)


def test_a_file_that_is_not_the_network_is_not_kept(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], place: Path
) -> None:
    forward = ExportedNetwork.forward
    monkeypatch.setattr(
        ExportedNetwork,
        "forward",
        lambda self, x: (forward(self, x)[0] * 1.001, forward(self, x)[1]),
    )
    assert main(["export", "net.xml", "--module", f"{OWN}:colours", "--input-size", "32"]) == 1
    assert re.search(r"differs in openvino from PyTorch's by 0\.00\d+ of", capfd.readouterr().err)
    assert [each.name for each in place.iterdir()] == ["classes.txt"]


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (["net.pt"], 2, "net.pt: give a file in .onnx or .xml"),
        ([], 2, "`stream-cam export` needs"),
        (["net.xml", "--resize"], 2, "give --with-preprocessing too"),
        (["net.xml", "--precision", "fp16"], 2, "leave out --precision"),
        (["away/net.xml"], 1, "cannot write away/net.xml: away is no folder that exists"),
        (["there.xml"], 1, "there.bin exists; give --overwrite"),
        (["net.xml", "--module", f"{OWN}:flattened"], 1, "has no CAM"),
    ],
)
def test_mistakes_are_told_in_one_line(
    arguments: list[str], code: int, complaint: str, capfd: pytest.CaptureFixture[str]
) -> None:
    Path("there.bin").write_text("")
    assert main(["export", *arguments]) == code
    (line,) = capfd.readouterr().err.splitlines()
    assert complaint in line


def test_without_onnxscript_the_error_names_the_package_and_the_other_format(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    assert main(["export", "net.onnx", "--module", f"{OWN}:colours"]) == 1
    assert re.search(
        r"onnxscript .*pip install 'stream-cam\[export\]', or give a file in .xml",
        capfd.readouterr().err,
    )
