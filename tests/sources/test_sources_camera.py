import errno
import os
import queue
import threading
from fractions import Fraction
from itertools import islice

import cv2
import numpy as np
import pytest
from support.manual_clock import DEADLINE_SECONDS, ManualClock, NoJitter

from stream_cam.config import CaptureConfig
from stream_cam.errors import SourceError, SourceNotFoundError, UsageError
from stream_cam.frame import BgrImage, Frame
from stream_cam.sources.camera import CameraSource, camera_index, check_camera, list_cameras
from stream_cam.sources.reconnecting import ReconnectingSource


class FakeDevice:
    """A fake `cv2.VideoCapture`: gives `n_pictures`, then fails."""

    def __init__(self, n_pictures: int, *, opened: bool = True) -> None:
        self.left = n_pictures
        self.opened = opened
        self.released = False

    def isOpened(self) -> bool:
        return self.opened

    def get(self, propId: int) -> float:
        return 29.97 if propId == cv2.CAP_PROP_FPS else 0.0

    def set(self, propId: int, value: float) -> bool:
        return False

    def read(self) -> tuple[bool, BgrImage]:
        self.left -= 1
        return self.left >= 0, np.zeros((48, 64, 3), np.uint8)

    def release(self) -> None:
        self.released = True


def source_of(device: FakeDevice) -> CameraSource:
    return CameraSource("0", check=lambda index: None, opener=lambda index: device)


@pytest.mark.parametrize(("uri", "index"), [("0", 0), ("7", 7), ("/dev/video12", 12)])
def test_camera_index(uri: str, index: int) -> None:
    assert camera_index(uri) == index


@pytest.mark.parametrize("uri", ["-1", "/dev/videoX", "/dev/null", "²"])
def test_camera_index_of_other_names_is_an_error(uri: str) -> None:
    with pytest.raises(UsageError, match="names no camera"):
        camera_index(uri)


def test_camera_gives_frames_with_the_capture_clock() -> None:
    device = FakeDevice(5)
    with source_of(device) as source:
        assert source.info.live
        assert source.info.size_hw == (48, 64)
        assert source.info.fps == Fraction(2997, 100)
        frames = list(islice(source, 5))
    assert device.released
    assert [frame.index for frame in frames] == list(range(5))
    assert frames[0].pts == 0
    for frame in frames:
        assert frame.time_base == Fraction(1, 10**9)
        assert frame.pts == frame.captured_ns - frames[0].captured_ns


def test_camera_that_stops_is_an_error() -> None:
    device = FakeDevice(3)
    with (
        source_of(device) as source,
        pytest.raises(SourceError, match="no more pictures") as caught,
    ):
        for _ in source:
            pass
    assert caught.value.kind == "lost"
    assert device.released


def test_camera_that_does_not_open_or_gives_nothing() -> None:
    for device, text in (
        (FakeDevice(0, opened=False), "another program"),
        (FakeDevice(0), "gives no picture"),
    ):
        with pytest.raises(SourceError, match=text) as caught, source_of(device):
            pass
        assert caught.value.kind == "busy"
        assert device.released


def test_camera_that_is_not_there(capfd: pytest.CaptureFixture[str]) -> None:
    number = 1 + max([camera_index(path) for path in list_cameras()], default=-1)
    with pytest.raises(SourceNotFoundError, match=f"there is no camera /dev/video{number}"):
        CameraSource(str(number)).__enter__()
    assert capfd.readouterr() == ("", "")


def test_camera_that_may_not_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str, flags: int) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(SourceError, match="usermod -aG video") as caught:
        check_camera(0)
    assert caught.value.kind == "permission"


def test_camera_that_another_program_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str, flags: int) -> int:
        raise OSError(errno.EBUSY, "Device or resource busy")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(SourceError, match="another program is using it") as caught:
        check_camera(0)
    assert caught.value.kind == "busy"


