"""Recordings in segments: nothing lost or doubled between them, their sound, names and ends."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from datetime import timedelta
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest
from support.manual_clock import DEADLINE_SECONDS, NOON, ManualSystemClock
from support.pipeline_parts import (
    Frames,
    Kept,
    make_explainer,
    make_pipeline,
    run,
    tiny_network,
    wait,
)
from support.recordings import write_clip, write_late_clip
from support.videos import numbered_picture, picture_at, picture_number
from support.waiting import wait_until

from stream_cam.cli import main
from stream_cam.config import RecordConfig
from stream_cam.errors import OutputExistsError, UsageError
from stream_cam.frame import Frame
from stream_cam.sinks import Picture, StreamInfo, VideoSink
from stream_cam.sinks.video.finalize import count_pictures
from stream_cam.sinks.video.segment_names import is_segment_of, live_name, segments_of
from stream_cam.sinks.video.segments import SegmentSink
from stream_cam.sources.base import Health, Outage
from stream_cam.sources.trim import trim
from stream_cam.sources.video import VideoSource

SIZE_HW = (48, 64)
LIVE = StreamInfo(fps=Fraction(10), still=False, live=True)


def annotate(clip: Path, out: Path, **options: Any) -> None:
    """Record the pictures of a file as they are."""
    config = RecordConfig(**options)
    with trim(VideoSource(str(clip)), config) as source:
        info = source.info
        stream = StreamInfo(
            info.fps, False, False, info.colour, info.file, info.duration_seconds, "test"
        )
        kind = VideoSink if config.segment is None else SegmentSink
        with kind(str(out), stream, config) as sink:
            for frame in source:
                sink.write(Picture(frame.image_bgr, frame, None))


def live_picture(clock: ManualSystemClock, seconds: float) -> Picture:
    """Captured at that time, which is now."""
    clock.seconds = seconds
    image = numbered_picture(round(10 * seconds), SIZE_HW)
    frame = Frame(image, 0, round(seconds * 1e9), Fraction(1, 10**9), clock.monotonic_ns())
    return Picture(image, frame, None)


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def frames_in(path: Path) -> list[Frame]:
    with VideoSource(str(path)) as source:
        return list(source)


def times_in(path: Path) -> list[Fraction]:
    return [frame.pts * frame.time_base for frame in frames_in(path)]


def lasts(path: Path) -> Fraction:
    """How long the video of a file lasts, as it says itself."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        if stream.duration is not None and stream.time_base is not None:
            return stream.duration * stream.time_base
        hours, minutes, seconds = stream.metadata["DURATION"].split(":")
        return 3600 * int(hours) + 60 * int(minutes) + Fraction(seconds)


def put_together(paths: Sequence[Path]) -> list[Fraction]:
    """The times of the pictures when segments are played one after the other."""
    times, begin = [], Fraction(0)
    for path in paths:
        times += [begin + time for time in times_in(path)]
        begin += lasts(path)
    return times


# Pictures.


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov", ".webm"])
def test_segments_together_are_the_recording(clip: Path, tmp_path: Path, suffix: str) -> None:
    plain = tmp_path / f"plain{suffix}"
    annotate(clip, plain)
    (tmp_path / "in").mkdir()
    annotate(clip, tmp_path / "in" / f"out{suffix}", segment="1")
    paths = [tmp_path / "in" / f"out-00h00m0{second}s{suffix}" for second in range(3)]
    assert names(tmp_path / "in") == [path.name for path in paths]
    assert put_together(paths) == times_in(plain)
    shown = [picture_number(frame.image_bgr) for path in paths for frame in frames_in(path)]
    assert shown == [number % 14 for number in range(30)]
    for path in paths:
        with av.open(str(path)) as container:
            first = next(container.demux(video=0))
            assert (first.is_keyframe, first.pts) == (True, 0)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_variable_rates_and_pictures_longer_than_a_segment(tmp_path: Path, suffix: str) -> None:
    times = [0, 40, 990, 1001, 1500, 3700, 3701, 4000, 4999, 5000, 9000]
    pictures = [
        picture_at(numbered_picture(index, SIZE_HW), 7000 + time, Fraction(1, 1000))
        for index, time in enumerate(times)
    ]
    with SegmentSink(
        str(tmp_path / f"out{suffix}"),
        StreamInfo(Fraction(10), False, False),
        RecordConfig(segment="1s"),
    ) as sink:
        for picture in pictures:
            sink.write(picture)
    paths = [Path(path) for path in sink.segments]
    assert names(tmp_path) == [path.name for path in paths]
    assert [path.stem[-3:] for path in paths] == ["00s", "01s", "03s", "04s", "05s", "09s"]
    assert put_together(paths) == [Fraction(time, 1000) for time in times]
    assert [len(times_in(path)) for path in paths] == [3, 2, 2, 2, 1, 1]
    assert sink.written == len(times)


