import logging
import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from support.encoded_images import pages

from stream_cam.config import CaptureConfig
from stream_cam.errors import SourceError
from stream_cam.frame import BgrImage, Frame
from stream_cam.sources import open_source
from stream_cam.sources.images import ImagesSource
from stream_cam.sources.orientation import upright
from stream_cam.sources.paths import natural_key
from stream_cam.sources.pictures import decode_picture, to_bgr8


def save(path: Path, image: npt.NDArray[Any]) -> Path:
    assert cv2.imwrite(str(path), image)
    return path


def corner_picture(size_hw: tuple[int, int] = (16, 32)) -> BgrImage:
    """Black, with a red top left corner."""
    image = np.zeros((*size_hw, 3), np.uint8)
    image[:8, :8] = (0, 0, 255)
    return image


def with_exif(jpeg: bytes, orientation: int, order: str) -> bytes:
    """A JPEG with an EXIF block that holds the orientation alone."""
    magic = b"II*\0" if order == "<" else b"MM\0*"
    tiff = magic + struct.pack(order + "IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)
    block = b"Exif\0\0" + tiff
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + jpeg[2:]


def read(place: Path) -> list[Frame]:
    with open_source(str(place), CaptureConfig()) as source:
        return list(source)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp", ".tiff", ".ppm"])
def test_formats(tmp_path: Path, suffix: str) -> None:
    image = np.full((20, 30, 3), (200, 100, 50), np.uint8)
    frame = read(save(tmp_path / f"a{suffix}", image))[0]
    assert frame.name == f"a{suffix}"
    assert np.abs(frame.image_bgr.astype(int) - image).max() <= 3  # JPEG and WebP lose a little


def test_one_picture_is_still_and_has_no_rate(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", corner_picture())
    with ImagesSource(str(path)) as source:
        info = source.info
        frames = list(source)
    assert (info.still, info.fps, info.n_frames, info.live) == (True, None, 1, False)
    assert info.size_hw == (16, 32)
    assert [(frame.pts, frame.time_base) for frame in frames] == [(0, Fraction(1))]


def test_folder_and_glob_are_read_in_the_order_in_which_people_count(tmp_path: Path) -> None:
    for number in (10, 9, 1, 2):
        save(tmp_path / f"shot{number}.png", np.full((4, 4, 3), number, np.uint8))
    save(tmp_path / ".hidden.png", corner_picture())
    (tmp_path / "notes.txt").write_text("no picture")
    for place in (tmp_path, tmp_path / "*.png"):
        frames = read(place)
        assert [frame.image_bgr[0, 0, 0] for frame in frames] == [1, 2, 9, 10]
        assert [frame.pts_seconds for frame in frames] == [0, 1, 2, 3]
        assert frames[2].name == "shot9.png"


def test_greyscale(tmp_path: Path) -> None:
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    image = read(save(tmp_path / "grey.png", grey))[0].image_bgr
    assert image.shape == (16, 16, 3)
    assert (image == grey[:, :, None]).all()


def test_sixteen_bit(tmp_path: Path) -> None:
    deep = np.array([[0, 128, 129, 257 * 100, 65535 - 129, 65535]], np.uint16)
    for name, image in (("grey.png", deep), ("colour.tiff", np.repeat(deep[:, :, None], 3, 2))):
        shown = read(save(tmp_path / name, image))[0].image_bgr
        assert shown.dtype == np.uint8
        assert shown[0, :, 1].tolist() == [0, 0, 1, 100, 254, 255]


def test_alpha_goes_over_white(tmp_path: Path) -> None:
    image = np.zeros((1, 3, 4), np.uint8)
    image[0, 1] = (255, 0, 0, 255)
    image[0, 2] = (0, 0, 200, 51)
    for name in ("a.png", "a.tiff"):
        shown = read(save(tmp_path / name, image))[0].image_bgr
        assert shown.tolist() == [[[255, 255, 255], [255, 0, 0], [204, 204, 244]]]
    deep = image.astype(np.uint16) * 257
    assert read(save(tmp_path / "deep.png", deep))[0].image_bgr.tolist() == shown.tolist()


def test_float_pictures_with_nan() -> None:
    image = np.array([[0.0, 0.5, 1.0, 2.0, -1.0, np.nan, np.inf]], np.float32)
    assert to_bgr8(image)[0, :, 0].tolist() == [0, 128, 255, 255, 0, 0, 255]


@pytest.mark.parametrize("size_hw", [(1, 1), (1, 7), (6000, 8000)])
def test_smallest_and_largest(tmp_path: Path, size_hw: tuple[int, int]) -> None:
    image = np.full((*size_hw, 3), 77, np.uint8)
    frame = read(save(tmp_path / "a.bmp", image))[0]
    assert frame.size_hw == size_hw
    assert frame.image_bgr.min() == frame.image_bgr.max() == 77


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_honoured(tmp_path: Path, orientation: int, order: str) -> None:
    path = save(tmp_path / "a.jpg", corner_picture())
    path.write_bytes(with_exif(path.read_bytes(), orientation, order))
    shown = read(path)[0].image_bgr
    assert (shown == cv2.imread(str(path), cv2.IMREAD_COLOR)).all()
    assert shown.shape == ((16, 32, 3) if orientation < 5 else (32, 16, 3))
    assert shown.flags.c_contiguous


@given(st.integers(1, 8), st.integers(1, 5), st.integers(1, 5))
def test_upright_keeps_every_pixel(orientation: int, height: int, width: int) -> None:
    image = np.arange(height * width * 3, dtype=np.uint8).reshape(height, width, 3)
    turned = upright(image, orientation)
    assert sorted(turned.reshape(-1, 3).tolist()) == image.reshape(-1, 3).tolist()


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_truncated_picture(tmp_path: Path, suffix: str, capfd: pytest.CaptureFixture[str]) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    path = save(tmp_path / f"a{suffix}", noise)
    path.write_bytes(path.read_bytes()[:-900])
    with pytest.raises(SourceError, match="is truncated"):
        read(path)
    assert capfd.readouterr().err == ""


def test_a_film_behind_a_picture_and_a_thumbnail_in_it_are_not_looked_into(tmp_path: Path) -> None:
    """Phones append an MP4 to a JPEG, in which any two bytes occur."""
    path = save(tmp_path / "a.MP.jpg", corner_picture())
    jpeg = with_exif(path.read_bytes(), 1, "<")
    for film in (b"\xff\xda and no end", b"\xff\xd9\xff\xda"):
        path.write_bytes(jpeg + film)
        assert decode_picture(path.read_bytes(), str(path)).shape == (16, 32, 3)
    thumbnail = b"\xff\xd8\xff\xda\xff\xd9"
    block = b"\xff\xe2" + struct.pack(">H", len(thumbnail) + 2) + thumbnail
    whole = jpeg[:2] + block + jpeg[2:]
    path.write_bytes(whole)
    assert decode_picture(path.read_bytes(), str(path)).shape == (16, 32, 3)
    path.write_bytes(whole[:-20])
    with pytest.raises(SourceError, match="is truncated"):
        decode_picture(path.read_bytes(), str(path))
    path.write_bytes(whole[:200])  # before its coded picture begins
    with pytest.raises(SourceError, match="is truncated"):
        decode_picture(path.read_bytes(), str(path))


@pytest.mark.parametrize("start", [b"", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"BM", b"II*\0"])
def test_picture_that_is_none(
    tmp_path: Path, start: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(start + b"no picture at all " * 20)
    with pytest.raises(SourceError) as caught:
        read(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


def test_broken_picture_among_several_is_skipped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a.png", "c.png"):
        save(tmp_path / name, corner_picture())
    (tmp_path / "b.png").write_bytes(b"broken")
    (tmp_path / "d.png").touch()
    with ImagesSource(str(tmp_path)) as source, caplog.at_level(logging.WARNING):
        assert [frame.name for frame in source] == ["a.png", "c.png"]
    assert source.corrupt_frames == 2
    assert "b.png" in caplog.text
    assert "d.png" in caplog.text


def assert_red_green_blue(frames: list[Frame]) -> None:
    assert [int(frame.image_bgr[2, 2].argmax()) for frame in frames] == [2, 1, 0]


def test_every_page_of_a_tiff_is_a_picture(tmp_path: Path) -> None:
    path = tmp_path / "scan.tif"
    path.write_bytes(pages("TIFF"))
    with ImagesSource(str(path)) as source:
        assert (source.info.n_frames, source.info.still) == (3, True)
        frames = list(source)
    assert_red_green_blue(frames)
    assert [frame.name for frame in frames] == ["scan.tif#1", "scan.tif#2", "scan.tif#3"]
    assert [frame.pts_seconds for frame in frames] == [0, 1, 2]


def test_every_page_of_a_deep_tiff_is_a_picture(tmp_path: Path) -> None:
    deep = [np.full((4, 6, 3), level, np.uint16) for level in (0, 257 * 100, 65535)]
    floats = [np.full((4, 6, 3), level, np.float32) for level in (0, 100 / 255, 1)]
    for images in (deep, floats):
        assert cv2.imwritemulti(str(tmp_path / "a.tif"), images)
        assert [frame.image_bgr[0, 0, 0] for frame in read(tmp_path / "a.tif")] == [0, 100, 255]


def test_smaller_copies_in_a_tiff_are_no_pages(tmp_path: Path) -> None:
    whole, smaller = Image.new("RGB", (6, 4)), Image.new("RGB", (3, 2))
    smaller.encoderinfo = {"tiffinfo": {254: 1}}
    whole.save(tmp_path / "a.tif", save_all=True, append_images=[smaller])
    with Image.open(tmp_path / "a.tif") as image:
        assert getattr(image, "n_frames", 0) == 2
    (frame,) = read(tmp_path / "a.tif")
    assert (frame.size_hw, frame.name) == ((4, 6), "a.tif")


@pytest.mark.parametrize("suffix", [".png", ".webp", ".avif", ".gif"])
def test_animation_has_its_own_times(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(pages(suffix[1:].upper(), duration=[100, 300, 200]))
    with open_source(str(path)) as source:
        assert (source.info.n_frames, source.info.still) == (3, False)
        frames = list(source)
    assert_red_green_blue(frames)
    assert [frame.pts * frame.time_base for frame in frames] == [0, Fraction(1, 10), Fraction(2, 5)]
    last = frames[-1]
    assert last.duration * last.time_base == Fraction(1, 5)
    assert last.name is None


def test_folder_gives_every_picture_that_can_be_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    red = Image.new("RGB", (6, 4), "red")
    for name in ("a.heic", "b.avif", "d.jpg"):
        red.save(tmp_path / name)
    (tmp_path / "c.gif").write_bytes(pages("GIF", duration=100))
    (tmp_path / "d.jpg").rename(tmp_path / "d")
    (tmp_path / "b.avif").rename(tmp_path / "b.orig")
    with caplog.at_level(logging.WARNING):
        names = [frame.name for frame in read(tmp_path)]
    assert names == ["a.heic", "b.orig", "c.gif#1", "c.gif#2", "c.gif#3", "d"]
    assert caplog.text == ""


def test_folder_names_the_files_that_it_leaves_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a.png", "sub/b.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        save(tmp_path / name, corner_picture())
    for name in ("a.txt", "b.txt", "c.mp4", "d"):
        (tmp_path / name).write_text("P is no picture")
    with caplog.at_level(logging.WARNING):
        assert [frame.name for frame in read(tmp_path)] == ["a.png"]
    assert "no pictures: 2 .txt, 1 .mp4, 1 without a suffix; not entered: 1 folder" in caplog.text
    everything = tmp_path / "**"
    assert f"give '{everything}'" in caplog.text
    assert [frame.name for frame in read(everything)] == ["a.png", "sub/b.png"]


def test_damaged_page_is_left_out_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(pages("TIFF", compression="tiff_lzw"))
    data = bytearray(path.read_bytes())
    with Image.open(path) as image:
        image.seek(2)
        (start,) = image.tag_v2[273]  # type: ignore[attr-defined]
    data[start : start + 8] = b"\xff" * 8
    path.write_bytes(data)
    with ImagesSource(str(path)) as source, caplog.at_level(logging.WARNING):
        assert len(list(source)) == 2
    assert source.corrupt_frames == 1
    assert "a.tif is not a picture that can be decoded, or it is damaged" in caplog.text


def test_several_pictures_all_broken(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b"broken")
    with pytest.raises(SourceError, match="none of the 2 pictures"):
        read(tmp_path)


def test_sizes_may_differ(tmp_path: Path) -> None:
    save(tmp_path / "a.png", np.zeros((4, 6, 3), np.uint8))
    save(tmp_path / "b.png", np.zeros((7, 3, 3), np.uint8))
    assert [frame.size_hw for frame in read(tmp_path)] == [(4, 6), (7, 3)]


def test_real_photographs_are_read_as_opencv_does(shared_data: Path) -> None:
    for path in sorted(shared_data.glob("*.jpg")):
        assert (decode_picture(path.read_bytes(), str(path)) == cv2.imread(str(path))).all()


def test_natural_key() -> None:
    names = ["b1", "a10", "A2", "a1b10", "a1b9", "1", "a"]
    assert sorted(names, key=natural_key) == ["1", "a", "a1b9", "a1b10", "A2", "a10", "b1"]
