"""A whole run with its page, and a browser that looks at it."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import cv2
import numpy as np
from support.waiting import DEADLINE_SECONDS, wait_until

from stream_cam.config import LookConfig, ModelConfig, PipelineConfig, RunConfig, WebConfig
from stream_cam.frame import BgrImage
from stream_cam.pipeline.serve import Served
from stream_cam.sinks.base import Picture, Sink

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Page

DEADLINE_MS = 1000 * DEADLINE_SECONDS
_PIXELS = """document.getElementById("picture").toDataURL("image/png").split(",")[1]"""


class Viewing(Protocol):
    """A window of any browser, Playwright's or another's."""

    def evaluate(self, expression: str, /) -> Any: ...


class Truths(Sink):
    """Remembers which shape was really in each frame, and the last picture."""

    name = "truths"
    watched = True
    takes_repeats = True

    def __init__(self) -> None:
        self.of_frame: dict[int, str] = {}
        self.last: Picture | None = None

    def write(self, picture: Picture) -> bool:
        truth = picture.frame.truth
        self.of_frame[picture.frame.index] = truth[0].label if truth else "nothing"
        self.last = picture
        return True


_LOOK = LookConfig(max_age=30.0)


class Show(Served):
    """A run that is being watched."""

    def __init__(
        self,
        source: str = "demo://shapes?size=640x360&fps=10&live=1&seed=3",
        *,
        address: str = "web://127.0.0.1:0",
        web: WebConfig | None = None,
    ) -> None:
        self.truths = Truths()
        config = PipelineConfig(
            ModelConfig(weights="demo"),
            # A map that is old because the machine is busy is still to be seen.
            _LOOK,
            RunConfig(quiet=True),
            web=web or WebConfig(),
        )
        super().__init__(source, [address], config, [self.truths])

    def as_at_first(self) -> None:
        """Undoes a test's changes."""
        look = {field.name: getattr(_LOOK, field.name) for field in fields(_LOOK)}
        self.settings.change(
            **look,
            **{
                "cam": True,
                "paused": False,
                "recording": False,
                "target": None,
                "against": None,
                "divider": 0.0,
            },
        )


@contextmanager
def recording_into(folder: Path) -> Iterator[None]:
    """Recordings that are begun on the page go to the working folder: let it be this one."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


@contextmanager
def visit(
    browser: Browser, url: str, size: tuple[int, int] = (1280, 800), **options: Any
) -> Iterator[Page]:
    """A new viewer; each error of the page fails the test."""
    context = browser.new_context(viewport={"width": size[0], "height": size[1]}, **options)
    complaints: list[str] = []

    def complain(said: ConsoleMessage) -> None:
        # That a server is gone is told by some tests on purpose.
        if said.type == "error" and not re.search("ERR_CONNECTION|WebSocket", said.text):
            complaints.append(said.text)

    try:
        page = context.new_page()
        page.set_default_timeout(DEADLINE_MS)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", complain)
        page.goto(url)
        yield page
    finally:
        context.close()
    assert not complaints


def until(page: Viewing, true: str) -> None:
    """Waits for an expression in the page. (Playwright's own wait evaluates strings in the page,
    which its policy forbids.)"""
    wait_until(lambda: bool(page.evaluate(true)))


def live(page: Viewing) -> None:
    """Waits until the page says that it is live, with a map."""
    until(page, 'document.body?.dataset.state === "live"')
    until(page, 'document.getElementById("picture").dataset.explained !== undefined')


def pixels(page: Viewing) -> BgrImage:
    """The canvas's pixels, (H, W, 3)."""
    png = base64.b64decode(page.evaluate(_PIXELS))
    image = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    return np.asarray(image, np.uint8)


def pause(page: Viewing, shown: Show) -> BgrImage:
    """The picture that then stands."""
    shown.settings.paused = True
    until(page, 'document.body.dataset.state === "paused"')
    return settled(page, shown)


def difference(one: BgrImage, other: BgrImage) -> float:
    """Mean difference in levels, of the middle, where no words stand."""
    assert one.shape == other.shape
    height, width = one.shape[:2]
    inner = np.s_[height // 3 : height * 3 // 4, width // 4 : width * 3 // 4]
    return float(np.abs(one[inner].astype(int) - other[inner].astype(int)).mean())


def settled(page: Viewing, shown: Show, **settings: object) -> BgrImage:
    """The paused picture, once it is drawn with these settings by the run and by the page."""
    assert shown.settings.paused
    wait_until(lambda: all(getattr(shown.settings, k) == v for k, v in settings.items()))
    # Two repeated pictures later the page has drawn one that was made after the change.
    for _ in range(2):
        before = int(page.evaluate("picture.dataset.n ?? 0"))  # 0: a page that has just opened
        until(page, f"Number(picture.dataset.n) > {before}")
    return pixels(page)
