"""The command as people type it: exit codes, one-line errors, signals, files left behind."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from support.processes import process, wait_for
from support.rtsp_harness import RtspServer, rtsp_server_problem
from support.videos import write_video
from torchvision.models import resnet18

from stream_cam._version import __version__
from stream_cam.cli import main
from stream_cam.host import parallel_choices

DEADLINE_SECONDS = 120.0
"""For a process of its own: torch's import alone takes seconds, and minutes on a busy machine."""

SOURCE = "demo://shapes?size=96x64&fps=10&seconds=0.5"
LABELS = ("circle", "square", "star", "heart")


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small untrained network's file, so that these tests need no trained one."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_file(resnet18(num_classes=len(LABELS)).state_dict(), path)
    (path.parent / "labels.txt").write_text("\n".join(LABELS))
    return path


@pytest.fixture
def options(weights: Path) -> list[str]:
    """Quick to load and to run: eager, 64 pixels."""
    labels = str(weights.parent / "labels.txt")
    return [
        *("--weights", str(weights), "--labels", labels),
        *("--engine", "eager", "--device", "cpu", "--input-size", "64"),
    ]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test works in an empty folder, without a display."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    return tmp_path


def n_frames(path: Path | str) -> int:
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def complaint(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on stderr; on stdout nothing before the run, how it went after it."""
    said = capsys.readouterr()
    lines = said.err.splitlines()
    assert len(lines) == 1, said.err
    assert lines[0].startswith("stream-cam: ")
    assert not said.out or said.out.startswith(("live: ", "lossless: "))
    return lines[0]


# What works.


def test_run_writes_the_outputs_and_the_report(
    place: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    outputs = ["a.mp4", "-o", "b.mkv", "-o", "f/", "-o", "last.png", "-o", "null"]
    code = main(["run", SOURCE, *outputs, "--report", "report.json", *options])
    said = capsys.readouterr()
    assert code == 0
    assert said.err == ""
    mode, summary = said.out.splitlines()[:2]
    assert mode == "lossless: every frame is explained and written"
    assert summary.startswith("5 frames in ")
    at_once = max(parallel_choices())
    assert (f" ms a frame, {at_once} at once · " in summary) is (at_once > 1)
    assert "eager on cpu" in said.out
    assert "wrote a.mp4" in said.out
    assert re.search(
        r"wrote last\.png \(\d+\.\d kB, the last of 5 pictures; a folder keeps all: last/\)",
        said.out,
    )
    assert names(place) == ["a.mp4", "b.mkv", "f", "last.png", "report.json"]
    assert n_frames("a.mp4") == n_frames("b.mkv") == len(names(place / "f")) == 5
    report = json.loads((place / "report.json").read_text())
    assert report["captured"] == report["explained"] == report["rendered"] == 5
    assert [sink["written"] for sink in report["sinks"]] == [5] * 5
    assert report["engine"]["name"] == "eager"
    assert report["weights"] == "tiny.safetensors"
    assert report["parallel"] == at_once
    assert report["ended_by"] == "end of source"


def test_live_run_says_so_and_accounts_for_its_frames(
    place: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    source = "demo://shapes?size=96x64&fps=20&live=1"
    arguments = [
        "run",
        source,
        "null",
        "--limit",
        "10",
        "--max-delay",
        "0.25",
        "--report",
        "r.json",
    ]
    assert main([*arguments, *options]) == 0
    said = capsys.readouterr()
    assert said.err == ""  # no terminal, no status line
    mode = said.out.splitlines()[0]
    assert mode.startswith("live: newest frame wins; pictures wait for their own map")
    assert "0.25 s" in mode
    report = json.loads((place / "r.json").read_text())
    (sink,) = report["sinks"]
    assert report["captured"] == 10
    assert report["captured"] == sum(report[n] for n in ("explained", "superseded", "discarded"))
    assert report["captured"] == report["rendered"] + report["skipped"]
    assert report["rendered"] == sink["offered"] == sink["written"] + sink["dropped"]
    assert {"capture_to_explanation", "capture_to_sink 0"} <= set(report["latency"])


def test_quiet_says_nothing(options: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["run", SOURCE, "null", "--quiet", *options]) == 0
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("extra", "size_hw"),
    [
        (["--layout", "side"], (64, 192)),
        (["--layout", "heatmap", "--no-hud"], (64, 96)),
        (["--layout", "top5"], (128, 288)),
        (["--target", "star", "--target", "1"], (64, 288)),
        (["--target", "HEART", "--fit", "crop"], (64, 96)),
        (["--fit", "letterbox", "--alpha-mode", "heat", "--relu"], (64, 96)),
        (["--fit", "native", "--upsampling", "bicubic", "--colormap", "jet"], (64, 96)),
    ],
)
def test_layouts_fits_and_targets(
    options: list[str], extra: list[str], size_hw: tuple[int, int]
) -> None:
    assert main(["run", SOURCE, "out.mp4", "--limit", "2", "--quiet", *options, *extra]) == 0
    with av.open("out.mp4") as container:
        frames = list(container.decode(video=0))
    assert [(frame.height, frame.width) for frame in frames] == [size_hw] * 2


def test_target_before_the_source(options: list[str]) -> None:
    assert main(["run", "--target", "star", SOURCE, "out.mp4", "--limit", "2", *options]) == 0
    assert Path("out.mp4").exists()


def test_pictures_of_all_kinds_to_a_folder(place: Path, options: list[str]) -> None:
    rng = np.random.default_rng(0)
    pictures = place / "in"
    pictures.mkdir()
    kinds = {
        "colour.png": rng.integers(0, 256, (40, 60, 3), np.uint8),
        "grey.png": rng.integers(0, 256, (41, 61), np.uint8),
        "deep.png": rng.integers(0, 65536, (30, 30, 3), np.uint16),
        "alpha.png": rng.integers(0, 256, (50, 20, 4), np.uint8),
        "dot.png": rng.integers(0, 256, (1, 1, 3), np.uint8),
        "photo.jpg": rng.integers(0, 256, (200, 300, 3), np.uint8),
    }
    for name, image in kinds.items():
        assert cv2.imwrite(str(pictures / name), image)
    assert main(["run", "in", "out/", "--quiet", *options]) == 0
    for name, image in kinds.items():
        written = cv2.imread(str(place / "out" / name.replace("jpg", "jpg.png")))
        assert written is not None
        assert written.shape == (*image.shape[:2], 3)
    assert main(["run", "in/photo.jpg", "one.jpg", "--quiet", *options]) == 0
    assert "one.jpg" in names(place)


def test_damaged_picture_among_others_is_skipped_aloud(
    place: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "in").mkdir()
    for name in ("a.png", "c.png"):
        cv2.imwrite(str(place / "in" / name), np.zeros((8, 8, 3), np.uint8))
    (place / "in" / "b.png").write_bytes(b"no picture")
    assert main(["run", "in", "out/", *options]) == 0
    said = capsys.readouterr()
    assert "b.png" in said.err
    assert "1 corrupt" in said.out
    assert names(place / "out") == ["a.png", "c.png"]


def test_overwrite_replaces(place: Path, options: list[str]) -> None:
    for name in ("out.mp4", "report.json"):
        (place / name).write_text("old")
    arguments = ["run", SOURCE, "out.mp4", "--report", "report.json", "--quiet", *options]
    assert main([*arguments, "--overwrite"]) == 0
    assert n_frames("out.mp4") == 5
    assert json.loads((place / "report.json").read_text())["rendered"] == 5


@pytest.mark.parametrize("arguments", [["--version"], ["version"]])
def test_version(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 0
    assert capsys.readouterr().out == f"stream-cam {__version__}\n"


@pytest.mark.parametrize("arguments", [[], ["--help"], ["run", "--help"], ["doctor", "-h"]])
def test_help(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 0
    said = capsys.readouterr()
    assert said.out.startswith("usage: stream-cam")
    assert said.err == ""


def test_doctor_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    assert "Python" in {finding["area"] for finding in json.loads(capsys.readouterr().out)}


# What does not.

WRONG = {
    "rum": "did you mean run",
    "run x --colormap turb": "did you mean turbo",
    "run x --fit cropp": "did you mean crop",
    "run x --layout sidee": "did you mean side",
    "run x --engine openvin": "did you mean openvino",
    "run x --alpha 1.5": "0 to 1, got 1.5",
    "run x --alpha -1": "0 to 1, got -1",
    "run x --smooth -1": "--smooth is a time in seconds, got -1",
    "run x --hold inf": "--hold is a time in seconds, got inf",
    "run x --alpha much": "--alpha takes a number, got 'much'",
    "run x --limit=1.5": "--limit takes a whole number, got '1.5'",
    "run x --camera-fps fast": "--camera-fps takes a number, got 'fast'",
    "run x --every other": "--every takes a whole number, got 'other'",
    "run -- x --weights demo": "--weights stands behind --",
    "run x --bitrate 0": "from 1k on, got '0'",
    "run x --codec h265": "did you mean hevc",
    "run x --queue-frames 0": "--queue-frames is a number of frames from 1, got 0",
    "run x --max-age 0": "above 0, got 0",
    "run x --max-age nan": "above 0, got nan",
    "run x --limit 0": "from 1, got 0",
    "run x --limt 3": "did you mean --limit",
    "run": "SOURCE",
    "clip.mp4 out.mp4": "stream-cam run clip.mp4",
    "run a b c": "c",
    "run demo://shapes out.mp5": "did you mean",
    "run demo://shapes out": "out.mp4",
    "run demo://shapes web://127.0.0.1:x": "a port is a number",
    "run demo://shapes web://127.0.0.1:80/page": "web://HOST:PORT",
    "run demo://shapes web:// --tls-cert a.pem": "belong together",
    "run demo://shapes web:// --web-quality 0": "from 1 to 100, got 0",
    "run demo://shapes rtsp://x/y": "not in this version",
    "run demo://shapes?speed=3 null": "unknown demo:// parameter 'speed'",
    "run demo://shpes null": "did you mean shapes",
    "run demo://shapes a.mp4 -o ./a.mp4": "given twice",
    "run demo://shapes a.mp4 --report a.mp4": "another name",
    "run ftpp://x null": "unknown kind of source",
    "run demo out.mp4": "`stream-cam run demo://shapes`",
    "demo --size 10x10": "64",
    "demo --size": "--size",
}


@pytest.mark.parametrize("columns", ["40", "300"])
@pytest.mark.parametrize("line", WRONG)
def test_wrong_command_line_is_one_line_and_two(
    line: str,
    columns: str,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert main(line.split()) == 2
    assert WRONG[line] in complaint(capsys)
    assert not names(place)


def test_a_source_without_a_name_is_a_mistake(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a shell variable that is not set gives."""
    assert main(["run", "", "out.mp4"]) == 2
    assert "the source has no name: give " in complaint(capsys)


def test_a_folder_is_not_taken_for_a_recording(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "out.mp4").mkdir()
    assert main(["run", SOURCE, "out.mp4"]) == 2
    assert "out.mp4 is a folder; for pictures in it give out.mp4/" in complaint(capsys)


def test_passwords_are_not_repeated(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    for line in (
        "run a b rtsp://operator:tremendously-secret@camera.example.com/stream",
        "run a --limit rtsp://operator:tremendously-secret@camera.example.com/stream",
        "run a rtsp://operator:tremendously-secret@camera.example.com/stream",
    ):
        main(line.split())
        said = "".join(complaint(capsys).split())
        assert "secret" not in said
        assert "operator" not in said


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        (["--target", "hart"], "did you mean heart"),
        (["--target", "4"], "classes are 0 to 3"),
        (["--model", "resnet19"], "did you mean resnet1"),
        (["--model", "resnet19", "--weights", "demo"], "did you mean resnet1"),
        (["--model", "resnet19", "--weights", "nowhere.pth"], "did you mean resnet1"),
        (["--input-size", "3"], "from 8 to 4096, got 3"),
        (["--input-size", "100000"], "from 8 to 4096, got 100000"),
    ],
)
def test_wrong_names_of_the_model_are_two(
    options: list[str],
    extra: list[str],
    expected: str,
    place: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["run", SOURCE, "out.mp4", *options, *extra]) == 2
    assert expected in complaint(capsys)
    assert not names(place)


