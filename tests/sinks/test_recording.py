"""Recordings: their sound, part, codec and colours, and their state after a kill."""

from __future__ import annotations

import gc
import os
import random
import re
import shutil
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from conftest import VideoMaker
from support.recordings import FPS, annotate, killed_while_writing, times_in, write_clip
from support.videos import numbered_picture, picture_at, picture_number, write_video

from stream_cam.cli import main
from stream_cam.cli.recover import recover
from stream_cam.config import CodecName, RecordConfig
from stream_cam.errors import OutputExistsError, SinkError, SourceError, UsageError
from stream_cam.frame import Colour
from stream_cam.sinks import Picture, StreamInfo, VideoSink
from stream_cam.sinks.video import audio, encoders
from stream_cam.sinks.video.audio import AudioSpan
from stream_cam.sinks.video.encoders import check_codec, check_settings, encoder_works
from stream_cam.sinks.video.finalize import audio_of_part, count_pictures
from stream_cam.sinks.video.recording_names import part_path
from stream_cam.sources.trim import TrimmedSource, trim
from stream_cam.sources.video import VideoSource

KILLS = int(os.environ.get("STREAM_CAM_RECORDING_KILLS", "3"))
"""30 are asked of a release."""


def sound_of(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(audio=0) if packet.size]


