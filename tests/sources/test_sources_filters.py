"""Interlaced, HDR and stretched video is shown as it is meant."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt
import pytest
from conftest import VideoMaker
from support.recordings import annotate, times_in

from stream_cam.cli import main
from stream_cam.config import CaptureConfig, Deinterlace
from stream_cam.frame import BgrImage, Colour, Frame
from stream_cam.sources import open_source
from stream_cam.sources.tone_map import HLG, PQ, sdr_table
from stream_cam.sources.trim import TrimmedSource
from stream_cam.sources.video import VideoSource

BT709 = Colour(matrix=1, primaries=1, transfer=1, full_range=False)


def read(path: Path, deinterlace: Deinterlace = "auto") -> list[Frame]:
    with VideoSource(str(path), CaptureConfig(deinterlace=deinterlace)) as source:
        return list(source)


def woven(index: int) -> BgrImage:
    """A white bar on black that moves 6 pixels from one field to the next, top field first."""
    image = np.zeros((96, 160, 3), np.uint8)
    for field in (0, 1):
        left = 8 + 6 * (2 * index + field)
        image[field::2, left : left + 20] = 255
    return image


def combing(image_bgr: BgrImage) -> float:
    """How much every row differs from both of its neighbours in the same direction."""
    rows = image_bgr[..., 1].astype(np.float64)
    above, below = rows[1:-1] - rows[:-2], rows[1:-1] - rows[2:]
    return float(np.sqrt(np.maximum(above * below, 0)).mean())


def write_interlaced(make_video: VideoMaker, name: str, codec: str, flagged: bool = True) -> Path:
    options = {"bf": "2", "g": "6"}
    if flagged:
        options |= {"flags": "+ildct+ilme"} if codec == "mpeg2video" else {"x264-params": "tff=1"}
    return make_video(
        name, images=[woven(index) for index in range(8)], fps=25, codec=codec, options=options
    )


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "libx264"), ("a.mpg", "mpeg2video")])
def test_interlaced_video_has_no_combs(make_video: VideoMaker, name: str, codec: str) -> None:
    path = write_interlaced(make_video, name, codec)
    combed, whole = read(path, "off"), read(path)
    assert min(combing(frame.image_bgr) for frame in combed) > 5
    assert max(combing(frame.image_bgr) for frame in whole) < 1
    # One for each, at the same time: none is lost at either end, and none comes early.
    assert [(frame.pts, frame.time_base, frame.duration) for frame in whole] == [
        (frame.pts, frame.time_base, frame.duration) for frame in combed
    ]
    for before, after in zip(combed, whole, strict=True):
        shift = np.abs(columns(before.image_bgr) - columns(after.image_bgr))
        assert shift < 4


def columns(image_bgr: BgrImage) -> float:
    """Where the bar is, from the left."""
    return float(np.average(np.arange(image_bgr.shape[1]), weights=image_bgr[..., 1].sum(axis=0)))


def test_deinterlacing_can_be_asked_for_where_nothing_is_flagged(make_video: VideoMaker) -> None:
    path = write_interlaced(make_video, "a.mp4", "libx264", flagged=False)
    assert min(combing(frame.image_bgr) for frame in read(path)) > 5
    assert max(combing(frame.image_bgr) for frame in read(path, "on")) < 1


def test_interlaced_pictures_among_others_lose_none(make_video: VideoMaker, tmp_path: Path) -> None:
    plain = write_interlaced(make_video, "a.h264", "libx264", flagged=False)
    flagged = write_interlaced(make_video, "b.h264", "libx264")
    small = make_video("c.h264", n_frames=3, size_hw=(48, 64))
    path = tmp_path / "all.h264"
    path.write_bytes(b"".join(each.read_bytes() for each in (plain, flagged, small, plain)))
    frames = read(path)
    assert [frame.index for frame in frames] == list(range(27))
    assert [frame.size_hw[0] for frame in frames] == [96] * 16 + [48] * 3 + [96] * 8
    combed = [combing(frame.image_bgr) > 5 for frame in frames]
    assert combed == [True] * 8 + [False] * 11 + [True] * 8


def test_a_part_of_an_interlaced_file(make_video: VideoMaker) -> None:
    path = write_interlaced(make_video, "a.mp4", "libx264")
    whole = read(path)
    with TrimmedSource(VideoSource(str(path)), Fraction(5, 25), None, 1) as source:
        part = list(source)
    assert [frame.pts for frame in part] == [frame.pts for frame in whole[5:]]
    assert np.array_equal(part[-1].image_bgr, whole[-1].image_bgr)


def test_interlaced_video_is_turned_as_well(make_video: VideoMaker) -> None:
    images = [woven(index) for index in range(3)]
    options, turn = {"x264-params": "tff=1"}, (0, 1, -1, 0)
    path = make_video("a.mp4", images=images, fps=25, options=options, display_matrix=turn)
    frames = read(path)
    assert [frame.size_hw for frame in frames] == [(160, 96)] * 3
    assert combing(np.ascontiguousarray(frames[1].image_bgr.transpose(1, 0, 2))) < 1


@pytest.mark.parametrize("n_frames", [1, 2])
def test_a_short_interlaced_file(make_video: VideoMaker, n_frames: int) -> None:
    images = [woven(index) for index in range(n_frames)]
    path = make_video("a.mp4", images=images, fps=25, options={"x264-params": "tff=1"})
    assert len(read(path)) == n_frames


def pq(nits: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """The inverse of PQ's EOTF (SMPTE ST 2084)."""
    root = (np.asarray(nits, np.float64) / 10_000) ** 0.1593017578125
    coded: npt.NDArray[np.float64] = (
        (0.8359375 + 18.8515625 * root) / (1 + 18.6875 * root)
    ) ** 78.84375
    return coded


