"""Cameras that send pictures one after the other, each in its own way, over real sockets."""

from __future__ import annotations

import base64
import io
import re
import shutil
import ssl
import subprocess
import threading
import time
from hashlib import md5
from itertools import islice, pairwise
from pathlib import Path
from urllib.request import parse_http_list, parse_keqv_list

import numpy as np
import pytest
from conftest import VideoMaker
from PIL import Image, ImageOps
from support.quirky_server import QuirkyServer
from support.videos import picture_number

from stream_cam.config import CaptureConfig
from stream_cam.errors import SourceError, SourceErrorKind, SourceNotFoundError
from stream_cam.sources import open_source
from stream_cam.sources.network import NetworkSource

CONFIG = CaptureConfig(open_timeout_seconds=5, read_timeout_seconds=5)
IMPATIENT = CaptureConfig(open_timeout_seconds=0.3, read_timeout_seconds=0.3, give_up_after=1)
GREYS = (40, 90, 140, 190)
OK = b"HTTP/1.0 200 OK\r\n"
MULTIPART = OK + b"Content-Type: multipart/x-mixed-replace; boundary=frame\r\n\r\n"
JPEG_PART = b"--frame\r\nContent-Type: image/jpeg\r\n\r\n"


def encoded(grey: int, kind: str = "JPEG", orientation: int = 1) -> bytes:
    image = Image.new("RGB", (32, 16), (grey, grey, grey))
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(file, kind, exif=exif)
    return file.getvalue()


JPEGS = [encoded(grey) for grey in GREYS]
PNGS = [encoded(grey, "PNG") for grey in GREYS]


def parts(head: bytes, pictures: list[bytes] = JPEGS, tail: bytes = b"\r\n") -> bytes:
    return b"".join(head.replace(b"LEN", b"%d" % len(each)) + each + tail for each in pictures)


def chunked(data: bytes) -> bytes:
    head = OK.replace(b"1.0", b"1.1") + b"Content-Type: multipart/x-mixed-replace\r\n"
    pieces = [data[at : at + 100] for at in range(0, len(data), 100)]
    body = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    return head + b"Transfer-Encoding: chunked\r\n\r\n" + body


TYPED = b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: LEN\r\n\r\n"
CAMERAS = {
    "as it should be": MULTIPART + parts(TYPED),
    "image/jpg": MULTIPART + parts(TYPED.replace(b"jpeg", b"jpg")),
    "no part headers": MULTIPART + parts(b"--frame\r\n\r\n"),
    "no first boundary": MULTIPART + parts(TYPED).removeprefix(b"--frame\r\n"),
    "no boundaries": MULTIPART + b"".join(JPEGS),
    "png parts": MULTIPART + parts(TYPED.replace(b"jpeg", b"png"), PNGS),
    "length too great": MULTIPART + parts(TYPED.replace(b"LEN", b"LEN7")),
    "length too small": MULTIPART + parts(TYPED.replace(b"LEN", b"7")),
    "length that is none": MULTIPART + parts(TYPED.replace(b"LEN", b"-1x")),
    "another boundary": MULTIPART + parts(TYPED.replace(b"--frame", b"----other")),
    "quoted boundary": MULTIPART.replace(b"=frame", b'="--frame"') + parts(TYPED),
    "lines end in \\n": MULTIPART + parts(TYPED.replace(b"\r\n", b"\n"), tail=b"\n"),
    "multipart/mixed": MULTIPART.replace(b"x-mixed-replace", b"mixed") + parts(TYPED),
    "length of the whole is 0": MULTIPART[:-2] + b"Content-Length: 0\r\n\r\n" + parts(TYPED),
    "chunked": chunked(parts(TYPED)),
    "no type": OK + b"\r\n" + parts(TYPED),
    "bare": OK + b"Content-Type: video/x-motion-jpeg\r\n\r\n" + b"".join(JPEGS),
    "bare, as a picture": OK + b"Content-Type: image/jpeg\r\n\r\n" + b"".join(JPEGS),
    "bare, as bytes": OK + b"Content-Type: application/octet-stream\r\n\r\n" + b"".join(JPEGS),
    "bare, as text": OK + b"Content-Type: text/html\r\n\r\n" + b"".join(JPEGS),
    "bare, with garbage": OK
    + b"Content-Type: video/mjpeg\r\n\r\n"
    + parts(b"\0\xffgarb", tail=b""),
    "bare pngs": OK + b"\r\n" + b"".join(PNGS),
}


