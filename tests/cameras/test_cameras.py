"""Real pipelines of drawn sources behind one small network: none costs another a frame."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path

import av
import pytest
from support.pipeline_parts import make_explainer, tiny_network
from support.waiting import wait_until

from stream_cam.cameras.camera import Camera, FrameCounts, unused_path
from stream_cam.cameras.camera_config import CameraConfig
from stream_cam.cameras.cameras import Cameras
from stream_cam.config import CameraShare, PipelineConfig, RecordConfig, RunConfig
from stream_cam.errors import UsageError
from stream_cam.explain.scheduler import BatchCosts
from stream_cam.explain.shared import SharedExplainer

ENDLESS = "demo://shapes?size=96x64&fps=20&live=1&seed="
SHORT = "demo://shapes?size=96x64&fps=20&live=1&seconds=1&seed="
DEADLINE_SECONDS = 120.0
LIVE = PipelineConfig(run=RunConfig(live=True, quiet=True))


@pytest.fixture
def shared() -> Iterator[SharedExplainer]:
    explainer = make_explainer(tiny_network())
    with SharedExplainer(explainer, costs=BatchCosts({1: 0.002})) as shared:
        yield shared


def camera_of(name: str, source: str = ENDLESS, **record: object) -> CameraConfig:
    pipeline = replace(LIVE, record=RecordConfig(**record))  # type: ignore[arg-type]
    return CameraConfig(name, f"{source}{len(name)}", pipeline)


def assert_adds_up(counts: FrameCounts) -> None:
    parts = (counts.explained, counts.superseded, counts.discarded, counts.paused)
    assert counts.captured == sum(parts) + counts.on_the_way


def frames_in(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


def test_cameras_end_by_themselves_and_every_frame_is_accounted_for(
    shared: SharedExplainer, tmp_path: Path
) -> None:
    with Cameras(shared) as cameras:
        for number in range(4):
            config = camera_of(
                f"camera{number}", SHORT, predictions=tmp_path / "{name}.jsonl", min_free="1k"
            )
            cameras.add(replace(config, sink=(str(tmp_path / "{name}.mp4"),)))
        wait_until(lambda: not cameras.running, DEADLINE_SECONDS)
        total = cameras.counts
        for camera in cameras.all:
            counts = camera.counts
            assert (camera.state, counts.captured, counts.on_the_way) == ("ended", 20, 0)
            assert_adds_up(counts)
            rows = (tmp_path / f"{camera.name}.jsonl").read_text().splitlines()
            assert len(rows) <= counts.rendered
            assert all(json.loads(row) for row in rows)
            assert 0 < frames_in(tmp_path / f"{camera.name}.mp4") <= counts.rendered
    for one in fields(FrameCounts):
        assert getattr(total, one.name) == sum(
            getattr(camera.counts, one.name) for camera in cameras.all
        )
    assert total.explained == shared.explained


def test_what_befalls_one_camera_befalls_no_other(shared: SharedExplainer, tmp_path: Path) -> None:
    """A source that is not there, a disk that is full, a flood, and a sound camera beside them."""
    with Cameras(shared) as cameras:
        cameras.add(camera_of("gone", str(tmp_path / "gone")))
        full = camera_of("full", min_free="100000T")
        cameras.add(replace(full, sink=(str(tmp_path / "full.mp4"),)))
        flood = CameraConfig("flood", "demo://shapes?size=96x64&fps=240&live=1", LIVE)
        cameras.add(replace(flood, share=CameraShare(rate=10.0)))
        sound = cameras.add(camera_of("sound"))
        names = ("full", "flood", "sound")
        wait_until(
            lambda: all(cameras.camera(name).counts.explained >= 15 for name in names),
            DEADLINE_SECONDS,
        )
        assert cameras.camera("gone").state == "failed"
        assert "gone" in cameras.camera("gone").error
        assert cameras.camera("full").state == "live"
        assert sound.state == "live"
        assert not sound.error
        for camera in cameras.all:
            assert_adds_up(camera.counts)
        flooded = cameras.camera("flood").counts
        assert flooded.superseded > flooded.explained
    assert all(not camera.running for camera in cameras.all)


def test_a_failed_camera_is_begun_again_and_keeps_its_tile(
    shared: SharedExplainer, tmp_path: Path
) -> None:
    source = tmp_path / "later.mp4"
    waits: list[float] = []
    there = threading.Event()

    def wait(stopping: threading.Event, seconds: float) -> bool:
        waits.append(seconds)
        if len(waits) == 4:
            with av.open(str(source), "w") as container:
                stream = container.add_stream("mpeg4", rate=20)
                stream.width, stream.height = 64, 48
                for _ in range(10):
                    container.mux(stream.encode(av.VideoFrame(64, 48, "yuv420p")))
                container.mux(stream.encode())
            there.set()
        return stopping.is_set()

    with Camera(CameraConfig("late", str(source), LIVE), shared, wait) as camera:
        tile = camera.tile
        camera.start()
        wait_until(lambda: not camera.running, DEADLINE_SECONDS)
        assert there.is_set()
        assert waits == [5.0, 10.0, 20.0, 40.0]
        assert (camera.state, camera.runs, camera.error) == ("ended", 5, "")
        assert camera.counts.captured == 10
        assert camera.tile is tile
        assert tile.newest is not None


def test_hundreds_of_failures_leave_nothing(
    shared: SharedExplainer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A camera that fails once a minute for half a day, on a clock that the test moves."""
    simulated_seconds = 0.0
    threads: list[int] = []
    files: list[int] = []

    def wait(stopping: threading.Event, seconds: float) -> bool:
        nonlocal simulated_seconds
        simulated_seconds += seconds
        threads.append(threading.active_count())
        files.append(len(os.listdir("/proc/self/fd")))
        if simulated_seconds > 12 * 3600:
            stopping.set()
        return stopping.is_set()

    before = threading.active_count()
    gone = CameraConfig("gone", str(tmp_path / "gone.mp4"), LIVE)
    with Camera(gone, shared, wait) as camera:
        camera.start()
        wait_until(lambda: not camera.running, DEADLINE_SECONDS)
        assert camera.runs > 700
    assert max(threads) <= before + 1
    assert max(files) == files[0]
    assert [record.message for record in caplog.records] == [
        f"gone: {tmp_path}/gone.mp4 does not exist; check the name and the folder; again in 5 s"
    ]
    assert threading.active_count() == before


