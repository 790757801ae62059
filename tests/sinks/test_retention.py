"""--keep: the oldest segments make room, and nothing else ever does."""

from __future__ import annotations

import logging
import os
from datetime import datetime, timedelta
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from support.manual_clock import NOON, ManualSystemClock
from support.videos import numbered_picture, write_video

from stream_cam.config import RecordConfig
from stream_cam.errors import SinkError
from stream_cam.frame import Frame
from stream_cam.sinks import Picture, SegmentSink, StreamInfo
from stream_cam.sinks.video.finalize import count_pictures
from stream_cam.sinks.video.retention import Retention
from stream_cam.sinks.video.segment_names import live_name, segments_of

LIVE = StreamInfo(fps=Fraction(2), still=False, live=True)


@pytest.fixture
def clock() -> ManualSystemClock:
    return ManualSystemClock()


def record(folder: Path, clock: ManualSystemClock, seconds: range, **options: str) -> SegmentSink:
    """Two pictures a second into segments of 10 s each; every second picture is a noise."""
    config = RecordConfig(segment="10", **options)  # type: ignore[arg-type]
    with SegmentSink(str(folder / "out.mp4"), LIVE, config, clock=clock) as sink:
        for half in range(2 * seconds.start, 2 * seconds.stop):
            clock.seconds = half / 2
            frame = Frame(
                numbered_picture(half, (48, 64)),
                half,
                half,
                Fraction(1, 2),
                clock.monotonic_ns(),
            )
            sink.write(Picture(frame.image_bgr, frame, None))
            if half % 20 == 0:
                # Finished files have been examined before time goes on.
                sink._finishing.submit(lambda: None).result()
    return sink


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def at(second: int) -> str:
    return live_name(Path("out.mp4"), NOON + timedelta(seconds=second)).name


def earlier(folder: Path, begin: datetime, *, comment: str = "stream-cam 1; test") -> Path:
    """A segment of an earlier run; it was finished ten seconds after it began."""
    path = live_name(folder / "out.mp4", begin)
    made = write_video(folder / "made.mp4", n_frames=2)
    with av.open(str(made)) as source, av.open(str(path), "w") as out:
        out.metadata["comment"] = comment
        stream = out.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                out.mux(packet)
    made.unlink()
    finished = (begin + timedelta(seconds=10)).timestamp()
    os.utime(path, (finished, finished))
    return path


