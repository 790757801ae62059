"""A window on the screen."""

from __future__ import annotations

import ctypes
import functools
import logging
import os
import re
import sys
from pathlib import Path
from textwrap import wrap
from typing import Final

import cv2
import numpy as np

from stream_cam.draw.hud import with_note
from stream_cam.errors import SinkError
from stream_cam.frame import BgrImage
from stream_cam.import_order import pyav_came_first
from stream_cam.settings import Settings
from stream_cam.sinks.base import Picture, Sink, Waiting
from stream_cam.sinks.keys import Keys
from stream_cam.sinks.kinds import Output, SinkKind

logger = logging.getLogger(__name__)

_MAX_INITIAL_WH: Final = (1280, 800)
"""Maximum initial size of a window in pixels; it can be dragged larger."""
_OTHER_OUTPUTS: Final = "watch in the browser with -o web://, or write to a file with -o out.mp4"
_WAITING_HW: Final = (270, 480)
"""Size in pixels of the picture before the first one; shown twice as large, for large type."""
_WAITING_COLUMNS: Final = 60
_PLUGINS: Final = Path(cv2.__file__).parent / "qt" / "plugins" / "platforms"


class WindowSink(Sink):
    """Shows pictures; q, Esc or the window's X ends the run, `?` lists the other keys.

    Main thread only.

    Args:
        settings: changed by the keys; default: settings of its own.
        folder: of pictures saved by `s`.
    """

    name = "window"
    main_thread = True
    watched = True
    takes_repeats = True

    def __init__(
        self,
        title: str = "stream-cam (? shows the keys)",
        *,
        settings: Settings | None = None,
        folder: Path | None = None,
    ) -> None:
        self._title = title
        self._keys = Keys(settings or Settings(), folder or Path.cwd())
        self._last: Picture | None = None
        self._lines: tuple[str, ...] = ()
        self._drawn_wh = (0, 0)
        """The window's size when the last picture was drawn."""
        self._shown = False
        self._full_screen = False
        self._shows_reason = False
        """Whether it shows the reason why there is no picture yet."""

    def __enter__(self) -> WindowSink:
        problem = display_problem()
        if problem is not None:
            raise SinkError(problem)
        # Qt complains on stderr that it has no fonts of its own; nothing here needs them.
        os.environ.setdefault("QT_LOGGING_RULES", "*.warning=false")
        return self

    def close(self) -> None:
        if self._shown:
            self._shown = False
            cv2.destroyAllWindows()
            cv2.waitKey(1)  # Qt closes a window only while it handles events

    def wait(self, waiting: Waiting) -> bool:
        if not self._shown:
            self._open(2 * _WAITING_HW[0], 2 * _WAITING_HW[1])
            self._shows_reason = True
        elif self._is_closed():
            return False
        lines = [part for line in waiting.lines for part in wrap(line, _WAITING_COLUMNS)]
        cv2.imshow(self._title, with_note(np.full((*_WAITING_HW, 3), 40, np.uint8), lines))
        return self._handle_keys()

    def write(self, picture: Picture) -> bool:
        if not self._shown:
            self._open(picture.image_bgr.shape[0], picture.image_bgr.shape[1])
        elif self._is_closed():
            return False
        elif self._shows_reason:
            self._resize(picture.image_bgr.shape[0], picture.image_bgr.shape[1])
        self._shows_reason = False
        self._last = picture
        self._draw(picture)
        return self._handle_keys()

    def poll(self) -> bool:
        if not self._shown:
            return True
        if self._is_closed():
            return False
        if self._last is not None and self._looks_old():
            self._draw(self._last)
        return self._handle_keys()

    def _draw(self, picture: Picture) -> None:
        self._lines = tuple(self._keys.lines)
        image = with_note(picture.image_bgr, self._lines) if self._lines else picture.image_bgr
        self._drawn_wh = self._size_wh()
        cv2.imshow(self._title, on_black(image, self._drawn_wh) if self._full_screen else image)

    def _looks_old(self) -> bool:
        """Whether another text is to be seen, or the window has become as large as the screen."""
        if tuple(self._keys.lines) != self._lines:
            return True
        return self._full_screen and self._size_wh() != self._drawn_wh

    def _size_wh(self) -> tuple[int, int]:
        _, _, width, height = cv2.getWindowImageRect(self._title)
        return width, height

    def _handle_keys(self) -> bool:
        """Lets the window draw and handle keys; False if one of them ends the run."""
        code = cv2.waitKey(1)
        if code < 0:
            return True
        key = chr(code & 0xFF)
        if key == "f":
            self._toggle_full_screen()
            return True
        return self._keys.press(key, self._last)

    def _toggle_full_screen(self) -> None:
        is_full = cv2.getWindowProperty(self._title, cv2.WND_PROP_FULLSCREEN) == 1.0
        self._full_screen = not is_full
        wanted = cv2.WINDOW_FULLSCREEN if self._full_screen else cv2.WINDOW_NORMAL
        # Qt's borders around a picture are light grey: on a full screen we draw black ones.
        ratio = cv2.WINDOW_FREERATIO if self._full_screen else cv2.WINDOW_KEEPRATIO
        cv2.setWindowProperty(self._title, cv2.WND_PROP_ASPECT_RATIO, ratio)
        cv2.setWindowProperty(self._title, cv2.WND_PROP_FULLSCREEN, wanted)

    def _is_closed(self) -> bool:
        return cv2.getWindowProperty(self._title, cv2.WND_PROP_VISIBLE) < 1

    def _open(self, height: int, width: int) -> None:
        # Without Qt's toolbar, which takes room from the picture.
        flags = cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL
        cv2.namedWindow(self._title, flags)
        self._resize(height, width)
        self._shown = True

    def _resize(self, height: int, width: int) -> None:
        scale = min(1.0, _MAX_INITIAL_WH[0] / width, _MAX_INITIAL_WH[1] / height)
        cv2.resizeWindow(self._title, max(1, round(width * scale)), max(1, round(height * scale)))


