"""Sources that can be read once, and outputs that are read while they are written."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from support.processes import process
from support.videos import numbered_picture, picture_at, picture_number, write_video
from support.waiting import wait_until

from stream_cam.bench.frames import source_frames
from stream_cam.cli import main
from stream_cam.cli.recover import recover
from stream_cam.config import CodecName, RecordConfig, StreamFormat
from stream_cam.errors import SourceError, UsageError
from stream_cam.sinks import PipeSink, StreamInfo, check_outputs
from stream_cam.sources import open_source
from stream_cam.sources.paths import refuse_pipe
from stream_cam.sources.pipe import Pipe
from stream_cam.sources.trim import TrimmedSource

DEADLINE_SECONDS = 60.0
STREAM = StreamInfo(fps=Fraction(10), still=False, live=False)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def options(tiny: Path) -> list[str]:
    return ["--weights", str(tiny), "--engine", "eager", "--input-size", "64"]


@pytest.fixture
def fifo(place: Path) -> Iterator[str]:
    """A FIFO; whoever still waits for its other end is let go at the end."""
    os.mkfifo("fifo")
    yield "fifo"
    os.close(os.open("fifo", os.O_RDWR | os.O_NONBLOCK))


def poured(data: bytes, place: str | int) -> threading.Thread:
    """Writes into a FIFO or a descriptor, once, and closes it."""

    def pour() -> None:
        with open(place, "wb") as pipe:
            pipe.write(data)

    thread = threading.Thread(target=pour, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize("kind", [".ts", ".mkv"])
def test_a_fifo_is_read_once(clip: Path, fifo: str, options: list[str], kind: str) -> None:
    """With sound and tags in it, which a file would be opened for again."""
    with av.open(str(clip)) as source, av.open(f"in{kind}", "w") as out:
        streams = {each: out.add_stream_from_template(each) for each in source.streams}
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream]
                out.mux(packet)
    writer = poured(Path(f"in{kind}").read_bytes(), fifo)
    assert main(["run", fifo, "out.mp4", *options]) == 0
    writer.join(DEADLINE_SECONDS)
    assert not writer.is_alive()
    with av.open("out.mp4") as container:
        assert sum(1 for _ in container.decode(video=0)) == 30
        assert not container.streams.audio


@pytest.mark.parametrize("uri", ["pipe:{}", "/dev/fd/{}"])
def test_a_descriptor_is_a_source(place: Path, uri: str) -> None:
    data = write_video(place / "in.ts", n_frames=5).read_bytes()
    ours, theirs = os.pipe()
    poured(data, theirs)
    with open_source(uri.format(ours)) as source:
        assert [picture_number(frame.image_bgr) for frame in source] == list(range(5))
        assert source.info.file is None
        assert not source.info.live
    os.close(ours)


def test_a_file_as_stdin_is_a_file(place: Path) -> None:
    write_video(place / "in.mp4", n_frames=3)
    with open("in.mp4", "rb") as file, open_source(f"pipe:{file.fileno()}") as source:
        assert source.info.n_frames == 3
        assert source.info.file is not None


def test_unreadable_pipe_is_an_error(fifo: str, place: Path) -> None:
    with pytest.raises(UsageError, match="pipe:99 is not open"):
        open_source("pipe:99")
    ours, theirs = os.openpty()
    with pytest.raises(UsageError, match="is the terminal: pipe a video into it"):
        open_source(f"pipe:{theirs}")
    os.close(ours)
    os.close(theirs)
    # Too long for FFmpeg's buffer, and its index is at the end.
    noise = np.random.default_rng(0)
    images = [noise.integers(0, 256, (240, 320, 3), np.uint8) for _ in range(3)]
    write_video(place / "late.mp4", images=images, options={"qp": "0"})
    poured(Path("late.mp4").read_bytes(), fifo)
    with pytest.raises(SourceError, match=r"index.*-movflags \+faststart"), open_source(fifo):
        pass


def test_pipe_is_refused_where_a_source_is_read_several_times(fifo: str, place: Path) -> None:
    write_video(place / "out.part.mp4")
    for read in (
        lambda: recover(Path("out.mp4"), sound_of=Path(fifo)),
        lambda: source_frames(fifo),
        lambda: source_frames("-"),
    ):
        with pytest.raises(UsageError, match="several times, and a pipe only once"):
            read()
    refuse_pipe("/dev/video0", "--source")
    refuse_pipe("out.part.mp4", "--source")


def test_a_part_of_a_pipe_is_not_sought(fifo: str, place: Path) -> None:
    poured(write_video(place / "in.ts", n_frames=12).read_bytes(), fifo)
    with TrimmedSource(open_source(fifo), Fraction(1, 2), Fraction(9, 10), 1) as source:
        assert [picture_number(frame.image_bgr) for frame in source] == [5, 6, 7, 8]


def test_a_read_that_waits_is_ended(fifo: str) -> None:
    with Pipe(fifo) as pipe:
        threading.Timer(0.05, pipe.interrupt).start()
        assert pipe.read(10) == b""
    # Longer than FFmpeg wants to see before it opens, and no end comes.
    data = write_video(Path("in.ts"), n_frames=100, size_hw=(16, 16)).read_bytes()
    writing = os.open(fifo, os.O_RDWR)
    pouring = threading.Thread(target=os.write, args=(writing, data), daemon=True)
    pouring.start()
    with open_source(fifo) as source:
        threading.Timer(0.05, source.stop).start()
        assert sum(1 for _ in source) <= 100
    os.close(writing)


def has_open(pid: int, path: str) -> bool:
    """Whether a process has a file open."""
    wanted = os.path.realpath(path)
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            if os.readlink(link) == wanted:
                return True
    return False


@pytest.mark.skipif(sys.platform != "linux", reason="Linux says which files a process has open")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("begun", [False, True])
def test_a_signal_ends_a_run_that_waits_for_a_fifo(
    fifo: str, begun: bool, number: signal.Signals, code: int
) -> None:
    """For a writer, or for one that has begun and does not go on."""
    running = process("run", fifo, "out.mp4", "--weights", "demo", "--report", "r.json")
    try:
        wait_until(lambda: has_open(running.pid, fifo) or running.poll(), DEADLINE_SECONDS)
        writing = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK) if begun else None
        if writing is not None:
            os.write(writing, b"\x47")
        running.send_signal(number)
        _, err = running.communicate(timeout=DEADLINE_SECONDS)
    finally:
        running.kill()
    if writing is not None:
        os.close(writing)
    assert running.returncode == code, err
    assert err == "stream-cam: interrupted\n"
    assert json.loads(Path("r.json").read_text())["ended_by"] == "interrupted"


FORMATS: tuple[tuple[StreamFormat, str], ...] = (
    ("mpegts", "h264"),
    ("mpegts", "hevc"),
    ("matroska", "vp9"),
    ("nut", "h264"),
    ("webm", "vp9"),
    ("mp4", "h264"),
)


@pytest.mark.parametrize(("form", "codec"), FORMATS)
def test_a_fifo_gets_a_stream_that_can_be_read(
    fifo: str, form: StreamFormat, codec: CodecName
) -> None:
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit(Path(fifo).read_bytes)
        with PipeSink(fifo, STREAM, RecordConfig(format=form, codec=codec)) as sink:
            for index in range(12):
                assert sink.write(picture_at(numbered_picture(index, (48, 64)), index))
        data = read.result(DEADLINE_SECONDS)
    with av.open(io.BytesIO(data), "r") as container:
        assert form in container.format.name
        assert container.streams.video[0].codec_context.codec.canonical_name == codec
        pictures = [
            np.asarray(picture.to_ndarray(format="bgr24"), np.uint8)
            for picture in container.decode(video=0)
        ]
    assert [picture_number(image) for image in pictures] == list(range(12))
    assert sorted(os.listdir()) == [fifo]


def test_a_reader_that_leaves_ends_the_run(fifo: str) -> None:
    with ThreadPoolExecutor(1) as pool, PipeSink(fifo, STREAM, RecordConfig(format="nut")) as sink:
        reading = pool.submit(os.open, fifo, os.O_RDONLY)
        assert sink.write(picture_at(numbered_picture(0, (48, 64)), 0))
        os.close(reading.result(DEADLINE_SECONDS))
        wrote = [sink.write(picture_at(numbered_picture(n, (48, 64)), n)) for n in range(1, 100)]
        assert not wrote[-1]


def test_a_write_that_nobody_reads_is_ended(fifo: str) -> None:
    sink = PipeSink(fifo, STREAM, RecordConfig(format="nut"))
    threading.Timer(0.05, sink.interrupt).start()
    assert not sink.write(picture_at(numbered_picture(0, (48, 64)), 0))
    sink.close()


@pytest.mark.parametrize(
    ("outputs", "record", "text"),
    [
        (["-"], {}, "- is a pipe, whose format must be given: add --format, such as --format"),
        (["/dev/stdout"], {}, "/dev/stdout is a pipe.*add --format"),
        (["fifo"], {}, "known are mpegts, matroska"),
        (["-"], {"format": "webm", "codec": "h264"}, "--codec h264 does not go into"),
        (["a.mp4"], {"format": "mpegts"}, "--format is for what is piped"),
    ],
)
def test_mistakes_are_told(
    fifo: str, outputs: list[str], record: dict[str, str], text: str
) -> None:
    config = RecordConfig(**record)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=text):
        check_outputs(outputs, overwrite=False, record=config)


def test_stdin_to_stdout_carries_only_the_stream(place: Path, options: list[str]) -> None:
    """As `ffmpeg … | stream-cam run - - --format nut | ffprobe -`."""
    write_video(place / "in.ts", n_frames=6)
    command = ["run", "-", "-", "--format", "nut", *options]

    def piping(*command: str, **streams: Any) -> subprocess.Popen[bytes]:
        program = [sys.executable, "-m", "stream_cam", *command]
        return subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **streams)

    with open("in.ts", "rb") as piped, piping(*command, stdin=piped) as running:
        out, err = running.communicate(timeout=DEADLINE_SECONDS)
    assert running.returncode == 0, err
    with av.open(io.BytesIO(out), "r") as container:
        assert len(list(container.decode(video=0))) == 6
    assert b"lossless: " in err
    assert b"6 frames in " in err


def test_a_run_whose_reader_leaves_is_done(fifo: str, options: list[str]) -> None:
    def read_a_packet() -> bytes:
        with open(fifo, "rb", buffering=0) as pipe:
            return pipe.read(188)

    source = "demo://shapes?size=96x64&fps=30&seconds=3600"
    with ThreadPoolExecutor(1) as pool:
        packet = pool.submit(read_a_packet)
        assert main(["run", source, fifo, "--format", "mpegts", *options]) == 0
        assert packet.result(DEADLINE_SECONDS)[:1] == b"\x47"
