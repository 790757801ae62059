"""`stream-cam build` and `stream-cam engines` as people type them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest
import torch
from support.toy_engine import ToyBuilder
from support.waiting import wait_until
from torch import Tensor, nn

from stream_cam.cli import build, main
from stream_cam.cli.options import BuildCommand
from stream_cam.config import ModelConfig
from stream_cam.engine import Batch, openvino, quantize_nncf, verify
from stream_cam.engine.machine import TENSORRT_INSTALL
from stream_cam.engine.manifest import Figures
from stream_cam.engine.store import BLOB, EngineStore
from stream_cam.model import networks
from stream_cam.model.weights import Weights

DEADLINE_SECONDS = 120.0
ONE = ["--weights", "tiny.safetensors", "--input-size", "64", "--engine", "openvino"]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with the weights, an empty store in it, one engine to build."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STREAM_CAM_ENGINES", str(tmp_path / "engines"))
    for user in ("cli.build", "pipeline.session"):
        monkeypatch.setattr(f"stream_cam.{user}.parallel_choices", lambda: (1,))
    (tmp_path / "tiny.safetensors").symlink_to(tiny)
    return tmp_path


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> ToyBuilder:
    """A builder that takes no time, instead of OpenVINO."""
    builder = ToyBuilder()
    monkeypatch.setattr(build, "_builders", lambda *_: [builder])
    return builder


def complaint(capsys: pytest.CaptureFixture[str]) -> str:
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("stream-cam: ")
    return line


def test_build_keeps_a_real_engine_and_the_second_takes_it(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["build", *ONE]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert said.out.startswith("built: resnet18 3×64×64, openvino fp32 ")
    assert TENSORRT_INSTALL in said.out.splitlines()[-1]
    (path,) = EngineStore().entries()
    assert str(path) in said.out
    assert f" {(path / BLOB).stat().st_size / 1e6:.0f} MB, built in " in said.out

    def not_again(*_: Any) -> None:
        raise AssertionError("converted again")

    monkeypatch.setattr(openvino, "_convert", not_again)
    assert main(["build", *ONE, "--json"]) == 0
    (result,) = json.loads(capsys.readouterr().out)
    assert result["what"] == "kept already"
    assert result["key"]["precision"] == "fp32"
    assert main(["build", *ONE, "--verify-only"]) == 0
    assert capsys.readouterr().out.startswith("verified: resnet18")
    assert (
        main(["run", "demo://shapes?size=96x64&fps=10&seconds=0.2", "null", "--quiet", *ONE]) == 0
    )
    assert main(["engines", "--json"]) == 0
    (engine,) = json.loads(capsys.readouterr().out)["engines"]
    assert engine["status"] == "usable"
    assert main(["build", *ONE, "--force"]) == 1
    assert "converted again" in complaint(capsys)


def test_force_builds_anew(toy: ToyBuilder, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build"]) == 0
    assert main(["build"]) == 0
    assert toy.n_compiled == 1
    assert main(["build", "--force"]) == 0
    assert toy.n_compiled == 2
    words = [
        line.split(":")[0] for line in capsys.readouterr().out.splitlines() if " fp32 " in line
    ]
    assert words == ["built", "kept already", "built"]


def test_a_build_that_fails_its_gate_says_what_to_do(
    toy: ToyBuilder, capsys: pytest.CaptureFixture[str]
) -> None:
    def louder(logits: Tensor, features: Tensor) -> None:
        features.mul_(1.01)

    toy.change = louder
    assert main(["build"]) == 1
    line = complaint(capsys)
    assert "maps' difference 0.01" in line
    assert "--engine eager" in line
    assert EngineStore().entries() == []


def test_verify_only_without_an_engine(toy: ToyBuilder, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build", "--verify-only"]) == 1
    assert "leave out --verify-only" in complaint(capsys)
    assert toy.n_compiled == 0


def test_verify_only_of_a_damaged_engine(
    toy: ToyBuilder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["build"]) == 0
    capsys.readouterr()
    os.truncate(EngineStore().entries()[0] / BLOB, 10)
    assert main(["build", "--verify-only"]) == 1
    assert "damaged" in complaint(capsys)


def test_verify_only_of_an_engine_that_is_wrong(
    toy: ToyBuilder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["build"]) == 0
    capsys.readouterr()
    wrong = Figures(0.5, 0.5, 0.1, 0.5, 0.0)
    monkeypatch.setattr(verify.Comparison, "figures", lambda *_: wrong)
    assert main(["build", "--verify-only"]) == 1
    assert "difference 0.5" in complaint(capsys)


def test_a_build_that_cannot_be_kept_is_a_failure(
    toy: ToyBuilder,
    place: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (place / "file").write_text("")
    monkeypatch.setenv("STREAM_CAM_ENGINES", str(place / "file"))
    assert main(["build"]) == 1
    warning, line = capsys.readouterr().err.splitlines()
    assert "WARNING: the engine is not kept" in warning
    assert "STREAM_CAM_ENGINES" in line


FRAMES = "demo://shapes?size=96x64&fps=10&seconds=2.4"
INT8 = ["--precision", "int8", "--input-size", "64", "--device", "cpu"]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """Instead of torchvision's network, one that is quantised in seconds."""
    torch.manual_seed(1)
    module = nn.Sequential(
        *(nn.Conv2d(3, 16, 5, stride=2, padding=2), nn.ReLU()),
        *(nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 7)),
    ).eval()
    weights = Weights.of_module(module, 7, input_size=64)
    monkeypatch.setattr(networks, "load_weights", lambda *_: weights)
    monkeypatch.setattr(networks, "build_network", lambda *_: module)
    monkeypatch.setattr(networks, "load_parameters", lambda *_: None)
    return module


