"""A picture on a web server is the picture that its file is, whatever the server says it is."""

from __future__ import annotations

from itertools import islice

import pytest
from PIL import Image
from support.encoded_images import encoded, pages, with_orientation
from support.quirky_server import QuirkyServer

from stream_cam.config import CaptureConfig
from stream_cam.frame import Frame
from stream_cam.sources import SourceInfo, open_source
from stream_cam.sources.pictures import decode_picture

CONFIG = CaptureConfig(open_timeout_seconds=5, read_timeout_seconds=5)


def served(data: bytes, kind: str = "application/octet-stream") -> tuple[SourceInfo, list[Frame]]:
    head = f"HTTP/1.0 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len(data)}\r\n\r\n"
    with (
        QuirkyServer(head.encode() + data) as server,
        open_source(server.url, CONFIG) as source,
    ):
        return source.info, list(islice(source, 4))  # it ends before


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIF"])
def test_every_format_is_turned_once(form: str, orientation: int) -> None:
    data = with_orientation(form, orientation)
    for kind in (f"image/{form.lower()}", "application/octet-stream"):
        info, (frame,) = served(data, kind)
        assert (info.still, info.live, info.n_frames) == (True, False, 1)
        assert frame.size_hw == ((32, 48) if orientation < 5 else (48, 32))
        assert (frame.image_bgr == decode_picture(data, "file")).all()


def test_heic_of_tiles_is_one_picture() -> None:
    _, (frame,) = served(encoded(Image.new("RGB", (256, 192)), "HEIF", tile_size=64))
    assert frame.size_hw == (192, 256)


@pytest.mark.parametrize("form", ["PNG", "WEBP", "AVIF", "TIFF", "GIF"])
def test_every_page_comes(form: str) -> None:
    info, frames = served(pages(form, duration=[100, 300, 200]), f"image/{form.lower()}")
    assert info.still == (form == "TIFF")
    assert [int(frame.image_bgr[2, 2].argmax()) for frame in frames] == [2, 1, 0]