def read(url: str, n_frames: int = len(GREYS)) -> list[int]:
    """Their grey levels. Not over a slot for the newest one, so that all are seen."""
    with NetworkSource(url, CONFIG) as source:
        assert source.info.live
        assert not source.info.still
        assert source.info.size_hw == (16, 32)
        assert source.info.fps is None
        frames = list(islice(source, n_frames))
        assert source.corrupt_frames == 0
    assert [frame.index for frame in frames] == list(range(n_frames))
    assert all(a.pts < b.pts for a, b in pairwise(frames))
    return [round(float(frame.image_bgr.mean())) for frame in frames]


@pytest.mark.parametrize("kind", CAMERAS)
def test_every_camera_is_read(kind: str) -> None:
    with QuirkyServer(CAMERAS[kind]) as server:
        assert read(server.url) == pytest.approx(GREYS, abs=1)
        assert len(server.requests) == 1


@pytest.mark.parametrize("data", [b"".join(JPEGS), b"".join(PNGS), parts(TYPED)])
def test_pictures_over_tcp(data: bytes) -> None:
    with QuirkyServer(data, asks=False) as server:
        assert read(f"tcp://127.0.0.1:{server.port}") == pytest.approx(GREYS, abs=1)


@pytest.mark.parametrize("garbage", [JPEGS[0][300:], b"\r\n\r\n", bytes(64), b"\xff" * 999])
@pytest.mark.parametrize("over_http", [True, False])
def test_stream_that_is_joined_within_a_picture(garbage: bytes, over_http: bool) -> None:
    data = garbage + b"".join(JPEGS)
    with QuirkyServer((OK + b"\r\n") * over_http + data, asks=over_http) as server:
        url = server.url if over_http else f"tcp://127.0.0.1:{server.port}"
        assert read(url) == pytest.approx(GREYS, abs=1)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_once(kind: str, orientation: int) -> None:
    """One corner is white; where it goes is Pillow's word."""
    image = Image.new("RGB", (32, 16))
    image.paste((255, 255, 255), (0, 0, 16, 8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    image.save(file, kind, exif=exif)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(file.getvalue()))))
    for answer in (
        MULTIPART + JPEG_PART + file.getvalue(),
        OK + b"Content-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(file.getvalue())
        + file.getvalue(),
    ):  # fmt: skip
        with QuirkyServer(answer) as server, NetworkSource(server.url, CONFIG) as source:
            frame = next(iter(source))
        assert np.abs(frame.image_bgr.astype(int) - upright).mean() < 8


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("with_length", [True, False])
def test_server_that_gives_one_picture_is_a_still(kind: str, with_length: bool) -> None:
    data = encoded(90, kind)
    head = OK + b"Content-Type: image/%s\r\n" % kind.lower().encode()
    length = b"Content-Length: %d\r\n" % len(data) * with_length
    film = b"film behind the picture" if kind == "JPEG" else b""
    answer = head + length + b"\r\n" + data + film
    with (
        QuirkyServer(answer, ends=not with_length) as server,
        open_source(server.url, CONFIG) as source,
    ):
        assert source.info.still
        assert not source.info.live
        assert source.info.n_frames == 1
        frames = list(source)
    assert [round(float(frame.image_bgr.mean())) for frame in frames] == pytest.approx([90], abs=1)


def test_camera_that_ends_is_opened_again() -> None:
    one = MULTIPART + parts(TYPED, JPEGS[:1])
    with QuirkyServer(one, ends=True) as server, open_source(server.url, CONFIG) as source:
        assert [frame.index for frame in islice(source, 2)] == [0, 1]
        assert len(server.requests) == 2