def test_a_new_list_adds_changes_and_removes_and_touches_nothing_else(
    shared: SharedExplainer, tmp_path: Path
) -> None:
    changes: list[str] = []
    with Cameras(shared, lambda: changes.append("changed")) as cameras:
        kept, gone = camera_of("kept"), camera_of("gone")
        recorded = replace(camera_of("recorded"), sink=(str(tmp_path / "{name}.mp4"),))
        assert str(cameras.apply([kept, gone, recorded])) == "added kept, gone, recorded"
        same = cameras.camera("kept")
        wait_until(
            lambda: all(camera.counts.explained > 3 for camera in cameras.all), DEADLINE_SECONDS
        )
        louder = replace(recorded, share=CameraShare(weight=3.0))
        said = cameras.apply([camera_of("new"), louder, camera_of("kept")])
        assert str(said) == "added new; changed recorded; removed gone"
        assert [camera.name for camera in cameras.all] == ["new", "recorded", "kept"]
        assert cameras.camera("kept") is same
        assert str(cameras.apply([camera_of("new"), louder, kept])) == "nothing changed"
        wait_until(lambda: cameras.camera("recorded").counts.rendered > 3, DEADLINE_SECONDS)
        assert cameras.camera("kept").runs == 1
        cameras.remove("new")
        with pytest.raises(UsageError, match="unknown camera 'new'"):
            cameras.remove("new")
        with pytest.raises(UsageError, match="already"):
            cameras.add(kept)
        assert len(changes) == 4
    assert cameras.counts.explained == shared.explained
    assert frames_in(tmp_path / "recorded.mp4") > 0
    assert frames_in(tmp_path / "recorded-2.mp4") > 0


def test_a_viewers_settings_are_of_one_camera(shared: SharedExplainer) -> None:
    with Cameras(shared) as cameras:
        one, other = cameras.add(camera_of("one")), cameras.add(camera_of("other"))
        wait_until(lambda: all(c.counts.rendered for c in cameras.all), DEADLINE_SECONDS)
        one.settings.change(paused=True)
        wait_until(lambda: one.counts.paused > 2, DEADLINE_SECONDS)
        assert other.counts.paused == 0
        assert_adds_up(one.counts)


def test_unused_path_counts_on(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    assert unused_path(path) == path
    for name in ("a.mp4", "a-2.mp4"):
        (tmp_path / name).touch()
    assert unused_path(path).name == "a-3.mp4"