@pytest.mark.needs_ffmpeg
def test_ffprobe_finds_no_fault(clip: Path, tmp_path: Path, ffprobe: str) -> None:
    annotate(clip, tmp_path / "out.mp4", segment="1")
    for path, heard in zip(sorted(tmp_path.iterdir()), (1.0, 1.0, 1.5), strict=True):
        asked = [ffprobe, "-v", "warning", "-of", "json", "-show_streams", "-show_frames"]
        done = subprocess.run([*asked, str(path)], capture_output=True, text=True, check=True)
        assert done.stderr == ""
        found = json.loads(done.stdout)
        video, sound = found["streams"]
        assert (video["nb_frames"], float(video["start_time"])) == ("10", 0)
        assert float(video["duration"]) == 1.0
        assert float(sound["start_time"]) == pytest.approx(0, abs=0.022)
        # Exact to the picture, though packets are not; sound after the last picture is kept.
        assert float(sound["duration"]) == pytest.approx(heard, abs=0.001 if heard == 1 else 0.03)
        data = path.read_bytes()
        assert data.index(b"moov") < data.index(b"mdat")


# Sound.


def sound_times(path: Path) -> list[float]:
    with av.open(str(path)) as container:
        return [
            float(packet.pts * packet.time_base)
            for packet in container.demux(audio=0)
            if packet.pts is not None and packet.size
        ]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_sound_of_segments_together_is_the_files(clip: Path, tmp_path: Path, suffix: str) -> None:
    annotate(clip, tmp_path / f"out{suffix}", segment="1")
    packet, heard = 1024 / 48_000, []
    for second, path in enumerate(sorted(tmp_path.iterdir())):
        heard.append([second + time for time in sound_times(path)])
        assert abs(heard[-1][0] - second) < packet + 1e-3
    together = [time for part in heard for time in part]
    expected = sound_times(clip)
    if suffix == ".mkv":
        # It cannot say that an encoder's lead-in is not to be heard, nor half a packet.
        assert together == pytest.approx(expected[1:], abs=2e-3)
        return
    for before, after in pairwise(heard):
        assert after[0] == pytest.approx(before[-1], abs=1e-3), "one packet is in both"
    assert sorted({round(time, 3) for time in together}) == pytest.approx(expected, abs=1e-3)


def samples_in(path: Path) -> npt.NDArray[Any]:
    with av.open(str(path)) as container:
        frames = list(container.decode(audio=0))
    assert frames[0].pts == 0
    return np.concatenate([frame.to_ndarray()[0] for frame in frames])