def hlg(nits: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Greys on a display of 1000 cd/m², by the inverse OOTF and the OETF (ITU-R BT.2100)."""
    scene = (np.asarray(nits, np.float64) / 1000) ** (1 / 1.2)
    bright = 0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), bright)


NITS = (0.1, 5.0, 26.0, 100.0, 203.0, 1000.0)


def write_hdr(
    path: Path,
    coded_rgb: Sequence[Sequence[float]],
    transfer: int,
    *,
    full_range: bool = False,
    primaries: int = 9,
    n_frames: int = 3,
) -> Path:
    """Patches 16 pixels wide, of R'G'B' 0..1, as lossless HEVC of 10 bits."""
    width = max(64, 16 * len(coded_rgb))
    rgb = np.repeat(np.array(coded_rgb, np.float64), 16, axis=0)
    rgb = np.concatenate([rgb, np.zeros((width - len(rgb), 3))])
    luma = rgb @ (0.2627, 0.6780, 0.0593)
    blue, red = (rgb[:, 2] - luma) / 1.8814, (rgb[:, 0] - luma) / 1.4746
    scale, offset, chroma = (1023, 0, 1023) if full_range else (876, 64, 896)
    planes = [
        (offset + scale * luma, 64),
        (512 + chroma * blue[::2], 32),
        (512 + chroma * red[::2], 32),
    ]
    with av.open(str(path), "w") as out:
        stream: Any = out.add_stream("libx265", rate=10)
        stream.width, stream.height, stream.pix_fmt = width, 64, "yuv420p10le"
        stream.options = {"x265-params": "log-level=error:lossless=1"}
        codec = stream.codec_context
        codec.color_trc, codec.color_primaries, codec.colorspace = transfer, primaries, 9
        codec.color_range = 2 if full_range else 1
        for index in range(n_frames):
            picture = av.VideoFrame(width, 64, "yuv420p10le")
            picture.color_range = codec.color_range
            for plane, (row, height) in zip(picture.planes, planes, strict=True):
                samples = np.zeros((height, plane.line_size // 2), np.uint16)
                samples[:, : len(row)] = np.clip(np.rint(row), 0, 1023)
                plane.update(samples.tobytes())
            picture.pts, picture.time_base = index, Fraction(1, 10)
            out.mux(stream.encode(picture))
        out.mux(stream.encode(None))
    return path


def patches(path: Path, n: int) -> list[list[int]]:
    """The colours of the first picture's patches, R, G and B."""
    frames = read(path)
    row = frames[0].image_bgr[32, 8 : 16 * n : 16, ::-1].astype(int)
    return row.tolist()  # type: ignore[no-any-return]


@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_hdr_greys_become_those_of_sdr(tmp_path: Path, transfer: int, full_range: bool) -> None:
    greys = (pq if transfer == PQ else hlg)(NITS)
    coded = [[float(value)] * 3 for value in greys]
    path = write_hdr(tmp_path / "a.mp4", coded, transfer, full_range=full_range)
    found = patches(path, len(NITS))
    assert all(max(each) - min(each) <= 1 for each in found)
    *dark, white, peak = (each[1] for each in found)
    assert abs(white - 255) <= 4
    assert peak == 255
    # Darker levels keep their light, on a display of gamma 2.4.
    expected = [255 * (nits / 203) ** (1 / 2.4) for nits in NITS[:4]]
    assert dark == pytest.approx(expected, abs=2)


def test_hdr_colours_are_those_of_sdr(tmp_path: Path) -> None:
    """BT.709's red, green, blue and yellow at 100 cd/m² each, as BT.2020 (ITU-R BT.2087)."""
    to_bt2020 = [[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]]
    colours = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0]])
    coded = pq(100 * colours @ np.array(to_bt2020).T)
    found = patches(write_hdr(tmp_path / "a.mp4", coded.tolist(), PQ), 4)
    light = (np.array(found) / 255) ** 2.4
    # Between two entries of the table the strongest colours are up to five levels off.
    assert np.abs(light - colours * 100 / 203).max() < 0.04


