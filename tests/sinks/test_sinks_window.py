import ctypes.util
import os
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest
from support.displays import x_server

from stream_cam.errors import SinkError
from stream_cam.sinks import check_output, display_problem
from stream_cam.sinks.window import WindowSink, on_black

SHOW = """
import ctypes, sys
import cv2, numpy as np
sys.path[:0] = ["tests"]
from support.videos import numbered_picture, picture_at
from stream_cam.sinks import WindowSink
with WindowSink() as sink:
    assert sink.main_thread
    assert sink.poll()  # nothing is shown yet
    for index in range(3):
        assert sink.write(picture_at(numbered_picture(index, (60, 80)), index))
    assert sink.write(picture_at(np.zeros((2160, 3840, 3), np.uint8)))
    x, y, width, height = cv2.getWindowImageRect("stream-cam (? shows the keys)")
    assert width <= 1280, (width, height)
    assert sink.poll()
    cv2.destroyAllWindows()
    cv2.waitKey(50)
    assert not sink.poll()
    assert not sink.write(picture_at(numbered_picture(0, (60, 80))))
print("shown")
"""


PRESS = """
import ctypes, sys, time
import cv2
sys.path[:0] = ["tests"]
from support.videos import numbered_picture, picture_at
from stream_cam.sinks import WindowSink
x11, xtest = ctypes.CDLL("libX11.so.6"), ctypes.CDLL("libXtst.so.6")
x11.XOpenDisplay.restype = ctypes.c_void_p
x11.XStringToKeysym.restype = ctypes.c_ulong
display = ctypes.c_void_p(x11.XOpenDisplay(None))
key = x11.XKeysymToKeycode(display, ctypes.c_ulong(x11.XStringToKeysym(sys.argv[1].encode())))
with WindowSink() as sink:
    assert sink.write(picture_at(numbered_picture(3, (240, 320))))
    until = time.monotonic() + 20
    x, y, width, height = cv2.getWindowImageRect("stream-cam (? shows the keys)")
    xtest.XTestFakeMotionEvent(display, -1, x + width // 2, y + height // 2, 0)
    while sink.poll() and time.monotonic() < until:
        xtest.XTestFakeKeyEvent(display, key, 1, 0)
        xtest.XTestFakeKeyEvent(display, key, 0, 0)
        x11.XFlush(display)
print("left" if time.monotonic() < until else "stayed")
"""


STEER = """
import ctypes, sys, time
sys.path[:0] = ["tests"]
import cv2
from support.videos import numbered_picture, picture_at
from stream_cam.config import LookConfig
from stream_cam.settings import Settings
from stream_cam.sinks import WindowSink
x11, xtest = ctypes.CDLL("libX11.so.6"), ctypes.CDLL("libXtst.so.6")
x11.XOpenDisplay.restype = ctypes.c_void_p
x11.XStringToKeysym.restype = ctypes.c_ulong
display = ctypes.c_void_p(x11.XOpenDisplay(None))
settings = Settings(LookConfig(), ("cat", "dog"))
with WindowSink(settings=settings) as sink:
    assert sink.write(picture_at(numbered_picture(3, (240, 320))))
    until = time.monotonic() + 40
    x, y, width, height = cv2.getWindowImageRect("stream-cam (? shows the keys)")
    xtest.XTestFakeMotionEvent(display, -1, x + width // 2, y + height // 2, 0)
    heard, n_heard = [], 0
    settings.subscribe(heard.append)
    for key in ("m", "l", "c", "bracketright", "space", "r"):
        code = x11.XKeysymToKeycode(display, ctypes.c_ulong(x11.XStringToKeysym(key.encode())))
        before = len(heard)
        while len(heard) == before and time.monotonic() < until:
            xtest.XTestFakeKeyEvent(display, code, 1, 0)
            xtest.XTestFakeKeyEvent(display, code, 0, 0)
            x11.XFlush(display)
            assert all(sink.poll() for _ in range(50))  # a millisecond each, in which keys come
        n_heard += len(heard) > before
print(n_heard)
"""


FULL = """
import ctypes, sys, time
sys.path[:0] = ["tests"]
import cv2
from support.videos import numbered_picture, picture_at
from stream_cam.sinks import WindowSink
TITLE = "stream-cam (? shows the keys)"
x11, xtest = ctypes.CDLL("libX11.so.6"), ctypes.CDLL("libXtst.so.6")
x11.XOpenDisplay.restype = ctypes.c_void_p
x11.XStringToKeysym.restype = ctypes.c_ulong
display = ctypes.c_void_p(x11.XOpenDisplay(None))
code = x11.XKeysymToKeycode(display, ctypes.c_ulong(x11.XStringToKeysym(b"f")))
with WindowSink() as sink:
    assert sink.write(picture_at(numbered_picture(3, (240, 320))))
    until = time.monotonic() + 40
    x, y, width, height = cv2.getWindowImageRect(TITLE)
    xtest.XTestFakeMotionEvent(display, -1, x + width // 2, y + height // 2, 0)
    for wanted in (1.0, 0.0):
        while cv2.getWindowProperty(TITLE, cv2.WND_PROP_FULLSCREEN) != wanted:
            assert time.monotonic() < until
            xtest.XTestFakeKeyEvent(display, code, 1, 0)
            xtest.XTestFakeKeyEvent(display, code, 0, 0)
            x11.XFlush(display)
            assert all(sink.poll() for _ in range(50))
        assert sink.write(picture_at(numbered_picture(4, (240, 320))))
print("full and back")
"""