def test_sound_that_is_transcoded_is_cut_to_the_sample_at_borders(
    clip: Path, tmp_path: Path
) -> None:
    whole, folder, rate = tmp_path / "whole.webm", tmp_path / "in", 48_000
    annotate(clip, whole)
    folder.mkdir()
    annotate(clip, folder / "out.webm", segment="1")
    expected, heard = samples_in(whole), [samples_in(path) for path in sorted(folder.iterdir())]
    assert [len(part) for part in heard] == [rate, rate, len(expected) - 2 * rate]
    together = np.concatenate(heard)
    for begin in range(0, 3 * rate, rate // 20):
        piece = slice(begin, begin + rate // 20)
        # A shift by three samples of its tone would be 0.985.
        assert np.corrcoef(together[piece], expected[piece])[0, 1] > 0.99


def test_a_part_in_segments_is_named_by_its_place_in_the_file(clip: Path, tmp_path: Path) -> None:
    annotate(clip, tmp_path / "out.mp4", start="0.7", end="2.9", segment="1")
    assert names(tmp_path) == [f"out-00h00m0{second}s.mp4" for second in range(3)]
    counts = [len(times_in(path)) for path in sorted(tmp_path.iterdir())]
    assert counts == [10, 10, 2]
    last = sound_times(tmp_path / "out-00h00m02s.mp4")
    assert last[0] <= 0
    assert last[-1] == pytest.approx(0.2, abs=0.03)


# Names.


def test_live_segments_have_the_capture_time_in_their_names(
    tmp_path: Path,
) -> None:
    clock = ManualSystemClock()
    taken = live_name(tmp_path / "out.mp4", NOON + timedelta(seconds=20))
    taken.write_bytes(b"mine")
    config = RecordConfig(segment="10")
    with SegmentSink(str(tmp_path / "out.mp4"), LIVE, config, overwrite=True, clock=clock) as sink:
        for seconds in (0, 9.9, 10.5, 20.0, 21.0):
            picture = live_picture(clock, seconds)
            clock.seconds += 3.0  # it took the network so long
            sink.write(picture)
    assert names(tmp_path) == [
        "out-20261122T120000.mp4",
        "out-20261122T120010.mp4",
        "out-20261122T120020.mp4",
        "out-20261122T120020_2.mp4",
    ]
    assert taken.read_bytes() == b"mine"
    assert [len(times_in(Path(path))) for path in sink.segments] == [2, 1, 2]


def test_which_names_are_segments(tmp_path: Path) -> None:
    out = tmp_path / "a.b(1).mp4"
    ours = ["a.b(1)-20261122T101500.mp4", "a.b(1)-20261122T101500_2.mp4"]
    others = [
        *("a.b(1).mp4", "a.b(1)-20261122T101500.mkv", "a.b(1)-20261122T101500.MP4"),
        *("a.b(1)-20261322T101500.mp4", "a.b(1)-20261122T251500.mp4", "a.b(1)-20261122.mp4"),
        *("a.b(1)-20261122T101500.part.mp4", "a.b(1)-20261122T101500.mp4.bak"),
        *(
            "a.b(1)-20261122T101500_1.mp4",
            "a.b(1)-20261122T101500_02.mp4",
            "a.b(1)-20261122T101500-2.mp4",
        ),
        *("a.b(1)-x-20261122T101500.mp4", "x-a.b(1)-20261122T101500.mp4", "axb(1)-00h00m00s.mp4"),
        *("a.b(1)-20261122T101500 (copy).mp4", ".a.b(1)-20261122T101500.mp4.whole"),
        *("a.b(1)_20261122T101500.mp4", "a.b(1)20261122T101500.mp4", "A.B(1)-20261122T101500.mp4"),
        "a.b(1)-٢٠٢٦١١٢٢T101500.mp4",
    ]
    for name in [*ours, *others]:
        (tmp_path / name).touch()
    (tmp_path / "a.b(1)-20261122T101600.mp4").mkdir()
    (tmp_path / "a.b(1)-20261122T101700.mp4").symlink_to(tmp_path / ours[0])
    assert [each.path.name for each in segments_of(out, live=True)] == ours
    assert segments_of(out, live=False) == []
    assert [each.path.name for each in segments_of(out, live=True, part=True)] == [others[6]]
    assert is_segment_of(tmp_path / "a.b(1)-100h00m00s.mp4", out)
    assert not is_segment_of(tmp_path / "deeper" / ours[0], out)
    assert segments_of(tmp_path / "nowhere" / "out.mp4", live=True) == []


def test_segments_of_a_file_that_are_there_are_not_replaced(clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    left = tmp_path / "out-00h00m07s.part.mp4"
    left.write_bytes(b"left")
    with pytest.raises(OutputExistsError, match=r"stream-cam recover .*out\.mp4.* recording of it"):
        annotate(clip, out, segment="1")
    left.rename(tmp_path / "out-00h00m07s.mp4")
    with pytest.raises(OutputExistsError, match=r"out-00h00m07s\.mp4 exists; give --overwrite"):
        annotate(clip, out, segment="1")
    assert names(tmp_path) == ["out-00h00m07s.mp4"]


def test_segment_that_appears_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    config, mine = RecordConfig(segment="1"), tmp_path / "out-00h00m01s.mp4"

    def record() -> None:
        with SegmentSink(str(tmp_path / "out.mp4"), StreamInfo(None, False, False), config) as sink:
            for number in range(30):
                if number == 10:
                    mine.write_bytes(b"mine")
                sink.write(picture_at(numbered_picture(number, SIZE_HW), number))

    with pytest.raises(OutputExistsError, match=r"out-00h00m01s\.mp4 exists"):
        record()
    assert mine.read_bytes() == b"mine"
    assert len(times_in(tmp_path / "out-00h00m00s.mp4")) == 10


# Ends.

WRITER = """
import sys
from fractions import Fraction
sys.path[:0] = {path!r}
from support.manual_clock import DEADLINE_SECONDS, NOON, ManualSystemClock
from support.videos import numbered_picture, picture_at
from stream_cam.config import RecordConfig
from stream_cam.sinks import SegmentSink, StreamInfo
stream = StreamInfo(Fraction(25), False, False)
with SegmentSink({out!r}, stream, RecordConfig(segment="10")) as sink:
    for number in range(625):
        image = numbered_picture(number % 200, (48, 64))
        sink.write(picture_at(image, number + 500, Fraction(1, 25)))
    print("written", flush=True)
    sys.stdin.read()
"""


def test_segments_after_a_kill_play_and_the_part_recovers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = WRITER.format(
        path=[str(Path(__file__).resolve().parents[1]), *sys.path], out=str(tmp_path / "out.mp4")
    )
    whole = [tmp_path / f"out-00h00m{second}s.mp4" for second in ("00", "10")]
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as writing:
        assert writing.stdout is not None
        assert writing.stdout.readline() == "written\n"
        wait_until(lambda: all(path.exists() for path in whole))
        # The second one is removed from its part file at the very last.
        wait_until(lambda: len(names(tmp_path)) == 3)
        writing.kill()
    assert names(tmp_path) == [whole[0].name, whole[1].name, "out-00h00m20s.part.mp4"]
    assert [len(times_in(path)) for path in whole] == [250, 250]
    assert main(["recover", str(tmp_path / "out.mp4")]) == 0
    assert "out-00h00m20s.mp4: " in capsys.readouterr().out
    assert names(tmp_path) == [whole[0].name, whole[1].name, "out-00h00m20s.mp4"]
    assert len(times_in(tmp_path / "out-00h00m20s.mp4")) >= 3 * 25
    assert main(["recover", str(tmp_path / "out.mp4")]) == 1
    assert "nothing to recover for out.mp4" in capsys.readouterr().err


def test_recovered_segment_has_its_own_sound(
    clip: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    annotate(clip, tmp_path / "out.mp4", segment="1")
    expected = sound_times(tmp_path / "out-00h00m01s.mp4")
    for path in tmp_path.iterdir():
        path.unlink()
    # The state after a kill when everything has reached the disk.
    monkeypatch.setattr(VideoSink, "_publish", lambda *_, **__: None)
    annotate(clip, tmp_path / "out.mp4", segment="1")
    # Killed again as soon as it had begun.
    (tmp_path / "out-00h00m00s_2.part.mp4").write_bytes(b"no picture")
    assert len(segments_of(tmp_path / "out.mp4", live=False, part=True)) == 4
    assert main(["recover", str(tmp_path / "out.mp4"), "--sound-of", str(clip)]) == 1
    assert "no picture can be read from" in capsys.readouterr().err
    assert len(segments_of(tmp_path / "out.mp4", live=False)) == 3
    assert sound_times(tmp_path / "out-00h00m01s.mp4") == pytest.approx(expected, abs=1e-3)


def test_live_recording_goes_on_beside_part_files(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    left = tmp_path / "out-20261121T120000.part.mp4"
    left.write_bytes(b"left")
    clock = ManualSystemClock()
    with (
        caplog.at_level(logging.WARNING),
        SegmentSink(
            str(tmp_path / "out.mp4"), LIVE, RecordConfig(segment="10"), clock=clock
        ) as sink,
    ):
        sink.write(live_picture(clock, 0.0))
    assert "left by a run that was killed (1 in all): `stream-cam recover" in caplog.text
    assert names(tmp_path) == [left.name, "out-20261122T120000.mp4"]


# Outages.


def test_segment_whose_time_is_over_is_finished_while_its_source_is_away(tmp_path: Path) -> None:
    clock = ManualSystemClock()
    config = RecordConfig(segment="10")
    with SegmentSink(str(tmp_path / "out.mp4"), LIVE, config, clock=clock) as sink:
        assert sink.poll()
        for seconds in (0.0, 0.1, 3.0):
            sink.write(live_picture(clock, seconds))
        clock.seconds = 10.9
        sink.poll()
        assert names(tmp_path) == ["out-20261122T120000.part.mp4"]
        clock.seconds = 11.0
        sink.poll()
        wait_until(lambda: names(tmp_path) == ["out-20261122T120000.mp4"])
        sink.poll()
        for seconds in (25.0, 25.1, 30.0):
            sink.write(live_picture(clock, seconds))
    assert [Path(path).stem for path in sink.segments] == [
        f"out-20261122T1200{second}" for second in ("00", "25", "30")
    ]
    assert lasts(Path(sink.segments[0])) == 10
    assert [len(times_in(Path(path))) for path in sink.segments] == [3, 2, 1]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_camera_may_be_away_for_a_weekend(tmp_path: Path, suffix: str) -> None:
    clock, path = ManualSystemClock(), tmp_path / f"out{suffix}"
    with VideoSink(str(path), LIVE) as sink:
        for hours in (0, 130, 131):
            sink.write(live_picture(clock, 3600.0 * hours))
    times = [float(time / 3600) for time in times_in(path)]
    # Nearly 2^31 ticks of 0.1 ms are as long as a picture can last in MP4.
    between = [59.65, 119.30] if suffix == ".mp4" else []
    assert times == pytest.approx([0, *between, 130, 131], abs=0.01)


class Camera(Frames):
    """Gives three frames, is away until it is told to come back, and gives three more."""

    def __init__(self) -> None:
        super().__init__(6, live=True)
        self.returns = threading.Event()
        self.seen = threading.Semaphore(0)
        self.away, self.asked = False, 0

    def __iter__(self) -> Iterator[Frame]:
        for frame in super().__iter__():
            if frame.index == 3:
                self.away = True
                wait(self.returns)
                self.away = False
            at = frame.index if frame.index < 3 else 1000 + frame.index
            bright = np.full_like(frame.image_bgr, 200)
            yield Frame(bright, frame.index, at, frame.time_base, frame.captured_ns)
            # Each is drawn and written before the next comes.
            assert self.seen.acquire(timeout=DEADLINE_SECONDS)

    @property
    def health(self) -> Health:
        return Health(connections=1)

    def outage(self) -> Outage | None:
        if not self.away:
            return None
        self.asked += 1
        return Outage(True, self.asked / 25, 1, 0.5, "lost", "the connection was cut")

    def stop(self) -> None:
        self.returns.set()


@pytest.mark.parametrize("segment", [None, "1"])
@pytest.mark.parametrize("on_gap", ["gap", "hold"])
def test_outage_is_a_gap_or_a_held_picture(
    tmp_path: Path, on_gap: Any, segment: str | None
) -> None:
    camera, config = Camera(), RecordConfig(on_gap=on_gap, segment=segment, crf=1)
    stream = StreamInfo(Fraction(25), False, True)
    kind = VideoSink if segment is None else SegmentSink
    sink = kind(str(tmp_path / "out.mp4"), stream, config)
    assert sink.takes_repeats == (on_gap == "hold")
    write, repeats = sink.write, []

    def watched(picture: Picture) -> bool:
        answer = write(picture)
        if picture.repeated:
            repeats.append(picture.frame.pts)
        else:
            camera.seen.release()
        if len(repeats) == 30:
            camera.returns.set()
        return answer

    sink.write = watched  # type: ignore[method-assign]

    def watching(picture: Picture) -> None:
        if on_gap == "gap" and camera.asked > 30:
            camera.returns.set()

    watcher = Kept(on_write=watching)
    watcher.takes_repeats, watcher.repeat_seconds = True, 0.01
    report = run(make_pipeline(camera, [sink, watcher], make_explainer(tiny_network())))
    count = report.sinks[0]
    assert (count.offered, count.written, count.dropped) == (6, 6, 0)
    assert count.repeated == len(repeats) == (0 if on_gap == "gap" else count.repeated)
    assert (count.repeated >= 30) == (on_gap == "hold")
    paths = [Path(path) for path in count.segments] or [tmp_path / "out.mp4"]
    assert sorted(tmp_path.iterdir()) == sorted(paths)
    assert sum(map(count_pictures, paths)) == count.written + count.repeated
    times = [round(25 * time) for time in put_together(paths)]
    assert times == [0, 1, 2, *repeats, 1003, 1004, 1005]
    assert (len(paths) > 1) == (segment is not None)
    if on_gap == "hold":
        # A held picture is marked: it is dimmed, with the time since when.
        shown = [float(frame.image_bgr.mean()) for path in paths for frame in frames_in(path)]
        assert max(shown[3:-3]) < 0.75 * shown[2]


# Options.


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--segment", "soon"], "--segment is a time such as 90, 90s, 10m, 1h or h:m:s, got 'soon"),
        (["--segment", "0.5"], "--segment is a time from 1 second on, got '0.5'"),
        (["--keep", "24h"], "--keep removes old segments: give --segment as well"),
        (["--segment", "10m", "--keep", "20"], "--keep is a time such as 24h or 7d, or a size"),
        (["--segment", "10m", "--keep", "20G"], "such as 20GB, got '20G'"),
        (["--segment", "10m", "--keep", "0GB"], "--keep is a time or a size above 0, got '0GB'"),
        (["--segment", "10m", "--keep", "0h"], "--keep is a time or a size above 0, got '0h'"),
        (["--segment", "10m", "--keep", "5m"], "--keep 5m is less than one --segment of 10m"),
        (["--on-gap", "hld"], "--on-gap"),
    ],
)
def test_wrong_options_are_told(
    capsys: pytest.CaptureFixture[str], options: Sequence[str], said: str
) -> None:
    assert main(["run", "clip.mp4", "-o", "out.mp4", *options]) == 2
    told = capsys.readouterr().err
    assert said in told
    assert told.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("10m", 600), ("1h", 3600), ("1.5h", 5400), ("0:01:30", 90)],
)
def test_lengths_of_segments(text: str, seconds: int) -> None:
    assert RecordConfig(segment=text).segment_seconds == seconds


@pytest.mark.parametrize(
    ("text", "seconds", "n_bytes"),
    [
        *(("24h", 86_400, None), ("7d", 604_800, None), ("1:00:00", 3600, None)),
        *(("20GB", None, 20 * 10**9), ("1.5MB", None, 1_500_000), ("3B", None, 3)),
    ],
)
def test_keep_takes_a_time_or_a_size(text: str, seconds: int | None, n_bytes: int | None) -> None:
    config = RecordConfig(segment="60", keep=text)
    assert (config.keep_seconds, config.keep_bytes) == (seconds, n_bytes)


def test_contradicting_options_are_refused_before_the_network_is_loaded(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    clip = clip.rename(clip.with_name("out-00h00m00s.mp4"))
    try:
        beside = str(clip.with_name("out.mp4"))
        out = ["out.mp4", "--segment", "1", "--weights", "nowhere.pth"]
        assert main(["run", str(clip), *out, "--keep", "1GB"]) == 2
        assert "--keep is for live sources" in capsys.readouterr().err
        assert main(["run", str(clip), beside, "--segment", "1", "--overwrite"]) == 2
        assert f"is called like a segment of {beside}" in capsys.readouterr().err
        Path("out-00h00m05s.mp4").touch()
        assert main(["run", str(clip), *out]) == 1
        assert "out-00h00m05s.mp4 exists; give --overwrite" in capsys.readouterr().err
        assert main(["batch", str(clip), "--segment", "10m"]) == 2
        assert "--segment is for `stream-cam run`" in capsys.readouterr().err
    finally:
        clip.rename(clip.with_name("clip.mp4"))
    with pytest.raises(UsageError, match="--keep is for live sources"):
        SegmentSink("out.mp4", StreamInfo(None, False, False), RecordConfig(segment="9", keep="1d"))


def test_run_reports_its_segments(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("out.mp4").write_bytes(b"another recording, which is not in the way")
    made = [f"out-00h00m0{second}s.mp4" for second in range(3)]
    options = ["--segment", "1", "--weights", "demo", "--engine", "eager", "--every", "5"]
    page = ["--timeline", "t.html", "--report", "r.json"]
    assert main(["run", str(clip), "out.mp4", *options, *page]) == 0
    assert f"wrote 3 segments (0.0 MB): {', '.join(made)}\n" in capsys.readouterr().out
    assert names(tmp_path) == sorted([*made, "out.mp4", "r.json", "t.html"])
    sink = json.loads(Path("r.json").read_text())["sinks"][0]
    assert (sink["written"], sink["segments"], sink["removed"]) == (6, made, 0)
    links = re.findall(r'<a href="(.*?)#t=', Path("t.html").read_text())
    assert links
    assert set(links) <= set(made)
    assert sum(count_pictures(Path(name)) for name in made) == 6


def test_segments_warn_once_of_missing_sound(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    odd = tmp_path / "odd.mov"
    write_clip(odd, seconds=3, codec="pcm_s16le")
    odd.write_bytes(odd.read_bytes().replace(b"sowt", b"apac"))
    annotate(odd, tmp_path / "out.mp4", segment="1")
    assert len([name for name in names(tmp_path) if name.startswith("out-")]) == 3
    assert caplog.text.count("the recording has no sound") == 1


def test_first_segment_begins_with_sound_before_the_pictures(tmp_path: Path) -> None:
    late = write_late_clip(tmp_path / "late.mkv", n_pictures=20)
    config = RecordConfig(segment="1")
    with VideoSource(str(late)) as source:
        info = source.info
        lead = info.audio_lead_seconds
        stream = StreamInfo(info.fps, False, False, file=info.file, audio_lead_seconds=lead)
        with SegmentSink(str(tmp_path / "out.mp4"), stream, config) as sink:
            for frame in source:
                sink.write(Picture(frame.image_bgr, frame, None))
        first, second = sink.kept.result()
    assert float(first.begin_seconds) == pytest.approx(0.0, abs=0.03)
    assert float(second.begin_seconds) == pytest.approx(3.0, abs=0.03)
    assert float(times_in(first.path)[0]) == pytest.approx(2.0, abs=0.03)
    assert times_in(second.path)[0] == 0
    with av.open(str(first.path)) as container:
        assert container.streams.audio[0].frames > 40
