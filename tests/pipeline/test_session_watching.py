"""Pages and windows are open before the camera's first picture, and say why there is none."""

from __future__ import annotations

import http.server
import json
import os
import re
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest
from support.browser import chromium
from support.displays import x_server
from support.processes import process
from support.rtsp_harness import free_port
from support.waiting import DEADLINE_SECONDS, wait_until
from support.web_show import until, visit

import stream_cam
from stream_cam.config import ModelConfig, PipelineConfig, RunConfig
from stream_cam.errors import StreamCamError, UsageError
from stream_cam.pipeline.session import run_session
from stream_cam.settings import Settings
from stream_cam.sinks.base import Waiting

MODEL = ModelConfig(weights="demo", engine="eager", device="cpu", input_size=64)
OPTIONS = ("--weights", "demo", "--engine", "eager", "--device", "cpu", "--input-size", "64")
OPEN_AND_WAIT = """
import cv2, numpy as np, sys
sys.path[:0] = ["tests"]
from support.videos import numbered_picture, picture_at
from stream_cam.sinks import WindowSink
from stream_cam.sinks.base import Waiting
title = "stream-cam (? shows the keys)"
with WindowSink() as sink:
    assert sink.wait(Waiting("waiting for rtsp://***@cam/x", "a reason " * 20, 2, 1.5))
    assert sink.wait(Waiting("loading the network"))
    cv2.waitKey(50)
    _, _, width, height = cv2.getWindowImageRect(title)
    assert width <= 960 and height <= 540, (width, height)
    assert sink.write(picture_at(np.zeros((800, 1200, 3), np.uint8)))
    cv2.waitKey(50)
    _, _, wider, higher = cv2.getWindowImageRect(title)
    assert wider > width and higher > height, (wider, higher)
with WindowSink() as sink:
    assert sink.wait(Waiting("waiting for rtsp://***@cam/x"))
    cv2.destroyAllWindows()
    cv2.waitKey(50)
    assert not sink.wait(Waiting("waiting for rtsp://***@cam/x"))
print("shown")
"""


class Camera(http.server.BaseHTTPRequestHandler):
    """Motion JPEG, ten pictures a second."""

    over = threading.Event()

    def do_GET(self) -> None:
        jpeg = cv2.imencode(".jpg", np.full((96, 128, 3), 200, np.uint8))[1].tobytes()
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        head = b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(jpeg)
        try:
            while not self.over.wait(0.1):
                self.wfile.write(head + jpeg + b"\r\n")
        except OSError:
            pass  # it has seen enough

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def camera(port: int) -> Iterator[None]:
    Camera.over.clear()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Camera)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield
    finally:
        Camera.over.set()
        server.shutdown()
        server.server_close()
        thread.join()


def asked(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=DEADLINE_SECONDS) as answer:
        body: bytes = answer.read()
    return body


def test_page_says_why_there_is_no_picture(tmp_path: Path) -> None:
    port, opened, told = free_port(), list[str](), list[Waiting]()

    def open_page(urls: Sequence[str], settings: Settings) -> None:
        assert settings.labels == ()
        opened.extend(urls)

    def look(waiting: Waiting) -> bool:
        told.append(waiting)
        if waiting.attempt < 2:
            return True
        page = opened[0]
        stats = json.loads(asked(f"{page}stats"))
        assert stats["waiting"]["what"] == f"waiting for http://***@127.0.0.1:{port}/live"
        assert "nothing listens there" in stats["waiting"]["reason"]
        assert stats["waiting"]["attempt"] == waiting.attempt
        assert b"stream_cam_source_up 0.0" in asked(f"{page}metrics")
        assert json.loads(asked(f"{page}labels")) == []
        assert "s3cret" not in str(stats)
        with pytest.raises(urllib.error.HTTPError, match="503"):
            asked(f"{page}snapshot.jpg")
        return False

    config = PipelineConfig(MODEL, run=RunConfig(report=tmp_path / "r.json"))
    uri = f"http://me:s3cret@127.0.0.1:{port}/live"
    report = run_session(uri, ["web://127.0.0.1:0"], config, on_open=open_page, on_wait=look)
    assert report.ended_by == "stopped before the first picture"
    assert json.loads((tmp_path / "r.json").read_text())["ended_by"] == report.ended_by
    with pytest.raises(OSError, match="refused"):
        asked(opened[0])


def test_page_of_a_source_that_fails_for_good_is_closed(tmp_path: Path) -> None:
    opened: list[str] = []
    (tmp_path / "clip.mp4").write_bytes(b"no video" * 100)
    with pytest.raises(StreamCamError, match="not a video"):
        run_session(
            str(tmp_path / "clip.mp4"),
            ["web://127.0.0.1:0"],
            PipelineConfig(MODEL),
            on_open=lambda urls, _: opened.extend(urls),
        )
    with pytest.raises(OSError, match="refused"):
        asked(opened[0])


@pytest.mark.needs_chromium
def test_picture_appears_when_the_camera_does() -> None:
    port = free_port()
    uri = f"http://me:s3cret@127.0.0.1:{port}/live"
    config = PipelineConfig(MODEL)
    with chromium() as browser, stream_cam.serve(uri, config=config) as served:
        assert served.running
        waiting = served.stats()["waiting"]
        assert isinstance(waiting, dict)
        assert "nothing listens there" in waiting["reason"]
        with pytest.raises(StreamCamError, match=r"no picture yet.*nothing listens"):
            _ = served.pipeline
        with visit(browser, served.url) as page:
            until(page, "document.body.dataset.state === 'waiting'")
            until(page, "/attempts? failed/.test(document.getElementById('banner').innerText)")
            said = page.locator("#banner").inner_text()
            assert f"Waiting for http://***@127.0.0.1:{port}/live" in said
            assert "nothing listens there" in said
            served.settings.colormap = "jet"  # before there is a network
            with pytest.raises(UsageError):
                served.settings.target = "star"
            with camera(port):
                until(page, "document.body.dataset.state === 'live'")
                until(page, "Number(picture.dataset.n) > 5")
                assert served.pipeline.settings.colormap == "jet"
                page.fill("#search", "star")
                until(page, "document.querySelectorAll('#found li').length > 0")
                served.stop()


def test_command_tells_the_link_at_once_and_can_be_stopped(tmp_path: Path) -> None:
    report = tmp_path / "r.json"
    uri = f"rtsp://127.0.0.1:{free_port()}/x"
    running = process("run", uri, "-o", "web://127.0.0.1:0", "--report", str(report), *OPTIONS)
    try:
        assert running.stdout is not None
        url = re.search(r"watch at (http://127\.0\.0\.1:\d+/)", running.stdout.readline())
        assert url is not None
        wait_until(lambda: json.loads(asked(f"{url[1]}stats"))["waiting"])
        running.send_signal(signal.SIGTERM)
        assert running.wait(DEADLINE_SECONDS) == 143
    finally:
        running.kill()
        running.communicate()
    assert json.loads(report.read_text())["ended_by"] == "interrupted"


@pytest.mark.needs_display
def test_window_says_why_there_is_no_picture() -> None:
    with x_server() as display:
        done = subprocess.run(
            [sys.executable, "-c", OPEN_AND_WAIT],
            env={**os.environ, "DISPLAY": display},
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert (done.returncode, done.stdout, done.stderr) == (0, "shown\n", "")
