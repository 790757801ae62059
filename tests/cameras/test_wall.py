"""The wall's page: who asks, gets every camera; what nobody sees is not encoded."""

from __future__ import annotations

import http.client
import json
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from support.browser import DEADLINE_MS, chromium
from support.pipeline_parts import make_explainer, tiny_network
from support.waiting import wait_until
from websockets import Origin
from websockets.sync.client import ClientConnection, connect

from stream_cam.cameras.camera_config import CameraConfig
from stream_cam.cameras.cameras import Cameras
from stream_cam.cameras.wall_page import WallPage
from stream_cam.cameras.wall_picture import WallPicture, grid
from stream_cam.cameras.wall_run import WallRun
from stream_cam.config import (
    CamerasConfig,
    PipelineConfig,
    RecordConfig,
    RunConfig,
    WebConfig,
)
from stream_cam.explain.scheduler import BatchCosts
from stream_cam.explain.shared import SharedExplainer
from stream_cam.frame import BgrImage
from stream_cam.web.address import WebAddress

LIVE = PipelineConfig(run=RunConfig(live=True, quiet=True))
DEADLINE_SECONDS = 120.0
NAMES = ("door", "hall", "yard")


def source(number: int, size: str = "640x360") -> str:
    return f"demo://shapes?size={size}&fps=10&live=1&seed={number}"


def decoded(jpeg: bytes) -> BgrImage:
    image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    return np.asarray(image, np.uint8)


@contextmanager
def running(tmp_path: Path, *names: str) -> Iterator[Cameras]:
    """Cameras that show pictures, and one that has failed."""
    explainer = make_explainer(tiny_network())
    with (
        SharedExplainer(explainer, costs=BatchCosts({1: 0.002})) as shared,
        Cameras(shared) as cameras,
    ):
        for number, name in enumerate(names):
            cameras.add(CameraConfig(name, source(number), LIVE))
        cameras.add(CameraConfig("gone", str(tmp_path / "gone.mp4"), LIVE))
        wait_until(
            lambda: all(cameras.camera(name).counts.rendered for name in names), DEADLINE_SECONDS
        )
        wait_until(lambda: cameras.camera("gone").state == "failed", DEADLINE_SECONDS)
        yield cameras


@contextmanager
def wall(cameras: Cameras) -> Iterator[WallPage]:
    page = WallPage(cameras, WebAddress("127.0.0.1", 0), CamerasConfig(), WebConfig())
    with page:
        yield page


