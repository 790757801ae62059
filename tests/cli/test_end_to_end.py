"""The real command, every kind of sink and source, ended by its end, by Ctrl-C and by SIGTERM.

Other tests drive parts. These tests start the users' commands and look at the users' outputs.
"""

from __future__ import annotations

import functools
import http.server
import json
import signal
import socketserver
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import av
import cv2
import numpy as np
import pytest
from PIL import Image, ImageGrab, features
from support.browser import chromium
from support.commands import START_SECONDS, Command
from support.displays import x_server
from support.rtsp_harness import RtspServer, rtsp_server_problem
from support.videos import numbered_picture, write_video
from support.waiting import wait_until
from support.web_show import live, pixels, visit

from stream_cam import open_source
from stream_cam.config import WebConfig
from stream_cam.frame import BgrImage

if TYPE_CHECKING:
    from playwright.sync_api import Browser

_SIZE_HW = (240, 320)
_SCENE = "demo://shapes?size=320x240&fps=10&seed=3"
_ENDINGS = {"end": 0, "interrupt": 130, "terminate": 143}
_SIGNALS = {"interrupt": signal.SIGINT, "terminate": signal.SIGTERM}
ending = pytest.mark.parametrize("ending", _ENDINGS)


def scene(ending: str, seconds: int = 3) -> str:
    """One that ends by itself, or one that goes on until it is ended."""
    return f"{_SCENE}&seconds={seconds}" if ending == "end" else f"{_SCENE}&live=1"


def finish(command: Command, ending: str) -> None:
    """Ends it in that way, and holds its exit code."""
    code = command.end() if ending == "end" else command.stop(_SIGNALS[ending])
    assert code == _ENDINGS[ending]


@pytest.fixture(scope="module")
def display() -> Iterator[str]:
    if not features.check("xcb"):
        pytest.skip("this Pillow takes no screenshots of X11 (built without xcb)")
    with x_server() as name:
        yield name


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


def screenshot(display: str) -> BgrImage:
    """The corner in which windows open where no window manager places them."""
    corner = ImageGrab.grab(bbox=(0, 0, 480, 360), xdisplay=display)
    return np.asarray(corner.convert("RGB"))[..., ::-1].copy()


def window_seen(command: Command, display: str) -> BgrImage:
    """A screenshot in which a window of colours has come up."""
    shots: list[BgrImage] = []

    def colourful() -> bool:
        assert command.process.poll() is None, command.process.poll()
        shots[:] = [screenshot(display)]
        return bool(np.ptp(shots[0].astype(int), axis=2).max() > 100)

    wait_until(colourful, START_SECONDS)
    return shots[0]


def likeness(shot: BgrImage, picture: BgrImage) -> float:
    """How much the best place of a screenshot is like the picture, HUD apart: 1 is equal."""
    top, left = _SIZE_HW[0] // 4, _SIZE_HW[1] // 4
    inner = picture[top : 3 * top, left : 3 * left]
    return float(cv2.matchTemplate(shot, inner, cv2.TM_CCOEFF_NORMED).max())


@functools.cache
def scene_frames() -> list[BgrImage]:
    """The first ten seconds of the scene, as the source draws them."""
    with open_source(f"{_SCENE}&seconds=10") as source:
        return [frame.image_bgr for frame in source]


def as_page_gets(frame: BgrImage) -> BgrImage:
    """JPEG alone makes the first frame of the scene 0.969 like itself: the page may show it."""
    quality = [cv2.IMWRITE_JPEG_QUALITY, WebConfig().web_quality]
    coded = cv2.imdecode(cv2.imencode(".jpg", frame, quality)[1], cv2.IMREAD_COLOR)
    assert coded is not None
    return np.asarray(coded, np.uint8)


def n_pictures(path: Path) -> int:
    """Pictures of a video that decode, all of the right size."""
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    assert all((frame.height, frame.width) == _SIZE_HW for frame in frames)
    return len(frames)


@pytest.mark.needs_display
class TestWindow:
    @ending
    def test_window_shows_the_scene(self, tmp_path: Path, display: str, ending: str) -> None:
        arguments = ["run", scene(ending), "-o", "window", "--weights", "demo"]
        with Command(
            tmp_path, *arguments, "--alpha", "0", "--no-hud", environment={"DISPLAY": display}
        ) as command:
            shot = window_seen(command, display)
            finish(command, ending)
        assert max(likeness(shot, frame) for frame in scene_frames()) > 0.99

    def test_window_shows_what_a_folder_gets(self, tmp_path: Path, display: str) -> None:
        arguments = ["run", scene("end"), "-o", "window", "-o", "frames/", "--weights", "demo"]
        with Command(tmp_path, *arguments, environment={"DISPLAY": display}) as command:
            shot = window_seen(command, display)
            assert command.end() == 0
        written = [cv2.imread(str(path)) for path in sorted((tmp_path / "frames").glob("*.png"))]
        assert len(written) == 30
        assert max(likeness(shot, picture) for picture in written) > 0.99  # type: ignore[arg-type]