def on_black(image_bgr: BgrImage, size_wh: tuple[int, int]) -> BgrImage:
    """The picture with black borders, so that it has the shape of an area of this size."""
    height, width = image_bgr.shape[:2]
    area_width, area_height = size_wh
    if min(size_wh) < 1:
        return image_bgr
    above = max(0, round(width * area_height / area_width) - height) // 2
    beside = max(0, round(height * area_width / area_height) - width) // 2
    if not above and not beside:
        return image_bgr
    borders = (above, above, beside, beside)
    return np.asarray(cv2.copyMakeBorder(image_bgr, *borders, cv2.BORDER_CONSTANT), np.uint8)


def display_problem() -> str | None:
    """The reason why no window can be opened here, with the remedy; None if one can.

    Qt aborts the whole process when it cannot reach the display. Therefore this connects first,
    with the library and the credentials that Qt would use.
    """
    gui = _gui_of_opencv()
    if gui == "NONE":
        return (
            "this OpenCV opens no windows (opencv-python-headless): `pip uninstall "
            "opencv-python-headless`, then `pip install --force-reinstall opencv-python`; "
            f"or {_OTHER_OUTPUTS}"
        )
    if sys.platform != "linux":
        return None
    if gui.startswith("QT") and pyav_came_first():
        return (
            "PyAV was imported before OpenCV, whose windows then hang; import stream_cam or cv2 "
            "before av, or write to a file with -o out.mp4"
        )
    asked = os.environ.get("QT_QPA_PLATFORM") or "xcb"
    platforms = [name.split(":")[0] for name in asked.split(";")]
    if gui.startswith("QT") and "xcb" not in platforms:
        bundled = _PLUGINS.is_dir()  # an OpenCV of the system's has the system's plugins
        if not bundled or any((_PLUGINS / f"libq{name}.so").exists() for name in platforms):
            return None
        return (
            f"no display: QT_QPA_PLATFORM={asked}, which OpenCV's Qt does not have, only xcb; "
            f"unset it; or {_OTHER_OUTPUTS}"
        )
    display = os.environ.get("DISPLAY", "")
    if not display:
        wayland = " (OpenCV's windows need X11: start XWayland)" * bool(
            os.environ.get("WAYLAND_DISPLAY")
        )
        return f"no display: DISPLAY is not set{wayland}; {_OTHER_OUTPUTS}"
    if not gui.startswith("QT"):
        return None
    _let_qt_read_events()
    return _connection_problem(display)


def _gui_of_opencv() -> str:
    match = re.search(r"^\s*GUI:\s*(\S+)", cv2.getBuildInformation(), re.MULTILINE)
    return match.group(1).upper() if match else ""


@functools.cache
def _let_qt_read_events() -> None:
    """Make Xlib leave the X events to Qt, through the libX11-xcb of this machine.

    OpenCV's wheel has its own libX11-xcb, which sets that flag where libX11 1.6 keeps it. A libX11
    1.8 keeps it elsewhere. Xlib then reads events too, and these never reach Qt. A window that
    loses its first Expose event stays black for ever. Call this before Qt's plugin is loaded.
    """
    try:
        ctypes.CDLL("libX11-xcb.so.1", ctypes.RTLD_GLOBAL)
    except OSError:
        logger.warning("the window may stay black without libX11-xcb (apt install libx11-xcb1)")


@functools.cache
def _connection_problem(display: str) -> str | None:
    plugin = _PLUGINS / "libqxcb.so"
    try:
        # Through Qt's plugin: libraries that it needs and this machine lacks raise here.
        xcb = ctypes.CDLL(str(plugin) if plugin.exists() else "libxcb.so.1")
        xcb.xcb_connect.restype = ctypes.c_void_p
        xcb.xcb_connect.argtypes = [ctypes.c_char_p, ctypes.c_void_p]
        xcb.xcb_connection_has_error.argtypes = [ctypes.c_void_p]
        xcb.xcb_disconnect.argtypes = [ctypes.c_void_p]
    except (OSError, AttributeError) as exc:
        return f"no window: {exc}; install it (apt install libxcb1 libx11-6); or {_OTHER_OUTPUTS}"
    connection = xcb.xcb_connect(display.encode(), None)
    # A working connection stays open. A bare X server (Xvfb) restarts when its last client leaves:
    # it would refuse Qt, which comes next and aborts.
    if xcb.xcb_connection_has_error(connection):
        xcb.xcb_disconnect(connection)
        return (
            f"no display: the X server at DISPLAY={display} cannot be reached or refuses "
            f"access; check DISPLAY and XAUTHORITY; or {_OTHER_OUTPUTS}"
        )
    return None


def _check(output: Output) -> None:
    problem = display_problem()
    if problem is not None:
        raise SinkError(problem)


WINDOW: Final = SinkKind(
    "window",
    usage="window",
    make=lambda output: WindowSink(settings=output.settings),
    check=_check,
    words=("window",),
    watched=True,
)
