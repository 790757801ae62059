import json
import re
import subprocess
import sys
from collections.abc import Iterable
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.videos import numbered_picture, picture_at, picture_number

from stream_cam.config import RecordConfig
from stream_cam.errors import OutputExistsError, SinkError
from stream_cam.frame import BgrImage
from stream_cam.sinks import Picture, StreamInfo, VideoSink
from stream_cam.sinks.video.yuv import (
    Matrix,
    bgr_to_yuv420,
    letterboxed,
    padded_to_even,
    yuv_matrix,
)
from stream_cam.sources.video import VideoSource

SIZE_HW = (48, 64)


def record(
    path: Path,
    pictures: Iterable[Picture],
    *,
    fps: Fraction | None = None,
    stream: StreamInfo | None = None,
    overwrite: bool = False,
    **options: Any,
) -> VideoSink:
    info = stream or StreamInfo(fps=fps, still=False, live=False)
    with VideoSink(str(path), info, RecordConfig(**options), overwrite=overwrite) as sink:
        for picture in pictures:
            assert sink.write(picture)
    return sink


def numbered(times: Iterable[int], time_base: Fraction = Fraction(1, 10)) -> list[Picture]:
    return [
        picture_at(numbered_picture(index, SIZE_HW), pts, time_base)
        for index, pts in enumerate(times)
    ]


def times_in(path: Path) -> list[Fraction]:
    with VideoSource(str(path)) as source:
        return [frame.pts * frame.time_base for frame in source]


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def probe(program: str, path: Path) -> dict[str, Any]:
    """ffprobe's report on the file; it must not warn."""
    asked = [program, "-v", "warning", "-of", "json", "-show_format", "-show_streams"]
    done = subprocess.run(
        [*asked, "-show_frames", str(path)], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


FULL_DISK = """
import resource, sys
import numpy as np
from support.videos import picture_at
from stream_cam.config import RecordConfig
from stream_cam.errors import SinkError
from stream_cam.sinks import StreamInfo, VideoSink
path, n_frames, n_bytes = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
info = StreamInfo(fps=None, still=False, live=False)
resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, n_bytes))
try:
    with VideoSink(path, info, RecordConfig(preset="ultrafast")) as sink:
        for n in range(n_frames):
            sink.write(picture_at(np.roll(noise, n), n))
except SinkError as error:
    print(error)
"""
"""A process of its own: the limit is for all files of a process, pytest's and other tests' too."""


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
def test_recording_has_every_picture_at_its_time(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out{suffix}"
    sink = record(path, numbered(range(12)), fps=Fraction(10))
    assert (sink.written, sink.repaired_times) == (12, 0)
    assert names(tmp_path) == [path.name]
    with VideoSource(str(path)) as source:
        frames = list(source)
        assert source.info.fps == 10
        assert source.info.duration_seconds == pytest.approx(1.2)
    assert [picture_number(frame.image_bgr) for frame in frames] == list(range(12))
    assert [frame.pts * frame.time_base for frame in frames] == [Fraction(n, 10) for n in range(12)]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize(
    ("times", "time_base"),
    [
        ([0, 1001, 2002, 3003], Fraction(1, 30000)),
        ([0, 1, 2, 3], Fraction(1001, 30000)),
        ([0, 40, 41, 1000, 1033, 60_000], Fraction(1, 1000)),
        ([0, 512, 1024, 1536], Fraction(1, 12800)),
        ([0, 3003, 6006, 90_000], Fraction(1, 90_000)),
        ([0, 33_367, 66_733, 9_000_000], Fraction(1, 1_000_000)),
        ([0, 33_366_700, 66_733_400, 9_000_000_000], Fraction(1, 10**9)),
        ([0, 1, 2], Fraction(1)),
    ],
)
def test_times_survive_variable_rates_and_any_time_base(
    tmp_path: Path, suffix: str, times: list[int], time_base: Fraction
) -> None:
    path = tmp_path / f"out{suffix}"
    record(path, numbered([time + 12345 for time in times], time_base), fps=Fraction(30))
    # MKV counts milliseconds; sources finer than microseconds are rounded to 1/90000 s.
    exact = suffix == ".mp4" and time_base >= Fraction(1, 10**6)
    tolerance = 0 if exact else Fraction(1, 2000 if suffix == ".mkv" else 180_000)
    for got, time in zip(times_in(path), times, strict=True):
        assert abs(got - time * time_base) <= tolerance


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(-(10**6), 10**6), min_size=1, max_size=8))
def test_any_times_give_a_file_with_every_picture(
    tmp_path_factory: pytest.TempPathFactory, times: list[int]
) -> None:
    path = tmp_path_factory.mktemp("any") / "out.mp4"
    pictures = [picture_at(np.zeros((16, 16, 3), np.uint8), pts, Fraction(1, 600)) for pts in times]
    sink = record(path, pictures, preset="ultrafast")
    written = times_in(path)
    assert len(written) == len(times)
    assert all(a < b for a, b in pairwise(written))
    increasing = all(a < b for a, b in pairwise(times))
    assert (sink.repaired_times == 0) == increasing


