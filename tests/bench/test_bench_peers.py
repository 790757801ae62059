"""The peers on the same frames, for real; and peers that draw wrong maps."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from support.bench_parts import result, row
from support.networks import LABELS, small_network
from support.videos import write_video

from stream_cam.bench.frames import scene_frames
from stream_cam.bench.peers import Peer, StreamCamEngine, check_peer, time_peers
from stream_cam.bench.result import BenchResult
from stream_cam.bench.run import _Bench, run_bench
from stream_cam.bench.stages import FrameStages
from stream_cam.bench.throughput import file_throughput
from stream_cam.bench.timing import Sampling
from stream_cam.cli import main
from stream_cam.config import BenchConfig, ModelConfig
from stream_cam.errors import BenchError
from stream_cam.explain.explainer import Explainer
from stream_cam.frame import BgrImage, FloatArray
from stream_cam.host import parallel_choices
from stream_cam.model.camnet import CamNet

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "bench_peers.py"


@pytest.fixture(scope="module")
def explainer() -> Explainer:
    return Explainer.load(weights="demo", engine="eager", device="cpu", input_size=96)


@pytest.mark.needs_peers
def test_peers_and_our_frames_are_timed_in_turns() -> None:
    for package in ("torchcam", "pytorch_grad_cam"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed (make peers)")
    found = run_bench(asked(), "c")
    peers = [row for row in found.rows if row.subject.group == "peer"]
    assert [row.subject.name for row in peers] == ["pytorch-grad-cam", "torch-cam", "stream-cam"]
    assert [row.n for row in peers] == [2, 2, 2]
    assert peers[2].subject.engine == "eager"
    assert peers[2].verification is not None
    assert found.left_out == []


def without_peers(monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("torchcam", "torchcam.methods", "pytorch_grad_cam"):
        monkeypatch.setitem(sys.modules, package, None)


def asked(**changes: Any) -> BenchConfig:
    options: dict[str, Any] = {
        **{"engines": ("eager:fp32",), "batch": (1,), "shape": ("96x96",), "device": "cpu"},
        **{"frame": "320x180", "samples": 2, "seconds": 60.0, "peers": True, "file": False},
    }
    return BenchConfig(**{**options, **changes})


def test_peers_that_are_not_installed_are_told_before_anything_is_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    without_peers(monkeypatch)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("stream_cam.bench.run._Bench.run", lambda *arguments: pytest.fail("begun"))
    assert main(["bench", "--peers", "--device", "cpu", "--json", "a.json"]) == 1
    assert "pip install 'stream-cam[bench]'" in capsys.readouterr().err
    assert not (tmp_path / "a.json").exists()


def test_networks_that_peers_do_not_know_are_told_before_anything_is_measured() -> None:
    config = asked(model="mobilenet_v2", weights="imagenet")
    network = SimpleNamespace(new_module=lambda: torch.nn.Identity())
    bench = SimpleNamespace(_network=network, _config=config)
    with pytest.raises(BenchError, match=r"ResNets only: give --model resnet18$"):
        _Bench.find_peers(bench)  # type: ignore[arg-type]


def test_a_peer_that_fails_leaves_the_other_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(name: str, *arguments: Any) -> Peer:
        if name == "torch-cam":
            raise RuntimeError("no kernel image is available")
        return Peer(name, lambda frame: (frame, np.zeros((3, 3), np.float32)))

    monkeypatch.setattr("stream_cam.bench.peers.peer_problem", lambda name, module: None)
    monkeypatch.setattr("stream_cam.bench.peers.open_peer", opened)
    found = run_bench(asked(), "c")
    left_out = {one["what"]: one["why"] for one in found.left_out}
    assert "are not this network's" in left_out["pytorch-grad-cam"]
    assert left_out["torch-cam"] == "no kernel image is available"
    assert {row.subject.group for row in found.rows} == {"stage", "engine"}


def test_our_frames_are_drawn_by_a_graph_where_there_is_one() -> None:
    pytest.importorskip("triton", reason="no Triton for this system")
    from support.simulated_gpu import SimulatedGpu

    from stream_cam.explain.graph.scheduler import FrameGraphs

    module = small_network()
    made = Explainer.from_module(module, labels=LABELS, engine="eager", device="cpu", input_size=64)
    frames, gpu = scene_frames("96x64", 3), SimulatedGpu()
    made.graphs = FrameGraphs(gpu, made.weights, made._class_weight)
    net = CamNet.from_module(module, name="own")
    stages = FrameStages(made, net, frames)
    for is_graph, mode, n_replayed in ((False, "launch", 0), (True, "graph", 4)):
        rows = time_peers(
            [], [StreamCamEngine(stages, is_graph)], frames, Sampling(2, 60.0, 2, 2, 0), "cuda"
        )
        assert [row.subject.mode for row in rows] == [mode]
        assert gpu.n_replayed == n_replayed


def peer(heat_of: Callable[[BgrImage], FloatArray], cut: int = 0) -> Peer:
    return Peer("torch-cam", lambda frame: (frame[cut:], heat_of(frame)))


def test_peer_with_our_maps_may_be_timed(explainer: Explainer) -> None:
    frames = scene_frames("320x180", 3)
    ours = peer(lambda frame: np.asarray(explainer.explain(frame).cam, np.float32))
    assert check_peer(ours, explainer, frames) == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize(
    "heat",
    [
        lambda frame: np.arange(9, dtype=np.float32).reshape(3, 3),
        lambda frame: np.zeros((3, 3), np.float32),
        lambda frame: np.full((3, 3), np.nan, np.float32),
    ],
)
def test_peer_with_other_maps_is_refused(
    explainer: Explainer, heat: Callable[[BgrImage], FloatArray]
) -> None:
    with pytest.raises(BenchError, match="not this network's"):
        check_peer(peer(heat), explainer, scene_frames("320x180", 3))


def test_peer_that_draws_no_whole_picture_is_refused(explainer: Explainer) -> None:
    half = peer(lambda frame: np.zeros((3, 3), np.float32), cut=90)
    with pytest.raises(BenchError, match="it is not timed"):
        check_peer(half, explainer, scene_frames("320x180", 1))


def test_file_is_run_beside_each_of_its_stages(tmp_path: Path) -> None:
    video = write_video(tmp_path / "clip.mp4", n_frames=12)
    model = ModelConfig(weights="demo", engine="eager", input_size=96)
    file = file_throughput(video, model, 9)
    assert (file["video"], file["frames"], file["engine"]) == ("clip.mp4", 9, "eager fp32 on cpu")
    assert file["parallel"] == max(parallel_choices())
    assert file["explain_p50_ms"] > 0
    assert file["alone"].keys() == {"decode", "explain", "render", "encode"}
    assert all(stage["fps"] > 0 and stage["core_ms"] > 0 for stage in file["alone"].values())
    slowest = min(stage["fps"] for stage in file["alone"].values())
    assert file["alone"][file["slowest"]]["fps"] == slowest
    assert file["of_slowest"] == pytest.approx(file["run_fps"] / slowest)
    assert file["of_what_cores_allow"] == pytest.approx(file["run_fps"] / file["cores_allow_fps"])


def test_bench_peers_prints_and_keeps_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = importlib.util.spec_from_file_location("bench_peers", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    given: list[BenchConfig] = []

    def bench(config: BenchConfig, command: str) -> BenchResult:
        given.append(config)
        return result(row(), command=command)

    def files(video: Path, model: ModelConfig, most_frames: int | None) -> dict[str, Any]:
        assert most_frames is None
        return {
            **{"video": str(video), "frames": 3, "alone": {"decode": {"fps": 9.0, "core_ms": 2.0}}},
            **{"slowest": "decode", "run_fps": 6.0, "of_slowest": 2 / 3, "n_cores": 2},
            **{"cores_allow_fps": 12.0, "of_what_cores_allow": 0.5, "explain_p50_ms": 95.0},
            **{"engine": "openvino fp32 on cpu", "parallel": 2},
        }

    monkeypatch.setattr(script, "run_bench", bench)
    monkeypatch.setattr(script, "file_throughput", files)
    path = tmp_path / "a.json"
    arguments = ["bench_peers.py", "--samples", "7", "--device", "cpu"]
    arguments += ["--video", "b.mp4", "--json", str(path)]
    monkeypatch.setattr(sys, "argv", arguments)
    assert script.main() == 0
    assert given[0].peers
    assert (given[0].device, given[0].samples) == ("cpu", 7)
    said = capsys.readouterr().out
    assert "run reaches 67% of its slowest stage (decode), and 50% of the 12.0 frames/s" in said
    assert [file["video"] for file in BenchResult.read(path).files] == ["b.mp4"]
    assert "explaining one frame takes 95.0 ms (p50) while 2 are explained at once" in said
    monkeypatch.setattr(sys, "argv", ["bench_peers.py", "--json", str(tmp_path / "nix" / "a.json")])
    assert script.main() == 1
    assert "no folder that exists" in capsys.readouterr().err
