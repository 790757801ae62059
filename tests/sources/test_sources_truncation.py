"""A file is called cut off where its end is missing, and only there."""

from __future__ import annotations

import logging
import shutil
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from conftest import VideoMaker
from support.recordings import annotate, times_in, write_clip, write_late_clip

from stream_cam.cli.recover import recover
from stream_cam.frame import Explanation, Frame, Prediction, Region
from stream_cam.results.timeline import TimelineSink
from stream_cam.sinks import Picture, StreamInfo, VideoSink
from stream_cam.sinks.video.recording_names import part_path
from stream_cam.sources.video import VideoSource

_BEST = Prediction("cat", 0, 1.0)
EXPLANATION = Explanation(
    np.zeros(1, np.float32),
    (_BEST,),
    (_BEST,),
    np.zeros((1, 2, 2), np.float32),
    Region(0, 0, 64, 48),
    (48, 64),
)


def read(path: Path, caplog: pytest.LogCaptureFixture) -> tuple[list[Frame], list[str], int]:
    """The frames, the messages about damage, and the counted damage."""
    with caplog.at_level(logging.WARNING), VideoSource(str(path)) as source:
        frames = list(source)
    return frames, [record.message for record in caplog.records], source.corrupt_frames


def begins(path: Path) -> tuple[float, float]:
    """When the pictures and the sound of a file begin, as players show it, s."""
    first, heard = times_in(path)[0], None
    with av.open(str(path)) as container:
        heard = next(iter(container.decode(audio=0))).time
    assert heard is not None
    return float(first), heard


@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".mov", ".avi", ".ts"])
@pytest.mark.parametrize("seconds_a_picture", [2, 10, 60])
def test_a_time_lapse_is_whole(
    make_video: VideoMaker, caplog: pytest.LogCaptureFixture, suffix: str, seconds_a_picture: int
) -> None:
    # AVI has no way to say when B-frames are shown.
    options = {"bf": "0"} if suffix == ".avi" else {}
    fps = Fraction(1, seconds_a_picture)
    path = make_video(f"lapse{suffix}", n_frames=6, fps=fps, options=options)
    frames, said, n_damaged = read(path, caplog)
    begin = frames[0].pts_seconds
    times = [round(frame.pts_seconds - begin) for frame in frames]
    assert times == [number * seconds_a_picture for number in range(6)]
    assert (said, n_damaged) == ([], 0)


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_pictures_that_stay_of_unequal_length_are_whole(
    make_video: VideoMaker, caplog: pytest.LogCaptureFixture, suffix: str
) -> None:
    times = [0, 1, 2, 40, 41, 100]
    path = make_video(f"slides{suffix}", times=times, fps=1, last_duration=60)
    frames, said, n_damaged = read(path, caplog)
    assert [round(frame.pts_seconds) for frame in frames] == times
    assert (said, n_damaged) == ([], 0)


def test_a_single_picture_is_whole(
    make_video: VideoMaker, caplog: pytest.LogCaptureFixture
) -> None:
    path = make_video("one.mkv", n_frames=1, fps=Fraction(1, 60))
    assert read(path, caplog)[1:] == ([], 0)


@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".mov", ".flv", ".ts"])
@pytest.mark.parametrize("late", [Fraction(1, 2), Fraction(2), Fraction(30)])
def test_pictures_that_begin_after_the_sound_are_whole(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, suffix: str, late: Fraction
) -> None:
    frames, said, n_damaged = read(write_late_clip(tmp_path / f"late{suffix}", late=late), caplog)
    assert (len(frames), said, n_damaged) == (5, [], 0)


@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".ts"])
def test_sound_that_goes_on_is_no_damage(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, suffix: str
) -> None:
    write_clip(tmp_path / f"long{suffix}", seconds=1, more_sound_seconds=5)
    frames, said, n_damaged = read(tmp_path / f"long{suffix}", caplog)
    assert (len(frames), said, n_damaged) == (10, [], 0)


@pytest.mark.parametrize("sound", [False, True])
@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".flv"])
def test_a_file_that_was_cut_off_is_told(
    tmp_path: Path,
    make_video: VideoMaker,
    caplog: pytest.LogCaptureFixture,
    suffix: str,
    sound: bool,
) -> None:
    whole, path = tmp_path / "whole.mkv", tmp_path / f"cut{suffix}"
    if sound:
        write_clip(whole, seconds=6)
    else:
        make_video(whole.name, n_frames=60, options={"g": "1", "bf": "0"})
    options = {"movflags": "faststart"} if suffix == ".mp4" else {}
    with av.open(str(whole)) as source, av.open(str(path), "w", options=options) as out:
        streams = [out.add_stream_from_template(stream) for stream in source.streams]
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                out.mux(packet)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    frames, said, n_damaged = read(path, caplog)
    assert 10 < len(frames) < 60
    assert "it was cut off or is damaged" in "\n".join(said)
    assert n_damaged >= 1


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov", ".webm"])
def test_sound_before_the_pictures_is_kept(tmp_path: Path, suffix: str) -> None:
    late, out = write_late_clip(tmp_path / "late.mkv"), tmp_path / f"out{suffix}"
    times = annotate(late, out)
    pictures, sound = begins(out)
    assert pictures == pytest.approx(float(times[0]), abs=0.002)
    assert sound == pytest.approx(0, abs=0.03)
    found = times_in(out)
    assert [float(at - found[0]) for at in found] == pytest.approx(
        [float(at - times[0]) for at in times], abs=0.001
    )


def test_links_into_a_recording_count_from_its_sound(tmp_path: Path) -> None:
    late, page = write_late_clip(tmp_path / "late.mkv"), tmp_path / "timeline.html"
    with VideoSource(str(late)) as source:
        lead = source.info.audio_lead_seconds
        timeline = TimelineSink(page, "", tmp_path / "out.mp4", lead)
        for frame in source:
            timeline.write(Picture(frame.image_bgr, frame, EXPLANATION))
        timeline.close()
    assert "out.mp4#t=2.0" in page.read_text()


@pytest.mark.parametrize("options", [{"audio": False}, {"start": "0.2"}])
def test_a_recording_without_that_sound_begins_with_its_first_picture(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    late, out = write_late_clip(tmp_path / "late.mkv"), tmp_path / "out.mp4"
    annotate(late, out, **options)
    assert times_in(out)[0] == 0


def test_an_encoders_lead_in_does_not_delay_the_first_picture(tmp_path: Path) -> None:
    early, out = write_late_clip(tmp_path / "e.mkv", late=Fraction(1, 5)), tmp_path / "out.mp4"
    annotate(early, out)
    assert times_in(out)[0] == 0


def test_recovered_sound_begins_before_the_pictures(tmp_path: Path) -> None:
    late, out = write_late_clip(tmp_path / "late.mkv", n_pictures=60), tmp_path / "out.mp4"
    with VideoSource(str(late)) as source:
        info = source.info
        lead = info.audio_lead_seconds
        stream = StreamInfo(info.fps, False, False, file=info.file, audio_lead_seconds=lead)
        sink = VideoSink(str(out), stream)
        for frame in source:
            sink.write(Picture(frame.image_bgr, frame, None))
        kept = shutil.copy(part_path(out), tmp_path / "kept.part.mp4")
        sink.close()
    recover(Path(kept), sound_of=late)
    assert begins(tmp_path / "kept.mp4") == pytest.approx(begins(out), abs=0.001)