def ask(page: WallPage, path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", page.address.port, timeout=60)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def pictures(socket: ClientConnection, count: int) -> list[tuple[dict[str, object], bytes]]:
    """So many pictures, each of them confirmed."""
    found: list[tuple[dict[str, object], bytes]] = []
    while len(found) < count:
        message = socket.recv(60)
        if isinstance(message, str):
            continue
        (length,) = struct.unpack("<I", message[:4])
        header = json.loads(message[4 : 4 + length])
        socket.send(json.dumps({"drawn": header["name"]}))
        found.append((header, message[4 + length :]))
    return found


def test_the_wall_has_every_camera_and_each_has_its_page(tmp_path: Path) -> None:
    with running(tmp_path, *NAMES) as cameras, wall(cameras) as page:
        assert b"wall.js" in ask(page, "/")[1]
        values = json.loads(ask(page, "/cameras.json")[1])
        states = {camera["name"]: camera["state"] for camera in values["cameras"]}
        assert states == {**dict.fromkeys(NAMES, "live"), "gone": "failed"}
        assert values["total"]["captured"] == sum(c["captured"] for c in values["cameras"])
        assert ask(page, "/camera/door")[0] == 303
        assert b"main.js" in ask(page, "/camera/door/")[1]
        assert ask(page, "/camera/door/page/main.js")[0] == 200
        assert json.loads(ask(page, "/camera/door/hello")[1])["source"].startswith("door: demo://")
        status, jpeg = ask(page, "/camera/yard/snapshot.jpg")
        image = decoded(jpeg)
        assert (status, image.shape) == (200, (360, 640, 3))
        assert ask(page, "/camera/nobody/")[0] == 404
        assert ask(page, "/stream/nobody.mjpg")[0] == 404
        metrics = ask(page, "/metrics")[1].decode()
        assert 'stream_cam_source_up{camera="door"} 1.0' in metrics
        assert 'stream_cam_source_up{camera="gone"} 0.0' in metrics
        with connect(f"ws://127.0.0.1:{page.address.port}/camera/hall/ws") as socket:
            assert json.loads(socket.recv(60))["type"] == "hello"
        cameras.remove("door")
        wait_until(lambda: ask(page, "/camera/door/")[0] == 404, DEADLINE_SECONDS)


def test_a_cameras_stream_is_below_its_name(tmp_path: Path) -> None:
    with running(tmp_path, "door") as cameras, wall(cameras) as page:
        connection = http.client.HTTPConnection("127.0.0.1", page.address.port, timeout=60)
        connection.request("GET", "/stream/door.mjpg")
        answer = connection.getresponse()
        assert answer.status == 200
        assert b"image/jpeg" in answer.read(200)
        connection.close()


def test_only_visible_tiles_are_encoded_in_the_size_they_are_shown_in(tmp_path: Path) -> None:
    with running(tmp_path, *NAMES) as cameras, wall(cameras) as page:
        assert json.loads(ask(page, "/cameras.json")[1])["encoded_tiles"] == 0
        with connect(f"ws://127.0.0.1:{page.address.port}/wall") as socket:
            socket.send(json.dumps({"show": {"hall": 310, "nobody": 100}}))
            for header, jpeg in pictures(socket, 5):
                assert header["name"] == "hall"
                image = decoded(jpeg)
                assert image.shape == (180, 320, 3)
            socket.send(json.dumps({"show": {"door": 5000}}))
            header, jpeg = pictures(socket, 6)[-1]
            assert header["name"] == "door"
            image = decoded(jpeg)
            assert image.shape == (360, 640, 3)  # never enlarged
            socket.send(json.dumps({"show": {}}))


def test_a_viewer_who_draws_nothing_gets_nothing_more(tmp_path: Path) -> None:
    with running(tmp_path, "door") as cameras, wall(cameras) as page:
        address = f"ws://127.0.0.1:{page.address.port}/wall"
        with connect(address) as lazy, connect(address) as prompt:
            for socket in (lazy, prompt):
                socket.send(json.dumps({"show": {"door": 160}}))
            pictures(prompt, 10)
            got: list[str | bytes] = []
            with suppress(TimeoutError):
                while True:
                    got.append(lazy.recv(0))
            assert sum(isinstance(message, bytes) for message in got) <= 2


def test_another_sites_page_gets_no_pictures(tmp_path: Path) -> None:
    with running(tmp_path, "door") as cameras, wall(cameras) as page:
        address = f"ws://127.0.0.1:{page.address.port}/wall"
        with pytest.raises(Exception, match="403"):
            connect(address, origin=Origin("http://evil.example"))


def test_the_wall_is_recorded_as_one_picture(tmp_path: Path) -> None:
    with running(tmp_path, *NAMES) as cameras:
        video = tmp_path / "wall.mp4"
        record = RecordConfig(min_free="1k")
        run = WallRun(cameras, [str(video)], CamerasConfig(wall_fps=5.0), WebConfig(), record)
        ticks = 0

        def tick() -> None:
            nonlocal ticks
            ticks += 1
            if ticks == 20:
                cameras.stop()

        run.run(tick)
        with av.open(str(video)) as container:
            frames = list(container.decode(video=0))
        assert (frames[0].width, frames[0].height) == (1920, 1080)
        assert len(frames) >= 2
    assert WallPicture(cameras).draw().std() > 10


@pytest.mark.parametrize(
    ("count", "rows_columns"), [(0, (1, 1)), (1, (1, 1)), (2, (1, 2)), (6, (2, 3)), (17, (4, 5))]
)
def test_the_grid_has_room_for_all(count: int, rows_columns: tuple[int, int]) -> None:
    assert grid(count) == rows_columns


@pytest.mark.needs_chromium
def test_the_wall_in_a_browser(tmp_path: Path) -> None:
    with running(tmp_path, *NAMES) as cameras, wall(cameras) as page, chromium() as browser:
        tab = browser.new_page(viewport={"width": 1200, "height": 800})
        errors: list[str] = []
        tab.on("pageerror", lambda error: errors.append(str(error)))
        tab.goto(page.url, timeout=DEADLINE_MS)
        tab.wait_for_function(
            """() => [...document.querySelectorAll('.tile[data-state="live"] canvas')]
                .filter((canvas) => canvas.width > 100).length === 3""",
            timeout=DEADLINE_MS,
        )
        assert tab.locator('.tile[data-name="gone"]').get_attribute("data-state") == "failed"
        assert "does not exist" in tab.locator('.tile[data-name="gone"] .what').inner_text()
        tab.keyboard.press("/")
        tab.keyboard.type("yar")
        tab.wait_for_function(
            "() => document.querySelectorAll('.tile:not([hidden])').length === 1",
            timeout=DEADLINE_MS,
        )
        tab.keyboard.press("Escape")
        tab.keyboard.press("2")
        tab.wait_for_url("**/camera/hall/", timeout=DEADLINE_MS)
        tab.wait_for_function("() => document.body.dataset.state === 'live'", timeout=DEADLINE_MS)
        assert not errors
