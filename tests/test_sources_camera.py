import os
from fractions import Fraction
from itertools import islice

import cv2
import numpy as np
import pytest

from stream_cam.errors import SourceError, SourceNotFoundError, UsageError
from stream_cam.frame import BgrImage
from stream_cam.sources.camera import CameraSource, camera_index, check_camera, list_cameras


class FakeDevice:
    """What `cv2.VideoCapture` is to the source: gives `n_pictures`, then fails."""

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
def test_camera_index_of_what_is_none(uri: str) -> None:
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
    with source_of(device) as source, pytest.raises(SourceError, match="no more pictures"):
        for _ in source:
            pass
    assert device.released


def test_camera_that_does_not_open_or_gives_nothing() -> None:
    for device, text in (
        (FakeDevice(0, opened=False), "another program"),
        (FakeDevice(0), "gives no picture"),
    ):
        with pytest.raises(SourceError, match=text), source_of(device):
            pass
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
    with pytest.raises(SourceError, match="usermod -aG video"):
        check_camera(0)
