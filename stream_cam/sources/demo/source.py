"""`demo://shapes` and `demo://photos`: synthetic cameras.

Before the first, ten shapes drift, turn and change over a lit wall. The second moves over
photographs (`photos.py`).

Everything is a function of the URI and the frame's number, so a test or a measurement can be
repeated to the pixel. A drawn frame carries its true shape and its box.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Final
from urllib.parse import parse_qsl, urlsplit

from stream_cam.config import size_hw
from stream_cam.errors import SourceError, UsageError, unknown_name
from stream_cam.frame import Frame
from stream_cam.sources.base import Source, SourceInfo
from stream_cam.sources.demo.photos import PhotoScene, find_photos
from stream_cam.sources.demo.scene import Scene
from stream_cam.sources.kinds import Input, SourceKind
from stream_cam.uri import redact_uri

_SCENES: Final = ("shapes", "photos")
_PARAMETERS: Final = ("size", "fps", "seconds", "seed", "live", "still", "folder")
_SIDE_PX: Final = (64, 7680)
_FPS: Final = (1, 240)
_LONGEST_SECONDS: Final = 86_400.0
_STILL_SECONDS: Final = 1.0
"""The moment at which `still=1` stops the scene: the first shape is whole and in full colour."""


@dataclass(frozen=True)
class DemoOptions:
    """The options of a `demo://` URI."""

    scene: str = "shapes"
    """`shapes` or `photos`."""
    width_px: int = 1280
    height_px: int = 720
    fps: Fraction = Fraction(30)
    seconds: float | None = 10.0
    """None: no end; only for a live one."""
    seed: int = 0
    live: bool = False
    """Frames come when they are due and are skipped when late, as a camera's are."""
    still: bool = False
    """The scene stands still; only the sensor's noise goes on."""
    folder: str | None = None
    """The folder of the photographs; None: those of installed packages."""

    @property
    def n_frames(self) -> int | None:
        return None if self.seconds is None else max(1, round(self.seconds * self.fps))


def parse_demo_uri(uri: str) -> DemoOptions:
    """Read `demo://shapes?size=1280x720&fps=30&seconds=10&seed=0&live=0&still=0`.

    `demo://photos` takes these too, and `folder=PATH`.

    Raises:
        UsageError: for an unknown scene or parameter, or a value out of its bounds.
    """
    parts = urlsplit(uri)
    scene = parts.netloc + parts.path.rstrip("/")
    if scene not in _SCENES:
        raise unknown_name("demo scene", scene, _SCENES)
    given = dict(parse_qsl(parts.query, keep_blank_values=True))
    for key in given:
        if key not in _PARAMETERS:
            raise unknown_name("demo:// parameter", key, _PARAMETERS)
    if "folder" in given and scene != "photos":
        raise UsageError(f"demo:// folder is for demo://photos, got demo://{scene}")
    width_px, height_px = _size(given.get("size", "1280x720"))
    live = _flag("live", given.get("live", "0"))
    seconds = None if live else 10.0
    if "seconds" in given:
        seconds = float(_number("seconds", given["seconds"], 0.0, _LONGEST_SECONDS))
        if seconds == 0:
            raise UsageError("demo:// needs seconds above 0, got 0")
    return DemoOptions(
        scene,
        width_px,
        height_px,
        _number("fps", given.get("fps", "30"), *_FPS),
        seconds,
        _seed(given.get("seed", "0")),
        live,
        _flag("still", given.get("still", "0")),
        given.get("folder"),
    )


class DemoSource(Source):
    """The synthetic camera as a source."""

    def __init__(self, uri: str) -> None:
        self._options = parse_demo_uri(uri)
        self._uri = uri
        self._scene: Scene | PhotoScene | None = None
        self._closed = threading.Event()

    @property
    def info(self) -> SourceInfo:
        options = self._options
        return SourceInfo(
            name=redact_uri(self._uri),
            size_hw=(options.height_px, options.width_px),
            fps=options.fps,
            n_frames=options.n_frames,
            live=options.live,
            duration_seconds=options.seconds,
        )

    def __enter__(self) -> DemoSource:
        options = self._options
        self._closed.clear()
        if options.scene == "photos":
            photos = find_photos(options.folder)
            self._scene = PhotoScene(options.width_px, options.height_px, options.seed, photos)
        else:
            self._scene = Scene(options.width_px, options.height_px, options.seed)
        return self

    def close(self) -> None:
        self._closed.set()
        self._scene = None

    def __iter__(self) -> Iterator[Frame]:
        scene = self._scene
        if scene is None:
            raise SourceError(f"{self.info.name} is not open; use it in a `with` block")
        fps, last = self._options.fps, self._options.n_frames
        started, tick, index = time.monotonic(), 0, 0
        while not self._closed.is_set() and (last is None or tick < last):
            if self._options.live:
                tick = max(tick, math.floor((time.monotonic() - started) * fps))
                if last is not None and tick >= last:
                    return
                if self._closed.wait(max(0.0, started + float(tick / fps) - time.monotonic())):
                    return
            seconds = _STILL_SECONDS if self._options.still else float(tick / fps)
            image, truth = scene.frame(tick, seconds)
            yield Frame(image, index, tick, 1 / fps, time.monotonic_ns(), truth)
            tick, index = tick + 1, index + 1


def _size(text: str) -> tuple[int, int]:
    try:
        height, width = size_hw(text, "demo:// size", *_SIDE_PX)
    except ValueError as error:
        raise UsageError(str(error)) from error
    return width, height


def _number(name: str, text: str, low: float, high: float) -> Fraction:
    try:
        value = Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise UsageError(f"demo:// {name} must be a number, such as 30, got {text!r}") from None
    if not low <= value <= high:
        raise UsageError(f"demo:// {name} must lie in {low:g}..{high:g}, got {text!r}")
    return value


def _seed(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise UsageError(f"demo:// seed must be a whole number of 0 or more, got {text!r}")
    return int(text)


def _flag(name: str, text: str) -> bool:
    if text not in ("0", "1"):
        raise UsageError(f"demo:// {name} must be 0 or 1, got {text!r}")
    return text == "1"


def _check_demo(source: Input) -> None:
    options = parse_demo_uri(source.uri)
    if options.scene == "photos":
        find_photos(options.folder)
    if options.live and source.live is False:
        raise UsageError(
            f"{source.uri} is live and its frames do not wait: leave out --no-live or live=1"
        )


DEMO: Final = SourceKind(
    "demo", make=lambda source: DemoSource(source.uri), check=_check_demo, schemes=("demo",)
)
