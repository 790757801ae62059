"""A network that no list knows, through every door: command, page, batch and Python."""

from __future__ import annotations

import json
import re
import urllib.request
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from support.commands import Command
from support.own_networks import COLOURS, Colours, colours_bgr
from support.videos import write_video
from support.waiting import wait_until

import stream_cam
from stream_cam.cli.main import main
from stream_cam.config import ModelConfig, ModuleConfig, PipelineConfig
from stream_cam.frame import BgrImage

OWN = str(Path(__file__).parents[1] / "support" / "own_networks.py")
SIZE_HW = (120, 160)
SQUARES_XYXY = {"red": (20, 30, 60, 70), "blue": (100, 40, 140, 80)}
COLOURS_BGR = {"red": (30, 30, 220), "blue": (220, 40, 30)}


def scene(colour: str) -> BgrImage:
    """A square of a colour on grey."""
    image = np.full((*SIZE_HW, 3), 90, np.uint8)
    x0, y0, x1, y1 = SQUARES_XYXY[colour]
    image[y0:y1, x0:x1] = COLOURS_BGR[colour]
    return image


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STREAM_CAM_ENGINES", str(tmp_path / "engines"))
    (tmp_path / "classes.txt").write_text("\n".join(COLOURS))
    cv2.imwrite("red.png", scene("red"))
    return tmp_path


def assert_found(line: dict[str, Any], colour: str) -> None:
    """The class is right, and the map's box is the square."""
    assert line["label"] == colour
    # A cell of the map is 8 input pixels of 96: 13 of the frame's.
    assert np.abs(np.subtract(line["box"], SQUARES_XYXY[colour])).max() < 13


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_command_runs_a_module_with_its_own_weights_and_labels(place: Path) -> None:
    torch.save({"state_dict": {f"net.{k}": v for k, v in Colours().state_dict().items()}}, "w.pth")
    write_video(place / "clip.mp4", images=[scene("red")] * 2 + [scene("blue")] * 2)
    with Command(
        *(place, "run", "clip.mp4", "out.mp4", "--module", f"{OWN}:Colours", "--weights", "w.pth"),
        *("--labels", "classes.txt", "--input-scale", "0..1", "--predictions", "out.jsonl"),
        *("--report", "report.json", "--hold", "0", "--input-size", "96"),
    ) as command:
        assert command.end() == 0
    found = lines(place / "out.jsonl")
    for line, colour in zip(found, ["red", "red", "blue", "blue"], strict=True):
        assert_found(line, colour)
    report = json.loads((place / "report.json").read_text())
    assert (report["model"], report["weights"]) == ("own_networks.Colours", "w.pth")


def test_the_page_of_the_command_shows_a_module(place: Path) -> None:
    with Command(
        *(place, "run", "demo://shapes?size=160x120&fps=10&live=1", "web://127.0.0.1:0"),
        *(
            "--module",
            f"{OWN}:colours_bgr",
            "--channels",
            "bgr",
            "--labels",
            "classes.txt",
            "--input-size",
            "64",
        ),
    ) as command:
        address = command.said(r"http://\S+")[0].rstrip("/")

        def labels() -> object:
            with urllib.request.urlopen(f"{address}/labels", timeout=60) as answer:
                return json.loads(answer.read())

        wait_until(lambda: labels() == list(COLOURS), 120)


def test_batch_runs_a_module_in_a_process_of_its_own(place: Path) -> None:
    write_video(place / "clip.mp4", images=[scene("blue")] * 2)
    options = ["--labels", "classes.txt", "--input-scale", "0..1", "--input-size", "96"]
    results = ["--predictions", "annotated/{name}.jsonl"]
    assert main(["batch", "clip.mp4", "--module", f"{OWN}:colours", *options, *results]) == 0
    assert (place / "annotated" / "clip.mp4").stat().st_size > 0
    for line in lines(place / "annotated" / "clip.jsonl"):
        assert_found(line, "blue")


