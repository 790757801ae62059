"""Network streams that FFmpeg reads, from FFmpeg itself as the server: opened soon, and live."""

from __future__ import annotations

import io
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path

import av
import numpy as np
import pytest
from support.quirky_server import QuirkyServer
from support.waiting import wait_until

from stream_cam.config import CaptureConfig
from stream_cam.errors import SourceError, UsageError
from stream_cam.sources import open_source
from stream_cam.sources.network import NetworkSource
from stream_cam.sources.video import VideoSource

SHORT = CaptureConfig(open_timeout_seconds=4, read_timeout_seconds=4)
"""Unbounded, FFmpeg watches these streams for five seconds."""


def coded(kind: str, n_frames: int) -> bytes:
    """H.264 without sound at 25 frames/s, of noise: as many bytes as from a camera."""
    file = io.BytesIO()
    options = {"flvflags": "no_duration_filesize"} if kind == "flv" else {}
    noise = np.random.default_rng(0)
    with av.open(file, "w", format=kind, options=options) as container:
        stream = container.add_stream("libx264", 25, options={"tune": "zerolatency", "g": "10"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(n_frames):
            image = noise.integers(0, 256, (48, 64, 3), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "bgr24")))
        container.mux(stream.encode())
    return file.getvalue()


@contextmanager
def ffmpeg(source: Path, *output: str) -> Iterator[subprocess.Popen[bytes]]:
    """Sends a file at its own speed."""
    if shutil.which("ffmpeg") is None:
        pytest.skip("the ffmpeg program is not installed (apt-get install ffmpeg)")
    command = [
        "ffmpeg",
        "-v",
        "error",
        "-re",
        "-stream_loop",
        "-1",
        "-i",
        str(source),
        "-c",
        "copy",
    ]
    running = subprocess.Popen([*command, *output], stdin=subprocess.DEVNULL)
    try:
        yield running
    finally:
        running.kill()
        running.wait()


def opened(url: str) -> VideoSource:
    """Once a server listens, which takes one connection only."""
    until = time.monotonic() + 20
    while True:
        with suppress(SourceError):
            return VideoSource(url, SHORT).__enter__()
        assert time.monotonic() < until