def heard_seconds(path: Path) -> tuple[float, float]:
    """When the sound begins and ends, by its decoded samples."""
    with av.open(str(path)) as container:
        frames = list(container.decode(audio=0))
    first, last = (
        float((frame.pts or 0) * Fraction(frame.time_base or 0))
        for frame in (frames[0], frames[-1])
    )
    return first, last + frames[-1].samples / frames[-1].sample_rate


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
def test_sound_is_copied_packet_for_packet(clip: Path, tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"out{suffix}"
    times = annotate(clip, out)
    assert times_in(out) == times
    # Matroska has no way to say that the first packet, an encoder's lead-in, is not to be heard.
    assert sound_of(out) == sound_of(clip)[suffix == ".mkv" :]
    assert heard_seconds(out) == pytest.approx(heard_seconds(clip), abs=0.002)
    assert [entry.name for entry in tmp_path.iterdir()] == [out.name]


def test_sound_is_transcoded_where_the_container_cannot_hold_it(clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.webm"
    annotate(clip, out)
    with av.open(str(out)) as container:
        codecs = [stream.codec_context.name for stream in container.streams]
    assert [name.removeprefix("lib") for name in codecs] == ["vp9", "opus"]
    assert heard_seconds(out) == pytest.approx(heard_seconds(clip), abs=0.05)


def test_sound_with_millisecond_times_is_transcoded_as_well(clip: Path, tmp_path: Path) -> None:
    """From a Matroska file, whose ticks are coarser than a sample."""
    source, out = tmp_path / "in.mkv", tmp_path / "out.webm"
    annotate(clip, source)
    with VideoSource(str(source)) as video:
        assert video.info.fps == FPS
    annotate(source, out, start="0.5", end="2.5")
    assert heard_seconds(out) == pytest.approx((0, 2), abs=0.003)
    with av.open(str(out)) as container:
        times = [packet.pts for packet in container.demux(audio=0) if packet.pts is not None]
    assert np.diff(times).max() <= 22, "a packet lasts 20 ms"


def damaged(clip: Path, path: Path, seed: int = 1) -> Path:
    """A transport stream of which a tenth of the bytes in the middle is noise."""
    with av.open(str(clip)) as source, av.open(str(path), "w") as out:
        streams = {each.index: out.add_stream_from_template(each) for each in source.streams}
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                out.mux(packet)
    data, chance = bytearray(path.read_bytes()), random.Random(seed)
    for place in range(len(data) // 3, 2 * len(data) // 3):
        if chance.random() < 0.1:
            data[place] = chance.randrange(256)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm"])
def test_sound_before_and_after_damage_is_kept(
    clip: Path, tmp_path: Path, suffix: str, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / f"out{suffix}"
    times = annotate(damaged(clip, tmp_path / "in.ts"), out)
    assert times_in(out)[-1] == pytest.approx(2.9, abs=2e-3)
    assert 15 <= len(times) < 30
    assert "damaged parts of its sound that are left out: " in caplog.text
    assert re.search(r"in\.ts: \d+ damaged parts", caplog.text)
    with av.open(str(out)) as container:
        at = [
            float(packet.pts * packet.time_base)
            for packet in container.demux(audio=0)
            if packet.pts is not None and packet.time_base is not None
        ]
    assert (at[0], at[-1]) == pytest.approx((0.0, 3.5), abs=0.06)
    assert len([time for time in at if time < 1]) > 40
    assert len([time for time in at if time > 2.5]) > 40


def test_a_damaged_time_moves_no_other_picture(clip: Path, tmp_path: Path) -> None:
    """In one of five such files, a picture's header gives another hour."""
    for seed in range(12):
        path = damaged(clip, tmp_path / "in.ts", seed)
        with av.open(str(path)) as container:
            begin = Fraction(container.streams.video[0].start_time or 0, 90_000)
        with VideoSource(str(path)) as source:
            times = [frame.pts * frame.time_base - begin for frame in source]
        assert times[-1] == pytest.approx(2.9, abs=0.3), seed
        assert all(0 <= time < 3.3 for time in times), seed


def test_sound_can_be_left_out_and_metadata_stays(clip: Path, tmp_path: Path) -> None:
    annotate(clip, tmp_path / "with.mp4")
    annotate(clip, tmp_path / "without.mp4", audio=False)
    with av.open(str(tmp_path / "without.mp4")) as container:
        assert not container.streams.audio
    with av.open(str(tmp_path / "with.mp4")) as container:
        assert container.metadata["title"] == "numbers"
        assert container.metadata["comment"].startswith("stream-cam ")


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm"])
def test_a_part_has_its_own_pictures_and_sound(clip: Path, tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"out{suffix}"
    times = annotate(clip, out, start="0.7", end="0:01.5")
    assert times == [Fraction(number, FPS) for number in range(7, 15)]
    assert times_in(out)[0] == 0
    begin, end = heard_seconds(out)
    assert -0.05 <= begin <= 0.05
    assert 0.75 <= end <= 0.9
    with VideoSource(str(out)) as source:
        assert [picture_number(frame.image_bgr) for frame in source] == [
            n % 14 for n in range(7, 15)
        ]


def test_sound_ends_with_a_recording_that_is_ended_early(clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    with VideoSource(str(clip)) as source:
        stream = StreamInfo(None, False, False, file=str(clip), duration_seconds=3.0)
        with VideoSink(str(out), stream) as sink:
            for frame, _ in zip(source, range(FPS), strict=False):
                sink.write(Picture(frame.image_bgr, frame, None))
    assert heard_seconds(out)[1] == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("end", ["0:01.5", None])
def test_sound_of_a_late_source_stays_with_its_pictures(
    clip: Path, tmp_path: Path, end: str | None
) -> None:
    late, out = tmp_path / "late.ts", tmp_path / "out.mp4"
    begin = Fraction(20)
    with av.open(str(clip)) as source, av.open(str(late), "w") as moved:
        streams = {s.index: moved.add_stream_from_template(s) for s in source.streams}
        for packet in source.demux():
            if packet.dts is None or packet.pts is None:
                continue
            shift = round(begin / Fraction(packet.time_base))
            packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
            packet.stream = streams[packet.stream.index]
            moved.mux(packet)
    times = annotate(late, out, end=end)
    assert times[0] >= begin
    expected = 3.5 if end is None else 1.5
    heard = heard_seconds(out)
    assert heard == pytest.approx((0.0, expected), abs=0.06)


@pytest.mark.parametrize("problem", [OSError("no"), ValueError("unknown codec: 'odd'")])
def test_a_recording_that_cannot_be_copied_is_kept(
    clip: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    problem: Exception,
) -> None:
    def refuses(part: Path, whole: Path, *_: object, **__: object) -> None:
        whole.write_bytes(b"half a file")
        raise problem

    monkeypatch.setattr("stream_cam.sinks.video.sink.finalize", refuses)
    out = tmp_path / "out.mp4"
    times = annotate(clip, out)
    assert times_in(out) == times
    assert "is kept as it was recorded, without sound" in caplog.text
    assert [entry.name for entry in tmp_path.iterdir()] == [out.name]


def test_every_third_frame_keeps_its_time(clip: Path) -> None:
    with TrimmedSource(VideoSource(str(clip)), None, None, 3) as source:
        assert source.info.n_frames == FPS
        times = [frame.pts_seconds for frame in source]
    assert times == pytest.approx([0.3 * number for number in range(FPS)])


def test_a_part_that_is_not_there_is_an_error(clip: Path) -> None:
    with (
        pytest.raises(SourceError, match=r"lasts 3\.0 s, and --start is 9 s"),
        TrimmedSource(VideoSource(str(clip)), Fraction(9), None, 1),
    ):
        pass
    with (
        TrimmedSource(VideoSource(str(clip)), Fraction("0.71"), Fraction("0.79"), 1) as between,
        pytest.raises(SourceError, match=r"has no frame from 0\.71 s to 0\.79 s"),
    ):
        list(between)


@pytest.mark.parametrize(
    ("suffix", "codec", "found"),
    [
        (".mp4", "h264", "h264"),
        (".mp4", "hevc", "hevc"),
        (".mov", "hevc", "hevc"),
        (".mp4", "av1", "av1"),
        (".mkv", "av1", "av1"),
        (".webm", "av1", "av1"),
        (".mp4", "vp9", "vp9"),
        (".webm", None, "vp9"),
    ],
)
def test_every_codec_keeps_pictures_and_times(
    clip: Path, tmp_path: Path, suffix: str, codec: str | None, found: str
) -> None:
    out = tmp_path / f"out{suffix}"
    times = annotate(clip, out, codec=codec)
    with av.open(str(out)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name.replace("libdav1d", "av1") == found
        if found == "hevc":
            assert stream.codec_context.codec_tag == "hvc1"
    assert times_in(out) == times
    with VideoSource(str(out)) as source:
        assert [picture_number(frame.image_bgr) for frame in source] == [
            n % 14 for n in range(3 * FPS)
        ]


@pytest.mark.parametrize("codec", ["h264", "hevc", "av1", "vp9"])
@pytest.mark.parametrize("option", ["crf", "bitrate", "preset"])
def test_extreme_settings_are_accepted(tmp_path: Path, codec: Any, option: str) -> None:
    most_crf = 51 if codec in ("h264", "hevc") else 63
    presets = ("ultrafast", "veryslow") if most_crf == 51 else ("2", "8")
    ends: dict[str, Any] = {"crf": (0, most_crf), "bitrate": ("20k", "50M"), "preset": presets}
    for number, value in enumerate(ends[option]):
        out, config = tmp_path / f"{number}.mp4", RecordConfig(codec=codec, **{option: value})
        check_settings(codec, config)
        with VideoSink(str(out), record=config) as sink:
            for index in range(3):
                sink.write(picture_at(numbered_picture(index, (64, 64)), index))
        assert len(times_in(out)) == 3
        with av.open(str(out)) as container:
            assert "4:4:4" not in str(container.streams.video[0].profile)


@pytest.mark.skipif(not hasattr(os, "SCHED_FIFO"), reason="threads have no such classes here")
@pytest.mark.parametrize("codec", ["h264", "hevc", "av1", "vp9"])
def test_no_encoder_makes_the_run_real_time(tmp_path: Path, codec: Any) -> None:
    """SVT-AV1 does, for root, and all that the thread starts then keeps the machine for itself."""
    with VideoSink(str(tmp_path / "out.mp4"), record=RecordConfig(codec=codec)) as sink:
        for index in range(3):
            sink.write(picture_at(numbered_picture(index, (64, 64)), index))
            assert os.sched_getscheduler(0) == os.SCHED_OTHER
    encoder_works.cache_clear()
    assert encoder_works("libsvtav1")
    assert os.sched_getscheduler(0) == os.SCHED_OTHER


def test_encoders_are_tried_by_encoding() -> None:
    assert encoder_works("libx264")
    assert not encoder_works("no_such_encoder")


def test_codecs_that_players_do_not_expect_are_refused() -> None:
    with pytest.raises(UsageError, match=r"--codec vp9 does not go into \*\.mov; it goes into"):
        check_codec(".mov", "vp9")


@pytest.mark.parametrize(
    "colour",
    [Colour(1, 1, 1, True), Colour(9, 9, 14, False), Colour(6, 6, 6, True)],
    ids=["full BT.709", "BT.2020", "full BT.601"],
)
def test_matrix_and_range_are_kept(tmp_path: Path, colour: Colour) -> None:
    bands = [(255, 255, 255), (0, 0, 200), (0, 180, 0), (220, 30, 0), (9, 9, 9)]
    image = np.repeat(np.array(bands, np.uint8), 32, axis=0)
    image = np.broadcast_to(image, (64, *image.shape)).copy()
    out = tmp_path / "out.mp4"
    stream = StreamInfo(None, False, False, colour=colour)
    with VideoSink(str(out), stream, RecordConfig(crf=1)) as sink:
        sink.write(picture_at(image))
    with VideoSource(str(out)) as source:
        assert source.info.colour == colour
        shown = next(iter(source)).image_bgr.astype(int)
    for place, band in enumerate(bands):
        assert np.abs(shown[32, 32 * place + 16] - band).max() <= 4


def test_size_is_the_one_asked_for(clip: Path, tmp_path: Path) -> None:
    annotate(clip, tmp_path / "out.mp4", size="128x72")
    with VideoSource(str(tmp_path / "out.mp4")) as source:
        assert source.info.size_hw == (72, 128)


# Files after a kill.


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_part_file_after_a_kill_plays_and_recovers(tmp_path: Path, suffix: str) -> None:
    chance = random.Random(KILLS)
    for number in range(KILLS):
        out = tmp_path / f"out{number}{suffix}"
        part = tmp_path / f"out{number}.part{suffix}"
        given = killed_while_writing(out, chance.randrange(60, 400))
        assert times_in(part)[-1] >= given - 2.0
        assert audio_of_part(part, "of.mp4", Fraction(1)) == AudioSpan(
            "of.mp4", Fraction(20), Fraction(21)
        )
        path, n_pictures, seconds = recover(out)
        assert (path, part.exists()) == (out, False)
        times = times_in(out)
        assert len(times) == n_pictures
        assert times == [Fraction(index, 25) for index in range(n_pictures)]
        assert seconds == pytest.approx(n_pictures / 25, abs=0.05)
        with av.open(str(out)) as container:
            assert container.duration == pytest.approx(seconds * av.time_base, abs=1e5)
            container.seek(int(seconds / 2 * av.time_base))
            assert abs(next(container.decode(video=0)).time - seconds / 2) <= 2.1
        if suffix == ".mp4":
            data = out.read_bytes()
            assert data.index(b"moov") < data.index(b"mdat")
            assert b"moof" not in data


def test_a_new_run_does_not_replace_a_part_file(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.mp4"
    killed_while_writing(out, 30)
    left = (tmp_path / "out.part.mp4").read_bytes()
    assert main(["run", str(clip), str(out), "--weights", "demo"]) == 1
    assert f"stream-cam recover {out}" in capsys.readouterr().err
    assert (tmp_path / "out.part.mp4").read_bytes() == left
    assert main(["recover", str(out), "--sound-of", str(clip)]) == 0
    assert capsys.readouterr().out.startswith(f"recovered {out}: ")


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_the_sound_of_a_killed_part_is_that_of_its_pictures(
    clip: Path, tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, out = tmp_path / f"whole{suffix}", tmp_path / f"out{suffix}"
    annotate(clip, whole, start="0.7", end="1.5")
    # The state after a kill when everything has reached the disk.
    monkeypatch.setattr(VideoSink, "_publish", lambda *_, **__: None)
    annotate(clip, out, start="0.7", end="1.5")
    recover(out, sound_of=clip)
    assert times_in(out) == times_in(whole)
    assert sound_of(out) == sound_of(whole)
    assert heard_seconds(out) == pytest.approx(heard_seconds(whole), abs=1e-3)
    with av.open(str(out)) as container:
        assert not [key for key in container.metadata if key.lower().startswith("stream_cam")]


def record_without_end(out: Path, config: RecordConfig) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)
    with VideoSink(str(out), StreamInfo(Fraction(25), False, False), config) as sink:
        for number in range(10_000):
            # Little is new in most of them, so that there is more than one look at the disk.
            image = noise if number % 30 == 0 else numbered_picture(number, (240, 320))
            sink.write(picture_at(image, number, Fraction(1, 25)))


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("min_free", ["0", "400k"])
def test_a_disk_that_fills_up_keeps_the_recorded_pictures(
    tiny_disk: Path, suffix: str, min_free: str
) -> None:
    out = tiny_disk / f"out{suffix}"
    with pytest.raises(SinkError, match=r"the first \d+ pictures are in it") as said:
        record_without_end(out, RecordConfig(min_free=min_free, crf=18))
    full = "the disk is full" if min_free == "0" else "its disk has only"
    assert full in str(said.value)
    found = re.search(r"the first (\d+) pictures", str(said.value))
    assert found is not None
    # PyAV 17, the last for Python 3.10, does not say of the last picture that it is cut off.
    uncertain = 1 if av.__version__.startswith("17.") else 0
    with VideoSource(str(out)) as source:
        assert 0 < int(found[1]) - uncertain <= sum(1 for _ in source) <= int(found[1])
    assert [entry.name for entry in tiny_disk.iterdir()] == [out.name]


@pytest.mark.parametrize("problem", ["full", "gone"])
def test_a_recording_that_cannot_begin_leaves_nothing(tmp_path: Path, problem: str) -> None:
    folder = tmp_path / "folder"
    config = RecordConfig(min_free="900T" if problem == "full" else "0")
    with VideoSink(str(folder / "out.mp4"), record=config) as sink:
        if problem == "full":
            folder.mkdir()
        with pytest.raises(SinkError, match="nothing was kept"):
            sink.write(picture_at(numbered_picture(0, (48, 64))))
    assert not list(tmp_path.glob("folder/*"))


def test_recovery_explains_its_failures(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"nothing to recover for out\.mp4"):
        recover(tmp_path / "out.mp4")
    (tmp_path / "out.part.mp4").write_bytes(b"no video")
    with pytest.raises(SourceError, match="no picture can be read"):
        recover(tmp_path / "out.mp4")
    (tmp_path / "out.mp4").write_bytes(b"mine")
    with pytest.raises(OutputExistsError, match="--overwrite"):
        recover(tmp_path / "out.part.mp4")
    with pytest.raises(UsageError, match="is not a recording"):
        recover(tmp_path / "out.txt")
    assert count_pictures(tmp_path / "nowhere.mp4") == 0


def test_recovery_fails_without_the_sound_that_was_asked_for(clip: Path, tmp_path: Path) -> None:
    out, silent, broken = (tmp_path / name for name in ("out.mp4", "silent.mp4", "broken.mp4"))
    annotate(clip, silent, audio=False)
    annotate(clip, tmp_path / "out.part.mp4")
    broken.write_bytes(b"no video")
    for source, said in (
        (silent, "has no sound in it; leave out --sound-of"),
        (broken, "is not a video"),
        (tmp_path / "nowhere.mp4", "does not exist"),
    ):
        with pytest.raises(SourceError, match=said):
            recover(out, sound_of=source)
    assert not out.exists()
    recover(out, sound_of=clip)
    heard = sound_of(out)
    assert len(heard) > 100
    assert heard == sound_of(clip)[: len(heard)]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--start", "5", "--end", "0:03"], "--end 0:03 is not after --start 5"),
        (["--start", "soon"], "--start is a time in seconds or h:m:s, got 'soon'"),
        (["--size", "wide"], "--size is WIDTHxHEIGHT in pixels, such as 1280x720, got 'wide'"),
        (["--crf", "20", "--bitrate", "4M"], "--crf and --bitrate are two ways to say the same"),
        (["--every", "0"], "--every is a number of frames from 1, got 0"),
        (["--bitrate", "fast"], "--bitrate is a number with k, M or G behind it, got 'fast'"),
        (["--codec", "vp9", "-o", "out.mov"], "--codec vp9 does not go into *.mov"),
        (["--codec", "mpeg4"], "unknown --codec 'mpeg4'; known are av1, h264, hevc, vp9"),
        (["--preset", "quick", "-o", "out.mp4"], "unknown --preset 'quick'; "),
        (["--preset", "fast", "-o", "out.webm"], "unknown --preset 'fast'; known are 0, 1, 2"),
        (
            ["--codec", "hevc", "--crf", "52", "-o", "o.mp4"],
            "--crf of hevc is from 0 to 51, got 52",
        ),
        (["--bitrate", "4"], "--bitrate is bits a second from 1k on, got '4'"),
        (["--size", "99999x9"], "--size has sides of 1 to 16384 pixels, got '99999x9'"),
        (["--end", "0"], "--end 0 is not after --start 0"),
        (["--segment", "10m"], "--segment is for recordings: give a video as output"),
    ],
)
def test_wrong_options_are_told(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: Sequence[str],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["run", "clip.mp4", "-o", "null", *options]) == 2
    assert said in capsys.readouterr().err


def test_a_part_of_a_live_source_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "demo://shapes?live=1", "null", "--start", "3", "--weights", "demo"]) == 2
    assert "--start, --end and --every are for files" in capsys.readouterr().err


@pytest.mark.parametrize("display_matrix", [None, (0, 1, -1, 0)])
def test_frames_leave_no_garbage(
    make_video: VideoMaker,
    tiny: Path,
    tmp_path: Path,
    display_matrix: tuple[int, int, int, int] | None,
) -> None:
    """Objects that it frees late are memory meanwhile: once, hundreds of decoded pictures."""

    def left_behind(n_frames: int) -> int:
        clip = make_video(f"{n_frames}.mp4", n_frames=n_frames, display_matrix=display_matrix)
        made = tmp_path / f"out{n_frames}"
        made.mkdir()
        command = ["run", str(clip), str(made / "o.mp4"), "--weights", str(tiny), "--quiet"]
        command += ["--predictions", str(made / "o.jsonl"), "--cams", str(made / "o.npz")]
        command += ["--sheet", str(made / "o.png"), "--timeline", str(made / "o.html")]
        gc.collect()
        gc.disable()
        gc.set_debug(gc.DEBUG_SAVEALL)
        try:
            assert main([*command, "--input-size", "64"]) == 0
            gc.collect()
            # PyTorch's graphs and tyro's parsers are left as well, now more and now fewer.
            homes = [type(found).__module__.partition(".")[0] for found in gc.garbage]
            return sum(home in ("av", "numpy", "stream_cam") for home in homes)
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()

    left_behind(2)  # objects that are made once
    assert left_behind(43) - left_behind(3) < 20


def test_a_name_with_a_colon(clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    annotate(clip, Path("o:1.mp4"))
    assert times_in(tmp_path / "o:1.mp4") == times_in(clip)
    Path("o:1.mp4").rename("o:2.part.mp4")
    recover(Path("o:2.mp4"))
    assert times_in(tmp_path / "o:2.mp4") == times_in(clip)


# The message at the source's end.


def test_sound_that_goes_on_after_the_pictures_is_kept_whole(tmp_path: Path, tiny: Path) -> None:
    """A Matroska file does not give the duration of its pictures alone."""
    long = tmp_path / "long.mkv"
    write_clip(long, seconds=2, more_sound_seconds=2)
    for suffix in (".mkv", ".mp4"):
        out = tmp_path / f"out{suffix}"
        command = ["run", str(long), str(out), "--weights", str(tiny), "--quiet"]
        assert main([*command, "--input-size", "64"]) == 0
        assert heard_seconds(out)[1] == pytest.approx(4.0, abs=0.05)


def test_last_picture_lasts_as_long_as_in_the_source(tmp_path: Path, tiny: Path) -> None:
    slides, out = tmp_path / "slides.mp4", tmp_path / "out.mp4"
    write_video(slides, n_frames=3, times=[0, 1, 20], last_duration=30, options={"bf": "0"})
    with av.open(str(slides)) as container:
        assert container.duration == 5 * av.time_base
    command = ["run", str(slides), str(out), "--weights", str(tiny), "--quiet"]
    assert main([*command, "--input-size", "64"]) == 0
    with av.open(str(out)) as container:
        assert container.duration == 5 * av.time_base


@pytest.mark.parametrize(("start", "first"), [(None, 0), ("0.8", 8), ("2", 20), ("3.5", 35)])
@pytest.mark.parametrize("suffix", [".ts", ".mp4"])
def test_part_of_a_file_begins_where_it_is_asked_for(
    tmp_path: Path, suffix: str, start: str | None, first: int
) -> None:
    """A transport stream has no index: a seek ends anywhere."""
    clip = tmp_path / f"clip{suffix}"
    write_video(clip, n_frames=40, options={"g": "15", "bf": "2"})
    with trim(VideoSource(str(clip)), RecordConfig(start=start)) as source:
        frames = list(source)
    shown = [picture_number(frame.image_bgr) for frame in frames]
    assert shown == [number % 14 for number in range(first, 40)]
    assert [frame.index for frame in frames] == list(range(40 - first))


def test_damage_before_the_end_of_a_cut_is_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clip = write_video(tmp_path / "clip.ts", n_frames=40, options={"g": "5", "bf": "0"})
    data = bytearray(clip.read_bytes())
    data[len(data) // 4 : len(data) // 4 + 600] = bytes(600)
    clip.write_bytes(data)
    with trim(VideoSource(str(clip)), RecordConfig(end="3.5")) as source:
        assert len(list(source)) > 20
        assert isinstance(source, TrimmedSource)
        assert source.corrupt_frames > 0
    assert "damaged parts" in caplog.text


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_metadata_stays_without_the_sound(clip: Path, tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"out{suffix}"
    annotate(clip, out, audio=False)
    with av.open(str(out)) as container:
        assert not container.streams.audio
        assert {k.lower(): v for k, v in container.metadata.items()}["title"] == "numbers"


def test_sound_keeps_its_language_and_mp3_is_copied(tmp_path: Path) -> None:
    clip = tmp_path / "clip.mkv"
    write_clip(clip, codec="libmp3lame", language="deu")
    annotate(clip, tmp_path / "out.mp4")
    with av.open(str(tmp_path / "out.mp4")) as container:
        sound = container.streams.audio[0]
        assert sound.codec_context.codec.canonical_name == "mp3"
        assert sound.metadata["language"] == "deu"


def test_sound_of_a_rate_that_no_encoder_takes_is_resampled(tmp_path: Path) -> None:
    clip = tmp_path / "clip.mkv"
    write_clip(clip, codec="pcm_s16le", rate=22_254)
    annotate(clip, tmp_path / "out.mp4")
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.streams.audio[0].codec_context.sample_rate == 22_050
    assert heard_seconds(tmp_path / "out.mp4")[1] == pytest.approx(3.5, abs=0.05)


@pytest.mark.parametrize(
    ("codec", "preset", "fps"),
    [
        ("h264", None, 5),
        ("h264", "medium", 10),
        ("h264", "slow", 25),
        ("h264", "placebo", 30),
        ("h264", None, 2),
        ("hevc", None, 10),
        ("hevc", "medium", 10),
        ("hevc", "veryslow", 10),
        ("hevc", None, 2),
        ("hevc", "slow", 4),
        ("hevc", "slow", 8),
        ("av1", None, 10),
        ("vp9", None, 10),
    ],
)
def test_encoder_holds_little_back(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    codec: CodecName,
    preset: str | None,
    fps: int,
) -> None:
    """Independent of the number of cores: a kill loses the frames that the encoder holds back."""
    monkeypatch.setattr(encoders, "usable_cores", lambda: 32)
    out, seen = tmp_path / "out.mp4", tmp_path / "seen.mp4"
    config = RecordConfig(codec=codec, preset=preset)
    with VideoSink(str(out), StreamInfo(Fraction(fps), False, False), config) as sink:
        for number in range(6 * fps):
            image = numbered_picture(number, (256, 320))
            sink.write(picture_at(image, number, Fraction(1, fps)))
            if number == 6 * fps - 3:
                shutil.copy(part_path(out), seen)  # as a kill would leave it
                given = Fraction(number, fps)
    assert times_in(seen)[-1] >= given - 2


def write_clip_of_unknown_sound(path: Path) -> None:
    write_clip(path, seconds=1, codec="pcm_s16le")
    path.write_bytes(path.read_bytes().replace(b"sowt", b"apac"))


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm"])
def test_sound_of_an_unknown_codec_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, suffix: str
) -> None:
    odd, out = tmp_path / "odd.mov", tmp_path / f"out{suffix}"
    write_clip_of_unknown_sound(odd)
    assert len(annotate(odd, out)) == FPS
    with av.open(str(out)) as container:
        assert [stream.type for stream in container.streams] == ["video"]
        assert {k.lower(): v for k, v in container.metadata.items()}["title"] == "numbers"
    assert [record.message for record in caplog.records] == [
        f"{odd}: the recording has no sound: FFmpeg does not know its codec"
    ]


def test_recovery_with_sound_of_an_unknown_codec_goes_without(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    odd, part = tmp_path / "odd.mov", tmp_path / "out.part.mp4"
    write_clip_of_unknown_sound(odd)
    write_video(part, n_frames=5)
    path, n_pictures, _ = recover(part, sound_of=odd)
    assert n_pictures == count_pictures(path) == 5
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_the_known_one_of_two_sounds_is_kept(tmp_path: Path) -> None:
    clip, both, out = tmp_path / "clip.mov", tmp_path / "both.mov", tmp_path / "out.mkv"
    write_clip(clip, seconds=1, codec="pcm_s16le")
    with av.open(str(clip)) as source, av.open(str(both), "w") as made:
        video = made.add_stream_from_template(source.streams.video[0])
        sounds = [made.add_stream_from_template(source.streams.audio[0]) for _ in range(2)]
        for packet in source.demux():
            if packet.dts is None:
                continue
            for stream in [video] if packet.stream.type == "video" else sounds:
                packet.stream = stream
                made.mux(packet)
    both.write_bytes(both.read_bytes().replace(b"sowt", b"apac", 1))
    with av.open(str(both)) as container:
        assert [each.codec_context is None for each in container.streams.audio] == [True, False]
    annotate(both, out)
    assert heard_seconds(out)[1] == pytest.approx(1.5, abs=0.1)


def test_sound_that_no_container_takes_is_left_out(
    clip: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setitem(audio._COPIED_CODECS, ".webm", frozenset({"aac"}))
    out = tmp_path / "out.webm"
    annotate(clip, out)
    with av.open(str(out)) as container:
        assert [stream.type for stream in container.streams] == ["video"]
        assert {k.lower(): v for k, v in container.metadata.items()}["title"] == "numbers"
    assert "the recording has no sound" in caplog.text