@pytest.mark.needs_chromium
class TestPage:
    @ending
    def test_page_shows_the_scene(self, tmp_path: Path, browser: Browser, ending: str) -> None:
        source = f"{_SCENE}&live=1" + "&seconds=10" * (ending == "end")
        arguments = ["run", source, "-o", "web://127.0.0.1:0", "--weights", "demo"]
        with Command(tmp_path, *arguments, "--alpha", "0", "--no-hud") as command:
            url = command.said(r"watch at (\S+)").group(1)
            command.said("live: ")  # the network is loaded
            with visit(browser, url) as page:
                live(page)
                seen = pixels(page)
            finish(command, ending)
        assert max(likeness(seen, as_page_gets(frame)) for frame in scene_frames()) > 0.99


class TestFile:
    @ending
    def test_recording_plays(self, tmp_path: Path, ending: str) -> None:
        with Command(tmp_path, "run", scene(ending), "out.mp4", "--weights", "demo") as command:
            if ending != "end":
                command.wrote("out*.mp4", 20_000)
            finish(command, ending)
        n_frames = n_pictures(tmp_path / "out.mp4")
        assert n_frames == 30 if ending == "end" else n_frames > 5

    @ending
    def test_folder_has_its_pictures(self, tmp_path: Path, ending: str) -> None:
        with Command(tmp_path, "run", scene(ending), "frames/", "--weights", "demo") as command:
            if ending != "end":
                command.wrote("frames/*.png", count=6)
            finish(command, ending)
        pictures = sorted((tmp_path / "frames").iterdir())
        assert len(pictures) == 30 if ending == "end" else len(pictures) >= 5
        for path in pictures:
            with Image.open(path) as image:
                image.load()
                assert image.size == _SIZE_HW[::-1]


@pytest.mark.needs_display
@pytest.mark.needs_chromium
class TestSeveral:
    @ending
    def test_window_page_file_and_folder_at_once(
        self, tmp_path: Path, display: str, browser: Browser, ending: str
    ) -> None:
        source = f"{_SCENE}&live=1" + "&seconds=12" * (ending == "end")
        outputs = ["window", "web://127.0.0.1:0", "out.mp4", "frames/", "null"]
        arguments = [word for output in outputs for word in ("-o", output)]
        report = ["--report", "report.json"]
        with Command(
            tmp_path,
            *("run", source, *arguments, *report, "--weights", "demo"),
            environment={"DISPLAY": display},
        ) as command:
            shot = window_seen(command, display)
            with visit(browser, command.said(r"watch at (\S+)").group(1)) as page:
                live(page)
                seen = pixels(page)
            command.wrote("frames/*.png", count=10)
            finish(command, ending)
        assert seen.shape == (*_SIZE_HW, 3)
        written = [cv2.imread(str(path)) for path in sorted((tmp_path / "frames").iterdir())]
        outputs = json.loads((tmp_path / "report.json").read_text("utf-8"))["sinks"]
        counted = {sink["name"]: sink["written"] for sink in outputs}
        assert n_pictures(tmp_path / "out.mp4") == counted["out.mp4"] > 5
        assert len(written) == counted["frames/"] >= 10
        for picture in (shot, seen):
            assert max(likeness(picture, one) for one in written) > 0.95  # type: ignore[arg-type]


@contextmanager
def mjpeg_camera() -> Iterator[str]:
    """A multipart camera at ten pictures a second."""
    over = threading.Event()
    pictures = [
        cv2.imencode(".jpg", numbered_picture(number, _SIZE_HW))[1].tobytes() for number in range(9)
    ]

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            number = 0
            while not over.wait(0.1):
                jpeg = pictures[number % len(pictures)]
                head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                try:
                    self.wfile.write(head.encode() + jpeg + b"\r\n")
                except OSError:
                    return
                number += 1

        def log_message(self, format: str, *args: object) -> None: ...

    with served(Handler) as port:
        try:
            yield f"http://127.0.0.1:{port}/video.mjpg"
        finally:
            over.set()


