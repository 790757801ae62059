"""Live streams from real servers that are killed, frozen, changed, and spoiled on the way."""

from __future__ import annotations

import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from support.chaos_proxy import ChaosProxy, Fault
from support.frame_clock import age_ms
from support.push_endpoint import PushEndpoint
from support.rtsp_harness import FfmpegServer, RtspServer, free_port, rtsp_server_problem
from support.waiting import wait_until

from stream_cam.closing import Closeable
from stream_cam.config import CaptureConfig
from stream_cam.errors import SourceError, SourceNotFoundError
from stream_cam.frame import Frame
from stream_cam.sources import open_source
from stream_cam.sources.reconnecting import ReconnectingSource

DEADLINE_SECONDS = 40.0
KILLS = int(os.environ.get("STREAM_CAM_KILLS", "3"))
"""Kills of the server in a row; a release needs 20."""
FROZEN_SECONDS = 8.0
BRISK = CaptureConfig(open_timeout_seconds=3.0, read_timeout_seconds=1.0)


class Viewer(Closeable):
    """Reads a live source in a thread; tests wait for its frames."""

    def __init__(self, uri: str, config: CaptureConfig = BRISK) -> None:
        source = open_source(uri, config)
        assert isinstance(source, ReconnectingSource)
        self.source = source
        self.error: BaseException | None = None
        self.last: Frame | None = None
        self._seen = threading.Condition()
        self._thread = threading.Thread(target=self._view, daemon=True)

    def __enter__(self) -> Viewer:
        self._thread.start()
        return self

    def close(self) -> None:
        started = time.monotonic()
        self.source.stop()
        self._thread.join(DEADLINE_SECONDS)
        assert not self._thread.is_alive()
        assert time.monotonic() - started < 3.0

    def _view(self) -> None:
        try:
            with self.source:
                for frame in self.source:
                    with self._seen:
                        self.last = frame
                        self._seen.notify_all()
        except BaseException as error:
            with self._seen:
                self.error = error
                self._seen.notify_all()

    def until(self, is_it: Callable[[Frame], bool]) -> Frame:
        """The first frame from now on that is as wanted."""
        last = self.last

        def found() -> bool:
            if self.error is not None:
                raise self.error
            return self.last is not None and self.last is not last and is_it(self.last)

        with self._seen:
            assert self._seen.wait_for(found, DEADLINE_SECONDS), "no such frame came"
            assert self.last is not None
            return self.last

    def until_fresh(self, count: int = 1) -> Frame:
        """A picture that was drawn at most a second ago, and `count` - 1 further ones."""
        for _ in range(count):
            frame = self.until(is_fresh)
        return frame


def is_fresh(frame: Frame) -> bool:
    age = age_ms(frame.image_bgr)
    return age is not None and age < 1000


@contextmanager
def reading_pauses(viewer: Viewer) -> Iterator[None]:
    """Until the source has noticed that something is wrong."""
    yield
    deadline = time.monotonic() + DEADLINE_SECONDS
    noticed = threading.Event()
    while (away := viewer.source.outage()) is None or not away.reconnecting:
        assert time.monotonic() < deadline, "the source did not notice"
        noticed.wait(0.01)


@pytest.fixture
def server() -> Iterator[RtspServer]:
    problem = rtsp_server_problem()
    if problem is not None:
        pytest.skip(problem)
    server = RtspServer()
    yield server
    server.kill()


@pytest.mark.needs_rtsp_server
def test_server_that_is_killed_again_and_again(server: RtspServer) -> None:
    server.start()
    with Viewer(server.url) as viewer:
        viewer.until_fresh(5)
        for _ in range(KILLS):
            with reading_pauses(viewer):
                server.kill()
            server.start()
            returned = time.monotonic()
            away = viewer.source.outage()
            viewer.until_fresh()
            # An attempt that is being made now may come too early, and the next wait is longer.
            wait = 0.5 * 2**away.attempt * 1.25 if away is not None else 0.0
            assert time.monotonic() - returned < wait + 2.0 + 1.0  # a busy machine's second
    health = viewer.source.health
    assert health.recoveries == KILLS
    assert health.abandoned_readers == 0


