"""Webcams through OpenCV (V4L2)."""

from __future__ import annotations

import errno
import glob
import logging
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, Protocol

import cv2
import numpy as np

from stream_cam.config import CaptureConfig, size_hw
from stream_cam.errors import SourceError, SourceErrorKind, SourceNotFoundError, UsageError
from stream_cam.frame import NANOSECOND, BgrImage, Frame
from stream_cam.sources.base import Source, SourceInfo
from stream_cam.sources.kinds import Input, SourceKind
from stream_cam.sources.paths import natural_key
from stream_cam.sources.reconnecting import ReconnectingSource

logger = logging.getLogger(__name__)

_MJPG: Final = float(cv2.VideoWriter.fourcc(*"MJPG"))
_WANTED_FPS: Final = 25.0
"""The rate to ask for with a size alone: raw 1280×720 comes at 10 fps over USB 2."""


class Device(Protocol):
    """The part of `cv2.VideoCapture` that is used."""

    def isOpened(self) -> bool: ...

    def get(self, propId: int) -> float: ...

    def set(self, propId: int, value: float) -> bool: ...

    def read(self) -> tuple[bool, BgrImage]: ...

    def release(self) -> None: ...


def list_cameras() -> list[str]:
    """The video devices of this machine, `/dev/video0` first; not all of them need be cameras."""
    return sorted(glob.glob("/dev/video[0-9]*"), key=natural_key)


def camera_index(uri: str) -> int:
    """The number of a camera: `0`, `/dev/video0` or a link to such a device."""
    name = uri
    if uri.startswith("/"):
        match = re.fullmatch(r"/dev/video(\d+)", os.path.realpath(uri))
        name = match.group(1) if match else ""
    if not (name.isascii() and name.isdecimal()):
        raise UsageError(f"{uri} names no camera; give a number such as 0, or /dev/video0")
    return int(name)


def open_device(index: int) -> Device:
    """Open a camera without messages on stderr; `isOpened` says whether that worked."""
    # OpenCV writes to stderr; the error below says the same in one line.
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    backend = cv2.CAP_V4L2 if sys.platform == "linux" else cv2.CAP_ANY
    device: Device = cv2.VideoCapture(index, backend)  # type: ignore[assignment]
    return device


class CameraSource(Source):
    """A webcam; frame times are nanoseconds since the first frame.

    Args:
        uri: `0`, `/dev/video0`.
        config: the size and rate to ask for.
        check: raises if the camera is not there or may not be used.
        opener: opens the device with that number.
    """

    def __init__(
        self,
        uri: str,
        config: CaptureConfig | None = None,
        check: Callable[[int], None] | None = None,
        opener: Callable[[int], Device] = open_device,
    ) -> None:
        self._uri = uri
        self._config = config or CaptureConfig()
        self._index = camera_index(uri)
        self._check = check or check_camera
        self._opener = opener
        self._device: Device | None = None
        self._first: tuple[BgrImage, int] | None = None
        self._note = ""

    def __enter__(self) -> CameraSource:
        self._check(self._index)
        device = self._opener(self._index)
        try:
            self._start(device)
        except BaseException:
            device.release()
            raise
        self._device = device
        return self

    def close(self) -> None:
        if self._device is not None:
            self._device.release()
        self._device = self._first = None

    def __iter__(self) -> Iterator[Frame]:
        index, start_ns = 0, None
        while (shot := self._capture()) is not None:
            image, captured_ns = shot
            start_ns = captured_ns if start_ns is None else start_ns
            yield Frame(image, index, captured_ns - start_ns, NANOSECOND, captured_ns)
            index += 1

    def _start(self, device: Device) -> None:
        name = f"camera {self._uri}"
        if not device.isOpened():
            raise SourceError(
                f"{name} cannot be opened: another program may be using it, or it is no camera; "
                f"close that program (`fuser /dev/video{self._index}` finds it){_other_cameras()}",
                kind="busy",
            )
        self._negotiate(device)
        # With more than one buffer, pictures get old while they wait.
        device.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        ok, image = device.read()
        if not ok:
            raise SourceError(
                f"{name} opens but gives no picture: another program may be using it; close "
                f"that program (`fuser /dev/video{self._index}` finds it), or plug it in again",
                kind="busy",
            )
        self._first = image, time.monotonic_ns()
        rate = device.get(cv2.CAP_PROP_FPS)
        self._info = SourceInfo(
            name=self._uri,
            size_hw=(image.shape[0], image.shape[1]),
            fps=Fraction(rate).limit_denominator(1001) if 0 < rate <= 1000 else None,
            n_frames=None,
            live=True,
            note=self._note,
        )

    def _negotiate(self, device: Device) -> None:
        """Ask for the wanted size and rate; MJPG is tried where the raw format cannot give them."""
        config = self._config
        if config.camera_size is None and config.camera_fps is None:
            return
        wanted = _Mode.wanted(config)
        got = wanted.ask(device)
        if not got.satisfies(wanted) and device.get(cv2.CAP_PROP_FOURCC) != _MJPG:
            raw_format = device.get(cv2.CAP_PROP_FOURCC)
            device.set(cv2.CAP_PROP_FOURCC, _MJPG)
            packed = wanted.ask(device)
            if packed.satisfies(wanted) or packed.fps > got.fps:
                got = packed
            else:
                device.set(cv2.CAP_PROP_FOURCC, raw_format)
                got = wanted.ask(device)
        self._note = f"camera {self._uri}: asked for {wanted}, got {got}"
        if not got.satisfies(wanted):
            logger.warning("%s", self._note)

    def _capture(self) -> tuple[BgrImage, int] | None:
        """One picture and its capture time in ns; None once the source is closed."""
        if self._device is None:
            return None
        if self._first is not None:
            first, self._first = self._first, None
            return first
        ok, image = self._device.read()
        if not ok:
            raise SourceError(
                f"camera {self._uri} gives no more pictures; is it still plugged in?", kind="lost"
            )
        return np.asarray(image, dtype=np.uint8), time.monotonic_ns()


