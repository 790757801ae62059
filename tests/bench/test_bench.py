"""`stream-cam bench` for real, small, on the CPU; and secrets that it must not print."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.bench_parts import (
    DECODE,
    NETWORK,
    CorruptingEngine,
    keep_old_outputs,
    result,
    row,
    scale_features,
    skip_last_image,
    swap_images,
)
from support.networks import untrained
from support.toy_engine import ToyEngine, toy_net
from support.videos import write_video

from stream_cam.bench import engines, stages
from stream_cam.bench.engines import BoundSession, EngineVariant, open_engine, parse_variants
from stream_cam.bench.plan import time_rows
from stream_cam.bench.result import BenchResult
from stream_cam.bench.run import run_bench
from stream_cam.bench.timing import Budget
from stream_cam.cli import main
from stream_cam.config import BenchConfig
from stream_cam.engine import load_engine
from stream_cam.engine.base import Engine
from stream_cam.errors import BenchError, EngineError
from stream_cam.host import parallel_choices
from stream_cam.model.camnet import CamNet

SMALL = ["bench", "--weights", "tiny.safetensors", "--device", "cpu", "--frame", "96x64"]
SMALL += ["--shape", "64x64", "--samples", "5", "--seconds", "60", "--no-file"]


@pytest.fixture(autouse=True)
def place(
    tmp_path: Path,
    tiny: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """An empty folder with the weights in it; engines are kept for the module."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STREAM_CAM_ENGINES", str(tiny.parent / "engines"))
    (tmp_path / "tiny.safetensors").symlink_to(tiny)
    return tmp_path


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Frames of 64 pixels: threads that wait for one another on a busy machine only cost time."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)


def small(**changes: Any) -> BenchConfig:
    options: dict[str, Any] = {
        "engines": ("eager",),
        "batch": (1,),
        "shape": ("64x64",),
        "weights": "tiny.safetensors",
        "device": "cpu",
        "frame": "96x64",
        "samples": 2,
        "seconds": 60.0,
        "file": False,
    }
    return BenchConfig(**{**options, **changes})


def complaint(capsys: pytest.CaptureFixture[str]) -> str:
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("stream-cam: ")
    return line


def corrupt_engines(monkeypatch: pytest.MonkeyPatch, how: Any) -> None:
    """Makes every engine that is opened wrong in one way."""

    def load(*arguments: Any, **options: Any) -> Engine:
        return CorruptingEngine(load_engine(*arguments, **options), how)

    for user in ("stream_cam.bench.engines", "stream_cam.explain.networks"):
        monkeypatch.setattr(f"{user}.load_engine", load)


def test_engines_batches_and_stages_are_measured(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["--engines", "eager", "openvino:fp32", "--batch", "1", "2"]
    assert main([*SMALL, *asked, "--json", "a.json", "--plot", "a.svg"]) == 0
    found = BenchResult.read(place / "a.json")
    about = [r.subject for r in found.rows]
    subjects = {(each.group, each.name, each.engine, each.batch) for each in about}
    per_engine = ("preprocess", "network", "cam+overlay", "frame")
    assert subjects == {
        *(("engine", "network", engine, 1) for engine in ("eager", "openvino")),
        ("engine", "network", "eager", 2),
        ("stage", "decode", "", 1),
        *(("stage", name, engine, 1) for name in per_engine for engine in ("eager", "openvino")),
    }
    printed = capsys.readouterr().out
    for r in found.rows:
        assert r.p50_ms is not None
        assert r.n == len(r.samples_ms)
        assert 0 < r.min_ms <= r.p50_ms <= r.max_ms
        assert (r.p90_ms, r.p99_ms) == (None, None)  # of five calls
        assert "host clock" in r.region
        if r.subject.mode != "launch":
            continue
        assert r.n == 5
        assert r.images_per_second == pytest.approx(5e3 * r.subject.batch / sum(r.samples_ms), 1e-3)
        assert r.region in " ".join(printed.split())
        if r.subject.name in ("network", "frame"):
            assert r.verification is not None
            assert r.verification.cam_difference <= 1e-3
    modes = {each.mode for each in about if each.engine == "openvino"}
    assert modes == {"launch", *(f"{n} streams" for n in parallel_choices()[1:])}
    assert "(eager:fp16, eager:bf16, eager:int8, openvino:fp32 batch 2); --verbose" in printed
    assert printed.count("left out: ") == 1
    assert found.left_out[-1]["why"].startswith("the openvino engine takes one frame at a time")
    assert "openvino fp32" in found.method["threads"]
    assert f"threads: torch: {torch.get_num_threads()}; OpenCV: " in printed
    assert found.command.startswith("stream-cam bench --weights tiny.safetensors")
    assert found.command in printed
    assert found.machine["cpu_cores"] >= 1
    assert found.machine["versions"]["torch"]
    assert "</svg>" in (place / "a.svg").read_text(encoding="utf-8")


def test_precisions_that_do_not_work_are_left_out_with_the_reason() -> None:
    found = run_bench(small(), "c")
    assert {r.subject.precision for r in found.rows if r.subject.engine} == {"fp32"}
    assert any("eager:bf16" in one["what"] for one in found.left_out)


def test_engine_asked_for_by_name_that_does_not_work_is_a_failure(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([*SMALL, "--engines", "eager:fp32", "eager:bf16", "--batch", "1"]) == 1
    said = capsys.readouterr()
    assert "eager fp32" in said.out
    assert "eager:bf16 has no figures: the eager engine has no bf16" in said.err


def test_wrong_engine_is_not_timed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], place: Path
) -> None:
    corrupt_engines(monkeypatch, scale_features)
    assert main([*SMALL, "--engines", "eager", "--batch", "1", "--json", "a.json"]) == 1
    found = BenchResult.read(place / "a.json")
    assert [r.subject.name for r in found.rows] == ["decode"]
    said = capsys.readouterr()
    assert "maps' difference 0.01" in said.out
    assert not re.search(r"^eager", said.out, re.MULTILINE)
    assert "eager has no figures" in said.err