def _empty(place: Path) -> str:
    (place / "x.mp4").touch()
    return "empty"


def _text(place: Path) -> str:
    (place / "x.mp4").write_text("this is no video\n" * 100)
    return "x.mp4"


def _cut(place: Path) -> str:
    (place / "x.mp4").write_bytes(b"\x00\x00\x00\x20ftypisom\x00\x00\x02\x00isomiso2avc1mp41")
    return "x.mp4"


def _missing(place: Path) -> str:
    (place / "y.mp4").touch()
    return "did you mean y.mp4"


def _no_pictures(place: Path) -> str:
    (place / "x.mp4").mkdir()
    return "no pictures"


@pytest.mark.parametrize("make", [_empty, _text, _cut, _missing, _no_pictures])
def test_bad_source_is_one_line_and_one(
    make: Callable[[Path], str], place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = make(place)
    before = names(place)
    assert main(["run", "x.mp4", "out.mp4", "--weights", "demo"]) == 1
    assert expected in complaint(capsys)
    assert names(place) == before


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("there.mp4", "--overwrite"),
        ("there.mp4/out.mp4", "is a file"),
        ("nowhere/out.mp4", "mkdir -p nowhere"),
        ("/proc/out.mp4", "/proc"),
        ("full/", "--overwrite"),
        ("window", "write to a file with -o out.mp4"),
    ],
)
def test_bad_output_is_one_line_and_one(
    output: str, expected: str, place: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "there.mp4").write_text("mine")
    (place / "full").mkdir()
    (place / "full" / "a.png").write_text("mine")
    assert main(["run", SOURCE, output, *options]) == 1
    assert expected in complaint(capsys)
    assert names(place) == ["full", "there.mp4"]
    assert (place / "there.mp4").read_text() == "mine"


