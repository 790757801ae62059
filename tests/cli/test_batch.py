"""Many videos: only missing outputs are made, and one failure does not end the others."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from support.processes import process, wait_for
from support.videos import write_video

from stream_cam.cli import main
from stream_cam.cli.batch import Job, VideoBatch, find_videos
from stream_cam.config import BatchConfig, ModelConfig, PipelineConfig, RecordConfig
from stream_cam.errors import SourceNotFoundError, UsageError
from stream_cam.sinks.video.lock import RecordingLock
from stream_cam.sinks.video.recording_names import part_path
from stream_cam.sources.video import VideoSource

DEADLINE_SECONDS = 60.0
OPTIONS = ["--weights", "demo", "--engine", "eager"]
CONFIG = PipelineConfig(ModelConfig(weights="demo", engine="eager"))


@pytest.fixture
def clips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two videos and something else, beside which we are."""
    folder = tmp_path / "clips"
    folder.mkdir()
    for name in ("b10.mkv", "b9.mp4"):
        write_video(folder / name, n_frames=4)
    (folder / "notes.txt").write_text("no video")
    monkeypatch.chdir(tmp_path)
    return folder


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def n_frames(path: Path) -> int:
    with VideoSource(str(path)) as source:
        return sum(1 for _ in source)


def test_videos_are_found_in_the_order_in_which_people_count(clips: Path) -> None:
    expected = [clips / "b9.mp4", clips / "b10.mkv"]
    assert list(find_videos([str(clips)])) == expected
    assert list(find_videos([str(clips / "b*.m*"), str(clips / "b9.mp4")])) == expected
    with pytest.raises(SourceNotFoundError, match="there are no videos in"):
        find_videos([str(clips / "*.txt")])
    with pytest.raises(UsageError, match="which videos"):
        find_videos([])