def test_python_runs_and_serves_a_module(place: Path) -> None:
    explainer = stream_cam.Explainer.from_module(
        colours_bgr(), labels=COLOURS, channels="bgr", input_scale="0..1", input_size=96
    )
    report = stream_cam.run(explainer, "red.png", ["out.png"], predictions="out.jsonl")
    assert (report.model, report.explained) == ("Colours", 1)
    assert_found(lines(place / "out.jsonl")[0], "red")
    shown = cv2.imread("out.png")
    assert shown is not None
    assert shown.shape == (*SIZE_HW, 3)
    own = ModuleConfig(f"{OWN}:colours", input_scale="0..1")
    config = PipelineConfig(ModelConfig(labels=place / "classes.txt", input_size=96, own=own))
    source = "demo://shapes?size=160x120&fps=10&live=1"
    for served in (
        stream_cam.serve(source, explainer=explainer),
        stream_cam.serve(source, config=config),
    ):
        with served:
            wait_until(lambda: int(str(served.stats().get("explained", 0))) > 1, 120)  # noqa: B023
            assert served.pipeline.settings.labels == COLOURS


def test_outputs_and_activation_are_options(place: Path) -> None:
    module = [
        "--module",
        f"{OWN}:with_features",
        "--output-name",
        "scores",
        "--input-scale",
        "0..1",
    ]
    options = ["--activation", "sigmoid", "--labels", "classes.txt", "--input-size", "96"]
    assert main(["run", "red.png", "null", *module, *options, "--predictions", "out.jsonl"]) == 0
    (line,) = lines(place / "out.jsonl")
    assert_found(line, "red")
    # The logits of green and blue are −1/2 of red's.
    found = {each["label"]: each["probability"] for each in line["top"]}
    logit = np.log(found["red"] / (1 - found["red"]))
    assert found["green"] == pytest.approx(1 / (1 + np.exp(logit / 2)), abs=1e-3)


def test_build_and_bench_take_a_module(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    module = ["--module", f"{OWN}:brightness", "--input-scale", "0..255"]
    assert main(["build", *module, "--input-size", "32"]) == 0
    assert "built: own_networks.brightness 3×32×32" in capfd.readouterr().out
    sizes = ["--shape", "32x32", "--batch", "1", "--samples", "3", "--no-file", "--frame", "96x64"]
    assert main(["bench", *module, *sizes, "--engines", "eager", "--json", "b.json"]) == 0
    result = json.loads((place / "b.json").read_text())
    assert result["network"]["model"] == "own_networks.brightness"
    assert result["rows"]


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (["--module", f"{OWN}:colurs"], 2, "unknown name in .*did you mean colours"),
        (["--module", "nowhere.py:net"], 2, "there is no file nowhere.py; give FILE.py:FUNCTION"),
        (["--module", "red.png:net"], 2, "red.png is no Python file"),
        (["--module", "net.py"], 2, "--module is FILE.py:FUNCTION"),
        (["--module", f"{OWN}:failing"], 1, r"fails, line \d+ \(FileNotFoundError: no such file"),
        (["--module", "broken.py:net"], 1, r"the code of broken.py fails, line 2 \(SyntaxError"),
        (["--module", f"{OWN}:nothing"], 1, "returns NoneType; it must return an nn.Module"),
        (["--module", f"{OWN}:COLOURS"], 1, "of type tuple; name a function"),
        (["--module", f"{OWN}:flattened"], 1, "has no CAM: flatten of 4×28×28 features"),
        (["--module", f"{OWN}:colours", "--weights", "w.pth"], 1, "1 missing .*1 unexpected"),
        (["--module", f"{OWN}:colours", "--weights", "demo"], 2, "--weights demo is for --model"),
        (["--module", f"{OWN}:colours", "--model", "vgg16"], 2, "in place of --model"),
        (
            ["--module", f"{OWN}:colours", "--mean", "1,2"],
            2,
            r"for each channel .*got \(1.0, 2.0\)",
        ),
        (["--module", f"{OWN}:colours", "--mean", "x"], 2, "several with commas"),
        (["--module", f"{OWN}:with_features"], 2, "returns 2 outputs .*: give --output-name"),
        (["--mean", "0.5"], 2, "--mean is for a network of your own: give --module too"),
    ],
)
def test_mistakes_are_told_in_one_line(
    arguments: list[str], code: int, complaint: str, capfd: pytest.CaptureFixture[str]
) -> None:
    Path("broken.py").write_text("import os\ndef net(:\n")
    wrong = Colours().state_dict()
    wrong["other.bias"] = wrong.pop("score.bias")
    torch.save(wrong, "w.pth")
    assert main(["run", "red.png", "null", *arguments]) == code
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("stream-cam: ")
    assert re.search(complaint, line), line
