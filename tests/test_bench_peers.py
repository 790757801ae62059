"""The peers on the same frames, for real; and peers that are not what they say."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from stream_cam.bench.frames import drawn_frames
from stream_cam.bench.peers import Peer, check_peer
from stream_cam.bench.result import BenchResult
from stream_cam.bench.run import run_bench
from stream_cam.config import BenchConfig
from stream_cam.errors import BenchError
from stream_cam.explain import Explainer
from stream_cam.frame import BgrImage, FloatArray

ROOT = Path(__file__).resolve().parent.parent


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
    ours = peer(lambda frame: np.asarray(explainer.explain(frame).cam[0], np.float32))
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


@pytest.mark.needs_peers
def test_bench_peers_has_both_tables(tmp_path: Path) -> None:
    for package in ("torchcam", "pytorch_grad_cam"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed (make peers)")
    options = ["--samples", "2", "--seconds", "60", "--frame", "96x64", "--json", "a.json"]
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "bench_peers.py"), *options],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "whole frames beside peers" in done.stdout
    assert "run reaches" in done.stdout
    (file,) = BenchResult.read(tmp_path / "a.json").files
    assert file["alone"].keys() == {"decode", "explain", "render", "encode"}
    assert file["frames"] == 300
    assert file["run_fps"] == pytest.approx(
        file["of_slowest"] * file["alone"][file["slowest"]]["fps"]
    )
