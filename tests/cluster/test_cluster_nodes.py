"""An archive on three Ray nodes: killed workers, nodes and drivers, and clips that kill."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyarrow import parquet
from support.commands import Command
from support.ray_nodes import Nodes, started_nodes, workers
from support.videos import numbered_picture, write_video
from support.waiting import wait_until

from stream_cam.cli import main

pytestmark = pytest.mark.needs_ray
pytest.importorskip("ray", reason="no Ray: pip install -e '.[cluster]'")

DEADLINE_SECONDS = 200.0
LOOK_SECONDS = 0.2
"""All processes are looked at."""
OPTIONS = ["--weights", "demo", "--engine", "eager"]
N_CLIPS = 9


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    with started_nodes(3) as started:
        yield started


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A folder with clips of three kinds, and one that is no video."""
    clips = tmp_path / "clips"
    clips.mkdir()
    for kind in range(3):
        images = [numbered_picture(index + kind, (48, 64)) for index in range(8)]
        write_video(clips / f"{kind}.mp4", images=images)
    for index in range(3, N_CLIPS):
        shutil.copy(clips / f"{index % 3}.mp4", clips / f"{index}.mp4")
    (clips / "broken.mp4").write_bytes(b"no video")
    return tmp_path


def driver(folder: Path, nodes: Nodes, *options: str) -> Command:
    command = ["batch", "clips", "-o", "out", "--cluster", "auto", "--task-cpus", "1"]
    environment = {"RAY_ADDRESS": nodes.address}
    return Command(folder, *command, *OPTIONS, *options, environment=environment)


def account(folder: Path) -> list[dict[str, object]]:
    path = folder / "out" / "manifest.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line) for line in lines]


def n_done(folder: Path) -> int:
    return sum(line["state"] == "done" for line in account(folder))


def kill_a_worker() -> int:
    """Kills one that has a video open; 0 if there is none."""
    for pid, files in workers().items():
        if "/clips/" in files:
            os.kill(pid, signal.SIGKILL)
            return pid
    return 0


def test_each_clip_has_one_whole_result_whatever_is_killed(archive: Path, nodes: Nodes) -> None:
    table = ["--predictions", "all.parquet"]
    with driver(archive, nodes, *table) as first:

        def until(reached: int) -> None:
            def there() -> bool:
                assert first.process.poll() is None, first.err
                return n_done(archive) >= reached

            wait_until(there, DEADLINE_SECONDS, LOOK_SECONDS)

        until(1)
        wait_until(kill_a_worker, DEADLINE_SECONDS, LOOK_SECONDS)
        nodes.kill(nodes.nodes[-1])
        until(3)
        first.process.kill()
        first.process.wait()
    with driver(archive, nodes, "--json", *table) as second:
        assert second.end() == 1
        summary = json.loads(second.out.splitlines()[-1])
        assert "broken.mp4" in second.err
    assert summary["n_ended"] == N_CLIPS + 1
    assert summary["run"]["failed"] == 1
    made = sorted(path.name for path in (archive / "out").iterdir())
    recordings = [f"{index}.mp4" for index in range(N_CLIPS)]
    assert made == sorted([*recordings, "manifest.jsonl", "all.parquet"])
    rows = parquet.read_table(archive / "out" / "all.parquet").to_pylist()
    names = Counter(Path(row["source"]).name for row in rows)
    assert names == dict.fromkeys(recordings, 8)
    done = Counter(line["clip"] for line in account(archive) if line["state"] == "done")
    assert set(done.values()) == {1}
    alone = archive / "alone"
    sources = [str(archive / "clips" / f"{kind}.mp4") for kind in range(3)]
    assert main(["batch", *sources, "-o", str(alone), "--quiet", *OPTIONS]) == 0
    for index in range(N_CLIPS):
        expected = (alone / f"{index % 3}.mp4").read_bytes()
        assert (archive / "out" / f"{index}.mp4").read_bytes() == expected


def test_a_clip_that_kills_its_worker_twice_is_poison(archive: Path, nodes: Nodes) -> None:
    write_video(archive / "clips" / "killer.mp4", n_frames=400)
    killed: set[int] = set()

    def kill_its_worker() -> bool:
        for pid, files in workers().items():
            if "killer.mp4" in files and pid not in killed:
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)
        return len(killed) == 2

    with driver(archive, nodes) as running:
        wait_until(kill_its_worker, DEADLINE_SECONDS, LOOK_SECONDS)
        assert running.end() == 1
        assert f"{N_CLIPS} done" in running.out
    states = {Path(str(line["clip"])).name: line["state"] for line in account(archive)}
    assert states["killer.mp4"] == "poison"
    assert not (archive / "out" / "killer.mp4").exists()
    n_lines = len(account(archive))
    (archive / "clips" / "broken.mp4").unlink()
    # Poison stays where it is, without Ray being asked.
    with driver(archive, nodes) as again:
        assert again.end() == 1
        assert "poison" in again.out
    assert len(account(archive)) == n_lines


def test_ctrl_c_ends_the_run_which_is_resumed(archive: Path, nodes: Nodes) -> None:
    with driver(archive, nodes) as running:
        wait_until(lambda: n_done(archive) >= 1, DEADLINE_SECONDS, LOOK_SECONDS)
        assert running.stop(signal.SIGINT) == 130
        assert "stopped" in running.out
    wait_until(lambda: not workers(), DEADLINE_SECONDS, LOOK_SECONDS)
    names = [path.name for path in (archive / "out").iterdir()]
    assert not [name for name in names if "part" in name]


def test_a_node_with_another_version_is_named(archive: Path, nodes: Nodes) -> None:
    other = archive / "other" / "stream_cam"
    other.mkdir(parents=True)
    (other / "__init__.py").write_text("")
    (other / "_version.py").write_text('__version__ = "0.0.7"\n')
    node = nodes.add({"PYTHONPATH": str(other.parent)})
    try:
        with driver(archive, nodes) as running:
            assert running.end() == 1
            assert "has stream-cam 0.0.7, the driver has" in running.err
            assert "node " in running.err
    finally:
        nodes.kill(node)