@dataclass(frozen=True)
class _Mode:
    """Size in pixels and rate of a camera; 0: whatever it is."""

    width_px: int
    height_px: int
    fps: float
    code: str = ""

    @classmethod
    def wanted(cls, config: CaptureConfig) -> _Mode:
        height, width = size_hw(config.camera_size) if config.camera_size else (0, 0)
        return cls(width, height, config.camera_fps or _WANTED_FPS)

    def ask(self, device: Device) -> _Mode:
        """Ask a camera for this mode; gives the mode that it takes."""
        if self.width_px:
            device.set(cv2.CAP_PROP_FRAME_WIDTH, self.width_px)
            device.set(cv2.CAP_PROP_FRAME_HEIGHT, self.height_px)
        device.set(cv2.CAP_PROP_FPS, self.fps)
        return _Mode(
            round(device.get(cv2.CAP_PROP_FRAME_WIDTH)),
            round(device.get(cv2.CAP_PROP_FRAME_HEIGHT)),
            device.get(cv2.CAP_PROP_FPS),
            int(device.get(cv2.CAP_PROP_FOURCC)).to_bytes(4, "little").decode("ascii", "replace"),
        )

    def satisfies(self, wanted: _Mode) -> bool:
        same_size = (self.width_px, self.height_px) == (wanted.width_px, wanted.height_px)
        return (same_size or not wanted.width_px) and self.fps > wanted.fps - 1

    def __str__(self) -> str:
        size = f"{self.width_px}x{self.height_px} at " if self.width_px else ""
        return f"{size}{self.fps:g} fps" + f" ({self.code})" * self.code.isprintable() * bool(
            self.code
        )


def check_camera(index: int) -> None:
    """Find out, on Linux, whether a camera is there and may be used.

    Raises:
        SourceNotFoundError: it is not there; the message lists those that are.
        SourceError: it may not be used, or another program holds it.
    """
    if sys.platform != "linux":
        return
    path = f"/dev/video{index}"
    try:
        os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK))
    except FileNotFoundError as exc:
        raise SourceNotFoundError(f"there is no camera {path}{_other_cameras()}") from exc
    except PermissionError as exc:
        raise SourceError(
            f"camera {path} may not be used: permission denied; add yourself to its group "
            f"(`sudo usermod -aG video $USER`) and log in again",
            kind="permission",
        ) from exc
    except OSError as exc:
        busy = exc.errno == errno.EBUSY
        kind: SourceErrorKind = "busy" if busy else "lost"
        what = f"another program is using it; `fuser {path}` finds it" if busy else exc.strerror
        raise SourceError(
            f"camera {path} cannot be opened: {what}{_other_cameras()}", kind=kind
        ) from exc


def _other_cameras() -> str:
    found = list_cameras()
    if not found:
        return "; this machine has none (`stream-cam demo` needs no camera)"
    return f"; there are {', '.join(found)}"


def _is_camera(source: Input) -> bool:
    uri = source.uri
    return (uri.isascii() and uri.isdecimal()) or uri.startswith("/dev/video")


def _check_camera_uri(source: Input) -> None:
    camera_index(source.uri)
    if source.live is False:
        raise UsageError(
            f"camera {source.uri} is live and its frames do not wait: leave out --no-live"
        )


def _make_camera(source: Input) -> ReconnectingSource:
    uri, config = source.uri, source.config
    return ReconnectingSource(uri, lambda: CameraSource(uri, config), config)


CAMERA: Final = SourceKind("camera", make=_make_camera, check=_check_camera_uri, claims=_is_camera)
