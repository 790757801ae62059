import logging
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from conftest import VideoMaker
from hypothesis import given
from hypothesis import strategies as st
from support.videos import numbered_picture, picture_number, write_video

from stream_cam.errors import SourceError
from stream_cam.frame import BgrImage, Frame
from stream_cam.sources.timestamps import MonotonicTimestamps, without_wild_timestamps
from stream_cam.sources.video import VideoSource

LOSSLESS = {"qp": "0"}
# Eight colours, and one that BT.601 and BT.709 place far apart.
COLOURS_BGR = [
    (255, 255, 255), (0, 0, 0), (0, 0, 255), (0, 255, 0), (255, 0, 0), (0, 255, 255),
    (128, 128, 128), (40, 160, 60),
]  # fmt: skip
# swscale's fast path is up to 3 levels off, 4:2:0 coding of 8-bit YCbCr about 2 more.
COLOUR_TOLERANCE = 5


def read(path: Path) -> list[Frame]:
    with VideoSource(str(path)) as source:
        return list(source)


def chart(size_hw: tuple[int, int]) -> BgrImage:
    """Eight coloured columns."""
    height, width = size_hw
    column = width // len(COLOURS_BGR)
    row = np.repeat(np.array(COLOURS_BGR, np.uint8), column, axis=0)
    return np.broadcast_to(row, (height, *row.shape)).copy()


def assert_shows_chart(image: BgrImage) -> None:
    column = image.shape[1] // len(COLOURS_BGR)
    for place, colour in enumerate(COLOURS_BGR):
        shown = image[image.shape[0] // 2, column * place + column // 2].astype(int)
        assert np.abs(shown - colour).max() <= COLOUR_TOLERANCE, (colour, shown)


def test_frames_come_in_order_with_exact_times(make_video: VideoMaker) -> None:
    path = make_video("clip.mp4", n_frames=8, fps=Fraction(30000, 1001))
    with VideoSource(str(path)) as source:
        assert source.info.fps == Fraction(30000, 1001)
        assert source.info.n_frames == 8
        assert source.info.size_hw == (48, 64)
        assert source.info.duration_seconds == pytest.approx(8 * 1001 / 30000)
        assert not source.info.live
        frames = list(source)
    assert [picture_number(frame.image_bgr) for frame in frames] == list(range(8))
    assert [frame.index for frame in frames] == list(range(8))
    assert [frame.pts * frame.time_base for frame in frames] == [
        index * Fraction(1001, 30000) for index in range(8)
    ]
    assert all(a.captured_ns <= b.captured_ns for a, b in pairwise(frames))


def test_variable_rate_times_are_kept(make_video: VideoMaker) -> None:
    times = [0, 40, 41, 1000, 1033, 5000]
    for name in ("vfr.mp4", "vfr.mkv"):
        path = make_video(name, times=times, time_base=Fraction(1, 1000))
        assert [frame.pts * frame.time_base * 1000 for frame in read(path)] == times


def test_b_frames_come_in_the_order_in_which_they_are_shown(make_video: VideoMaker) -> None:
    path = make_video("b.mp4", n_frames=12, options={"bf": "3", "b-adapt": "0"})
    frames = read(path)
    assert [picture_number(frame.image_bgr) for frame in frames] == list(range(12))
    assert [frame.pts * frame.time_base for frame in frames] == [Fraction(n, 10) for n in range(12)]


def test_stream_without_times_is_counted(make_video: VideoMaker) -> None:
    frames = read(make_video("raw.h264", n_frames=6, fps=25))
    seconds = [frame.pts * frame.time_base for frame in frames]
    assert len(frames) == 6
    assert all(b - a == Fraction(1, 25) for a, b in pairwise(seconds))


@pytest.mark.parametrize(
    ("display_matrix", "corner"),
    [
        # Where the picture's top left corner is shown.
        ((1, 0, 0, 1), (0, 0)),
        ((0, -1, 1, 0), (-1, 0)),
        ((-1, 0, 0, -1), (-1, -1)),
        ((0, 1, -1, 0), (0, -1)),
        ((-1, 0, 0, 1), (0, -1)),
        ((1, 0, 0, -1), (-1, 0)),
        ((0, 1, 1, 0), (0, 0)),
        ((0, -1, -1, 0), (-1, -1)),
    ],
)
def test_display_rotation_is_honoured(
    make_video: VideoMaker, display_matrix: tuple[int, int, int, int], corner: tuple[int, int]
) -> None:
    image = np.zeros((32, 64, 3), np.uint8)
    image[:16, :16] = (0, 0, 255)
    path = make_video("turned.mp4", images=[image] * 2, display_matrix=display_matrix)
    with VideoSource(str(path)) as source:
        frame = next(iter(source))
        assert source.info.size_hw == frame.size_hw
    shown = frame.image_bgr
    assert shown.shape[:2] == ((64, 32) if display_matrix[0] == 0 else (32, 64))
    assert shown[corner][2] > 200
    assert shown[-1 - corner[0], -1 - corner[1]][2] < 50
    assert shown.flags.c_contiguous


@pytest.mark.parametrize(
    ("size_hw", "colorspace", "full_range"),
    [
        ((64, 128), None, False),
        ((64, 128), 5, False),
        ((64, 128), 1, False),
        ((64, 128), 1, True),
        ((64, 128), 5, True),
        ((720, 128), 1, False),
    ],
)
def test_colours_are_right(
    make_video: VideoMaker, size_hw: tuple[int, int], colorspace: int | None, full_range: bool
) -> None:
    path = make_video(
        "chart.mp4",
        images=[chart(size_hw)],
        colorspace=colorspace,
        full_range=full_range,
        options=LOSSLESS,
    )
    assert_shows_chart(read(path)[0].image_bgr)


def test_untagged_hd_is_bt709(make_video: VideoMaker) -> None:
    path = make_video("hd.y4m", images=[chart((720, 128))], colorspace=1, codec="wrapped_avframe")
    with av.open(str(path)) as container:
        assert next(container.decode(video=0)).colorspace == 2, "the test needs an untagged file"
    assert_shows_chart(read(path)[0].image_bgr)


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt"),
    [
        ("ten_bit.mp4", "libx264", "yuv420p10le"),
        ("full_chroma.mp4", "libx264", "yuv444p"),
        ("jpeg.avi", "mjpeg", "yuvj420p"),
        ("rgb.mkv", "ffv1", "bgr0"),
        ("planar_rgb.mkv", "libx264rgb", "bgr24"),
        ("sixteen_bit.mkv", "ffv1", "gbrp16le"),
    ],
)
def test_pixel_formats_give_the_right_colours(
    make_video: VideoMaker, name: str, codec: str, pix_fmt: str
) -> None:
    options = {
        "libx264": LOSSLESS,
        "libx264rgb": LOSSLESS,
        "mjpeg": {"qmin": "1", "qmax": "1", "flags": "+qscale", "global_quality": "118"},
    }.get(codec)
    path = make_video(
        name, images=[chart((64, 128))] * 2, codec=codec, pix_fmt=pix_fmt, options=options
    )
    frame = read(path)[0]
    assert frame.image_bgr.dtype == np.uint8
    assert_shows_chart(frame.image_bgr)