@pytest.mark.parametrize("how", [swap_images, skip_last_image])
def test_batch_in_which_one_image_is_wrong_is_not_timed(
    monkeypatch: pytest.MonkeyPatch, how: Any
) -> None:
    def only_in_batches(before: Any, logits: torch.Tensor, features: torch.Tensor) -> None:
        if len(logits) > 1:
            how(before, logits, features)

    corrupt_engines(monkeypatch, only_in_batches)
    found = run_bench(small(engines=("eager:fp32",), batch=(1, 3)), "c")
    assert [r.subject.batch for r in found.rows if r.subject.group == "engine"] == [1]
    (left_out,) = found.left_out
    assert "batch 3" in left_out["what"]
    assert "is not the network" in left_out["why"]


def bound(how: Any = None, capture: Any = None) -> tuple[BoundSession, CamNet]:
    net = toy_net()
    engine: Engine = ToyEngine(net)
    return BoundSession(engine if how is None else CorruptingEngine(engine, how), capture), net


def test_replay_is_verified_and_timed() -> None:
    replays = 0

    def capture(call: Callable[[], None], device: str) -> Callable[[], None]:
        assert device == "cpu"
        call()

        def replay() -> None:
            nonlocal replays
            replays += 1
            call()

        return replay

    made, net = bound(capture=capture)
    assert made.verify(net).cam_difference <= 1e-6
    assert replays == 12
    made.call()
    assert replays == 13


def test_replay_that_does_nothing_is_refused() -> None:
    made, net = bound(capture=lambda call, device: lambda: None)
    with pytest.raises(EngineError, match="nan"):
        made.verify(net)


def test_engine_that_writes_nothing_is_refused() -> None:
    made, net = bound(keep_old_outputs)
    with pytest.raises(EngineError, match="nan"):
        made.verify(net)


def test_call_that_cannot_be_captured_is_told() -> None:
    def capture(call: Callable[[], None], device: str) -> Callable[[], None]:
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    with pytest.raises(
        EngineError, match=r"captured in a graph \(operation not permitted [^\n]*\)$"
    ):
        bound(capture=capture)


def test_input_holds_its_images() -> None:
    net = CamNet.from_module(untrained("resnet18", 5), probe_hw=(64, 64))
    engine = open_engine(net, "abc", EngineVariant("eager", "fp32"), (64, 64), 5, "cpu")
    made = BoundSession(engine)
    images = torch.randn(2, 3, 64, 64)
    made.fill(images)
    assert torch.equal(made.batch, images[[0, 1, 0, 1, 0]])
    made.call()
    with torch.inference_mode():
        logits, features = net(made.batch)
    assert torch.allclose(made.logits, logits, atol=1e-4)
    assert torch.allclose(made.features, features, atol=1e-4)