@pytest.mark.needs_rtsp_server
@pytest.mark.parametrize(
    ("config", "frozen_seconds"), [(BRISK, 0.0), (CaptureConfig(), FROZEN_SECONDS)]
)
def test_server_that_stands_still(
    server: RtspServer, config: CaptureConfig, frozen_seconds: float
) -> None:
    server.start()
    with Viewer(server.url, config) as viewer:
        viewer.until_fresh(5)
        frozen = time.monotonic()
        with reading_pauses(viewer):
            server.freeze()
        while time.monotonic() - frozen < frozen_seconds:
            away = viewer.source.outage()
            assert away is not None
            assert away.reconnecting
            threading.Event().wait(0.1)
        server.thaw()
        viewer.until_fresh(3)
    assert viewer.source.health.recoveries == 1


@pytest.mark.needs_rtsp_server
def test_size_and_rate_change_over_a_restart(server: RtspServer) -> None:
    server.start()
    with Viewer(server.url) as viewer:
        before = viewer.until_fresh()
        with reading_pauses(viewer):
            server.kill()
        server.size, server.fps = "640x360", 12
        server.start()
        after = viewer.until_fresh()
    assert before.size_hw == (240, 320)
    assert after.size_hw == (360, 640)
    assert after.pts > before.pts
    assert after.index > before.index


@pytest.mark.needs_rtsp_server
def test_client_that_comes_before_the_server(server: RtspServer) -> None:
    with Viewer(server.url) as viewer:
        with reading_pauses(viewer):
            pass
        away = viewer.source.outage()
        assert away is not None
        assert away.kind == "refused"
        server.start()
        viewer.until_fresh()
    assert viewer.source.health.recoveries == 0


@pytest.mark.needs_rtsp_server
@pytest.mark.parametrize("fault", ["stall", "trickle", "cut", "handshake"])
def test_connection_that_is_spoiled_and_mends(server: RtspServer, fault: Fault) -> None:
    server.start()
    with ChaosProxy(server.port) as proxy:
        with Viewer(f"rtsp://127.0.0.1:{proxy.port}/test") as viewer:
            viewer.until_fresh(3)
            if fault == "handshake":
                proxy.fault = "cut"
                with reading_pauses(viewer):
                    pass
                seen = proxy.counts.connections
                proxy.fault = fault
                wait_until(lambda: proxy.counts.connections >= seen + 2, DEADLINE_SECONDS)
            else:
                with reading_pauses(viewer):
                    proxy.fault = fault
            proxy.fault = "none"
            viewer.until_fresh(3)
        assert viewer.source.health.recoveries >= 1


@pytest.mark.needs_rtsp_server
def test_flipped_bytes_cost_pictures_and_nothing_else(server: RtspServer) -> None:
    server.start()
    with ChaosProxy(server.port, every=2000) as proxy:
        with Viewer(f"rtsp://127.0.0.1:{proxy.port}/test") as viewer:
            viewer.until_fresh(3)
            proxy.fault = "flip"
            deadline = time.monotonic() + DEADLINE_SECONDS
            while viewer.source.corrupt_frames == 0 and viewer.source.health.recoveries == 0:
                assert time.monotonic() < deadline
                viewer.until(lambda frame: True)
            proxy.fault = "none"
            viewer.until_fresh(10)
        assert proxy.counts.flipped > 0


@pytest.mark.needs_rtsp_server
def test_udp(server: RtspServer) -> None:
    server.start()
    config = CaptureConfig(rtsp_transport="udp", open_timeout_seconds=3, read_timeout_seconds=1)
    with Viewer(server.url, config) as viewer:
        viewer.until_fresh(5)
        with reading_pauses(viewer):
            server.kill()
        server.start()
        viewer.until_fresh()
    assert viewer.source.health.recoveries == 1