def test_a_second_run_makes_only_missing_recordings(
    clips: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["batch", "clips", "--output", "out", "--jobs", "2", *OPTIONS]
    results = ["--predictions", "out/{name}.jsonl", "--report", "out/{name}.json"]
    assert main([*command, *results]) == 0
    out = Path("out")
    assert names(out) == [
        f"{name}.{kind}" for name in ("b10.mkv", "b9") for kind in ("json", "jsonl", "mp4")
    ]
    assert [n_frames(out / name) for name in ("b9.mp4", "b10.mkv.mp4")] == [4, 4]
    assert len((out / "b9.jsonl").read_text().splitlines()) == 4
    assert "2 done" in capsys.readouterr().out
    (out / "b9.mp4").unlink()
    before = (out / "b10.mkv.mp4").stat().st_mtime_ns
    assert main(command) == 0
    said = capsys.readouterr().out
    assert f"there already: {Path('clips/b10.mkv')} → {out / 'b10.mkv.mp4'}" in said
    assert "1 there already, 1 done" in said or "1 done, 1 there already" in said
    assert (out / "b10.mkv.mp4").stat().st_mtime_ns == before
    assert n_frames(out / "b9.mp4") == 4


def test_one_that_fails_does_not_end_the_others(
    clips: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (clips / "a.mp4").write_bytes(b"no video at all")
    assert main(["batch", "clips", "--output", "out", *OPTIONS]) == 1
    said = capsys.readouterr()
    assert "1 of 3 videos failed: " in said.err
    assert "a.mp4" in said.err
    assert "failed: clips/a.mp4 → out/a.mp4 (" in said.out
    assert names(Path("out")) == ["b10.mkv.mp4", "b9.mp4"]


def test_results_of_one_that_fails_do_not_stand_in_the_way(
    clips: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["batch", "clips/b9.mp4", "--output", "out", *OPTIONS]
    results = ["--predictions", "{name}.jsonl"]
    assert main([*command, *results, "--min-free", "900T"]) == 1
    assert names(clips.parent) == ["clips", "out"]
    assert main([*command, *results]) == 0
    assert len(Path("b9.jsonl").read_text().splitlines()) == 4
    # A failed run does not remove older files.
    Path("out/b9.mp4").unlink()
    assert main([*command, *results]) == 1
    assert Path("b9.jsonl").exists()


def test_dry_run_writes_nothing(clips: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["batch", "clips", "--output", "out", "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["to do: clips/b9.mp4 → out/b9.mp4", "to do: clips/b10.mkv → out/b10.mkv.mp4"]
    assert names(clips.parent) == ["clips"]


def elsewhere(batch: VideoBatch, job: Job, config: PipelineConfig) -> None:
    """The work of a video's process, without a process."""
    for path in (config.record.predictions, config.record.sheet, config.run.report):
        if path is not None:
            path.write_text(str(job.source))
    job.unfinished.write_text(str(job.source))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Videos are annotated in no time."""
    monkeypatch.setattr(VideoBatch, "_run_in_process", elsewhere)


RESULTS = [
    "--predictions",
    "rows/{name}.csv",
    "--sheet",
    "{name}/s.png",
    "--report",
    "r_{name}.json",
]


@pytest.mark.usefixtures("quick")
def test_videos_of_one_stem_have_results_of_their_own(clips: Path) -> None:
    write_video(clips / "b9.mkv", n_frames=1)
    Path("rows").mkdir()
    assert main(["batch", "clips", "-o", "out", *RESULTS]) == 0
    assert names(Path("out")) == ["b10.mkv.mp4", "b9.mkv.mp4", "b9.mp4"]
    for name, source in (("b9", "clips/b9.mp4"), ("b9.mkv", "clips/b9.mkv")):
        for result in (f"out/{name}.mp4", f"rows/{name}.csv", f"{name}/s.png", f"r_{name}.json"):
            assert Path(result).read_text() == source


@pytest.mark.usefixtures("quick")
def test_subfolders_are_kept(clips: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in ("day1/am", "day2", ".hidden", "out"):
        (clips / folder).mkdir(parents=True)
        write_video(clips / folder / "b9.mp4", n_frames=1)
    Path("rows").mkdir()
    command = ["batch", "clips", "-o", "clips/out", *RESULTS]
    assert main([*command, "--dry-run"]) == 0
    said = capsys.readouterr()
    assert len(said.out.splitlines()) == 2
    assert "there are videos in folders of clips, such as clips/day1/am/b9.mp4" in said.err
    assert "--recursive" in said.err
    (clips / "out" / "b9.mp4").unlink()
    assert main([*command, "--recursive"]) == 0
    made = ["b9", "b10.mkv", "day1/am/b9", "day2/b9"]
    assert sorted(clips.glob("out/**/*.*")) == sorted(clips / f"out/{name}.mp4" for name in made)
    for name in made:
        folder, _, stem = name.rpartition("/")
        for path in (f"rows/{name}.csv", f"{name}/s.png", Path(folder, f"r_{stem}.json")):
            assert Path(path).read_text().removesuffix(".mp4") == f"clips/{name}"
    assert main([*command, "--recursive", "--dry-run"]) == 0
    said = capsys.readouterr()
    assert said.out.count("there already: ") == 4
    assert not said.err
    for name in ("b9.mp4", "b10.mkv"):
        (clips / name).unlink()
    assert main(command) == 1
    assert "such as clips/day1/am/b9.mp4; give --recursive" in capsys.readouterr().err


@pytest.mark.usefixtures("quick")
def test_recordings_of_another_batch_are_skipped(
    clips: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["batch", "clips", "-o", "out"]
    first = VideoBatch(["clips"], Path("out"), CONFIG)
    job = first.jobs[0]
    Path("out").mkdir()
    with RecordingLock(job.lock, create=True):
        assert main([*command, "--dry-run"]) == 0
        assert "skipped: clips/b9.mp4" in capsys.readouterr().out
        assert main(command) == 0
        said = capsys.readouterr().out
        assert "skipped: clips/b9.mp4 → out/b9.mp4 (another batch is making it)" in said
        assert "1 skipped, 1 done" in said
        job.lock.unlink()
    # It was made after this batch had looked.
    job.output.write_text("made")
    first._run_job(job)
    assert (job.fate, job.output.read_text()) == ("there already", "made")
    assert names(Path("out")) == ["b10.mkv.mp4", "b9.mp4"]
    # The process of a batch that was killed may go on for a while.
    job.output.unlink()
    with RecordingLock(part_path(job.unfinished), create=True):
        first._run_job(job)
    assert job.fate == "skipped"


def test_a_stopped_recording_is_unfinished_and_made_anew(clips: Path) -> None:
    write_video(clips / "b9.mp4", n_frames=200)
    record = RecordConfig(predictions=Path("{name}.csv"), sheet=Path("{name}.png"))
    config = replace(CONFIG, record=record)
    batch = VideoBatch(["clips"], Path("out"), config)
    ended: list[Job] = []

    def stop_in_the_middle() -> None:
        if batch.jobs[0].n_rendered > 3:
            batch.stop("interrupted")

    batch.run(ended.append, stop_in_the_middle)
    assert [job.fate for job in ended] == ["stopped", "stopped"]
    assert names(Path("out")) == ["b9.unfinished.mp4"]
    assert names(clips.parent) == ["b9.unfinished.csv", "b9.unfinished.png", "clips", "out"]
    assert 0 < n_frames(Path("out/b9.unfinished.mp4")) < 200
    write_video(clips / "b9.mp4", n_frames=5)
    again = VideoBatch(["clips"], Path("out"), config)
    again.run(ended.append, lambda: None)
    assert names(Path("out")) == ["b10.mkv.mp4", "b9.mp4"]
    assert n_frames(Path("out/b9.mp4")) == 5
    results = [f"{name}.{kind}" for name in ("b10.mkv", "b9") for kind in ("csv", "png")]
    assert names(clips.parent) == [*results, "clips", "out"]
    rows = Path("b9.csv").read_text().splitlines()
    assert len(rows) == 6
    assert rows[1].split(",")[1] == "clips/b9.mp4"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_signal_ends_the_command_and_the_next_one_goes_on(
    clips: Path, number: signal.Signals, code: int
) -> None:
    """A terminal sends its signals to the processes of the videos too."""
    write_video(clips / "b9.mp4", n_frames=600)
    command = ["batch", "clips", "-o", "out", *OPTIONS]
    with process(*command, start_new_session=True) as running:
        until = time.monotonic() + DEADLINE_SECONDS
        wait_for(Path("out") / "b9.unfinished.part.mp4", running, until)
        os.killpg(running.pid, number)
        out, err = running.communicate(timeout=DEADLINE_SECONDS)
    assert running.returncode == code, err
    assert "2 stopped" in out
    assert names(Path("out")) == ["b9.unfinished.mp4"]
    write_video(clips / "b9.mp4", n_frames=5)
    with process(*command) as again:
        out, err = again.communicate(timeout=DEADLINE_SECONDS)
    assert again.returncode == 0, err
    assert "2 done" in out
    assert [n_frames(Path("out") / name) for name in ("b9.mp4", "b10.mkv.mp4")] == [5, 4]
    assert names(Path("out")) == ["b10.mkv.mp4", "b9.mp4"]


def test_as_many_run_at_once_as_are_asked_for(clips: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    together = threading.Barrier(2, timeout=20)

    def wait_elsewhere(batch: VideoBatch, job: Job, config: PipelineConfig) -> None:
        together.wait()
        elsewhere(batch, job, config)

    monkeypatch.setattr(VideoBatch, "_run_in_process", wait_elsewhere)
    batch = VideoBatch(["clips"], Path("out"), CONFIG, BatchConfig(jobs=2))
    batch.run(lambda job: None, lambda: None)
    assert [job.fate for job in batch.jobs] == ["done", "done"]


def test_a_process_that_dies_is_a_failure_of_its_video(
    clips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stream_cam.cli.batch.worker._work", os._exit)  # not with such arguments
    batch = VideoBatch(["clips/b9.mp4"], Path("out"), CONFIG)
    batch.run(lambda job: None, lambda: None)
    assert batch.jobs[0].fate == "failed"
    assert "its process died (1)" in batch.jobs[0].reason


def test_mistakes_are_errors_before_any_work(
    clips: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (clips / "more").mkdir()
    write_video(clips / "more" / "b9.mp4", n_frames=1)
    with pytest.raises(UsageError, match=r"would both become out/b9\.mp4"):
        VideoBatch(["clips/b9.mp4", "clips/more"], Path("out"), CONFIG)
    shutil.rmtree(clips / "more")
    with pytest.raises(UsageError, match="is a source; give another folder"):
        VideoBatch(["clips"], clips, CONFIG)
    assert main(["batch", "clips", "--predictions", "p.jsonl"]) == 2
    assert "put {name} into it, such as {name}.jsonl" in capsys.readouterr().err
    assert main(["batch", "clips", "--report", "r.json"]) == 2
    assert "put {name} into it, such as {name}.json" in capsys.readouterr().err
    assert main(["batch", "clips", "-o", "clips/b9.mp4"]) == 2
    assert "clips/b9.mp4 is a file; give a folder with -o" in capsys.readouterr().err
    assert main(["batch", "clips", "-o", "clips/b9.mp4/deeper"]) == 1
    assert "the folder clips/b9.mp4/deeper cannot be made: Not a dir" in capsys.readouterr().err
    assert main(["batch", "clips", "--container", "mov", "--codec", "vp9"]) == 2
    assert "--codec vp9 does not go into *.mov" in capsys.readouterr().err
    assert main(["batch", "clips", "--preset", "quick"]) == 2
    assert "unknown --preset 'quick'" in capsys.readouterr().err
    assert main(["batch", "nosuch", "--dry-run"]) == 1
    assert "nosuch does not exist" in capsys.readouterr().err
    assert main(["batch", "clips", "clips/b8.mp4", "--dry-run"]) == 1
    assert "b8.mp4 does not exist; did you mean clips/b9.mp4" in capsys.readouterr().err
    assert main(["batch", "clips", "--jobs", "0"]) == 2
    assert "--jobs is a number of videos from 1" in capsys.readouterr().err
    assert names(clips.parent) == ["clips"]