def test_engine_that_has_no_memory_left_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(made: BoundSession, images: torch.Tensor) -> None:
        if made.info.input_shape[0] == 2:
            raise RuntimeError("out of memory\nand a long story")

    monkeypatch.setattr(BoundSession, "fill", full)
    found = run_bench(small(engines=("eager:fp32",), batch=(2, 1)), "c")
    assert [r.subject.batch for r in found.rows if r.subject.group == "engine"] == [1]
    assert found.left_out == [
        {"what": "eager:fp32, batch 2, 64×64, launch", "why": "out of memory"}
    ]


def test_engine_that_cannot_be_opened_for_lack_of_memory_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def load(*arguments: Any, **options: Any) -> Engine:
        if arguments[3].batch.best == 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate\nand a long story")
        return load_engine(*arguments, **options)

    monkeypatch.setattr("stream_cam.bench.engines.load_engine", load)
    found = run_bench(small(engines=("eager:fp32",), batch=(2, 1)), "c")
    assert [r.subject.batch for r in found.rows if r.subject.group == "engine"] == [1]
    assert found.left_out == [
        {"what": "eager:fp32, batch 2, 64×64", "why": "CUDA out of memory. Tried to allocate"}
    ]


def test_engine_that_fails_while_it_is_timed_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    fill = BoundSession.fill

    def filled(made: BoundSession, images: torch.Tensor) -> None:
        fill(made, images)
        if made.info.input_shape[0] == 2:  # verified by now

            def fails() -> None:
                raise RuntimeError("CUDA error: an illegal memory access was encountered\nmore")

            made.call = fails

    monkeypatch.setattr(BoundSession, "fill", filled)
    found = run_bench(small(engines=("eager:fp32",), batch=(2, 1)), "c")
    assert [r.subject.batch for r in found.rows if r.subject.group == "engine"] == [1]
    assert found.left_out == [
        {
            "what": "eager:fp32, network, batch 2, 64×64",
            "why": "CUDA error: an illegal memory access was encountered",
        }
    ]