def test_greyscale_video(make_video: VideoMaker) -> None:
    frames = read(make_video("grey.mkv", n_frames=4, codec="ffv1", pix_fmt="gray"))
    assert [frame.image_bgr[0, 0].tolist() for frame in frames] == [
        [16 + 16 * n] * 3 for n in range(4)
    ]


def test_alpha_goes_over_white(make_video: VideoMaker) -> None:
    image = np.zeros((16, 16, 4), np.uint8)
    image[:, 8:] = (0, 0, 255, 128)
    shown = read(make_video("alpha.mov", images=[image], codec="png", pix_fmt="rgba"))[0].image_bgr
    assert shown[0, 0].tolist() == [255, 255, 255]
    assert shown[0, 12].tolist() == [127, 127, 255]


@pytest.mark.parametrize("codec", ["libvpx", "libvpx-vp9"])
def test_alpha_of_webm_goes_over_white(make_video: VideoMaker, codec: str) -> None:
    image = np.zeros((64, 64, 4), np.uint8)
    image[32:] = (0, 0, 255, 255)
    options = {"auto-alt-ref": "0"}  # an encoder of alpha takes nothing else
    path = make_video(
        "alpha.webm", images=[image] * 12, codec=codec, pix_fmt="yuva420p", options=options
    )
    with VideoSource(str(path)) as source:
        first, *rest = source
        source.seek(Fraction(1, 2))
        sought = list(source)
    assert [frame.pts_seconds for frame in (first, *rest)] == [n / 10 for n in range(12)]
    assert sought[-1].pts == rest[-1].pts
    for frame in (first, rest[-1], sought[0], sought[-1]):
        assert (frame.image_bgr[:28].astype(int) > 250).all()
        assert np.abs(frame.image_bgr[40:].astype(int) - (0, 0, 255)).max() < 16