def test_by_age_the_newest_stay(
    tmp_path: Path, clock: ManualSystemClock, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        sink = record(tmp_path, clock, range(60), keep="20s")
    # Finished at 10, 20, … 50, 59.5: at the end those of 10, 20 and 30 are more than 20 s old.
    assert names(tmp_path) == [at(30), at(40), at(50)]
    assert [Path(path).name for path in sink.segments] == names(tmp_path)
    assert sink.removed == 3
    removed = [each for each in caplog.records if each.message.startswith("removed ")]
    assert [each.levelno for each in removed] == [logging.DEBUG] * 3
    assert f"removed {tmp_path / at(0)} (--keep 20s)" in caplog.text


def test_by_size_the_newest_stay(tmp_path: Path, clock: ManualSystemClock) -> None:
    record(tmp_path, clock, range(60))
    sizes = [path.stat().st_size for path in sorted(tmp_path.iterdir())]
    for path in tmp_path.iterdir():
        path.unlink()
    clock.seconds = 0.0
    most = sum(sizes[-3:]) + min(sizes) - 1
    sink = record(tmp_path, clock, range(60), keep=f"{most}B")
    assert names(tmp_path) == [at(30), at(40), at(50)]
    assert sink.removed == 3


def test_newest_one_stays_whatever_its_size(tmp_path: Path, clock: ManualSystemClock) -> None:
    sink = record(tmp_path, clock, range(35), keep="1B")
    assert names(tmp_path) == [at(30)]
    assert sink.removed == 3


def test_segments_of_earlier_runs_count_as_well(tmp_path: Path, clock: ManualSystemClock) -> None:
    for begin in (-100, -75, -25, -12):
        earlier(tmp_path, NOON + timedelta(seconds=begin))
    sink = record(tmp_path, clock, range(20), keep="60s")
    # When the first is finished, at 10, and at 19.5: those from -90 and -65 are too old.
    assert names(tmp_path) == [at(-25), at(-12), at(0), at(10)]
    assert sink.removed == 2


def test_clock_set_back_does_not_make_the_newest_the_oldest(
    tmp_path: Path, clock: ManualSystemClock
) -> None:
    """A recorder without a battery for its clock boots into the past."""
    tomorrow = [
        earlier(tmp_path, NOON + timedelta(days=1, seconds=10 * number)) for number in range(3)
    ]
    size = sum(path.stat().st_size for path in tomorrow)
    record(tmp_path, clock, range(30))
    ours = [tmp_path / at(second) for second in (0, 10, 20)]
    size += sum(path.stat().st_size for path in ours)
    for path in ours:
        path.unlink()
    clock.seconds = 0.0
    record(tmp_path, clock, range(30), keep=f"{size - 1}B")
    assert names(tmp_path) == [path.name for path in (*ours, *tomorrow[1:])]


def test_younger_of_name_and_file_counts(tmp_path: Path, clock: ManualSystemClock) -> None:
    restored = earlier(tmp_path, NOON - timedelta(days=9))
    os.utime(restored, (NOON.timestamp(), NOON.timestamp()))
    touched = earlier(tmp_path, NOON - timedelta(seconds=5))
    os.utime(touched, (0, 0))
    assert record(tmp_path, clock, range(20), keep="60s").removed == 0
    assert {restored.name, touched.name} <= set(names(tmp_path))


def test_setting_the_wall_clock_makes_no_segment_old(
    tmp_path: Path, clock: ManualSystemClock
) -> None:
    """A machine without a battery begins in 1970, until it learns the year."""
    config = RecordConfig(segment="10", keep="60s")
    keep = Retention(tmp_path / "out.mp4", config, clock)
    first = earlier(tmp_path, datetime(1970, 1, 2))
    assert keep.segment_finished(first) == []
    clock.seconds = 10.0
    second = earlier(tmp_path, NOON)
    assert keep.segment_finished(second) == []
    clock.seconds = 65.0
    third = earlier(tmp_path, NOON + timedelta(seconds=60))
    assert keep.segment_finished(third) == [first]
    assert (first.exists(), second.exists(), keep.removed) == (False, True, 1)


def test_segment_that_is_being_finished_is_not_removed_for_room(
    tmp_path: Path, clock: ManualSystemClock
) -> None:
    """It has its name, and the one before it still counts as the newest."""
    keep = Retention(tmp_path / "out.mp4", RecordConfig(segment="10", keep="24h"), clock)
    first, second = (earlier(tmp_path, NOON + timedelta(seconds=10 * n)) for n in range(2))
    for path in (first, second):
        keep.segment_begun(path)
    assert keep.segment_finished(first) == []
    assert keep.make_room(1) == (0, [])
    assert keep.segment_finished(second) == []
    size = first.stat().st_size
    assert keep.make_room(1) == (size, [first])


@pytest.mark.parametrize("keep", ["10s", "1B"])
def test_files_with_similar_names_are_not_removed(
    tmp_path: Path, clock: ManualSystemClock, keep: str
) -> None:
    foreign = earlier(tmp_path, NOON - timedelta(days=3), comment="made by my phone")
    data = earlier(tmp_path, NOON - timedelta(days=2)).read_bytes()
    ours = live_name(tmp_path / "out.mp4", NOON - timedelta(days=2))
    similar = [
        *("out.mp4", "out-20261101T120000.part.mp4", "out-20261101T120000.mkv"),
        *("out-20261101T120000.MP4", "out-20261101T120000.mp4.bak", "out-20261301T120000.mp4"),
        *("out-20261101T120000_1.mp4", "out-20261101T120000 (copy).mp4", "out-20261101.mp4"),
        *("my-out-20261101T120000.mp4", "out-2-20261101T120000.mp4", "Out-20261101T120000.mp4"),
        *("out-00h00m10s.mp4", ".out-20261101T120000.mp4.whole", "out_20261101T120000.mp4"),
    ]
    for name in similar:
        (tmp_path / name).write_bytes(data)
        os.utime(tmp_path / name, (0, 0))
    not_a_video = tmp_path / "out-20261102T120000.mp4"
    not_a_video.write_bytes(b"no video")
    (tmp_path / "out-20261103T120000.mp4").mkdir()
    linked = tmp_path / "elsewhere.mp4"
    linked.write_bytes(data)
    (tmp_path / "out-20261104T120000.mp4").symlink_to(linked)
    (tmp_path / "deeper").mkdir()
    (tmp_path / "deeper" / "out-20261105T120000.mp4").write_bytes(data)
    before = set(names(tmp_path))
    sink = record(tmp_path, clock, range(25), keep=keep)
    assert before - set(names(tmp_path)) == {ours.name}
    assert foreign.exists()
    assert (tmp_path / "deeper" / "out-20261105T120000.mp4").exists()
    assert sink.removed >= 1


def test_failed_removal_warns_once_and_recording_goes_on(
    tmp_path: Path,
    clock: ManualSystemClock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    old, unlink = earlier(tmp_path, NOON - timedelta(days=1)), Path.unlink

    def refuses(path: Path, missing_ok: bool = False) -> None:
        if path == old:
            raise PermissionError(13, "Permission denied")
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", refuses)
    sink = record(tmp_path, clock, range(40), keep="15s")
    assert old.exists()
    assert sink.removed == 2
    told = [each.message for each in caplog.records if each.levelno >= logging.WARNING]
    assert told == [f"{old} cannot be removed (--keep 15s): Permission denied"]


def test_nothing_is_removed_unless_asked_for(tmp_path: Path, clock: ManualSystemClock) -> None:
    old = earlier(tmp_path, NOON - timedelta(days=99))
    assert record(tmp_path, clock, range(25)).removed == 0
    assert old.exists()


# Disks that fill up.


def record_noise(
    folder: Path, clock: ManualSystemClock, seconds: range, **options: str
) -> SegmentSink:
    """A picture a second into segments of ten, of about 60 kB each."""
    noise = np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8)
    config = RecordConfig(segment="10", **options)  # type: ignore[arg-type]
    with SegmentSink(str(folder / "out.mp4"), LIVE, config, clock=clock) as sink:
        for second in seconds:
            clock.seconds = float(second)
            frame = Frame(noise, second, second, Fraction(1), clock.monotonic_ns())
            sink.write(Picture(noise, frame, None))
            if second % 10 == 0:
                sink._finishing.submit(lambda: None).result()
    return sink


@pytest.mark.parametrize("keep", ["24h", "20GB"])
def test_on_a_disk_that_fills_up_old_segments_go_before_the_recording_ends(
    tiny_disk: Path, clock: ManualSystemClock, caplog: pytest.LogCaptureFixture, keep: str
) -> None:
    sink = record_noise(tiny_disk, clock, range(160), keep=keep, min_free="400k")
    left = names(tiny_disk)
    assert left == [at(10 * number) for number in range(16 - len(left), 16)]
    assert 2 < len(left) < 15
    assert [Path(path).name for path in sink.segments] == left
    assert sink.removed == 16 - len(left)
    assert {count_pictures(tiny_disk / name) for name in left} == {10}
    told = [each.message for each in caplog.records if each.levelno >= logging.WARNING]
    assert len(told) == 1
    assert "is nearly full (--min-free 400k): from now on its oldest segments are " in told[0]
    assert f"before --keep {keep} asks for it" in told[0]


def test_nothing_is_removed_where_that_would_not_save_the_recording(
    tiny_disk: Path, clock: ManualSystemClock
) -> None:
    record_noise(tiny_disk, clock, range(20), min_free="0")
    before = names(tiny_disk)
    with pytest.raises(SinkError, match=r"its disk has only .* \(--min-free 990k\)"):
        record_noise(tiny_disk, clock, range(20, 40), keep="24h", min_free="990k")
    assert set(before) <= set(names(tiny_disk))


def test_without_keep_the_recording_ends_and_no_segment_goes(
    tiny_disk: Path, clock: ManualSystemClock
) -> None:
    with pytest.raises(SinkError, match=r"its disk has only .* \(--min-free 400k\)"):
        record_noise(tiny_disk, clock, range(160), min_free="400k")
    there = segments_of(tiny_disk / "out.mp4", live=True)
    assert [each.path.name for each in there] == names(tiny_disk)
    assert names(tiny_disk)[0] == at(0)