def test_engines_of_all_tables_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever else the machine does meets all rows, those of two tables too."""
    asked: list[set[tuple[str, str, int]]] = []

    def timed(plan: Any, *arguments: Any, **options: Any) -> Any:
        asked.append({(one.group, one.name, one.batch) for one in plan})
        return time_rows(plan, *arguments, **options)

    monkeypatch.setattr("stream_cam.bench.recorder.time_rows", timed)
    run_bench(small(engines=("eager:fp32",), batch=(1, 2)), "c")
    per_frame = ("decode", "preprocess", "network", "cam+overlay", "frame")
    assert asked == [
        {
            *(("stage", name, 1) for name in per_frame),
            *(("engine", "network", batch) for batch in (1, 2)),
        }
    ]


def test_stages_that_do_not_add_up_to_a_frame_are_not_timed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stages, "scale_cam", lambda cam, **_: 1.0 - cam / np.abs(cam).max())
    found = run_bench(small(engines=("eager:fp32",)), "c")
    assert {r.subject.name for r in found.rows} == {"network", "decode"}
    assert "do not add up" in found.left_out[-1]["why"]


def test_stages_that_fail_while_they_are_timed_leave_the_engines(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    n_calls = 0
    right = stages.FrameStages.preprocess

    def fails(made: stages.FrameStages) -> None:
        nonlocal n_calls
        n_calls += 1
        if n_calls > 3:  # verified by now
            raise RuntimeError("CUDA error: an illegal memory access was encountered\nmore")
        right(made)

    monkeypatch.setattr(stages.FrameStages, "preprocess", fails)
    found = run_bench(small(engines=("eager:fp32",)), "c")
    assert {r.subject.name for r in found.rows} == {"network", "cam+overlay", "frame", "decode"}
    assert found.left_out == [
        {
            "what": "eager:fp32, preprocess, 64×64",
            "why": "CUDA error: an illegal memory access was encountered",
        }
    ]


def test_time_that_is_over_leaves_out_the_rest_and_says_so() -> None:
    seconds = 0.0
    parts: list[set[str]] = []

    def at_first_figures(found: BenchResult) -> None:
        nonlocal seconds
        seconds = 100.0
        parts.append({row.subject.name for row in found.rows})

    found = run_bench(
        small(engines=("eager:fp32",), batch=(1, 2)),
        "c",
        budget=Budget(10.0, lambda: seconds),
        on_result=at_first_figures,
    )
    # Frames come before engines, which may take minutes to build; each is told when it is measured.
    assert parts[0] == {"decode"}
    assert {row.subject.name for row in found.rows} == parts[0]
    left_out = {one["what"]: one["why"] for one in found.left_out}
    assert left_out.keys() == {
        *("eager:fp32, a frame's stages", "batch 1, 64×64", "batch 2, 64×64"),
    }
    assert set(left_out.values()) == {"no time left of 10 s"}


@pytest.mark.parametrize(
    ("error", "code", "why"),
    [(KeyboardInterrupt(), 130, "interrupted"), (RuntimeError("a fault\nof ours"), 1, "a fault")],
)
def test_figures_are_kept_after_any_stop(
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
    why: str,
) -> None:
    def stops(*arguments: Any) -> None:
        assert (place / "a.json").exists()  # complete after each part
        raise error

    monkeypatch.setattr("stream_cam.bench.run._Bench._measure_file", stops)
    asked = ["--engines", "eager:fp32", "--batch", "1", "--json", "a.json", "--plot", "a.svg"]
    assert main([*SMALL, *asked]) == code
    found = BenchResult.read(place / "a.json")
    assert {"decode", "frame"} <= {r.subject.name for r in found.rows}
    assert found.left_out[-1] == {"what": "the part in progress, and all after it", "why": why}
    assert "</svg>" in (place / "a.svg").read_text(encoding="utf-8")
    assert re.search(r"^frame +eager fp32", capsys.readouterr().out, re.MULTILINE)


def test_no_figures_at_all_is_a_failure() -> None:
    with pytest.raises(BenchError, match="batch 1, 64×64: no time left of 0 s"):
        run_bench(small(engines=("eager:fp32",)), "c", budget=Budget(0.0))


def test_frames_and_decoding_can_be_a_files(place: Path) -> None:
    images = [np.full((48, 80, 3), value, np.uint8) for value in (40, 90, 200)]
    write_video(place / "clip.mp4", images=images)
    found = run_bench(small(engines=("eager:fp32",), source="clip.mp4"), "c")
    assert found.source == "clip.mp4, 80x48"
    decoded = [r.subject.frame_hw for r in found.rows if r.subject.name == "decode"]
    assert decoded == [(48, 80)]


def test_without_pyav_decoding_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    found = run_bench(small(engines=("eager:fp32",)), "c")
    assert [one["what"] for one in found.left_out] == ["decode"]
    assert "pip install av" in found.left_out[0]["why"]
    assert {r.subject.name for r in found.rows} >= {"network", "frame"}


def test_specs_are_engines_in_their_precisions() -> None:
    assert parse_variants(["openvino:bf16"]) == [EngineVariant("openvino", "bf16")]
    assert parse_variants(["eager", "eager:fp32"])[:2] == [
        EngineVariant("eager", "fp16"),
        EngineVariant("eager", "fp32"),
    ]
    everything = parse_variants([])
    assert everything[0].engine == "eager"  # needs no building: first, should time run out
    assert {spec.engine for spec in everything} == set(engines.ENGINES)


@pytest.mark.parametrize(
    ("options", "code", "word"),
    [
        (["--engines", "openvin"], 2, "did you mean openvino"),
        (
            ["--engines", "eager:fp31"],
            2,
            "did you mean fp32, fp16? known are bf16, fp16, fp32, int8",
        ),
        (["--shape", "224"], 2, "--shape is WIDTHxHEIGHT in pixels, such as 1280x720, got '224'"),
        (["--shape", "384x8"], 2, "--shape has sides of 10 to 9999 pixels, got '384x8'"),
        (["--batch", "0"], 2, "--batch"),
        (["--samples", "0"], 2, "--samples"),
        (["--seconds", "nan"], 2, "--seconds"),
        (["--budget", "-1"], 2, "--budget"),
        (["--tolerance", "-1"], 2, "--tolerance"),
        (["--frame", "1x1"], 2, "--frame has sides of 64 to 7680 pixels, got '1x1'"),
        (["--weights", "nix.safetensors"], 1, "nix.safetensors"),
        (["--source", "nix.mp4"], 1, "nix.mp4"),
        (["--source", "demo://shapes?live=1&size=96x64"], 2, "is live"),
        (["--json", "nix/a.json"], 1, "no folder that exists"),
        (["--plot", "d.png"], 2, "--plot is a file in .svg, got d.png"),
        (["--plot", "."], 2, "--plot is a file in .svg"),
        (["--json", "a.svg", "--plot", "./a.svg"], 2, "another name"),
        (["--compare", "nix.json", "nix.json"], 1, "No such file"),
        (["--compare", "tiny.safetensors", "tiny.safetensors"], 1, "not JSON"),
    ],
)
def test_bad_input_is_one_line(
    options: list[str], code: int, word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*SMALL, *options]) == code
    assert word in complaint(capsys)


def test_compare_ends_with_1_if_something_became_slower(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result(row(), row(DECODE, *[5.0] * 20)).write(place / "old.json")
    result(row(), row(DECODE, *[6.0] * 20)).write(place / "new.json")
    assert main(["bench", "--compare", "old.json", "new.json"]) == 1
    said = capsys.readouterr()
    assert re.search(r"stage: decode cpu +5 +6 +1\.20 +0% / 0% +±0% / ±0% +slower", said.out)
    assert "1 of 2 became slower by more than 10%, most of all decode cpu (1.20 times)" in said.err
    assert main(["bench", "--compare", "new.json", "old.json"]) == 0
    assert "faster" in capsys.readouterr().out
    assert main(["bench", "--compare", "old.json", "new.json", "--tolerance", "0.3"]) == 0


def test_json_of_one_run_is_compared_with_itself(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result(row(NETWORK)).write(place / "a.json")
    assert main(["bench", "--compare", "a.json", "a.json", "--tolerance", "0"]) == 0
    assert "1 compared, 0 slower, 0 not told apart; geometric mean 1.00" in capsys.readouterr().out


def test_a_whole_file_is_run_with_the_fastest_engine(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_video(place / "clip.mp4", n_frames=6)
    asked = ["--engines", "eager:fp32", "--batch", "1", "--source", "clip.mp4", "--file"]
    assert main([*SMALL, *asked, "--json", "a.json"]) == 0
    (file,) = BenchResult.read(place / "a.json").files
    assert (file["video"], file["frames"], file["engine"]) == ("clip.mp4", 6, "eager fp32 on cpu")
    assert file["parallel"] == max(parallel_choices())
    said = capsys.readouterr().out
    assert "whole file through `run`: clip.mp4, 6 frames, eager fp32 on cpu" in said
    assert re.search(r"explaining one frame takes [\d.]+ ms \(p50\) while \d are explained", said)


@pytest.mark.parametrize(
    ("line", "size_hw"),
    [
        (["run", "x", "--size", "96x64"], (64, 96)),
        (["run", "x", "--camera-size", "96X64"], (64, 96)),
        (["demo", "--size", "96x64"], (64, 96)),
        (["bench", "--frame", "96×64"], (64, 96)),
        (["bench", "--shape", "96x64"], (64, 96)),
    ],
)
def test_every_size_is_width_by_height(line: list[str], size_hw: tuple[int, int]) -> None:
    from stream_cam import config
    from stream_cam.cli.parse import parse
    from stream_cam.sources.demo.source import DemoSource

    command: Any = parse(line)
    texts = {
        "--size": lambda: command.record.size if line[0] == "run" else command.demo.size,
        "--camera-size": lambda: command.capture.camera_size,
        "--frame": lambda: command.bench.frame,
        "--shape": lambda: command.bench.shape[0],
    }
    text = texts[line[-2]]()
    assert config.size_hw(text) == size_hw
    if line[0] == "demo":
        assert DemoSource(f"demo://shapes?size={text}").info.size_hw == size_hw
    for wrong in ("96", "96x", "x64", "96x64x3", "-96x64", "96 x 64", "0x64"):
        with pytest.raises(ValueError, match=r"is WIDTHxHEIGHT in pixels|has sides of"):
            config.size_hw(wrong, line[-2])


def test_shape_is_the_network_input() -> None:
    found = run_bench(small(engines=("eager:fp32",), shape=("96x64",)), "c")
    shapes = {r.subject.input_hw for r in found.rows if r.subject.group == "engine"}
    assert shapes == {(64, 96)}