@pytest.mark.parametrize("size_hw", [(49, 65), (1, 1), (2, 3)])
def test_odd_sizes(make_video: VideoMaker, size_hw: tuple[int, int]) -> None:
    path = make_video("odd.mkv", size_hw=size_hw, codec="ffv1", pix_fmt="yuv444p", n_frames=2)
    frames = read(path)
    assert [frame.size_hw for frame in frames] == [size_hw] * 2
    assert [picture_number(frame.image_bgr) for frame in frames] == [0, 1]


def test_size_that_changes_midway_is_passed_on(make_video: VideoMaker, tmp_path: Path) -> None:
    small, large = make_video("a.h264", n_frames=3), make_video("b.h264", size_hw=(96, 128))
    both = tmp_path / "both.h264"
    both.write_bytes(small.read_bytes() + large.read_bytes())
    frames = read(both)
    assert [frame.size_hw for frame in frames] == [(48, 64)] * 3 + [(96, 128)] * 6
    assert all(a.pts < b.pts for a, b in pairwise(frames))


def test_damaged_packets_are_skipped_and_counted(
    make_video: VideoMaker, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    path = make_video("hurt.mp4", n_frames=10, options={"g": "1"})
    with av.open(str(path)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    data = bytearray(path.read_bytes())
    for number in (3, 4, 7):
        start, size = packets[number]
        assert start is not None
        data[start : start + size] = bytes(size)
    path.write_bytes(data)
    with VideoSource(str(path)) as source, caplog.at_level(logging.WARNING):
        frames = list(source)
    assert [round(frame.pts_seconds * 10) for frame in frames] == [0, 1, 2, 5, 6, 8, 9]
    assert source.corrupt_frames == 3
    assert "3 damaged parts" in caplog.text
    assert capfd.readouterr().err == ""


def test_truncated_file_gives_its_frames_and_says_how_much_is_missing(
    make_video: VideoMaker, caplog: pytest.LogCaptureFixture
) -> None:
    path = make_video("cut.mkv", n_frames=60, options={"g": "1"})
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with VideoSource(str(path)) as source, caplog.at_level(logging.WARNING):
        frames = list(source)
    assert 20 <= len(frames) < 60
    assert [picture_number(frame.image_bgr) for frame in frames[:10]] == list(range(10))
    ends = f"its pictures end after {len(frames) / 10:.1f} of 6.0 s"
    assert f"{ends}: it was cut off or is damaged" in caplog.text
    assert source.corrupt_frames >= 1


def test_a_file_that_is_read_in_part_is_not_called_cut_off(
    make_video: VideoMaker, caplog: pytest.LogCaptureFixture
) -> None:
    path = make_video("clip.mp4", n_frames=60)
    with VideoSource(str(path)) as source, caplog.at_level(logging.WARNING):
        frames = iter(source)
        for _ in range(10):
            next(frames)
    with VideoSource(str(path)) as source:
        source.seek(Fraction(3))
        assert list(source)[-1].pts_seconds == pytest.approx(5.9)
    assert not caplog.records
    assert source.corrupt_frames == 0


def test_nothing_decodable_is_an_error(make_video: VideoMaker) -> None:
    path = make_video("noise.mp4", n_frames=5, options={"g": "1"})
    data = path.read_bytes()
    start, end = data.index(b"mdat") + 4, data.index(b"moov")
    path.write_bytes(data[:start] + bytes(end - start) + data[end:])
    with pytest.raises(SourceError, match=r"(no frame can be decoded|can read, or it is damaged)"):
        read(path)


def test_file_without_a_frame_is_an_error(make_video: VideoMaker, tmp_path: Path) -> None:
    path = tmp_path / "none.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        container.start_encoding()
    with pytest.raises(SourceError):
        read(path)


def test_one_frame_file(make_video: VideoMaker) -> None:
    assert len(read(make_video("one.mp4", n_frames=1))) == 1


def test_source_can_be_left_early_and_read_once(make_video: VideoMaker) -> None:
    path = str(make_video("clip.mp4", n_frames=6))
    with VideoSource(path) as source:
        assert next(iter(source)).index == 0
        assert next(iter(source)).index == 1
    assert list(source) == []
    with pytest.raises(ValueError, match="with-statement"):
        _ = VideoSource(path).info


def test_explicit_live_is_kept_for_files(make_video: VideoMaker) -> None:
    path = make_video("clip.mp4", n_frames=6, options={"bf": "2"})
    with VideoSource(str(path), live=True) as source:
        assert source.info.live
        assert [picture_number(frame.image_bgr) for frame in source] == list(range(6))


def test_real_footage(shared_data: Path) -> None:
    with VideoSource(str(shared_data / "car-detection.mp4")) as source:
        assert (source.info.n_frames, source.info.fps) == (377, Fraction(25, 2))
        frames = [(frame.pts, frame.time_base) for frame in source]
    assert frames == [(2000 * index, Fraction(1, 25000)) for index in range(377)]
    with VideoSource(str(shared_data / "book.mkv")) as source:
        assert source.info.n_frames is None
        assert sum(1 for _ in source) == 109


@given(st.lists(st.none() | st.integers(-(10**9), 10**9), max_size=30))
def test_times_always_increase(stamps: list[int | None]) -> None:
    times = MonotonicTimestamps(Fraction(25))
    given_out = [times.next(pts, Fraction(1, 1000)) for pts in stamps]
    assert all(a < b for a, b in pairwise(given_out))


@given(st.lists(st.integers(-(10**9), 10**9), unique=True, max_size=30))
def test_times_that_increase_are_not_touched(stamps: list[int]) -> None:
    times = MonotonicTimestamps(Fraction(25))
    assert [times.next(pts, Fraction(1, 1000)) for pts in sorted(stamps)] == sorted(stamps)
    assert times.repaired == 0


def test_times_go_on_where_the_clock_was_set_back() -> None:
    times = MonotonicTimestamps(Fraction(25))
    given_out = [times.next(pts, Fraction(1, 1000)) for pts in (0, 40, 90, 0, 50, 80, 80)]
    assert given_out == [0, 40, 90, 130, 180, 210, 211]
    assert times.repaired == 2


def believed(stamps: list[int | None], *, is_damaged: bool = False) -> list[int | None]:
    """At 25 pictures a second, in ms."""
    picture = av.VideoFrame(16, 16, "yuv420p")
    timed = [(picture, pts) for pts in stamps]
    found = without_wild_timestamps(timed, Fraction(25), Fraction(1, 1000), lambda: is_damaged)
    return [pts for _, pts in found]


@pytest.mark.parametrize(
    ("stamps", "expected"),
    [
        # Wild, one or some in a row: ahead, back, both.
        ([0, 40, 86_000_000, 120, 160], [0, 40, None, 120, 160]),
        ([1000, 1040, 3, 1120, 1160], [1000, 1040, None, 1120, 1160]),
        ([1000, 90_000, 5, None, 1160, 1200], [1000, None, None, None, 1160, 1200]),
        ([0, 40, None, 120], [0, 40, None, 120]),
        # Two recordings joined, and a pause in one: the following times go on from there.
        ([5000, 5040, *range(0, 400, 40)], [5000, 5040, *range(0, 400, 40)]),
        ([0, 40, *range(60_000, 60_400, 40)], [0, 40, *range(60_000, 60_400, 40)]),
        # A picture every ten seconds.
        (list(range(0, 300_000, 10_000)), list(range(0, 300_000, 10_000))),
        # A little back, as where times are rounded, is for `MonotonicTimestamps`.
        ([0, 40, 39, 80], [0, 40, 39, 80]),
    ],
)
def test_wild_times_are_not_believed(stamps: list[int | None], expected: list[int | None]) -> None:
    assert believed(stamps) == expected


def test_jump_at_the_end_is_believed_of_a_file_without_damage() -> None:
    assert believed([0, 40, 60_000, 60_040]) == [0, 40, 60_000, 60_040]
    assert believed([0, 40, 60_000, 60_040], is_damaged=True) == [0, 40, None, None]


def test_times_of_a_damaged_time_lapse_are_believed() -> None:
    picture = av.VideoFrame(16, 16, "yuv420p")
    stamps = [0, 10_000, 17_000, 40_000, 50_000]
    timed = [(picture, pts) for pts in stamps]
    found = without_wild_timestamps(timed, Fraction(1, 10), Fraction(1, 1000), lambda: True)
    assert [pts for _, pts in found] == stamps


@given(st.lists(st.none() | st.integers(-(10**9), 10**9), max_size=40), st.booleans())
def test_no_picture_is_lost_for_its_time(stamps: list[int | None], is_damaged: bool) -> None:
    given_out = believed(stamps, is_damaged=is_damaged)
    assert len(given_out) == len(stamps)
    assert all(got in (None, said) for got, said in zip(given_out, stamps, strict=True))


def test_writer_of_the_tests_tells_pictures_apart(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", images=[numbered_picture(5, (48, 64))])
    assert picture_number(read(path)[0].image_bgr) == 5