TEXT_PART = b"--frame\r\nContent-Type: text/plain\r\n\r\n"
WEBP_PARTS = parts(b"--frame\r\nContent-Type: image/webp\r\n\r\n", [bytes(1 << 20)] * 5)
REFUSED: dict[str, tuple[bytes, SourceErrorKind]] = {
    "but text/html": (OK + b"Content-Type: text/html\r\n\r\n<html>log in", "codec"),
    "parts are text/plain": (MULTIPART + parts(TEXT_PART, [b"12 C"]), "codec"),
    "4 MiB hold no .*parts are image/webp": (MULTIPART + WEBP_PARTS, "codec"),
    "3 begin, but have no end": (MULTIPART + parts(TYPED, [each[:-2] for each in JPEGS]), "codec"),
    "ends before a picture is whole": (MULTIPART + JPEG_PART + JPEGS[0][:99], "lost"),
    "without sending anything": (MULTIPART, "lost"),
    "not a picture that can be": (OK + b"Content-Type: image/jpeg\r\n\r\nthis is none", "codec"),
    "does not speak HTTP": (b"nothing of HTTP\r\n\r\n" * 9, "codec"),
    "5xx": (b"HTTP/1.0 503 Busy\r\n\r\n", "other"),
    "redirects without end": (b"HTTP/1.0 302 Found\r\nLocation: /live?cam=1\r\n\r\n", "other"),
    "connection was cut": (b"", "lost"),
}


@pytest.mark.parametrize("says", REFUSED)
def test_unreadable_answer_is_named(says: str) -> None:
    answer, kind = REFUSED[says]
    with QuirkyServer(answer, ends=True) as server, pytest.raises(SourceError) as caught:
        NetworkSource(server.url_with("me:s3cret"), CONFIG).__enter__()
    assert re.search(says, str(caught.value))
    assert caught.value.kind == kind
    assert "s3cret" not in str(caught.value)
    assert caught.value.__context__ is None


def test_silence_after_the_header_is_a_timeout() -> None:
    with QuirkyServer(MULTIPART) as server, pytest.raises(SourceError) as caught:
        NetworkSource(server.url, IMPATIENT).__enter__()
    assert caught.value.kind == "timeout"


def test_damaged_pictures_are_counted_and_left_out() -> None:
    broken = JPEGS[0][:-30]
    empty = re.sub(rb"(?s)\xff\xc0.{5}", lambda m: m[0][:5] + b"\0\0", JPEGS[0])  # no height
    data = MULTIPART + parts(JPEG_PART, [broken, JPEGS[1], empty, JPEGS[2]])
    with QuirkyServer(data) as server, NetworkSource(server.url, CONFIG) as source:
        means = [round(float(frame.image_bgr.mean())) for frame in islice(source, 2)]
        assert means == pytest.approx(GREYS[1:3], abs=1)
        assert source.corrupt_frames == 2


def test_reading_is_ended_from_another_thread() -> None:
    answer = MULTIPART + parts(TYPED)
    with QuirkyServer(answer) as server, NetworkSource(server.url, CONFIG) as source:
        frames = iter(source)
        assert len(list(islice(frames, 4))) == 4
        threading.Timer(0.1, source.stop).start()
        start = time.monotonic()
        assert list(frames) == []
        assert time.monotonic() - start < 3


def digest_answer(request: bytes, user: str, password: str) -> bytes:
    """Accepts a correct RFC 2617 answer, computed here; any other request is asked for a
    password."""
    said = re.search(rb"Authorization: Digest (.*)\r\n", request)
    fields = parse_keqv_list(parse_http_list(said[1].decode())) if said else {}

    def h(text: str) -> str:
        return md5(text.encode()).hexdigest()

    secret = h(f"{user}:cam:{password}") + f":n1:{fields.get('nc')}:{fields.get('cnonce')}:auth:"
    right = h(secret + h(f"GET:{fields.get('uri')}"))
    if fields.get("response") == right and fields.get("uri") == "/live?cam=1":
        return MULTIPART + parts(TYPED)
    ask = b'WWW-Authenticate: Basic realm="cam"\r\n'
    ask += b'WWW-Authenticate: Digest realm="cam", nonce="n1", qop="auth", algorithm=MD5\r\n'
    return b"HTTP/1.1 401 No\r\n" + ask + b"Content-Length: 0\r\n\r\n"