@pytest.mark.needs_nncf
def test_an_int8_engine_is_built_from_frames_listed_and_run(
    small: nn.Module, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["build", *INT8, "--calibrate", FRAMES]) == 0
    said = capfd.readouterr()
    assert said.err == ""
    assert said.out.startswith("built: resnet18 3×64×64, openvino int8 ")
    (path,) = EngineStore().entries()
    # A kept engine needs neither the frames nor NNCF.
    monkeypatch.setitem(sys.modules, "nncf", None)
    assert main(["build", *INT8]) == 0
    assert capfd.readouterr().out.startswith("kept already: resnet18")
    assert main(["build", *INT8, "--verify-only"]) == 0
    assert capfd.readouterr().out.startswith("verified: resnet18")
    assert main(["engines", "--json"]) == 0
    (engine,) = json.loads(capfd.readouterr().out)["engines"]
    assert (engine["status"], engine["path"]) == ("usable", str(path))
    assert engine["manifest"]["key"]["calibration"]["frames"] == "12+12"
    report = path.parent.parent / "report.json"
    assert main(["run", FRAMES, "null", "--quiet", "--report", str(report), *INT8]) == 0
    assert json.loads(report.read_text())["engine"]["precision"] == "int8"
    assert EngineStore().entries() == [path]


def test_int8_without_frames_or_a_kept_engine_says_how_to_build_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for command in (["build"], ["run", FRAMES, "null"]):
        assert main([*command, *INT8, "--weights", "tiny.safetensors"]) == 1
        line = complaint(capsys)
        assert "no int8 engine of resnet18 3×64×64 for one frame at a time is kept here" in line
        assert "`stream-cam build --engine openvino --precision int8 --calibrate clip.mp4`" in line


@pytest.mark.parametrize(
    ("arguments", "exit_code", "expected"),
    [
        (["--calibrate", FRAMES], 2, "give --precision int8 too"),
        (["--precision", "int8", "--force"], 2, "give --calibrate too"),
        (["--precision", "int8", "--calibrate", "0"], 2, "give a video file"),
        (["--precision", "int8", "--calibrate", "demo://shapes?seconds=0.1"], 2, "has 3 frames"),
        (["--precision", "int8", "--calibrate", "nix.mp4"], 1, "nix.mp4"),
    ],
)
@pytest.mark.needs_nncf
def test_what_cannot_be_calibrated_is_one_line(
    arguments: list[str], exit_code: int, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["build", "--weights", "tiny.safetensors", *arguments]) == exit_code
    assert expected in complaint(capsys)


