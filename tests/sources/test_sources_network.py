import http.server
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import islice, pairwise
from pathlib import Path

import pytest
from conftest import VideoMaker
from support.rtsp_harness import RtspServer, rtsp_server_problem
from support.videos import picture_number

from stream_cam.config import CaptureConfig
from stream_cam.errors import SourceError, SourceNotFoundError, UsageError
from stream_cam.sources import open_source

CONFIG = CaptureConfig(open_timeout_seconds=10, read_timeout_seconds=5)
IMPATIENT = CaptureConfig(open_timeout_seconds=0.5, read_timeout_seconds=0.5, give_up_after=1)


class Files(http.server.SimpleHTTPRequestHandler):
    """Serves a folder; asks for a password below /private."""

    def do_GET(self) -> None:
        if self.path.startswith("/private"):
            self.send_error(401)
        else:
            super().do_GET()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def http_url(tmp_path: Path) -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(Files, directory=str(tmp_path))
    )
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def mute_port() -> Iterator[int]:
    """A port that takes connections and never says anything."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.fixture(scope="module")
def rtsp_url() -> Iterator[str]:
    problem = rtsp_server_problem()
    if problem is not None:
        pytest.skip(problem)
    with RtspServer() as server:
        yield server.url.removesuffix("/test")


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    start = time.monotonic()
    yield
    assert time.monotonic() - start < seconds


def test_http_file_is_read_whole(make_video: VideoMaker, http_url: str) -> None:
    make_video("clip.mkv", n_frames=8)
    with open_source(f"{http_url}/clip.mkv", CONFIG) as source:
        assert not source.info.live
        assert [picture_number(frame.image_bgr) for frame in source] == list(range(8))
    with open_source(f"{http_url}/clip.mkv", CONFIG, live=True) as source:
        assert not source.info.live  # it is played at its own times, once
        assert len(list(source)) == 8


def test_http_errors_name_the_next_step(http_url: str) -> None:
    with pytest.raises(SourceNotFoundError, match="404"), open_source(f"{http_url}/no", CONFIG):
        pass
    private = http_url.replace("//", "//user:s3cret@") + "/private/clip.mp4"
    with pytest.raises(SourceError, match="wrong or missing user") as caught:
        open_source(private, CONFIG).__enter__()
    assert "s3cret" not in str(caught.value)


def test_http_that_is_no_video(tmp_path: Path, http_url: str) -> None:
    (tmp_path / "page.html").write_text("<html>" + "no video " * 300)
    with pytest.raises(SourceError, match="no video that can be decoded"):
        open_source(f"{http_url}/page.html", CONFIG).__enter__()


@pytest.mark.parametrize("scheme", ["rtsp", "http"])
def test_server_that_never_answers(mute_port: int, scheme: str) -> None:
    uri = f"{scheme}://127.0.0.1:{mute_port}/stream"
    with at_most(5), pytest.raises(SourceError, match=r"no answer within 0\.5 s") as caught:
        open_source(uri, IMPATIENT).__enter__()
    assert caught.value.kind == "timeout"


def test_server_that_is_not_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with at_most(5), pytest.raises(SourceError, match=r"nothing listens there.*gave up") as caught:
        open_source(f"rtsp://127.0.0.1:{port}/stream", IMPATIENT).__enter__()
    assert caught.value.kind == "refused"


@pytest.mark.needs_rtsp_server
@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_rtsp_stream_is_live(rtsp_url: str, transport: str) -> None:
    config = CaptureConfig(rtsp_transport=transport)  # type: ignore[arg-type]
    with at_most(30), open_source(f"{rtsp_url}/test", config) as source:
        assert source.info.live
        assert source.info.size_hw == (240, 320)
        assert source.info.fps == 30
        frames = list(islice(source, 10))
    assert len(frames) == 10
    assert all(a.pts < b.pts for a, b in pairwise(frames))


@pytest.mark.needs_rtsp_server
def test_rtsp_path_that_is_not_there(rtsp_url: str) -> None:
    with at_most(15), pytest.raises(SourceNotFoundError, match="404"):
        open_source(f"{rtsp_url}/nothing", CONFIG).__enter__()


@pytest.mark.parametrize("password", ["s3cr@t/w", "s3cr@t#w", "s3cr@t?w"])
def test_password_that_looks_like_a_host_is_refused_before_it_is_looked_up(password: str) -> None:
    with pytest.raises(UsageError, match="write %40 for @") as caught:
        open_source(f"rtsp://me:{password}@cam.invalid/stream", CONFIG)
    assert "s3cr" not in str(caught.value)
    assert "***@cam.invalid/stream" in str(caught.value)


@pytest.mark.parametrize("scheme", ["rtsp", "http", "tcp"])
def test_name_that_does_not_exist_ends_the_first_connection(
    scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    unknown = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    monkeypatch.setattr("socket.getaddrinfo", raises(unknown))
    match = r"there is no host named no-cam\.invalid; check the name"
    with at_most(5), pytest.raises(SourceNotFoundError, match=match):
        open_source(f"{scheme}://me:s3cret@no-cam.invalid:99/x", CONFIG).__enter__()


def test_name_that_cannot_be_looked_up_now_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    later = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
    monkeypatch.setattr("socket.getaddrinfo", raises(later))
    match = r"no-cam\.invalid cannot be looked up now \(Temporary failure.*gave up after 1 s"
    with at_most(5), pytest.raises(SourceError, match=match) as caught:
        open_source("rtsp://no-cam.invalid/x", IMPATIENT).__enter__()
    assert caught.value.kind == "unreachable"


def raises(error: Exception) -> Callable[..., object]:
    def fail(*_: object) -> object:
        raise error

    return fail
