"""Firefox, and WebKit as in Safari, driven by their makers' own tools.

Playwright drives neither of Debian's: it wants Firefox and WebKit of its own making. Firefox is
asked by Mozilla's marionette, WebKitGTK by Selenium. Both are asked for the same: scripts in the
page, and WebDriver's actions, which are real keys and pointers.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from support.displays import x_server
from support.waiting import wait_until

_MINI_BROWSERS = "*/webkit2gtk-4.*/MiniBrowser"
_SPECIAL = {"Enter": "\ue007", "Escape": "\ue00c", "ArrowRight": "\ue014", "Home": "\ue011"}
_LEFT = 0
Action = dict[str, Any]


class Viewer(ABC):
    """One window of a browser."""

    @abstractmethod
    def visit(self, url: str) -> None: ...

    @abstractmethod
    def evaluate(self, expression: str) -> Any:
        """The value of an expression in the page, as JSON."""

    @abstractmethod
    def perform(self, actions: list[Action]) -> None:
        """WebDriver's actions (w3.org/TR/webdriver2, "Perform Actions")."""

    def press(self, *keys: str) -> None:
        """Keys one after another: a character each, or a name such as Escape."""
        steps: list[Action] = []
        for key in keys:
            value = _SPECIAL.get(key, key)
            steps += [{"type": "keyDown", "value": value}, {"type": "keyUp", "value": value}]
        self.perform([{"type": "key", "id": "keyboard", "actions": steps}])

    def click(self, css: str) -> None:
        self.drag(css, (0, 0))

    def drag(self, css: str, by_xy: tuple[float, float]) -> None:
        """Press the pointer on the middle of an element, and let go so many CSS pixels away."""
        middle = f"""(() => {{
            const element = document.querySelector({css!r});
            element.scrollIntoView({{block: "nearest"}});
            const box = element.getBoundingClientRect();
            return [box.x + box.width / 2, box.y + box.height / 2];
        }})()"""
        x, y = self.evaluate(middle)
        steps: list[Action] = [_moved(x, y), {"type": "pointerDown", "button": _LEFT}]
        if by_xy != (0, 0):
            steps += [_moved(x + share * by_xy[0], y + share * by_xy[1]) for share in (0.5, 1.0)]
        steps.append({"type": "pointerUp", "button": _LEFT})
        mouse = {"pointerType": "mouse"}
        self.perform([{"type": "pointer", "id": "mouse", "parameters": mouse, "actions": steps}])


def _moved(x: float, y: float) -> Action:
    return {"type": "pointerMove", "x": round(x), "y": round(y), "duration": 30}


class _Firefox(Viewer):
    def __init__(self, marionette: Any) -> None:
        self._marionette = marionette

    def visit(self, url: str) -> None:
        self._marionette.navigate(url)

    def evaluate(self, expression: str) -> Any:
        # Without a sandbox: the page's own view.
        return self._marionette.execute_script(f"return {expression}", sandbox=None)

    def perform(self, actions: list[Action]) -> None:
        self._marionette.actions.perform(actions)


class _WebKit(Viewer):
    def __init__(self, driver: Any) -> None:
        self._driver = driver

    def visit(self, url: str) -> None:
        self._driver.get(url)

    def evaluate(self, expression: str) -> Any:
        return self._driver.execute_script(f"return {expression}")

    def perform(self, actions: list[Action]) -> None:
        self._driver.execute("actions", {"actions": actions})


@contextmanager
def firefox() -> Iterator[Viewer]:
    """Headless Firefox of 1280x900; skips where there is none."""
    program = shutil.which("firefox-esr") or shutil.which("firefox")
    if program is None:
        pytest.skip("Firefox is not installed (apt-get install firefox-esr)")
    marionette_driver = pytest.importorskip("marionette_driver.marionette")
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        # Its log is removed and made anew: never name a device here.
        log = str(Path(folder) / "gecko.log")
        with warnings.catch_warnings():
            # It leaves the sockets open with which it asks whether Firefox is there yet.
            warnings.simplefilter("ignore", ResourceWarning)
            marionette = marionette_driver.Marionette(
                bin=program, headless=True, port=0, gecko_log=log
            )
            stack.callback(marionette.cleanup)
            marionette.start_session()
        marionette.set_window_rect(width=1280, height=900)
        yield _Firefox(marionette)


@contextmanager
def webkit() -> Iterator[Viewer]:
    """WebKitGTK's own small browser on a virtual screen; skips where there is none."""
    driver_program = shutil.which("WebKitWebDriver")
    programs = sorted(Path("/usr/lib").glob(_MINI_BROWSERS))
    if driver_program is None or not programs:
        pytest.skip("WebKit's driver is not installed (apt-get install webkit2gtk-driver)")
    selenium = pytest.importorskip("selenium.webdriver")
    options = pytest.importorskip("selenium.webdriver.webkitgtk.options").Options()
    options.binary_location = str(programs[-1])
    options.add_argument("--automation")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with ExitStack() as stack:
        environment = {**os.environ, "DISPLAY": stack.enter_context(x_server())}
        # Not Selenium's own way to start it, which wants a machine that knows "localhost".
        service = stack.enter_context(
            subprocess.Popen([driver_program, f"--port={port}"], env=environment)
        )
        stack.callback(service.terminate)
        wait_until(lambda: _listens(port))
        with warnings.catch_warnings(), patch.dict(os.environ, {"no_proxy": "*"}):
            # Selenium calls its own code as it asks others not to.
            warnings.simplefilter("ignore", DeprecationWarning)
            driver = selenium.Remote(f"http://127.0.0.1:{port}", options=options)
        stack.callback(driver.quit)
        driver.set_window_size(1280, 900)
        yield _WebKit(driver)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


BROWSERS = {"firefox": firefox, "webkit": webkit}