def free_port(kind: int = socket.SOCK_STREAM) -> int:
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_http_flv_is_opened_from_a_second_and_a_half_of_it() -> None:
    """Then it is silent; to watch more of it for the sound that is not there would time out."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: video/x-flv\r\n\r\n"
    with QuirkyServer(head + coded("flv", 38)) as server:
        url = server.url.replace("/live?", "/live.flv?")
        with NetworkSource(url, SHORT) as source:
            assert source.info.live
            assert len(list(islice(source, 20))) == 20


def test_raw_h264_over_tcp_is_opened_from_a_second_and_a_half_of_it() -> None:
    with (
        QuirkyServer(coded("h264", 38), asks=False) as server,
        NetworkSource(f"tcp://127.0.0.1:{server.port}", SHORT) as source,
    ):
        assert source.info.live
        assert len(list(islice(source, 20))) == 20


@pytest.mark.needs_ffmpeg
def test_rtmp_is_opened_soon(tmp_path: Path) -> None:
    (tmp_path / "clip.flv").write_bytes(coded("flv", 50))
    url = f"rtmp://127.0.0.1:{free_port()}/live/x"
    with ffmpeg(tmp_path / "clip.flv", "-f", "flv", "-listen", "1", url):
        source = opened(url)
        assert source.info.live
        assert len(list(islice(source, 3))) == 3
        source.close()


@pytest.mark.needs_ffmpeg
def test_rtp_by_an_sdp_file(tmp_path: Path) -> None:
    (tmp_path / "clip.flv").write_bytes(coded("flv", 50))
    sdp = tmp_path / "camera.sdp"
    url = f"rtp://127.0.0.1:{free_port(socket.SOCK_DGRAM)}"
    with ffmpeg(tmp_path / "clip.flv", "-f", "rtp", "-sdp_file", str(sdp), url):
        wait_until(lambda: sdp.exists() and sdp.read_text().endswith("\n"))
        with open_source(str(sdp)) as source:
            assert source.info.live
            assert source.info.size_hw == (48, 64)
            assert [frame.index for frame in islice(source, 3)] == [0, 1, 2]


def test_sdp_file_to_which_nothing_is_sent(tmp_path: Path) -> None:
    sdp = tmp_path / "camera.sdp"
    port = free_port(socket.SOCK_DGRAM)
    sdp.write_text(f"v=0\nc=IN IP4 127.0.0.1\nm=video {port} RTP/AVP 96\na=rtpmap:96 H264/90000\n")
    config = CaptureConfig(open_timeout_seconds=0.5, read_timeout_seconds=0.5, give_up_after=0.1)
    with pytest.raises(SourceError) as caught:
        open_source(str(sdp), config).__enter__()
    assert caught.value.kind == "timeout"


@pytest.mark.parametrize("scheme", ["rtmps", "rtmpt", "rtp", "tls", "ftp", "rtsps"])
def test_protocols_of_the_wheels_ffmpeg_are_accepted(scheme: str) -> None:
    """Nothing listens there; that is another answer than "does not speak"."""
    url = f"{scheme}://127.0.0.1:{free_port()}/x"
    config = CaptureConfig(open_timeout_seconds=0.5, read_timeout_seconds=0.5, give_up_after=0.1)
    with pytest.raises(SourceError) as caught:
        open_source(url, config).__enter__()
    assert "does not speak" not in str(caught.value)


def test_protocol_that_this_ffmpeg_lacks_names_the_way_round() -> None:
    config = CaptureConfig(open_timeout_seconds=0.5, read_timeout_seconds=0.5, give_up_after=0.1)
    with pytest.raises(SourceError) as caught:
        open_source("srt://127.0.0.1:1", config).__enter__()
    # A PyAV of one's own may speak it, and then nobody answers.
    assert "pass it on" in str(caught.value) or caught.value.kind != "codec"


def test_option_reaches_ffmpeg() -> None:
    config = CaptureConfig(ffmpeg_option=("user_agent=a=b", "headers=X-Key: s3cret\r\n"))
    answer = b"HTTP/1.0 404 No\r\n\r\n"
    with QuirkyServer(answer, ends=True) as server, pytest.raises(SourceError, match="404"):
        open_source(server.url, config).__enter__()
    assert b"User-Agent: a=b\r\n" in server.requests[0]
    assert b"X-Key: s3cret\r\n" in server.requests[0]


def test_option_reaches_a_files_demuxer(tmp_path: Path) -> None:
    path = tmp_path / "clip.h264"
    path.write_bytes(coded("h264", 5))
    with open_source(str(path), CaptureConfig(ffmpeg_option=("framerate=7",))) as source:
        assert source.info.fps == 7


@pytest.mark.parametrize("uri", ["clip.mp4", "rtsp://cam/x", "http://cam/x"])
def test_option_of_a_wrong_name_is_an_error(uri: str) -> None:
    with pytest.raises(UsageError, match=r"--ffmpeg-option rtsp_transprot: .* no option"):
        open_source(uri, CaptureConfig(ffmpeg_option=("rtsp_transprot=udp",)))


def test_option_of_a_wrong_value_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "clip.h264").write_bytes(coded("h264", 5))
    config = CaptureConfig(ffmpeg_option=("framerate=s3cret",))
    with pytest.raises(SourceError, match=r"does not take a value .* \(framerate\)") as caught:
        open_source(str(tmp_path / "clip.h264"), config).__enter__()
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("uri", ["0", "demo://shapes"])
def test_option_is_refused_where_ffmpeg_does_not_read(uri: str) -> None:
    with pytest.raises(UsageError, match="does not read"):
        open_source(uri, CaptureConfig(ffmpeg_option=("framerate=7",)))


def test_option_without_a_value_is_an_error() -> None:
    with pytest.raises(ValueError, match="NAME=VALUE"):
        CaptureConfig(ffmpeg_option=("framerate",))