@contextmanager
def served(handler: type[http.server.BaseHTTPRequestHandler]) -> Iterator[int]:
    """An HTTP server on loopback; its port."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


class TestSources:
    """Those that end, to their end; those that go on, until they are stopped."""

    @pytest.fixture(autouse=True)
    def _material(self, tmp_path: Path) -> None:
        write_video(tmp_path / "clip.mp4", n_frames=12, size_hw=_SIZE_HW)
        (tmp_path / "photos").mkdir()
        for number in range(4):
            path = tmp_path / "photos" / f"photo{number}.png"
            cv2.imwrite(str(path), numbered_picture(number, _SIZE_HW))

    @pytest.mark.parametrize(
        ("source", "n_frames"), [("clip.mp4", 12), ("photos", 4), ("photos/photo[012].png", 3)]
    )
    def test_files_to_their_end(self, tmp_path: Path, source: str, n_frames: int) -> None:
        with Command(tmp_path, "run", source, "out.mp4", "--weights", "demo") as command:
            assert command.end() == 0
        assert n_pictures(tmp_path / "out.mp4") == n_frames

    def test_file_over_http(self, tmp_path: Path) -> None:
        handler = functools.partial(QuietFiles, directory=str(tmp_path))
        with served(handler) as port:  # type: ignore[arg-type]
            url = f"http://127.0.0.1:{port}/clip.mp4"
            with Command(tmp_path, "run", url, "out.mp4", "--weights", "demo") as command:
                assert command.end() == 0
        assert n_pictures(tmp_path / "out.mp4") == 12

    @pytest.mark.parametrize("ending", _SIGNALS)
    def test_camera_over_http(self, tmp_path: Path, ending: str) -> None:
        with (
            mjpeg_camera() as url,
            Command(tmp_path, "run", url, "out.mp4", "--weights", "demo") as command,
        ):
            command.wrote("out*.mp4", 5_000)
            finish(command, ending)
        assert n_pictures(tmp_path / "out.mp4") > 5

    @pytest.mark.needs_rtsp_server
    @pytest.mark.parametrize("ending", _SIGNALS)
    def test_rtsp_camera(self, tmp_path: Path, ending: str) -> None:
        problem = rtsp_server_problem()
        if problem:
            pytest.skip(problem)
        with ExitStack() as stack:
            server = stack.enter_context(RtspServer(fps=10))
            command = stack.enter_context(
                Command(tmp_path, "run", server.url, "out.mp4", "--weights", "demo")
            )
            command.wrote("out*.mp4", 20_000)
            finish(command, ending)
        assert n_pictures(tmp_path / "out.mp4") > 5

    def test_pictures_signalled_in_the_middle_of_loading(self, tmp_path: Path) -> None:
        """Before anything is written: the libraries are being imported."""
        with Command(tmp_path, "run", "clip.mp4", "out.mp4", "--weights", "demo") as command:
            code = command.stop(signal.SIGINT)
        assert code in (130, -signal.SIGINT)
        assert not (tmp_path / "out.mp4").exists()


class QuietFiles(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None: ...


@pytest.mark.parametrize("sync", ["auto", "matched", "newest"])
def test_live_pictures_say_how_they_met_their_maps(tmp_path: Path, sync: str) -> None:
    report, rows = tmp_path / "report.json", tmp_path / "rows.jsonl"
    command = ["run", f"{_SCENE}&live=1&seconds=4", "-o", "null", "--sync", sync]
    command += ["--report", str(report), "--predictions", str(rows)]
    with Command(tmp_path, *command) as running:
        assert running.end() == 0
    said = json.loads(report.read_text())
    shown = said["sync"]["shown"]
    assert sum(shown.values()) == said["rendered"] > 0
    possible = {"auto": {"own", "interpolated", "matched", "newest"}}.get(sync, {sync})
    assert set(shown) <= possible
    assert said["latency"]["picture_delay"]["count"] == said["rendered"]
    for row in map(json.loads, rows.read_text().splitlines()):
        between = row["between_frames"]
        if sync == "matched":
            assert row["explained_frame"] == row["frame"]
        if between is not None:
            assert between[0] < row["frame"] < between[1]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["run", "nosuch.mp4", "out.mp4"], 1, "nosuch.mp4"),
        (["run", "text.mp4", "out.mp4", "--weights", "demo"], 1, "text.mp4"),
        (["run", _SCENE, "out.mp4", "--colormap", "pink"], 2, "pink"),
        (["walk"], 2, "walk"),
    ],
)
def test_mistakes_end_with_one_line(
    tmp_path: Path, arguments: list[str], code: int, words: str
) -> None:
    (tmp_path / "text.mp4").write_text("not a video")
    with Command(tmp_path, *arguments) as command:
        assert command.end() == code
    assert words in command.err
    assert not (tmp_path / "out.mp4").exists()
