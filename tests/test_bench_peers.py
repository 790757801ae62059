"""The peers on the same frames, for real; and peers that are not what they say."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bench_parts import result, row
from material import write_video

from stream_cam.bench.files import file_throughput
from stream_cam.bench.frames import drawn_frames
from stream_cam.bench.peers import Peer, check_peer
from stream_cam.bench.result import BenchResult
from stream_cam.bench.run import run_bench
from stream_cam.config import BenchConfig
from stream_cam.errors import BenchError
from stream_cam.explain import Explainer
from stream_cam.frame import BgrImage, FloatArray

SCRIPT = Path(__file__).resolve().parent.parent / "scripts" / "bench_peers.py"


@pytest.fixture(scope="module")
def explainer() -> Explainer:
    return Explainer.load(weights="demo", engine="eager", device="cpu", input_size=96)


@pytest.mark.needs_peers
def test_peers_and_our_frames_are_timed_in_turns() -> None:
    for package in ("torchcam", "pytorch_grad_cam"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed (make peers)")
    config = BenchConfig(
        engines=("eager:fp32",),
        batch=(1,),
        shape=("96x96",),
        device="cpu",
        frame="320x180",
        samples=2,
        seconds=60.0,
        peers=True,
    )
    found = run_bench(config, "c")
    peers = [row for row in found.rows if row.subject.group == "peer"]
    assert [row.subject.name for row in peers] == ["pytorch-grad-cam", "torch-cam", "stream-cam"]
    assert [row.n for row in peers] == [2, 2, 2]
    assert peers[2].subject.engine == "eager"
    assert peers[2].verification is not None
    assert found.left_out == []


def peer(heat_of: Callable[[BgrImage], FloatArray], cut: int = 0) -> Peer:
    return Peer("torch-cam", lambda frame: (frame[cut:], heat_of(frame)))


def test_peer_with_our_maps_may_be_timed(explainer: Explainer) -> None:
    frames = drawn_frames("320x180", 3)
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
        check_peer(peer(heat), explainer, drawn_frames("320x180", 3))


def test_peer_that_draws_no_whole_picture_is_refused(explainer: Explainer) -> None:
    half = peer(lambda frame: np.zeros((3, 3), np.float32), cut=90)
    with pytest.raises(BenchError, match="it is not timed"):
        check_peer(half, explainer, drawn_frames("320x180", 1))


def test_file_is_run_beside_each_of_its_stages(tmp_path: Path) -> None:
    video = write_video(tmp_path / "clip.mp4", n_frames=12)
    file = file_throughput(video, "96x64", "demo")
    assert (file["video"], file["frames"]) == ("clip.mp4", 12)
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
    asked: list[BenchConfig] = []

    def bench(config: BenchConfig, command: str) -> BenchResult:
        asked.append(config)
        return result(row(), command=command)

    def files(video: Path | None, size: str, weights: str) -> dict[str, Any]:
        return {
            **{"video": str(video), "frames": 3, "alone": {"decode": {"fps": 9.0, "core_ms": 2.0}}},
            **{"slowest": "decode", "run_fps": 6.0, "of_slowest": 2 / 3},
            **{"cores_allow_fps": 12.0, "of_what_cores_allow": 0.5},
        }

    monkeypatch.setattr(script, "run_bench", bench)
    monkeypatch.setattr(script, "file_throughput", files)
    path = tmp_path / "a.json"
    arguments = ["bench_peers.py", "--samples", "7", "--video", "b.mp4", "--json", str(path)]
    monkeypatch.setattr(sys, "argv", arguments)
    assert script.main() == 0
    assert asked[0].peers
    assert (asked[0].device, asked[0].samples) == ("cpu", 7)
    said = capsys.readouterr().out
    assert "run reaches 67% of its slowest stage (decode), and 50% of the 12.0 frames/s" in said
    assert [file["video"] for file in BenchResult.read(path).files] == ["None", "b.mp4"]
    monkeypatch.setattr(sys, "argv", ["bench_peers.py", "--json", str(tmp_path / "nix" / "a.json")])
    assert script.main() == 1
    assert "no folder that exists" in capsys.readouterr().err