@pytest.mark.parametrize(
    ("report", "code"), [("there.json", 1), ("nowhere/r.json", 1), ("full", 1), ("x.png", 2)]
)
def test_unwritable_report_is_an_error_before_the_run(
    report: str, code: int, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cv2.imwrite("x.png", np.zeros((8, 8, 3), np.uint8))
    (place / "there.json").write_text("mine")
    (place / "full").mkdir()
    before = names(place)
    assert main(["run", "x.png", "out.png", "--report", report, "--weights", "demo"]) == code
    complaint(capsys)
    assert names(place) == before
    assert (place / "there.json").read_text() == "mine"


def test_output_may_not_be_the_source(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cv2.imwrite("x.png", np.zeros((8, 8, 3), np.uint8))
    before = (place / "x.png").read_bytes()
    assert main(["run", "x.png", "./x.png", "--overwrite"]) == 2
    assert "is where the source is" in complaint(capsys)
    assert (place / "x.png").read_bytes() == before


def test_source_and_output_the_wrong_way_round(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "clip.mp4").write_text("mine")
    assert main(["run", "annotated.mp4", "clip.mp4"]) == 1
    said = complaint(capsys)
    assert "annotated.mp4 does not exist" in said
    assert "--overwrite" not in said


@pytest.mark.parametrize("kind", ["nan", "truncated", "missing", "text", "complex", "int8"])
def test_bad_weights_are_one_line_and_one(
    kind: str, place: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = place / "bad.safetensors"
    if kind == "nan":
        state = resnet18(num_classes=4).state_dict()
        state["layer4.1.conv2.weight"][0, 0, 0, 0] = float("nan")
        save_file(state, path)
    elif kind in ("complex", "int8"):
        state = resnet18(num_classes=4).state_dict()
        state["fc.weight"] = state["fc.weight"].to(getattr(torch, kind.replace("x", "x64")))
        save_file(state, path)
    elif kind == "truncated":
        path.write_bytes(weights.read_bytes()[:100_000])
    elif kind == "text":
        path.write_text("these are no weights")
    before = names(place)
    assert main(["run", SOURCE, "out.mp4", "--weights", str(path), "--engine", "eager"]) == 1
    assert "bad.safetensors" in complaint(capsys)
    assert names(place) == before


@pytest.mark.parametrize("secret", ["pa'ssword9", 'pa"ssword9', "pa<ss word9"])
def test_run_whose_source_never_comes_writes_its_report(
    place: Path, options: list[str], capsys: pytest.CaptureFixture[str], secret: str
) -> None:
    uri = f"rtsp://me:{secret}@127.0.0.1:1/x"
    command = ["run", uri, "null", "--report", "r.json", "--give-up-after", "0.2", *options]
    assert main(command) == 1
    text = Path("r.json").read_text(encoding="utf-8")
    report = json.loads(text)
    assert report["source"] == "rtsp://***@127.0.0.1:1/x"
    assert "gave up after 0.2 s" in report["ended_by"]
    assert (report["captured"], report["sinks"]) == (0, [])
    assert "ssword9" not in text + "".join(capsys.readouterr())


def test_run_whose_network_cannot_be_had_writes_its_report(place: Path) -> None:
    command = ["run", SOURCE, "out.mp4", "--weights", "missing.pth", "--report", "r.json"]
    assert main(command) == 1
    assert "missing.pth" in json.loads(Path("r.json").read_text(encoding="utf-8"))["ended_by"]
    assert names(place) == ["r.json"]


def test_interrupt_before_the_first_picture_is_in_the_report(
    place: Path, options: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("stream_cam.pipeline.session.open_source", interrupted)
    assert main(["run", "rtsp://127.0.0.1:1/x", "null", "--report", "r.json", *options]) == 130
    assert json.loads(Path("r.json").read_text())["ended_by"] == "interrupted"


@pytest.mark.parametrize(
    ("arguments", "mode"),
    [
        (["--live"], "live: "),
        (["--live", "True"], "live: "),
        (["--no-live"], "lossless: "),
        ([], "lossless: "),
    ],
)
def test_a_file_is_lossless_unless_it_is_to_be_live(
    place: Path,
    options: list[str],
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    mode: str,
) -> None:
    write_video(place / "in.mp4", n_frames=3)
    assert main(["run", "in.mp4", *arguments, "-o", "null", *options]) == 0
    assert capsys.readouterr().out.startswith(mode)


def test_help_shows_flags_as_flags(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "--live | --no-live " in shown
    assert "None,True" not in shown


@pytest.mark.parametrize("source", ["0", "/dev/video3", "demo://shapes?live=1"])
def test_live_sources_refuse_no_live(
    place: Path, capsys: pytest.CaptureFixture[str], source: str
) -> None:
    assert main(["run", source, "null", "--no-live"]) == 2
    assert "its frames do not wait: leave out --no-live" in complaint(capsys)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("rtsp://", "rtsp:// names no host; an address reads rtsp://192.168.1.20/stream"),
        ("rtsp:///stream", "names no host"),
        ("rtsp://me:secret9@cam:99999/x", "rtsp://***@cam:99999/x has no port from 1 to 65535"),
        ("http://cam:abc/x", "has no port from 1 to 65535"),
        ("http://cam:0/x", "has no port from 1 to 65535"),
    ],
)
def test_wrong_addresses_are_errors_at_once(
    place: Path, capsys: pytest.CaptureFixture[str], source: str, said: str
) -> None:
    assert main(["run", source, "null"]) == 2
    assert said in complaint(capsys)


def test_failed_run_still_writes_its_report(
    place: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """The output appears while the run is on its way, and is not replaced."""
    (place / "f").mkdir()
    cv2.imwrite("in.png", np.zeros((8, 8, 3), np.uint8))
    arguments = ["run", SOURCE, "f/", "--report", "r.json", "--layout", "heatmap", *options]
    blocker = place / "f" / "frame_000003.png"
    blocker.mkdir()
    assert main([*arguments, "--overwrite"]) == 1
    assert "frame_000003.png" in complaint(capsys)
    report = json.loads((place / "r.json").read_text())
    assert report["ended_by"].startswith("SinkError")
    assert names(place / "f")[:3] == [f"frame_{index:06d}.png" for index in range(3)]


@pytest.mark.parametrize("strict", [False, True])
def test_output_that_fails_among_others(
    strict: bool, place: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """The folder's fourth picture cannot be written; the video goes on, unless it is strict."""
    (place / "f").mkdir()
    (place / "f" / "frame_000003.png").mkdir()
    source = "demo://shapes?size=96x64&fps=10&seconds=3"
    arguments = ["run", source, "f/", "-o", "out.mp4", "--report", "r.json", "--overwrite"]
    assert main([*arguments, *options, *["--strict"] * strict]) == 1
    said = capsys.readouterr()
    reason = "f/frame_000003.png cannot be written"
    at_once, *at_the_end = said.err.splitlines()
    assert at_once.startswith(f"stream-cam: {reason}" if strict else f"stream-cam: ERROR: {reason}")
    assert [line.startswith(f"stream-cam: {reason}") for line in at_the_end] == [True] * (
        not strict
    )
    assert "failed after 3 pictures: f/frame_000003.png" in said.out
    assert "wrote out.mp4" in said.out
    report = json.loads((place / "r.json").read_text())
    assert report["sinks"][0]["failed"].startswith(reason)
    assert report["sinks"][1]["failed"] == ""
    assert n_frames("out.mp4") == report["sinks"][1]["written"]
    if strict:
        assert report["ended_by"].startswith("SinkError")
        assert report["rendered"] < 30
    else:
        assert report["ended_by"] == "end of source"
        assert report["sinks"][1]["written"] == 30


# Processes of their own.


def test_closed_pipe_is_no_traceback() -> None:
    for arguments in (["--version"], ["run", "--help"]):
        read, write = os.pipe()
        os.close(read)
        running = process(*arguments, stdout=write)
        os.close(write)
        _, err = running.communicate(timeout=DEADLINE_SECONDS)
        assert err == ""
        assert running.returncode == 0


def test_run_does_not_depend_on_who_reads_its_words(place: Path, options: list[str]) -> None:
    """Nobody does: the run goes on to its end, and its failure is not forgotten."""
    (place / "f").mkdir()
    (place / "f" / "frame_000003.png").mkdir()
    read, write = os.pipe()
    os.close(read)
    arguments = ["run", SOURCE, "f/", "-o", "out.mp4", "--overwrite", *options]
    running = process(*arguments, stdout=write)
    os.close(write)
    _, err = running.communicate(timeout=DEADLINE_SECONDS)
    assert running.returncode == 1, err
    assert n_frames("out.mp4") == 5


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_signal_finishes_the_file(
    place: Path, options: list[str], number: signal.Signals, code: int
) -> None:
    source = "demo://shapes?size=320x240&fps=30&seconds=3600"
    running = process("run", source, "out.mp4", "--report", "r.json", "--no-hud", *options)
    part = place / "out.part.mp4"
    until = time.monotonic() + DEADLINE_SECONDS
    try:
        wait_for(part, running, until, 20_000)
        running.send_signal(number)
        out, err = running.communicate(timeout=DEADLINE_SECONDS)
    finally:
        running.kill()
    assert running.returncode == code, err
    assert "Traceback" not in err
    assert len(err.splitlines()) == 1
    assert "files are being finished" in err
    assert names(place) == ["out.mp4", "r.json"]
    report = json.loads((place / "r.json").read_text())
    assert report["ended_by"] == "interrupted"
    assert n_frames("out.mp4") == report["sinks"][0]["written"] == report["captured"] > 0
    assert "wrote out.mp4" in out


def test_second_signal_does_not_wait(place: Path, options: list[str]) -> None:
    """The report goes to a pipe that nobody reads: the run cannot end in order."""
    os.mkfifo("pipe")
    source = "demo://shapes?size=320x240&fps=30&seconds=3600"
    running = process("run", source, "out.mp4", "--report", "pipe", "--no-hud", *options)
    until = time.monotonic() + DEADLINE_SECONDS
    try:
        wait_for(place / "out.part.mp4", running, until)
        running.send_signal(signal.SIGINT)
        wait_for(place / "out.mp4", running, until)
        with pytest.raises(subprocess.TimeoutExpired):
            running.wait(0.2)
        sent = time.monotonic()
        running.send_signal(signal.SIGINT)
        _, err = running.communicate(timeout=DEADLINE_SECONDS)
    finally:
        running.kill()
    assert time.monotonic() - sent < 2.0
    assert running.returncode == 130
    assert "Traceback" not in err
    assert n_frames("out.mp4") > 0


@pytest.mark.needs_rtsp_server
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_ends_the_run_though_the_camera_hangs(
    place: Path, options: list[str], number: signal.Signals, code: int
) -> None:
    problem = rtsp_server_problem()
    if problem is not None:
        pytest.skip(problem)
    with RtspServer(fps=30) as server:
        running = process("run", server.url, "out.mp4", "--report", "r.json", *options)
        try:
            wait_for(place / "out.part.mp4", running, time.monotonic() + DEADLINE_SECONDS, 20_000)
            server.freeze()
            with pytest.raises(subprocess.TimeoutExpired):
                running.wait(1.5)  # long enough for it to be away
            sent = time.monotonic()
            running.send_signal(number)
            _, err = running.communicate(timeout=DEADLINE_SECONDS)
        finally:
            running.kill()
            server.thaw()
    assert time.monotonic() - sent < 2.0
    assert running.returncode == code, err
    report = json.loads((place / "r.json").read_text())
    assert n_frames("out.mp4") == report["sinks"][0]["written"] > 0


def test_the_command_ends_though_a_thread_never_does() -> None:
    """A camera's read that hangs must not outlive the run, and no word may be lost in a pipe."""
    code = (
        "import sys, threading\n"
        "from stream_cam.__main__ import run\n"
        "threading.Thread(target=threading.Event().wait).start()\n"
        "sys.argv = ['stream-cam', '--version']\n"
        "run()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=DEADLINE_SECONDS
    )
    assert (done.returncode, done.stdout) == (0, f"stream-cam {__version__}\n"), done.stderr


def test_terminal_gets_a_status_line_once_a_second(place: Path, options: list[str]) -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 200, 0, 0))
    source = "demo://shapes?size=96x64&fps=20&live=1"
    arguments = ["run", source, "null", "--report", "r.json", *options]
    running = process(*arguments, stderr=theirs, env={**os.environ, "TERM": "xterm"})
    os.close(theirs)
    said = b""
    deadline = threading.Timer(DEADLINE_SECONDS, running.kill)
    deadline.start()
    try:
        while said.count(b"superseded") < 3:
            said += os.read(ours, 4096)
        running.send_signal(signal.SIGINT)
        out, _ = running.communicate()
        said += os.read(ours, 4096)
    finally:
        deadline.cancel()
        running.kill()
        os.close(ours)
    assert running.returncode == 130
    assert out.startswith("live: ")
    lines = re.findall(rb"fps ([\d.]+) captured, ([\d.]+) drawn, ([\d.]+) explained", said)
    assert len(lines) >= 3
    assert all(0 < float(rate) < 40 for rate in lines[1])
    assert b"age 0." in said
    report = json.loads((place / "r.json").read_text())
    assert len(lines) <= report["seconds"] + 1
