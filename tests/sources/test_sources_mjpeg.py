"""Pictures are found in a stream of bytes wherever it is cut and whatever stands between them."""

from __future__ import annotations

import io
import struct
from itertools import cycle, pairwise

import cv2
import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from stream_cam.sources.mjpeg import PictureSplitter


def drawn(number: int, size: tuple[int, int] = (24, 16)) -> Image.Image:
    noise = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), np.uint8)
    return Image.fromarray(cv2.GaussianBlur(noise, (5, 5), 0))


def saved(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def with_thumbnail(number: int) -> bytes:
    """A JPEG whose EXIF segment holds another whole JPEG, as cameras write it."""
    jpeg, small = saved(drawn(number)), saved(drawn(number + 1, (16, 8)))
    app1 = b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0" + small
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(app1) + 2) + app1 + jpeg[2:]


JPEGS = {
    "baseline": saved(drawn(1)),
    "progressive": saved(drawn(2, (40, 24)), progressive=True),
    "restart markers": saved(drawn(3), restart_marker_blocks=1),
    "grey": saved(drawn(4).convert("L")),
    "thumbnail": with_thumbnail(5),
    "fill bytes": saved(drawn(6)).replace(b"\xff\xda", b"\xff\xff\xff\xda").replace(
        b"\xff\xd9", b"\xff\xff\xd9"
    ),
}  # fmt: skip
PNGS = {"png": saved(drawn(7), "PNG"), "png with jpeg marks": saved(drawn(8), "PNG", exif=b"x" * 9)}
NAMED = {**JPEGS, **PNGS}
PICTURES = list(NAMED.values())
BETWEEN = [
    b"",
    b"\r\n--frame\r\nContent-Type: image/jpg\r\nContent-Length: 7\r\n\r\n",
    b"\0\xff\xd9\xff\0\xff",
    b"\x89PNG\r\n",
    b"--\xff\xd8",
]


def split(
    data: bytes, *cuts: int, most_bytes: int = 1 << 20
) -> tuple[list[bytes], PictureSplitter]:
    splitter = PictureSplitter(most_bytes)
    places = [0, *sorted(cuts), len(data)]
    return [p for a, b in pairwise(places) for p in splitter.feed(data[a:b])], splitter


def test_test_pictures_hold_the_hard_cases() -> None:
    assert any(b"\xff\x00" in jpeg for jpeg in JPEGS.values())
    assert b"\xff\xd0" in JPEGS["restart markers"]
    assert JPEGS["progressive"].count(b"\xff\xda") > 2
    assert JPEGS["thumbnail"].count(b"\xff\xd9") == 2


def test_every_picture_is_found_wherever_the_bytes_are_cut() -> None:
    data = b"".join(between + picture for picture, between in zip(PICTURES, cycle(BETWEEN)))
    for cut in range(len(data) + 1):
        pictures, splitter = split(data, cut)
        assert pictures == PICTURES
        assert splitter.skipped_bytes + sum(map(len, pictures)) == len(data)


def test_byte_by_byte() -> None:
    data = b"".join(PICTURES)
    assert split(data, *range(1, len(data)))[0] == PICTURES


@given(
    st.lists(st.tuples(st.binary(max_size=40), st.sampled_from(PICTURES)), max_size=5),
    st.lists(st.integers(0, 20_000), max_size=6),
)
def test_random_bytes_between_pictures(parts: list[tuple[bytes, bytes]], cuts: list[int]) -> None:
    parts = [(junk.replace(b"\xff\xd8", b"").replace(b"\x89PNG", b""), p) for junk, p in parts]
    data = b"".join(junk + picture for junk, picture in parts)
    pictures, _ = split(data, *(min(cut, len(data)) for cut in cuts))
    assert pictures == [picture for _, picture in parts]


@given(st.binary(max_size=300), st.sampled_from(PICTURES), st.data())
def test_any_bytes_at_all_raise_nothing_and_fit_their_bound(
    junk: bytes, picture: bytes, data: st.DataObject
) -> None:
    cut = data.draw(st.integers(0, len(picture)))
    stream = b"\xff\xd8\xff" + junk + picture[:cut] + junk
    pictures, splitter = split(stream, most_bytes=200)
    assert all(p[:2] in (b"\xff\xd8", b"\x89P") for p in pictures)
    assert len(splitter._buffer) <= 200 + len(stream)


@given(st.sampled_from(sorted(NAMED)), st.sampled_from(sorted(NAMED)), st.data())
def test_picture_that_is_cut_off_costs_no_other(
    cut_off_name: str, whole_name: str, data: st.DataObject
) -> None:
    """The next ones may be lost where the cut lies in a length, which is 64 KiB at most."""
    cut_off, whole = NAMED[cut_off_name], NAMED[whole_name]
    cut = data.draw(st.integers(0, len(cut_off) - 1))
    following = [whole] * (140_000 // len(whole))
    pictures, splitter = split(cut_off[:cut] + b"".join(following))
    assert whole in pictures
    assert pictures[-1] == whole
    assert splitter.pictures == len(pictures)


def test_cut_in_the_coded_data_loses_only_that_picture() -> None:
    jpeg = JPEGS["baseline"]
    for cut in range(jpeg.index(b"\xff\xda") + 14, len(jpeg) - 2):
        pictures, splitter = split(jpeg[:cut] + jpeg + jpeg)
        assert pictures == [jpeg, jpeg]
        assert splitter.broken == 1


def test_thumbnail_of_a_damaged_picture_is_not_taken_for_the_next() -> None:
    damaged, whole = bytearray(JPEGS["thumbnail"]), JPEGS["baseline"]
    scan = damaged.rindex(b"\xff\xda")
    damaged[scan:] = b"\xff\xda\0\x0cgarbage that is no scan header\xff\xc4\0\x04ab--"
    assert split(bytes(damaged) + whole)[0] == [whole]


def test_jpeg_without_coded_data_is_none() -> None:
    assert split(b"\xff\xd8\xff\xd9" + PICTURES[0])[0] == [PICTURES[0]]


def test_picture_that_never_ends_is_given_up_within_the_bound() -> None:
    splitter = PictureSplitter(10_000)
    head = JPEGS["baseline"][:-2]
    for _ in range(100):
        assert not list(splitter.feed(head.replace(b"\xff\xd8\xff", b"\xff\0\0") if _ else head))
        assert len(splitter._buffer) <= 10_000 + len(head)
    assert splitter.broken >= 1
    assert list(splitter.feed(b"\r\n" + PICTURES[0])) == [PICTURES[0]]


def test_lead_holds_the_bytes_before_the_first_picture() -> None:
    header = b"--b\r\nContent-Type: image/webp\r\n\r\n"
    assert split(header + PICTURES[0] + b"--b\r\n" + PICTURES[1])[1].lead == header
    splitter = split(header * 100)[1]
    assert splitter.lead == (header * 100)[:512]
    assert splitter.pictures == 0
