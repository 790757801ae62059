"""The screenshots of the browser page in docs/web.md, taken with Debian's Chromium.

    python scripts/page_pictures.py docs/images [NAME …]

A run with the demo's shapes serves the page. Each picture is taken once one shape is certain.
"""

from __future__ import annotations

import argparse
import io
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import stream_cam  # noqa: E402

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

SOURCE = "demo://shapes?size=1280x720&fps=3&live=1&seed=3"
"""Slow, so that two cores keep up beside the browser."""
_MOST_WIDTH_PX = 1600
_SECONDS = 90.0
_SURE = """document.body.dataset.state === "live"
    && document.querySelector("#bars .name")?.textContent !== "nothing"
    && parseInt(document.querySelector("#bars .share")?.textContent) > 95
    && document.getElementById("advice").hidden
    && document.getElementById("fps").textContent !== "–" """


@dataclass(frozen=True)
class Shot:
    """One screenshot."""

    size_wh: tuple[int, int]
    scheme: str = "dark"
    query: str = ""
    key: str = ""
    """Pressed before it is taken."""
    click: str = ""
    """Pressed with the pointer before it is taken."""


SHOTS = {
    "desk": Shot((1280, 800)),
    "laptop": Shot((1366, 768), "light"),
    "paused": Shot((1366, 768), key=" "),
    "keys": Shot((1366, 768), key="?"),
    "phone": Shot((390, 844)),
    "phone-landscape": Shot((844, 390)),
    "phone-controls": Shot((844, 390), click="#panel-button"),
    "projector": Shot((1920, 1080), "light"),
    "4k": Shot((3840, 2160)),
    "kiosk": Shot((1366, 768), query="?kiosk"),
}


def wait_until_sure(page: Page) -> None:
    """Waits until one shape has been the best for a while."""
    until, since = time.monotonic() + _SECONDS, time.monotonic()
    while time.monotonic() - since < 0.8:
        if time.monotonic() > until:
            raise TimeoutError(f"no shape was recognised for {_SECONDS:.0f} s")
        if not page.evaluate(_SURE):
            since = time.monotonic()
        page.wait_for_timeout(100)


def take(browser: Browser, url: str, shot: Shot) -> Image.Image:
    width, height = shot.size_wh
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme="light" if shot.scheme == "light" else "dark",
    )
    page = context.new_page()
    page.goto(url + shot.query)
    page.wait_for_timeout(5000)  # the chart begins
    wait_until_sure(page)
    if shot.key:
        page.keyboard.press(shot.key)
    if shot.click:
        page.click(shot.click)
    page.wait_for_timeout(1500 if shot.key or shot.click else 100)
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    context.close()
    picture.thumbnail((_MOST_WIDTH_PX, _MOST_WIDTH_PX))
    return picture


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(SHOTS))
    options = parser.parse_args()
    unknown = set(options.names) - set(SHOTS)
    if unknown:
        parser.error(f"there is no picture {', '.join(sorted(unknown))}; names: {', '.join(SHOTS)}")
    program = shutil.which("chromium")
    if program is None:
        parser.error("Chromium is not installed: sudo apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with stream_cam.serve(SOURCE, weights="demo") as served, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program, args=["--no-sandbox", "--disable-gpu"]
        )
        for name in options.names or SHOTS:
            picture = take(browser, served.url, SHOTS[name])
            served.settings.paused = False
            path = options.folder / f"web-{name}.jpg"
            picture.save(path, quality=82, optimize=True)
            print(f"{path}: {picture.width}×{picture.height}, {path.stat().st_size // 1000} KB")
        browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
