"""The parts of a cluster run that need no cluster: stores, the account, the checks of a node."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from support.videos import write_video

from stream_cam.cli import main
from stream_cam.cli.batch.on_cluster import _absolute
from stream_cam.cluster import Clip, Outcome, storage
from stream_cam.cluster.annotator import Annotator
from stream_cam.cluster.manifest import Manifest
from stream_cam.cluster.nodes import _probe_by_value
from stream_cam.config import ClusterConfig, ModelConfig, ModuleConfig, PipelineConfig
from stream_cam.errors import UsageError
from stream_cam.sources.video import VideoSource

fsspec = pytest.importorskip("fsspec", reason="no fsspec: pip install -e '.[cluster]'")


@pytest.mark.parametrize("kind", ["memory", "file"])
def test_a_clip_goes_from_store_to_store(kind: str, tmp_path: Path) -> None:
    """fsspec's memory stands for an object store: it is no folder of this machine."""
    store = f"memory://{tmp_path.name}" if kind == "memory" else f"file://{tmp_path}/store"
    storage.make_folder(storage.join(store, "in"))
    video = write_video(tmp_path / "a.mp4", n_frames=4)
    source = storage.join(store, "in/a.mp4")
    storage.publish(video, source)
    assert not video.exists()
    rows = storage.join(store, "out/a.jsonl")
    clip = Clip(source, storage.join(store, "out/a.mp4"), {"predictions": rows})
    config = PipelineConfig(ModelConfig(weights="demo", engine="eager"))
    told: list[tuple[str, int]] = []
    outcome = Annotator(config, "here", lambda *said: told.append(said)).annotate(clip)
    assert (outcome.state, outcome.frames, outcome.node) == ("done", 4, "here"), outcome.reason
    assert storage.files_below(storage.join(store, "out")) == {"a.mp4", "a.jsonl"}
    lines = [json.loads(line) for line in storage.read_text(rows).splitlines()]
    assert {line["source"] for line in lines} == {source}
    made = storage.fetch(clip.output, tmp_path)
    with VideoSource(str(made)) as frames:
        assert sum(1 for _ in frames) == 4


def test_a_place_that_no_package_knows_is_told() -> None:
    with pytest.raises(UsageError, match="nix://bucket is no place that fsspec knows"):
        storage.open_store("nix://bucket")


@pytest.mark.parametrize("destination", ["memory://account", "{tmp}/account"])
def test_the_account_is_continued_after_a_line_that_was_cut_off(
    destination: str, tmp_path: Path
) -> None:
    place = destination.format(tmp=tmp_path)
    first = Manifest(place)
    first.append(Outcome("a.mp4", "failed", "node", 1.5, 0, "why"))
    first.append(Outcome("a.mp4", "done", "node", 2.0, 7))
    first.close()
    storage.write_text(first.place, storage.read_text(first.place) + '{"clip": "b.m')
    second = Manifest(place)
    assert second.earlier == {"a.mp4": Outcome("a.mp4", "done", "node", 2.0, 7)}
    second.append(Outcome("c.mp4", "poison"))
    second.close()
    assert set(Manifest(place).earlier) == {"a.mp4", "c.mp4"}


def test_a_node_tells_all_that_it_lacks(tmp_path: Path) -> None:
    weights = str(tmp_path / "w.pth")
    said = _probe_by_value()("9.9", ["nix"], [str(tmp_path / "videos")], [weights])
    text = "; ".join(said)
    assert "the driver has 9.9" in text
    assert "cannot open nix://" in text
    assert "does not see the folder" in text
    assert f"has no file {weights}: copy it there" in text


def test_without_ray_the_package_to_install_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_video(tmp_path / "a.mp4", n_frames=1)
    monkeypatch.setitem(sys.modules, "ray", None)
    command = ["batch", str(tmp_path / "a.mp4"), "-o", str(tmp_path / "out"), "--cluster"]
    assert main([*command, "local:1"]) == 2
    assert "pip install 'stream-cam[cluster]'" in capsys.readouterr().err
    assert main([*command, "nowhere"]) == 2
    assert "--cluster is auto, local:N or ray://HEAD:10001" in capsys.readouterr().err
    assert main([*command[:-1], "--task-gpus", "1"]) == 2
    assert "--task-gpus is for --cluster" in capsys.readouterr().err


def test_options_of_the_cluster_are_checked() -> None:
    with pytest.raises(ValueError, match="--task-cpus is a number above 0, got 0"):
        ClusterConfig("auto", task_cpus=0)
    with pytest.raises(ValueError, match="--task-gpus is a whole number, or a part of one GPU"):
        ClusterConfig("auto", task_gpus=1.5)


def test_workers_get_absolute_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    own = ModuleConfig(module="net.py:make")
    model = _absolute(ModelConfig(weights="a.pth", labels=Path("names.txt"), own=own))
    assert model.weights == str(tmp_path / "a.pth")
    assert model.labels == tmp_path / "names.txt"
    assert model.own.module == f"{tmp_path}/net.py:make"
    assert _absolute(ModelConfig(weights="demo")) == ModelConfig(weights="demo")