FIND = """
import ctypes
from stream_cam.sinks import WindowSink
with WindowSink():
    assert hasattr(ctypes.CDLL(None), "XSetEventQueueOwner")  # found before the one in the wheel
print("found")
"""


@pytest.fixture(scope="module")
def x_display() -> Iterator[str]:
    with x_server() as display:
        yield display


@pytest.mark.needs_display
def test_window_shows_pictures_and_notices_that_it_was_closed(x_display: str) -> None:
    # In a process of its own: Qt keeps the display it first saw, and aborts where it fails.
    done = subprocess.run(
        [sys.executable, "-c", SHOW],
        env={**os.environ, "DISPLAY": x_display},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "shown\n", "")


@pytest.mark.needs_display
def test_xlib_is_told_to_leave_events_to_qt(x_display: str) -> None:
    """By the library of this machine: the copy in OpenCV's wheel tells it in the wrong place, and
    of ten windows one then stayed black."""
    done = subprocess.run(
        [sys.executable, "-c", FIND],
        env={**os.environ, "DISPLAY": x_display},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "found\n", "")


@pytest.mark.needs_display
@pytest.mark.parametrize("key", ["q", "Escape"])
def test_window_handles_keys_without_a_new_picture(x_display: str, key: str) -> None:
    if ctypes.util.find_library("Xtst") is None:
        pytest.skip("keys cannot be pressed without libXtst (apt-get install libxtst6)")
    done = subprocess.run(
        [sys.executable, "-c", PRESS, key],
        env={**os.environ, "DISPLAY": x_display},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "left\n", "")


@pytest.mark.needs_display
def test_window_keys_change_the_settings(x_display: str) -> None:
    if ctypes.util.find_library("Xtst") is None:
        pytest.skip("keys cannot be pressed without libXtst (apt-get install libxtst6)")
    done = subprocess.run(
        [sys.executable, "-c", STEER],
        env={**os.environ, "DISPLAY": x_display},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "6\n"


@pytest.mark.needs_display
def test_f_asks_for_the_whole_screen_and_back(x_display: str) -> None:
    if ctypes.util.find_library("Xtst") is None:
        pytest.skip("keys cannot be pressed without libXtst (apt-get install libxtst6)")
    done = subprocess.run(
        [sys.executable, "-c", FULL],
        env={**os.environ, "DISPLAY": x_display},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "full and back\n", "")


@pytest.mark.parametrize(
    ("area_wh", "shape"),
    [((1600, 1000), (200, 320)), ((200, 100), (180, 360)), ((160, 90), (180, 320)), ((0, 0), None)],
)
def test_a_full_screen_is_black_around_the_picture(
    area_wh: tuple[int, int], shape: tuple[int, int] | None
) -> None:
    picture = np.full((180, 320, 3), 200, np.uint8)
    shown = on_black(picture, area_wh)
    assert shown.shape[:2] == (shape or (180, 320))
    grey = shown.max(axis=2)
    assert int((grey == 200).sum()) == 180 * 320
    above, beside = (shown.shape[0] - 180) // 2, (shown.shape[1] - 320) // 2
    assert np.array_equal(shown[above : above + 180, beside : beside + 320], picture)


@pytest.mark.needs_display
def test_display_that_works_is_no_problem(x_display: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPLAY", x_display)
    assert display_problem() is None
    check_output("window", overwrite=False)


@pytest.fixture
def opencv_with_windows() -> None:
    """Skips where OpenCV is the headless build, whose answer comes first."""
    if "opencv-python-headless" in (display_problem() or ""):
        pytest.skip("this OpenCV opens no windows (its libraries are missing, or it is headless)")


def test_headless_opencv_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cv2.getBuildInformation", lambda: "  GUI:                 NONE\n")
    with pytest.raises(SinkError, match=r"pip uninstall opencv-python-headless.*-o out\.mp4"):
        check_output("window", overwrite=False)


@pytest.mark.needs_display
@pytest.mark.usefixtures("opencv_with_windows")
@pytest.mark.skipif(sys.platform != "linux", reason="X11 is asked on Linux only")
@pytest.mark.parametrize(
    ("display", "wayland", "text"),
    [
        ("", "", "DISPLAY is not set; watch in the browser with -o web://"),
        ("", "wayland-0", "XWayland"),
        (":4321", "", "DISPLAY=:4321 cannot be reached"),
        ("nonsense", "", "DISPLAY=nonsense cannot be reached"),
    ],
)
def test_no_display_is_an_error_in_one_line_and_no_crash(
    monkeypatch: pytest.MonkeyPatch, display: str, wayland: str, text: str
) -> None:
    monkeypatch.delenv("QT_QPA_PLATFORM", raising=False)
    monkeypatch.setenv("DISPLAY", display)
    monkeypatch.setenv("WAYLAND_DISPLAY", wayland)
    with pytest.raises(SinkError, match=text) as caught, WindowSink():
        pass
    assert "\n" not in str(caught.value)
    with pytest.raises(SinkError, match=text):
        check_output("window", overwrite=False)


@pytest.mark.needs_display
@pytest.mark.usefixtures("opencv_with_windows")
@pytest.mark.skipif(sys.platform != "linux", reason="X11 is asked on Linux only")
def test_qt_platform_that_opencv_lacks_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    # Set in many containers; Qt aborts the process where it has no such plugin.
    monkeypatch.setenv("QT_QPA_PLATFORM", "offscreen")
    problem = display_problem()
    assert problem is not None
    assert "QT_QPA_PLATFORM=offscreen" in problem