def basic_answer(request: bytes, user: str, password: str) -> bytes:
    if base64.b64encode(f"{user}:{password}".encode()) in request:
        return MULTIPART + parts(TYPED)
    return b'HTTP/1.1 401 No\r\nWWW-Authenticate: Basic realm="cam"\r\nContent-Length: 0\r\n\r\n'


@pytest.mark.parametrize("answer", [digest_answer, basic_answer])
def test_password_is_given_when_asked_for_and_only_once(answer) -> None:  # type: ignore[no-untyped-def]
    with QuirkyServer(lambda request: answer(request, "me", "p@ss/w?rd")) as server:
        assert len(read(server.url_with("me:p@ss%2Fw?rd"))) == 4
        assert len(server.requests) == 2
        assert b"Authorization" not in server.requests[0]
        with pytest.raises(SourceError, match="401") as caught:
            NetworkSource(server.url_with("me:wrong"), CONFIG).__enter__()
        assert caught.value.kind == "authentication"
        assert len(server.requests) == 4
        with pytest.raises(SourceError, match="401"):
            NetworkSource(server.url, CONFIG).__enter__()
        assert len(server.requests) == 5


def test_password_does_not_follow_a_redirect_to_another_server() -> None:
    def elsewhere(request: bytes) -> bytes:
        return basic_answer(request, "me", "s3cret")

    with QuirkyServer(elsewhere) as other:
        to = b"HTTP/1.0 302 Found\r\nLocation: %s\r\nContent-Length: 0\r\n\r\n" % other.url.encode()
        with QuirkyServer(to) as server, pytest.raises(SourceError, match="401"):
            NetworkSource(server.url_with("me:s3cret"), CONFIG).__enter__()
        assert other.requests
        assert not any(b"Authorization" in request for request in other.requests)


def test_redirect_on_the_same_server_is_followed_with_the_password() -> None:
    def answer(request: bytes) -> bytes:
        if request.startswith(b"GET /live?cam=1 "):
            return b"HTTP/1.1 301 Moved\r\nLocation: /new\r\nContent-Length: 0\r\n\r\n"
        return basic_answer(request, "me", "s3cret")

    with QuirkyServer(answer) as server:
        assert len(read(server.url_with("me:s3cret"))) == 4


@pytest.mark.needs_openssl
def test_camera_with_a_certificate_of_its_own(tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("the openssl program is not installed (apt-get install openssl)")
    make = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=camera"
    subprocess.run(
        [*make.split(), "-keyout", tmp_path / "key.pem", "-out", tmp_path / "cert.pem"],
        check=True,
        capture_output=True,
        timeout=30,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    with QuirkyServer(MULTIPART + parts(TYPED), tls=context) as server:
        with NetworkSource(server.url, CONFIG) as source:
            frames = iter(source)
            assert len(list(islice(frames, 4))) == 4
            threading.Timer(0.1, source.stop).start()
            start = time.monotonic()
            assert list(frames) == []
            assert time.monotonic() - start < 3
        plain = server.url.replace("https", "http")
        with pytest.raises(SourceError):
            NetworkSource(plain, IMPATIENT).__enter__()


def test_path_that_is_not_there() -> None:
    with QuirkyServer(b"HTTP/1.0 404 No\r\n\r\n") as server:
        source = open_source(server.url, CONFIG)
        with pytest.raises(SourceNotFoundError, match="404"):
            source.__enter__()


def test_video_that_cannot_be_sought_in_is_read_over_one_connection(
    make_video: VideoMaker, tmp_path: Path
) -> None:
    data = make_video("clip.mkv", n_frames=8).read_bytes()
    with QuirkyServer(OK + b"Content-Type: video/x-matroska\r\n\r\n" + data, ends=True) as server:
        with NetworkSource(server.url, CONFIG, live=False) as source:
            assert [picture_number(frame.image_bgr) for frame in source] == list(range(8))
        assert len(server.requests) == 1
    with (
        QuirkyServer(data, asks=False, ends=True) as server,
        NetworkSource(f"tcp://127.0.0.1:{server.port}", CONFIG) as source,
    ):
        assert source.info.live
        assert picture_number(next(iter(source)).image_bgr) == 0