def test_calibrating_without_nncf_says_what_to_install(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(package: str) -> str:
        raise PackageNotFoundError(package)

    monkeypatch.setattr(quantize_nncf, "version", missing)
    assert main(["build", *INT8, "--calibrate", FRAMES]) == 1
    assert complaint(capsys).endswith("not installed: pip install 'stream-cam[int8]'")


@pytest.mark.needs_nncf
def test_ctrl_c_while_quantising_is_130_and_leaves_nothing(place: Path) -> None:
    options = ["--verbose", *ONE, *INT8, "--calibrate", FRAMES]
    process = subprocess.Popen(
        [sys.executable, "-m", "stream_cam", "build", *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    killer = threading.Timer(DEADLINE_SECONDS, process.kill)
    killer.start()
    try:
        assert process.stderr is not None
        assert any("INFO: try 3 of" in line for line in process.stderr)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate()
    finally:
        killer.cancel()
        process.kill()
    assert process.returncode == 130, err
    assert err.splitlines()[-1] == "stream-cam: interrupted"
    assert "Traceback" not in err
    assert EngineStore().entries() == []
    assert list(place.glob("engines/.*.tmp")) == []


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("build --precision fp8", "fp32"),
        ("build --engine eager", "is not built"),
        ("build --engine inductor", "is not built"),
        ("build --batch 32..1", "1..32 or 1..8..32"),
        ("build --batch many", "1..32 or 1..8..32"),
        ("build --fit native", "at the first frame"),
        ("build --force --verify-only", "give one of them"),
        ("build --forse", "did you mean --force"),
        ("build --weights demo --input-size 3", "from 8"),
        ("build --weights tiny.safetensors --model resnet19", "did you mean resnet1"),
        ("engines --prone", "did you mean --prune"),
        ("engine", "did you mean engines"),
    ],
)
def test_wrong_command_lines_are_two(
    arguments: str, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments.split()) == 2
    assert expected in complaint(capsys)


def test_weights_that_are_not_there_are_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build", "--weights", "nix.pth"]) == 1
    assert "nix.pth" in complaint(capsys)


def test_engines_lists_and_prunes(toy: ToyBuilder, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["engines"]) == 0
    assert capsys.readouterr().out.startswith("0 kept in ")
    assert main(["build"]) == 0
    capsys.readouterr()
    assert main(["engines"]) == 0
    table = capsys.readouterr().out
    assert "3×64×64" in table
    assert "foreign: this version has no toy engines" in table
    assert main(["engines", "--prune", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["engines"] == []
    assert len(said["removed"]) == 1
    assert said["freed_bytes"] > 1000
    assert main(["engines", "--prune"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "0 removed, 0 MB freed"


def test_a_hostile_manifest_does_not_paint_the_terminal(
    toy: ToyBuilder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["build"]) == 0
    manifest = EngineStore().entries()[0] / "manifest.json"
    said = json.loads(manifest.read_text())
    for model in ("[red]x[/red]", "\x1b[31mx"):
        said["key"]["model"] = model
        manifest.write_text(json.dumps(said))
        capsys.readouterr()
        assert main(["engines"]) == 0
        assert "\x1b" not in capsys.readouterr().out


def test_ctrl_c_while_building_is_130_and_leaves_nothing(place: Path) -> None:
    """The lock's file tells that the build has begun."""
    process = subprocess.Popen(
        [sys.executable, "-m", "stream_cam", "build", *ONE],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )

    def begun() -> bool:
        assert process.poll() is None, process.communicate()
        return any(place.glob("engines/.*.lock"))

    try:
        wait_until(begun, DEADLINE_SECONDS)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=DEADLINE_SECONDS)
    finally:
        process.kill()
    assert process.returncode == 130
    assert err.splitlines() == ["stream-cam: interrupted"]
    assert EngineStore().entries() == []
    assert list(place.glob("engines/.*.tmp")) == []


def test_help_of_the_commands_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom stream_cam.cli import main\n"
        "assert main(['build', '--help']) == main(['engines', '--help']) == 0\n"
        "assert main(['engines']) == 0\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_default_options_build_what_run_would(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def opened(*arguments: Any) -> ToyBuilder:
        asked.append(arguments[3])
        return ToyBuilder()

    monkeypatch.setattr(build, "open_builder", opened)
    monkeypatch.setattr(build, "check_buildable", lambda *_, **__: None)
    monkeypatch.setattr(build, "parallel_choices", lambda: (1, 2))
    model, batch = ModelConfig(weights="tiny.safetensors", input_size=64), Batch(1, 8, 32)
    backends = build._builders(BuildCommand(batch="1..8..32", model=model))
    assert [options.parallel for options in asked] == [1, 2]
    assert [options.batch for options in asked] == [batch, batch]
    assert len(backends) == 1, "engines with the same key are one engine"


def test_a_batch_is_for_gpus(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build", *ONE, "--batch", "1..8"]) == 2
    assert "--batch is for tensorrt" in complaint(capsys)


def test_without_a_gpu_tensorrt_says_what_it_needs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["build", *ONE[:-1], "tensorrt"]) == 1
    assert "needs an NVIDIA GPU" in complaint(capsys)
