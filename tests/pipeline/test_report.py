from __future__ import annotations

import json
import threading
from pathlib import Path

import numpy as np
import pytest

from stream_cam.errors import SinkError
from stream_cam.pipeline import report as report_module
from stream_cam.pipeline.report import Percentiles, Report, SinkCount, StageClock, versions


def make_report() -> Report:
    return Report(
        source="clip.mp4", live=False, model="resnet18", weights="demo", weights_sha256="00"
    )


def test_clock_gives_percentiles_in_milliseconds() -> None:
    clock = StageClock()
    for ms in range(101):
        clock.add(ms * 1_000_000)
    found = clock.percentiles()
    assert found is not None
    assert found.mean_ms == pytest.approx(50.0)
    assert found == Percentiles(101, p50_ms=50.0, p95_ms=95.0, p99_ms=99.0, mean_ms=found.mean_ms)


def test_clock_without_samples_has_none() -> None:
    assert StageClock().percentiles() is None


def test_clock_keeps_the_newest_and_counts_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_module, "_KEPT_SAMPLES", 10)
    clock = StageClock()
    for ms in range(1000):
        clock.add(ms * 1_000_000)
    found = clock.percentiles()
    assert found is not None
    assert found.count == 1000
    assert found.p50_ms == pytest.approx(np.median(range(990, 1000)))


def test_clock_counts_exactly_from_many_threads() -> None:
    clock = StageClock()

    def add_many() -> None:
        for _ in range(2000):
            clock.add(1)

    threads = [threading.Thread(target=add_many) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert clock.count == 8000


def test_report_is_written_as_json(tmp_path: Path) -> None:
    report = make_report()
    report.rendered, report.seconds = 50, 2.0
    report.captured, report.explained = 60, 20
    report.sinks = [SinkCount("naïve.mp4", offered=50, written=49, dropped=1, failed="disk full")]
    report.latency = {"explain": Percentiles(50, 1.0, 2.0, 3.0, 1.5)}
    report.write(tmp_path / "report.json")
    data = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert data["fps"] == 25.0
    assert (data["captured_fps"], data["explained_fps"]) == (30.0, 10.0)
    (sink,) = data["sinks"]
    assert (sink["name"], sink["failed"]) == ("naïve.mp4", "disk full")
    assert (sink["offered"], sink["written"], sink["dropped"]) == (50, 49, 1)
    assert data["latency"]["explain"]["p95_ms"] == 2.0
    assert data["ended_by"] == "end of source"
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]


def test_report_of_no_time_has_no_rate() -> None:
    assert make_report().fps == 0.0


def test_report_replaces_an_older_one(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text("old")
    make_report().write(path)
    assert json.loads(path.read_text())["model"] == "resnet18"


@pytest.mark.parametrize("place", ["missing/report.json", "file/report.json", "folder"])
def test_report_that_cannot_be_written_is_one_error(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    with pytest.raises(SinkError, match="the report cannot be written to"):
        make_report().write(tmp_path / place)
    assert not list(tmp_path.glob(".*.part"))


def test_versions_name_installed_packages() -> None:
    found = versions(["torch", "no-such-package"])
    assert {"stream-cam", "python", "torch", "numpy"} <= set(found)
    assert "no-such-package" not in found
