"""A picture that is fetched again and again, from a server that counts the requests."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from itertools import islice

import pytest
from PIL import Image
from support.quirky_server import QuirkyServer
from support.waiting import wait_until

from stream_cam.config import CaptureConfig
from stream_cam.errors import SourceError, UsageError
from stream_cam.sources import open_source
from stream_cam.sources.reconnecting import ReconnectingSource

OK = b"HTTP/1.0 200 OK\r\nContent-Type: image/png\r\n"
CONFIG = CaptureConfig(open_timeout_seconds=5, read_timeout_seconds=5, poll=0.02)


def picture(grey: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (16, 8), (grey, grey, grey)).save(file, "PNG")
    return OK + b"Content-Length: %d\r\n\r\n" % len(file.getvalue()) + file.getvalue()


A, B, C = map(picture, (10, 20, 30))
FAILS = b"HTTP/1.0 503 Busy\r\n\r\n"
CUT = B[:-10]
BROKEN = A.replace(b"IDAT", b"IDxT")


def in_turn(*answers: bytes) -> Callable[[bytes], bytes]:
    """One answer a request; the last one for ever."""
    left = list(answers)
    return lambda request: left.pop(0) if len(left) > 1 else left[0]


def test_picture_that_has_not_changed_is_no_new_frame() -> None:
    with QuirkyServer(in_turn(A, A, A, A, B, B, C), ends=True) as server:
        with open_source(server.url, CONFIG) as source:
            assert isinstance(source, ReconnectingSource)
            assert source.info.live
            assert source.info.fps == 50
            assert not source.info.still
            frames = list(islice(source, 3))
        assert len(server.requests) >= 7
    assert [round(float(frame.image_bgr.mean())) for frame in frames] == [10, 20, 30]
    assert [frame.index for frame in frames] == [0, 1, 2]
    assert source.health.connections == 1


def test_picture_that_never_changes_is_no_silence() -> None:
    """Nothing is given up for want of news; and who asks is told that the camera is there."""
    config = CaptureConfig(poll=0.05, open_timeout_seconds=0.3, read_timeout_seconds=0.3)
    answers = [A] * 20 + [B]
    with QuirkyServer(in_turn(*answers), ends=True) as server:
        with open_source(server.url, config) as source:
            assert isinstance(source, ReconnectingSource)
            wait_until(lambda: len(server.requests) >= 5)
            frames = list(islice(source, 2))
            assert source.outage() is None
        assert len(server.requests) >= 21
    assert [frame.index for frame in frames] == [0, 1]
    assert source.health.connections == 1
    assert (source.health.abandoned_readers, source.health.overtaken) == (0, 0)


@pytest.mark.parametrize("fault", [FAILS, CUT, b""])
def test_fetch_that_fails_heals_like_a_camera(fault: bytes) -> None:
    with (
        QuirkyServer(in_turn(A, fault, A, B), ends=True) as server,
        open_source(server.url, CONFIG) as source,
    ):
        assert isinstance(source, ReconnectingSource)
        frames = list(islice(source, 2))
    assert [round(float(frame.image_bgr.mean())) for frame in frames] == [10, 20]
    assert (source.health.connections, source.health.recoveries) == (2, 1)


def test_damaged_picture_is_counted_and_left_out() -> None:
    with (
        QuirkyServer(in_turn(A, BROKEN, B), ends=True) as server,
        open_source(server.url, CONFIG) as source,
    ):
        frames = list(islice(source, 2))
    assert [frame.index for frame in frames] == [0, 1]
    assert source.corrupt_frames == 1


def test_wait_between_two_fetches_is_ended_at_once() -> None:
    with QuirkyServer(A, ends=True) as server:
        source = open_source(server.url, CaptureConfig(poll=3600))
        assert isinstance(source, ReconnectingSource)
        start = time.monotonic()
        with source:
            frames = iter(source)
            next(frames)
            source.stop()
            assert list(frames) == []
        assert time.monotonic() - start < 5


def test_stream_is_not_polled() -> None:
    stream = b"HTTP/1.0 200 OK\r\nContent-Type: multipart/x-mixed-replace\r\n\r\n--x\r\n"
    with QuirkyServer(stream) as server:
        source = open_source(server.url, CONFIG)
        with pytest.raises(SourceError, match="leave out --poll") as caught:
            source.__enter__()
    assert caught.value.kind == "codec"


@pytest.mark.parametrize("uri", ["0", "demo://shapes", "rtsp://cam/x", "clip.mp4"])
def test_only_pictures_at_a_url_are_polled(uri: str) -> None:
    with pytest.raises(UsageError, match=r"--poll fetches a picture at http:// or https://"):
        open_source(uri, CONFIG)
