"""`screen://`: what a screen shows, grabbed by mss.

FFmpeg grabs screens too, but the x11grab of PyAV crashes in a process that has loaded OpenCV: both
wheels bring an XCB library of their own.
"""

from __future__ import annotations

import os
import re
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl, urlsplit

import cv2
import numpy as np

from stream_cam.errors import SourceError, UsageError, first_line, unknown_name
from stream_cam.frame import NANOSECOND, BgrImage, Frame
from stream_cam.sources.base import Source, SourceInfo
from stream_cam.sources.kinds import Input, SourceKind

if TYPE_CHECKING:
    import mss

_PARAMETERS: Final = ("region", "fps")
_FPS: Final = (1, 120)


@dataclass(frozen=True)
class ScreenOptions:
    """The options of a `screen://` URI."""

    number: int = 1
    """Of the screen, from 1; 0: all screens as one picture."""
    region_xywh: tuple[int, int, int, int] | None = None
    """Left, top, width and height in pixels of that screen; None: the whole screen."""
    fps: int = 25
    """Frames a second."""


def parse_screen_uri(uri: str) -> ScreenOptions:
    """Read `screen://1?region=1280x720+100+50&fps=25`.

    Raises:
        UsageError: an unknown parameter, or a value that is none.
    """
    parts = urlsplit(uri)
    name = parts.netloc + parts.path.rstrip("/")
    if not (name.isascii() and (name.isdecimal() or not name) and len(name) < 3):
        raise UsageError(
            f"screen:// takes the number of a screen, such as screen://1, got {uri}; a part of it "
            "is screen://?region=1280x720+100+50"
        )
    options = ScreenOptions(int(name or 1))
    for key, text in parse_qsl(parts.query.replace("+", "%2B"), keep_blank_values=True):
        if key not in _PARAMETERS:
            raise unknown_name("parameter of screen://", key, _PARAMETERS)
        if key == "region":
            options = replace(options, region_xywh=_region(text))
        else:
            options = replace(options, fps=_fps(text))
    return options


def _region(text: str) -> tuple[int, int, int, int]:
    match = re.fullmatch(r"(\d{1,5})x(\d{1,5})\+(\d{1,5})\+(\d{1,5})", text)
    if match is None:
        raise UsageError(
            f"region is WIDTHxHEIGHT+LEFT+TOP in pixels, such as 1280x720+100+50, got {text!r}"
        )
    width, height, left, top = map(int, match.groups())
    if min(width, height) < 2:
        raise UsageError(f"region is at least 2x2 pixels, got {text!r}")
    return left, top, width, height


def _fps(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and _FPS[0] <= int(text) <= _FPS[1]):
        raise UsageError(
            f"fps of screen:// is a whole number from {_FPS[0]} to {_FPS[1]}, got {text!r}"
        )
    return int(text)


class ScreenSource(Source):
    """The screen, live; frame times are nanoseconds since the first frame."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._options = parse_screen_uri(uri)
        self._grabber: mss.MSS | None = None
        self._area: dict[str, int] = {}
        self._ended = threading.Event()

    def __enter__(self) -> ScreenSource:
        import mss

        try:
            self._grabber = mss.MSS()
            self._area = self._find_area(self._grabber.monitors)
            self._grab()
        except mss.ScreenShotError as error:
            self.close()
            raise SourceError(
                f"{self._uri} cannot be grabbed ({first_line(error)}): see whether the display is "
                "there and may be used (DISPLAY, XAUTHORITY)",
                kind="refused",
            ) from error
        size_hw = (self._area["height"], self._area["width"])
        self._info = SourceInfo(self._uri, size_hw, Fraction(self._options.fps), None, live=True)
        return self

    def _find_area(self, screens: list[dict[str, int]]) -> dict[str, int]:
        """Left, top, width and height of what is grabbed, in pixels of all screens together.

        Raises:
            UsageError: there is no such screen, or the region reaches beyond it.
        """
        number, region = self._options.number, self._options.region_xywh
        if number >= len(screens):
            raise UsageError(
                f"{self._uri}: this machine has screens 1 to {len(screens) - 1}: give one of "
                "these, or screen://0 for all as one picture"
            )
        screen = screens[number]
        left, top, width, height = region or (0, 0, screen["width"], screen["height"])
        if left + width > screen["width"] or top + height > screen["height"]:
            raise UsageError(
                f"{self._uri}: the region reaches beyond the screen of "
                f"{screen['width']}x{screen['height']} pixels: give a smaller one"
            )
        left, top = left + screen["left"], top + screen["top"]
        return {"left": left, "top": top, "width": width, "height": height}

    def _grab(self) -> BgrImage:
        assert self._grabber is not None
        shot = self._grabber.grab(self._area)
        bgra = np.frombuffer(shot.raw, np.uint8).reshape(shot.height, shot.width, 4)
        return np.asarray(cv2.cvtColor(bgra, cv2.COLOR_BGRA2BGR), np.uint8)

    def stop(self) -> None:
        self._ended.set()

    def close(self) -> None:
        self._ended.set()
        if self._grabber is not None:
            self._grabber.close()
            self._grabber = None

    def __iter__(self) -> Iterator[Frame]:
        import mss

        started_ns, due_ns, index = time.monotonic_ns(), time.monotonic_ns(), 0
        step_ns = 1_000_000_000 // self._options.fps
        while not self._ended.wait(max(0, due_ns - time.monotonic_ns()) / 1e9):
            now_ns = time.monotonic_ns()
            try:
                image = self._grab()
            except mss.ScreenShotError as error:
                raise SourceError(
                    f"{self._uri} ended ({first_line(error)}): see whether the display is there",
                    kind="lost",
                ) from error
            yield Frame(image, index, now_ns - started_ns, NANOSECOND, now_ns)
            index += 1
            due_ns = max(due_ns + step_ns, time.monotonic_ns())


def _check(source: Input) -> None:
    parse_screen_uri(source.uri)
    if source.live is False:
        raise UsageError(f"{source.uri} is live and its frames do not wait: leave out --no-live")
    if find_spec("mss") is None:
        raise SourceError(
            "mss, which grabs screens, is not installed: pip install 'stream-cam[screen]'"
        )
    if sys.platform == "linux" and not os.environ.get("DISPLAY"):
        raise SourceError(
            "no screen to grab: DISPLAY is not set; start it where a display is, or set DISPLAY=:0",
            kind="not found",
        )


SCREEN: Final = SourceKind(
    "screen", make=lambda source: ScreenSource(source.uri), check=_check, schemes=("screen",)
)
