"""Encoded pictures: every format, orientation, depth and page becomes the same upright picture."""

import io
import struct
import sys
import zlib
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps
from support.encoded_images import encoded, quadrants, with_orientation

from stream_cam.errors import SourceError
from stream_cam.frame import BgrImage
from stream_cam.sources.paths import is_picture
from stream_cam.sources.pictures import decode_pages, decode_picture, to_bgr8
from stream_cam.sources.video import VideoSource

ORIENTATIONS = range(1, 9)
LOSSY = 6  # levels that JPEG, AVIF and HEIC change a plain colour by, at most


def as_pillow_shows(data: bytes) -> BgrImage:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))[:, :, ::-1].copy()


def turned(orientation: int) -> BgrImage:
    """The quadrants, from the definition of each orientation (EXIF 2.3, tag 274)."""
    image = quadrants()
    image = image.transpose(1, 0, 2) if orientation > 4 else image
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    return image.copy()


def assert_alike(shown: BgrImage, expected: npt.NDArray[Any]) -> None:
    assert shown.shape == expected.shape
    assert np.median(np.abs(shown.astype(int) - expected)) <= LOSSY
    height, width = shown.shape[:2]
    for y, x in ((4, 4), (4, width - 5), (height - 5, 4), (height - 5, width - 5)):
        assert np.abs(shown[y, x].astype(int) - expected[y, x]).max() <= LOSSY


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIF"])
def test_every_format_is_turned_once(form: str, orientation: int) -> None:
    data = with_orientation(form, orientation, quality=95)
    shown = decode_picture(data, "it")
    assert_alike(shown, as_pillow_shows(data))
    assert_alike(shown, turned(orientation))
    assert shown.flags.c_contiguous


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_deep_pictures_are_turned_once(suffix: str, orientation: int) -> None:
    """OpenCV turns a TIFF by itself, and a PNG not."""
    deep = quadrants().astype(np.uint16) * 257
    data = cv2.imencode(suffix, deep)[1].tobytes()
    exif = Image.Exif()
    exif[0x0112] = orientation
    if suffix == ".png":
        block = exif.tobytes()[6:]
        data = data[:33] + png_chunk(b"eXIf", block) + data[33:]
    else:
        data = tiff_with_orientation(data, orientation)
    assert (decode_picture(data, "it") == turned(orientation)).all()


def png_chunk(kind: bytes, block: bytes) -> bytes:
    return (
        struct.pack(">I", len(block)) + kind + block + struct.pack(">I", zlib.crc32(kind + block))
    )


def tiff_with_orientation(data: bytes, orientation: int) -> bytes:
    """A little-endian TIFF of one page with an orientation in a directory at its end."""
    (start,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, start)
    entries = [data[start + 2 + 12 * at : start + 14 + 12 * at] for at in range(count)]
    entries.append(struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0))
    entries.sort(key=lambda entry: struct.unpack_from("<H", entry)[0])
    data += b"\0" * (len(data) % 2)
    directory = struct.pack("<H", len(entries)) + b"".join(entries) + b"\0\0\0\0"
    return data[:4] + struct.pack("<I", len(data)) + data[8:] + directory


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_pictures_beyond_pillows_limit_are_read(
    monkeypatch: pytest.MonkeyPatch, form: str, tmp_path: Path
) -> None:
    """Cameras of 200 megapixels: Pillow takes them for an attack, and OpenCV reads them."""
    data = with_orientation(form, 6, quality=95)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert_alike(decode_picture(data, "it"), turned(6))
    (tmp_path / "it").write_bytes(data)
    assert is_picture(str(tmp_path / "it"))