class Webcam(FakeDevice):
    """Gives 1280×720 at 10 fps raw and at 60 as MJPG; smaller pictures at 30 raw."""

    def __init__(self, *, mjpg: bool = True) -> None:
        super().__init__(100)
        self.has_mjpg = mjpg
        self.values = {
            cv2.CAP_PROP_FRAME_WIDTH: 640.0,
            cv2.CAP_PROP_FRAME_HEIGHT: 480.0,
            cv2.CAP_PROP_FPS: 30.0,
            cv2.CAP_PROP_FOURCC: RAW,
        }

    def get(self, propId: int) -> float:
        if propId == cv2.CAP_PROP_FPS:
            return min(self.values[propId], self.fastest)
        return self.values.get(propId, 0.0)

    @property
    def fastest(self) -> float:
        if self.values[cv2.CAP_PROP_FOURCC] == MJPG:
            return 60.0
        return 30.0 if self.values[cv2.CAP_PROP_FRAME_WIDTH] <= 640 else 10.0

    def set(self, propId: int, value: float) -> bool:
        if propId == cv2.CAP_PROP_FOURCC and value == MJPG and not self.has_mjpg:
            return False
        self.values[propId] = value
        return True


RAW = float(cv2.VideoWriter.fourcc(*"YUYV"))
MJPG = float(cv2.VideoWriter.fourcc(*"MJPG"))


@pytest.mark.parametrize(
    ("size", "fps", "mjpg", "code", "said"),
    [
        (None, None, True, RAW, ""),
        ("640x480", 30.0, True, RAW, "asked for 640x480 at 30 fps, got 640x480 at 30 fps (YUYV)"),
        ("640x480", None, True, RAW, "got 640x480 at 25 fps (YUYV)"),
        ("1280x720", 60.0, True, MJPG, "got 1280x720 at 60 fps (MJPG)"),
        ("1280x720", None, True, MJPG, "got 1280x720 at 25 fps (MJPG)"),
        (None, 60.0, True, MJPG, "asked for 60 fps, got 640x480 at 60 fps (MJPG)"),
        ("1280x720", 60.0, False, RAW, "got 1280x720 at 10 fps (YUYV)"),
    ],
)
def test_size_and_rate_are_asked_for_and_mjpg_where_it_takes_that(
    size: str | None,
    fps: float | None,
    mjpg: bool,
    code: float,
    said: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    webcam = Webcam(mjpg=mjpg)
    config = CaptureConfig(camera_size=size, camera_fps=fps)
    camera = CameraSource("0", config, check=lambda index: None, opener=lambda index: webcam)
    with camera:
        assert webcam.values[cv2.CAP_PROP_FOURCC] == code
        assert said in camera.info.note
        assert bool(camera.info.note) == bool(said)
    assert (camera.info.note in caplog.messages) == ("10 fps" in said)


@pytest.mark.parametrize(
    "options",
    [{"camera_size": "1280"}, {"camera_size": "0x720"}, {"camera_fps": 0.0}, {"give_up_after": -1}],
)
def test_nonsense_is_not_asked_for(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"--camera-size|--camera-fps|--give-up-after"):
        CaptureConfig(**options)  # type: ignore[arg-type]


def test_camera_that_is_unplugged_comes_back() -> None:
    devices = [FakeDevice(3), FakeDevice(0, opened=False), FakeDevice(100)]
    opened = iter(devices)
    device: list[FakeDevice] = []

    def opener(index: int) -> FakeDevice:
        device.append(next(opened))
        return device[-1]

    clock = ManualClock()
    source = ReconnectingSource(
        "0",
        lambda: CameraSource("0", check=lambda index: None, opener=opener),
        clock=clock,
        jitter=NoJitter(),
    )
    frames: queue.Queue[Frame] = queue.Queue()

    def view() -> None:
        with source:
            for frame in source:
                frames.put(frame)

    thread = threading.Thread(target=view, daemon=True)
    thread.start()
    clock.pass_wait(0.5)
    clock.pass_wait(1.0)
    while device[-1] is not devices[2]:
        assert frames.get(timeout=DEADLINE_SECONDS) is not None
    source.stop()
    thread.join(DEADLINE_SECONDS)
    assert not thread.is_alive()
    assert all(each.released for each in devices)