@pytest.mark.needs_rtsp_server
def test_nothing_ages_between_camera_and_reader(server: RtspServer) -> None:
    server.start()
    with Viewer(server.url) as viewer:
        viewer.until_fresh(20)
        ages = [age_ms(viewer.until(lambda frame: True).image_bgr) for _ in range(20)]
    known = sorted(age for age in ages if age is not None)
    assert len(known) >= 18
    assert known[len(known) // 2] < 150


@pytest.mark.needs_rtsp_server
def test_password_and_path_that_are_wrong_end_at_once() -> None:
    problem = rtsp_server_problem()
    if problem is not None:
        pytest.skip(problem)
    with RtspServer(digest="me:p@ss/w?rd") as server:
        with Viewer(server.url_with("me:p@ss%2Fw?rd")) as viewer:
            viewer.until_fresh()
        for credentials in ("me:wrong@", ""):
            uri = server.url.replace("://", f"://{credentials}")
            with pytest.raises(SourceError, match="401") as caught, Viewer(uri) as viewer:
                viewer.until_fresh()
            assert caught.value.kind == "authentication"
        path = server.url_with("me:p@ss%2Fw?rd").replace("/test", "/nothing")
        with pytest.raises(SourceNotFoundError, match="404") as missing, Viewer(path) as viewer:
            viewer.until_fresh()
        assert missing.value.kind == "not found"


def test_tls_and_names_have_their_own_kinds() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(100)
                connection.sendall(b"this is no TLS\r\n" * 20)

        threading.Thread(target=answer, daemon=True).start()
        uri = f"https://127.0.0.1:{listener.getsockname()[1]}/live"
        with pytest.raises(SourceError, match="TLS") as caught, Viewer(uri) as viewer:
            viewer.until_fresh()
        assert caught.value.kind == "tls"
    config = CaptureConfig(open_timeout_seconds=3, give_up_after=1)
    nowhere = Viewer("rtsp://nowhere.invalid/stream", config)
    with pytest.raises(SourceError) as unknown, nowhere as viewer:
        viewer.until_fresh()
    assert unknown.value.kind in ("not found", "unreachable", "timeout")  # names take long offline


@pytest.mark.needs_ffmpeg
@pytest.mark.parametrize("codec", ["libx264", "mpeg2video"])
def test_ffmpeg_as_a_server_that_is_killed_and_may_come_back_with_another_codec(codec: str) -> None:
    if shutil.which("ffmpeg") is None:
        pytest.skip("the ffmpeg program is not installed (apt-get install ffmpeg)")
    server = FfmpegServer()
    with Viewer(server.url) as viewer:
        try:
            server.start()
            viewer.until(lambda frame: frame.size_hw == (240, 320))
            with reading_pauses(viewer):
                server.kill()
            if codec != server.codec[0]:
                server.codec = (codec,)
            server.size = "176x144"
            server.start()
            viewer.until(lambda frame: frame.size_hw == (144, 176))
        finally:
            server.kill()
    assert viewer.source.health.recoveries == 1


@pytest.mark.needs_ffmpeg
def test_ffmpeg_pushes_into_an_endpoint_and_is_killed() -> None:
    if shutil.which("ffmpeg") is None:
        pytest.skip("the ffmpeg program is not installed (apt-get install ffmpeg)")
    with PushEndpoint() as endpoint:
        pusher = FfmpegServer(push_to=endpoint.url)
        with Viewer(endpoint.url) as viewer:
            try:
                with reading_pauses(viewer):  # nobody pushes yet
                    pass
                pusher.start()
                assert viewer.until(lambda frame: True).image_bgr.shape == (240, 320, 3)
                with reading_pauses(viewer):
                    pusher.kill()
                pusher.start()
                viewer.until(lambda frame: True)
            finally:
                pusher.kill()
        assert viewer.source.health.recoveries == 1
        assert endpoint.pushes == 2


def test_nobody_there_can_be_left(caplog: pytest.LogCaptureFixture) -> None:
    with Viewer(f"rtsp://me:s3cret@127.0.0.1:{free_port()}/test") as viewer, reading_pauses(viewer):
        pass
    assert isinstance(viewer.error, SourceError)
    assert "s3cret" not in caplog.text + str(viewer.error)