def test_recording_of_hdr_is_sdr_and_says_so(tmp_path: Path) -> None:
    path, out = tmp_path / "a.mp4", tmp_path / "out.mp4"
    white = [[float(pq(203.0))] * 3] * 4
    write_hdr(path, white, PQ)
    times = annotate(path, out)
    with VideoSource(str(out)) as source:
        assert source.info.colour == BT709
        frames = list(source)
    assert np.abs(frames[0].image_bgr[:, :60].astype(int) - 255).max() <= 6
    assert times_in(out) == times


def test_table_keeps_greys_grey_and_hues_in_their_place() -> None:
    for transfer in (PQ, HLG):
        for primaries in (1, 9, 12):
            table = sdr_table(transfer, primaries)
            assert table.dtype == np.float32
            assert table.min() >= 0
            assert table.max() <= 1
            side = round(len(table) ** (1 / 3))
            cube = table.reshape(side, side, side, 3)  # blue, green, red
            grey = cube[range(side), range(side), range(side)]
            assert np.ptp(grey, axis=1).max() < 0.01
            assert (np.diff(grey[:, 1]) >= 0).all()
            assert cube[0, 0, -1].argmax() == 0
            assert cube[-1, 0, 0].argmax() == 2


def quadrants(size_hw: tuple[int, int]) -> BgrImage:
    """Red and green over blue and yellow."""
    image = np.zeros((2, 2, 3), np.uint8)
    image[:] = [[[0, 0, 255], [0, 255, 0]], [[255, 0, 0], [0, 255, 255]]]
    return np.asarray(cv2.resize(image, size_hw[::-1], interpolation=cv2.INTER_NEAREST), np.uint8)


@pytest.mark.parametrize(
    ("aspect", "size_hw"),
    [
        *((Fraction(2), (48, 128)), (Fraction(1, 2), (96, 64)), (Fraction(16, 11), (48, 94))),
        # Rounded by whoever wrote it, or damaged.
        *((Fraction(1), (48, 64)), (Fraction(255, 256), (48, 64)), (Fraction(1, 900), (48, 64))),
    ],
)
def test_pixels_become_square(
    make_video: VideoMaker, tmp_path: Path, aspect: Fraction, size_hw: tuple[int, int]
) -> None:
    path = make_video("a.mp4", images=[quadrants((48, 64))] * 3, pixel_aspect=aspect)
    with VideoSource(str(path)) as source:
        assert source.info.size_hw == size_hw
        frame = next(iter(source))
    assert frame.size_hw == size_hw
    assert np.abs(frame.image_bgr.astype(int) - quadrants(size_hw)).mean() < 12
    out = tmp_path / "out.mp4"
    annotate(path, out)
    with av.open(str(out)) as container:
        video = container.streams.video[0]
        assert (video.height, video.width) == size_hw
        assert video.sample_aspect_ratio in (None, 0, 1)


def test_pixels_of_a_turned_video_become_square(make_video: VideoMaker) -> None:
    path = make_video("a.mp4", pixel_aspect=Fraction(2), display_matrix=(0, 1, -1, 0))
    assert read(path)[0].size_hw == (128, 48)


def test_pixels_may_change_their_shape_midway(make_video: VideoMaker, tmp_path: Path) -> None:
    parts = [
        make_video(f"{n}.h264", n_frames=3, pixel_aspect=Fraction(aspect))
        for n, aspect in enumerate((1, 2))
    ]
    path = tmp_path / "both.h264"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    assert [frame.size_hw for frame in read(path)] == [(48, 64)] * 3 + [(48, 128)] * 3


def test_pictures_of_stretched_video_have_the_shape_that_is_shown(
    make_video: VideoMaker, tmp_path: Path, tiny: Path
) -> None:
    path = make_video("a.mp4", n_frames=2, pixel_aspect=Fraction(2))
    folder = tmp_path / "frames"
    command = ["run", str(path), f"{folder}/", "--weights", str(tiny), "--engine", "eager"]
    assert main([*command, "--input-size", "64", "--quiet"]) == 0
    with open_source(str(folder)) as source:
        assert [frame.size_hw for frame in source] == [(48, 128)] * 2