@pytest.mark.parametrize("size_hw", [(1, 1), (1, 2), (49, 65), (48, 65), (49, 64)])
def test_odd_sizes_grow_by_a_repeated_row_or_column(
    tmp_path: Path, size_hw: tuple[int, int]
) -> None:
    path = tmp_path / "out.mp4"
    image = np.full((*size_hw, 3), 100, np.uint8)
    image[-1, -1] = 200
    record(path, [picture_at(image, n) for n in range(2)], crf=0)
    with VideoSource(str(path)) as source:
        shown = next(iter(source)).image_bgr
    assert shown.shape[:2] == (size_hw[0] + size_hw[0] % 2, size_hw[1] + size_hw[1] % 2)
    assert abs(int(shown[-1, -1, 1]) - 200) < 8


def test_size_that_changes_is_letterboxed_into_the_first(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    white = np.full((64, 64, 3), 255, np.uint8)
    sizes = [(48, 64), (64, 64), (24, 32), (481, 3), (48, 64)]
    images = [np.full((*size_hw, 3), 255, np.uint8) for size_hw in sizes]
    record(path, [picture_at(image, n) for n, image in enumerate(images)], crf=1)
    with VideoSource(str(path)) as source:
        frames = [frame.image_bgr for frame in source]
    assert [frame.shape[:2] for frame in frames] == [(48, 64)] * 5
    assert frames[1][24, 2].max() < 30, "bars beside a square"
    assert frames[1][2, 32].min() > 225
    assert frames[2].min() > 225, "enlarged to fill"
    assert letterboxed(white, (10, 21)).sum() == 10 * 10 * 3 * 255


@pytest.mark.parametrize(("height", "space"), [(720, "bt709"), (480, "smpte170m")])
@pytest.mark.needs_ffmpeg
def test_colours_are_right_and_tagged(
    tmp_path: Path, ffprobe: str, height: int, space: str
) -> None:
    colours = [(255, 255, 255), (0, 0, 255), (0, 255, 0), (255, 0, 0), (40, 160, 60), (9, 9, 9)]
    image = np.repeat(np.array(colours, np.uint8), 32, axis=0)
    image = np.broadcast_to(image, (height, *image.shape)).copy()
    path = tmp_path / "out.mp4"
    record(path, [picture_at(image)], crf=1)
    stream = probe(ffprobe, path)["streams"][0]
    assert (stream["codec_name"], stream["pix_fmt"]) == ("h264", "yuv420p")
    assert (stream["color_range"], stream["color_space"]) == ("tv", space)
    assert (stream["color_primaries"], stream["color_transfer"]) == ("bt709", "bt709")
    scale = "scale=flags=accurate_rnd+full_chroma_int"  # a second implementation, at its best
    raw_bgr = ["-f", "rawvideo", "-pix_fmt", "bgr24", "-"]
    raw = subprocess.run(
        ["ffmpeg", "-v", "error", "-i", str(path), "-vf", scale, *raw_bgr],
        capture_output=True,
        check=True,
    ).stdout
    shown = np.frombuffer(raw, np.uint8).reshape(image.shape)
    for place, colour in enumerate(colours):
        assert np.abs(shown[height // 2, 32 * place + 16].astype(int) - colour).max() <= 3


@pytest.mark.needs_ffmpeg
def test_ffprobe_finds_no_fault(tmp_path: Path, ffprobe: str) -> None:
    path = tmp_path / "out.mp4"
    times = [0, 40, 41, 500, 1033, 2000]
    record(path, numbered([7 + time for time in times], Fraction(1, 1000)), fps=Fraction(5))
    found = probe(ffprobe, path)
    stream = found["streams"][0]
    assert stream["has_b_frames"] == 0
    assert stream["nb_frames"] == "6"
    assert float(stream["start_time"]) == 0
    assert float(stream["duration"]) == pytest.approx(2.2), "the last picture lasts 1 / fps"
    base = Fraction(stream["time_base"])
    assert [frame["pts"] * base * 1000 for frame in found["frames"]] == times
    # +faststart: the index comes before the pictures.
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


def test_interrupted_recording_is_complete_under_its_name(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"

    def interrupted_run() -> None:
        with VideoSink(str(path)) as sink:
            for picture in numbered(range(5)):
                sink.write(picture)
            assert names(tmp_path) == ["out.part.mp4"]
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted_run()
    assert names(tmp_path) == ["out.mp4"]
    assert len(times_in(path)) == 5


def test_recording_without_pictures_leaves_nothing(tmp_path: Path) -> None:
    with VideoSink(str(tmp_path / "out.mp4")):
        pass
    assert names(tmp_path) == []


def test_existing_file_is_replaced_only_when_asked(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    path.write_bytes(b"mine")
    with pytest.raises(OutputExistsError, match="--overwrite"):
        record(path, numbered(range(2)))
    assert path.read_bytes() == b"mine"
    assert names(tmp_path) == ["out.mp4"]
    record(path, numbered(range(2)), overwrite=True)
    assert len(times_in(path)) == 2


def test_file_that_appears_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"

    def run() -> None:
        with VideoSink(str(path)) as sink:
            sink.write(numbered([0])[0])
            path.write_bytes(b"mine")

    with pytest.raises(OutputExistsError, match=r"the recording is in .*out\.part\.mp4"):
        run()
    assert path.read_bytes() == b"mine"
    assert len(times_in(tmp_path / "out.part.mp4")) == 1


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize(("n_frames", "n_bytes"), [(3, 3000), (400, 20_000)])
def test_full_disk_is_an_error_and_the_recording_plays(
    tmp_path: Path, suffix: str, n_frames: int, n_bytes: int
) -> None:
    path = tmp_path / f"out{suffix}"
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", FULL_DISK, path, str(n_frames), str(n_bytes)],
        capture_output=True, text=True, check=False, timeout=60, cwd=Path(__file__).parents[1],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = done.stdout
    assert "cannot be written" in said
    kept = re.search(r"the first (\d+) pictures are in it|nothing was kept", said)
    assert kept is not None, said
    if kept[1] is None:
        assert names(tmp_path) == []
    else:
        assert names(tmp_path) == [path.name]
        assert len(times_in(path)) == int(kept[1]) > 0


def test_disk_that_is_nearly_full_ends_the_recording_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, free = tmp_path / "out.mp4", iter([10**9, 499_000_000])
    monkeypatch.setattr(
        "stream_cam.sinks.video.sink.shutil.disk_usage",
        lambda folder: SimpleNamespace(total=10**12, free=next(free, 10**9)),
    )
    with pytest.raises(SinkError, match=r"499 MB free .*the first 30 pictures are in it"):
        record(path, numbered(range(40)))
    assert names(tmp_path) == ["out.mp4"]
    assert len(times_in(path)) == 30


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="only Linux has /proc")
def test_an_unwritable_folder_is_not_called_a_full_disk() -> None:
    with pytest.raises(SinkError, match=r"/proc/out\.mp4 cannot be written: ") as caught:
        record(Path("/proc/out.mp4"), numbered([0, 1]))
    assert "MB free" not in str(caught.value)


def test_folder_that_vanishes_is_an_error(tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    with pytest.raises(SinkError, match="cannot be written: No such file"):
        record(folder / "out.mp4", numbered([0, 1]))


@pytest.mark.parametrize("matrix", ["bt601", "bt709"])
def test_conversion_equals_accurate_swscale(matrix: Matrix) -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    ours = bgr_to_yuv420(image, yuv_matrix(matrix))
    theirs = (
        av.VideoFrame.from_ndarray(image, "bgr24")
        .reformat(
            format="yuv444p",
            dst_colorspace=1 if matrix == "bt709" else 5,
            dst_color_range=1,
            interpolation=0x40000 | 2,  # SWS_ACCURATE_RND | SWS_BILINEAR
        )
        .to_ndarray()
        .astype(float)
    )
    assert np.abs(ours[:64] - theirs[0]).max() <= 1
    for plane, full in zip(ours[64:].reshape(2, 32, 48), theirs[1:], strict=True):
        assert np.abs(plane - full.reshape(32, 2, 48, 2).mean(axis=(1, 3))).max() <= 1.5


@given(st.integers(1, 9), st.integers(1, 9))
def test_padding_repeats_the_edge(height: int, width: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    padded = padded_to_even(image)
    assert padded.shape[0] % 2 == padded.shape[1] % 2 == 0
    assert (padded[:height, :width] == image).all()
    assert (padded[-1, -1] == image[-1, -1]).all()


def test_real_footage_keeps_its_times(shared_data: Path, tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    with VideoSource(str(shared_data / "book.mkv")) as source:
        small: list[Picture] = []
        for frame in source:
            thumbnail: BgrImage = np.ascontiguousarray(frame.image_bgr[::8, ::8])
            small.append(picture_at(thumbnail, frame.pts, frame.time_base))
        record(path, small, fps=source.info.fps)
    start = small[0].frame.pts_seconds
    assert [float(time) for time in times_in(path)] == [
        pytest.approx(picture.frame.pts_seconds - start) for picture in small
    ]