def test_exif_that_lies_late() -> None:
    """WebP keeps it behind the picture, beyond the first MiB."""
    noise = np.random.default_rng(0).integers(0, 256, (640, 640, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(Image.fromarray(noise[:600]), "WEBP", lossless=True, method=0, exif=exif)
    assert data.find(b"EXIF\x1a") > 1 << 20
    assert decode_picture(data, "it").shape == (640, 600, 3)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_motion_jpeg_is_turned_once(tmp_path: Path, orientation: int) -> None:
    """FFmpeg attaches EXIF as side data of a kind that PyAV does not list."""
    path = tmp_path / "clip.avi"
    jpeg = with_orientation("JPEG", orientation, quality=95)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=10)
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width, stream.pix_fmt = 32, 48, "yuvj420p"
        for pts in range(3):
            packet = av.Packet(jpeg)
            packet.stream, packet.pts, packet.dts = stream, pts, pts
            packet.time_base = Fraction(1, 10)
            container.mux(packet)
    with VideoSource(str(path)) as source:
        frames = list(source)
    assert len(frames) == 3
    for frame in frames:
        assert_alike(frame.image_bgr, turned(orientation))


@given(
    st.binary(max_size=200),
    st.sampled_from([b"", b"II*\0", b"MM\0*", b"\xff\xd8\xff\xe1", b"RIFF"]),
)
def test_any_bytes_are_a_picture_or_an_error_of_ours(data: bytes, start: bytes) -> None:
    try:
        image = decode_picture(start + data, "it")
    except SourceError as error:
        assert "it" in str(error)  # noqa: PT017
    else:
        assert image.dtype == np.uint8


def samples(bits: int, kind: type[Any]) -> npt.NDArray[Any]:
    """A ramp from black to the white of so many bits."""
    return np.linspace(0, 2**bits - 1, 64).round().astype(kind).reshape(8, 8)


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("kind", [np.uint16, np.int32, np.float32, np.float64])
def test_samples_of_fewer_bits_than_their_type(bits: int, kind: type[Any]) -> None:
    ramp = np.linspace(0, 255, 64)
    data = cv2.imencode(".tiff", samples(bits, kind))[1].tobytes()
    shown = decode_picture(data, "it")[:, :, 0].reshape(-1).astype(float)
    assert np.abs(shown - ramp).max() <= 1  # of the ramp's own rounding
    if kind is np.uint16:
        png = cv2.imencode(".png", samples(bits, kind))[1].tobytes()
        assert (decode_picture(png, "it") == decode_picture(data, "it")).all()


def test_samples_of_several_channels_share_one_white() -> None:
    colours = np.stack([samples(12, np.uint16), samples(8, np.uint16), samples(8, np.uint16)], 2)
    for suffix in (".tiff", ".png"):
        shown = decode_picture(cv2.imencode(suffix, colours)[1].tobytes(), "it")
        assert shown.max(axis=(0, 1)).tolist() == [255, 16, 16]


def test_floats_from_0_to_1_keep_their_white() -> None:
    image = np.array([[0.0, 0.25, 0.5, 0.75]], np.float32)
    assert to_bgr8(image)[0, :, 0].tolist() == [0, 64, 128, 191]
    highlight = np.array([[0.0, 0.5, 0.5, 0.5, 80.0]], np.float32)
    assert to_bgr8(highlight)[0, :, 0].tolist() == [0, 128, 128, 128, 255]


def transparent(form: str) -> bytes:
    """One pixel that is not to be seen, in each way that a format can say so."""
    red = Image.new("RGBA", (4, 4), (200, 0, 0, 0))
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 200, 0, 0])
    if form in ("PNG palette", "GIF palette"):
        return encoded(palette, form[:3], transparency=1)
    if form == "PNG grey key":
        return encoded(Image.new("L", (4, 4), 7), "PNG", transparency=7)
    if form == "PNG colour key":
        return encoded(Image.new("RGB", (4, 4), (7, 8, 9)), "PNG", transparency=(7, 8, 9))
    if form.endswith("grey"):
        return encoded(Image.new("LA", (4, 4), (200, 0)), form.split()[0])
    return encoded(red, form)


@pytest.mark.parametrize(
    "form",
    [
        *("PNG", "WEBP", "TIFF", "AVIF", "HEIF", "JPEG2000", "PNG palette", "GIF palette"),
        *("PNG grey key", "PNG colour key", "PNG grey", "TIFF grey"),
    ],
)
def test_transparency_is_white(form: str) -> None:
    assert decode_picture(transparent(form), "it").min() == 255


def test_half_transparent_tiff_is_not_darkened() -> None:
    data = encoded(Image.new("RGBA", (4, 4), (200, 100, 0, 128)), "TIFF")
    assert decode_picture(data, "it")[0, 0].tolist() == [127, 177, 227]


def test_heic_of_tiles_is_one_picture() -> None:
    """Its tiles are pictures of their own in the file, and none of them is shown."""
    whole = Image.fromarray(quadrants((256, 256))[:, :, ::-1])
    data = encoded(whole, "HEIF", tile_size=128)
    assert b"grid" in data
    assert_alike(decode_picture(data, "it"), quadrants((256, 256)))
    assert len(list(decode_pages(data, "it"))) == 1


def test_tile_is_not_shown_as_the_picture(tmp_path: Path) -> None:
    """FFmpeg gives each tile as a video; where Pillow is not asked, none of them is shown."""
    path = tmp_path / "photo.mov"
    path.write_bytes(encoded(Image.new("RGB", (256, 256)), "HEIF", tile_size=128))
    with pytest.raises(SourceError, match="a picture of several tiles"):
        VideoSource(str(path)).__enter__()


def test_heic_without_its_reader_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(SourceError, match=r"pip install 'stream-cam\[heif\]'"):
        decode_picture(with_orientation("HEIF", 1), "a.heic")
