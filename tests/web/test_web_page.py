"""The page in Debian's Chromium: it shows the run's pictures, and its controls change the run."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from unittest.mock import patch

import cv2
import numpy as np
import pytest
from support.browser import chromium
from support.waiting import wait_until
from support.web_show import (
    Show,
    difference,
    live,
    pause,
    pixels,
    recording_into,
    settled,
    until,
    visit,
)

from stream_cam.config import WebConfig
from stream_cam.frame import BgrImage
from stream_cam.sinks.recorder import RecorderSink
from stream_cam.web.sink import WebSink

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, WebSocketRoute

pytestmark = pytest.mark.needs_chromium


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Show]:
    with recording_into(tmp_path_factory.mktemp("recordings")), Show() as shown:
        yield shown


@pytest.fixture
def shown(running: Show) -> Show:
    running.as_at_first()
    return running


@pytest.fixture
def page(browser: Browser, shown: Show) -> Iterator[Page]:
    with visit(browser, shown.url) as page:
        live(page)
        yield page


def test_picture_moves(page: Page) -> None:
    first, number = pixels(page), page.evaluate("Number(picture.dataset.frame)")
    until(page, f"Number(picture.dataset.frame) > {number + 15}")
    assert np.abs(first.astype(int) - pixels(page).astype(int)).max() > 50


def apart(one: BgrImage, other: BgrImage) -> float:
    """Mean difference in levels of the corner in which the HUD stands."""
    height, width = one.shape[:2]
    assert one.shape == other.shape
    corner = np.s_[height * 3 // 4 :, : width // 4]
    return float(np.abs(one[corner].astype(int) - other[corner].astype(int)).mean())


def test_labels_are_on_the_picture_where_this_viewer_wants_them(
    browser: Browser, page: Page, shown: Show
) -> None:
    seen = pause(page, shown)
    last = shown.truths.last
    assert last is not None
    assert apart(seen, last.labelled(False)) < 3.0  # JPEG
    assert apart(seen, last.image_bgr) > 20.0, "other outputs keep theirs"
    page.keyboard.press("h")
    page.wait_for_selector('#hud[aria-pressed="true"]')
    assert apart(settled(page, shown), last.labelled(True)) < 6.0  # JPEG
    with visit(browser, shown.url) as other:
        other.wait_for_selector('body[data-state="paused"]')
        assert apart(settled(other, shown), seen) < 1.0, "the choice of another viewer"
    page.reload()
    page.wait_for_selector('body[data-state="paused"]')
    assert apart(settled(page, shown), last.labelled(True)) < 6.0, "the choice is kept"
    page.click("#hud")
    assert apart(settled(page, shown), seen) < 1.0
    assert shown.settings.hud, "recordings keep their labels"
    assert shown.truths.last is not None
    assert apart(shown.truths.last.image_bgr, last.labelled(True)) < 1.0


def test_bars_follow_the_truth(page: Page, shown: Show) -> None:
    pairs: list[tuple[str, str]] = []
    read = """() => [Number(picture.dataset.explained),
                     document.querySelector("#bars .name").textContent,
                     document.querySelector("#bars .share").textContent]"""

    def enough() -> bool:
        explained, label, share = page.evaluate(read)
        assert share.endswith(" %")
        pairs.append((shown.truths.of_frame.get(explained, label), label))
        page.wait_for_timeout(100)
        return len({truth for truth, _ in pairs}) >= 3

    wait_until(enough)
    right = sum(truth == label for truth, label in pairs)
    assert right / len(pairs) > 0.8


def test_controls_change_the_picture(page: Page, shown: Show) -> None:
    pause(page, shown)
    first = settled(page, shown)
    page.click("#cam")
    without = settled(page, shown, cam=False)
    assert difference(first, without) > 5.0
    page.click("#cam")
    assert difference(settled(page, shown, cam=True), first) < 1.0

    page.select_option("#colormap", "viridis")
    viridis = settled(page, shown, colormap="viridis")
    assert difference(viridis, first) > 5.0
    page.select_option("#colormap", "inferno")

    page.locator("#alpha").fill("0")
    assert difference(settled(page, shown, alpha=0.0), without) < 1.0
    page.locator("#alpha").fill("0.4")
    weak = settled(page, shown, alpha=0.4)
    assert 1.0 < difference(weak, without) < 0.7 * difference(first, without)
    page.locator("#alpha").fill("0.8")

    page.check('#layout input[value="side"]', force=True)
    side = settled(page, shown, layout="side")
    assert side.shape == (360, 1280, 3)
    page.check('#layout input[value="heatmap"]', force=True)
    assert difference(settled(page, shown, layout="heatmap"), first) > 5.0
    page.check('#layout input[value="top5"]', force=True)
    assert settled(page, shown, layout="top5").shape == (360, 960, 3)
    page.check('#layout input[value="overlay"]', force=True)
    # The map is of this very frame now, and not of the one before it.
    assert difference(settled(page, shown, layout="overlay", alpha=0.8), without) > 5.0

    page.click("#more summary")
    page.locator("#smooth").fill("0.5")
    page.locator("#hold").fill("1.5")
    wait_until(lambda: (shown.settings.smooth, shown.settings.hold) == (0.5, 1.5))


def test_divider_shows_before_and_after(page: Page, shown: Show) -> None:
    pause(page, shown)
    page.click("#cam")
    without = settled(page, shown, cam=False)
    page.click("#cam")
    first = settled(page, shown, cam=True)
    box = page.locator("#frame").bounding_box()
    grip = page.locator("#divider").bounding_box()
    assert box is not None
    assert grip is not None
    y = grip["y"] + grip["height"] / 2
    page.mouse.move(grip["x"] + grip["width"] / 2, y)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2, y, steps=5)
    page.mouse.up()
    wait_until(lambda: abs(shown.settings.divider - 0.5) < 0.01)
    half = settled(page, shown)
    rows, middle = np.s_[120:250], 320
    left, right = np.s_[rows, 100 : middle - 20], np.s_[rows, middle + 20 : 540]
    for part, same in ((left, without), (right, first)):
        assert float(np.abs(half[part].astype(int) - same[part].astype(int)).mean()) < 1.0
    page.locator("#divider").press("ArrowRight")
    wait_until(lambda: abs(shown.settings.divider - 0.55) < 0.01)
    page.locator("#divider").press("Home")
    wait_until(lambda: shown.settings.divider == 0.0)


def test_keys_do_what_they_do_in_the_window(page: Page, shown: Show) -> None:
    settings = shown.settings
    page.keyboard.press("]")
    wait_until(lambda: settings.alpha == 0.9)
    page.keyboard.press("[")
    wait_until(lambda: settings.alpha == 0.8)
    page.keyboard.press("m")
    wait_until(lambda: settings.colormap == "magma")
    page.keyboard.press("l")
    wait_until(lambda: settings.layout == "side")
    page.keyboard.press("c")
    wait_until(lambda: not settings.cam)
    page.keyboard.press("m")
    until(page, 'note.textContent === "the map is off: c shows it"')
    page.keyboard.press(" ")
    wait_until(lambda: settings.paused)
    page.keyboard.press(" ")
    wait_until(lambda: not settings.paused)
    second = page.locator("#bars button").nth(1)
    shown.settings.paused = True
    page.wait_for_selector('body[data-state="paused"]')
    index = int(second.get_attribute("data-index") or "")
    page.keyboard.press("2")
    wait_until(lambda: settings.now.targets == (index,))
    page.keyboard.press("Escape")
    wait_until(lambda: settings.now.targets == ())
    page.keyboard.press("?")
    assert page.locator("#help").is_visible()
    page.keyboard.press("?")
    assert not page.locator("#help").is_visible()


def test_keys_count_from_unanswered_changes_and_not_from_old_messages(browser: Browser) -> None:
    late: list[tuple[WebSocketRoute, str]] = []

    def slow(route: WebSocketRoute) -> None:
        def pass_on(message: str | bytes) -> None:
            if isinstance(message, str) and json.loads(message)["type"] in ("settings", "done"):
                late.append((route, message))
            else:
                route.send(message)

        route.connect_to_server().on_message(pass_on)

    with Show() as shown, visit(browser, "about:blank") as page:

        def wait_for(true: Callable[[], object]) -> None:
            """Playwright passes messages on only while it works."""
            wait_until(lambda: page.evaluate("1") and true())

        settings = shown.settings
        page.route_web_socket(re.compile("/ws$"), slow)
        page.goto(shown.url)
        live(page)
        for cam in (False, True):
            page.keyboard.press("c")
            wait_for(lambda cam=cam: settings.cam is cam)  # type: ignore[misc]
        wait_for(lambda: len(late) >= 4)
        route, news = late[0]
        assert json.loads(news)["settings"]["cam"] is False
        route.send(news)
        route.send(json.dumps({"type": "error", "message": "heard"}))
        page.wait_for_selector("#error:has-text('heard')")
        page.keyboard.press("c")
        wait_for(lambda: not settings.cam)
        page.keyboard.press("2")
        wait_for(lambda: settings.now.targets)
        page.keyboard.press("Escape")
        wait_for(lambda: not settings.now.targets)


def test_class_is_searched_and_locked(page: Page, shown: Show) -> None:
    page.keyboard.press("/")
    page.keyboard.type("hert")  # nearly
    option = page.locator("#found li").first
    assert option.text_content() == "heart"
    page.keyboard.press("Enter")
    wait_until(lambda: shown.settings.target == ("heart",))
    until(page, 'following.textContent === "Shows the map of heart."')
    wait_until(
        lambda: "Map of heart" in (page.locator("#picture").get_attribute("aria-label") or "")
    )
    page.click("#follow")
    wait_until(lambda: shown.settings.target == ())
    page.fill("#search", "8")
    assert page.locator("#found li").first.text_content() == "arrow"
    page.keyboard.press("Escape")
    assert page.input_value("#search") == ""
    pause(page, shown)  # Playwright clicks only on elements that stand still
    page.click("#bars button >> nth=0")
    wait_until(lambda: len(shown.settings.target) == 1)


def test_a_class_that_does_not_exist_is_told(page: Page, shown: Show) -> None:
    page.keyboard.press("/")
    page.keyboard.type("zzqqxx")
    page.keyboard.press("Enter")
    until(page, 'document.getElementById("error").textContent.includes("zzqqxx")')
    assert shown.settings.target == ()


def test_two_viewers_see_one_state(browser: Browser, page: Page, shown: Show) -> None:
    with visit(browser, shown.url) as other:
        live(other)
        page.click("#paused")
        other.wait_for_selector('body[data-state="paused"]')
        assert other.locator("#paused").get_attribute("aria-pressed") == "true"
        other.locator("#alpha").fill("0.8")
        until(page, 'document.getElementById("alpha-value").textContent === "0.80"')
        shown.settings.layout = "side"
        for one in (page, other):
            one.wait_for_selector('#layout input[value="side"]:checked', state="attached")
        until(page, 'document.getElementById("viewers").textContent === "2"')
        assert np.array_equal(settled(page, shown), settled(other, shown))


def test_snapshot_is_saved_and_recording_begins_and_ends(page: Page, shown: Show) -> None:
    with page.expect_download() as download:
        page.keyboard.press("s")
    assert download.value.suggested_filename.startswith("stream-cam-20")
    path = download.value.path()
    image = cv2.imread(str(path))
    assert image is not None
    assert image.shape == (360, 640, 3)
    until(page, f'note.textContent.includes("{download.value.suggested_filename}")')
    page.click("#recording")
    page.wait_for_selector('#recording[aria-pressed="true"]')
    until(page, 'note.textContent.startsWith("recording stream-cam-")')
    assert any(Path.cwd().glob("*.part.mp4"))
    # It is finished and told although the run is paused and no picture comes.
    shown.settings.paused = True
    page.keyboard.press("r")
    until(page, 'note.textContent.startsWith("saved stream-cam-")')
    name, folder = page.locator("#note").inner_text().splitlines()
    assert (Path(folder.removeprefix("in ")) / name.removeprefix("saved ")).is_file()


def test_a_recording_that_cannot_be_written_is_told(page: Page, shown: Show) -> None:
    with patch.object(RecorderSink, "_path", return_value=Path("/nowhere/at/all.mp4")):
        page.keyboard.press("r")
        until(page, 'note.textContent.startsWith("not recorded: ")')
        assert "/nowhere" in page.locator("#note").inner_text()
        page.wait_for_selector('#recording[aria-pressed="false"]')


def test_error_is_shown(page: Page) -> None:
    page.locator("#alpha").evaluate("slider => { slider.max = 9; }")
    page.locator("#alpha").fill("7")
    until(page, 'document.getElementById("error").textContent.includes("from 0 to 1")')
    until(page, 'document.getElementById("alpha").valueAsNumber === 0.8')


def test_a_paused_picture_keeps_its_colours_and_nothing_covers_it(page: Page, shown: Show) -> None:
    shown.settings.paused = True
    page.wait_for_selector('body[data-state="paused"]')
    assert page.locator("#state").inner_text() == "paused"
    assert page.locator("#banner").is_hidden()
    assert page.locator("#picture").evaluate("c => getComputedStyle(c).filter") == "none"
    until(page, "picture.dataset.explained === picture.dataset.frame")
    standing = page.evaluate("picture.dataset.frame")
    settled(page, shown)
    assert page.evaluate("[picture.dataset.frame, picture.dataset.explained]") == [standing] * 2
    shown.settings.paused = False
    page.wait_for_selector('body[data-state="live"]')
    assert page.locator("#banner").is_hidden()


def test_how_picture_and_map_meet_is_shown_and_changed(page: Page, shown: Show) -> None:
    until(page, 'document.getElementById("map-state").textContent !== "–"')
    page.click("#more summary")
    wanted = {"sync": "newest", "scale": "own", "upsampling": "bilinear"}
    for name, value in wanted.items():
        page.select_option(f"#{name}", value)
    wait_until(lambda: all(getattr(shown.settings, name) == wanted[name] for name in wanted))
    page.locator("#max_delay").fill("1.5")
    wait_until(lambda: shown.settings.max_delay == 1.5)


def test_why_not_another_class_is_asked_and_answered(page: Page, shown: Show) -> None:
    def answer_has(words: str, count: int = 1) -> None:
        label = "document.getElementById('picture').getAttribute('aria-label')"
        until(page, f"{label}.includes({words!r}) && {label}.split(',').length === {count + 2}")

    page.keyboard.press("n")
    wait_until(lambda: shown.settings.against == ("next",))
    answer_has(", not ")
    assert page.input_value("#against") == "next"
    page.select_option("#against", "next:3")
    answer_has(", not ", 3)
    assert shown.settings.against == ("next",) * 3
    page.select_option("#against", "nothing")
    answer_has(", not nothing")
    page.keyboard.press("n")
    wait_until(lambda: shown.settings.against == ())
    until(page, "!picture.getAttribute('aria-label').includes(', not ')")
    assert page.input_value("#against") == ""


def test_kiosk_shows_the_picture_and_its_label_alone(browser: Browser, shown: Show) -> None:
    with visit(browser, f"{shown.url}{'&' if '?' in shown.url else '?'}kiosk") as page:
        live(page)
        label = page.locator("#picture-label")
        wait_until(lambda: "%" in label.inner_text())
        for hidden in ("header", "#controls", ".strip"):
            assert page.locator(hidden).first.is_hidden(), hidden
        page.keyboard.press("h")
        seen = pause(page, shown)
        assert shown.truths.last is not None
        assert apart(seen, shown.truths.last.labelled(False)) < 3.0
        assert page.locator("#sign").is_visible()
        picture, screen = page.locator("#frame").bounding_box(), page.viewport_size
        assert picture is not None
        assert screen is not None
        assert picture["width"] >= 0.99 * screen["width"] or (
            picture["height"] >= 0.99 * screen["height"]
        )


def test_page_notices_a_silent_server_and_comes_back(page: Page, shown: Show) -> None:
    """As when the network is gone: the connection is open, and nothing comes."""
    silence = threading.Event()
    page_sink = next(o.sink for o in shown.pipeline._sink_queues if o.sink.url)
    assert isinstance(page_sink, WebSink)
    loop = page_sink._page_state.viewers._loop
    assert loop is not None
    loop.call_soon_threadsafe(silence.wait, 30)
    try:
        page.wait_for_selector("#banner:has-text('NOT CONNECTED')")
    finally:
        silence.set()
    live(page)


def test_page_says_that_pictures_no_longer_come(browser: Browser, shown: Show) -> None:
    """The server is there and sends its figures, and no picture."""
    withheld: list[bytes] | None = None

    def tell(route: WebSocketRoute, message: str | bytes) -> None:
        if isinstance(message, bytes) and withheld is not None:
            withheld.append(message)
        else:
            route.send(message)

    def pass_on(route: WebSocketRoute) -> None:
        routes.append(route)
        route.connect_to_server().on_message(partial(tell, route))

    routes: list[WebSocketRoute] = []
    with visit(browser, "about:blank") as page:
        page.route_web_socket(re.compile("/ws$"), pass_on)
        page.goto(shown.url)
        live(page)
        withheld = []
        page.wait_for_selector("#banner:has-text('NO NEW PICTURE')")
        assert page.locator("#state").text_content() == "not live"
        late, withheld = withheld, None
        for picture in late:  # the server sends no other before the page has had this one
            routes[-1].send(picture)
        live(page)


def test_page_comes_back_after_reload_and_restart(browser: Browser) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"web://127.0.0.1:{port}"
    with Show(address=address) as first, visit(browser, first.url) as page:
        live(page)
        page.reload()
        live(page)
        run = page.evaluate("document.body.dataset.run")
        first.stop()
        page.wait_for_selector("#banner:has-text('THE RUN HAS ENDED')")
        assert page.locator("#state").text_content() == "ended"
        with Show(address=address):
            until(page, f'document.body.dataset.run !== "{run}"')
            live(page)
        page.wait_for_selector("#banner:has-text('THE RUN HAS ENDED')")


def test_public_screen_has_no_controls(browser: Browser) -> None:
    with Show(web=WebConfig(viewer_only=True)) as shown, visit(browser, shown.url) as page:
        live(page)
        for hidden in ("#cam", "#search", "#alpha", "#divider"):
            assert page.locator(hidden).is_hidden(), hidden
        assert page.locator("#snapshot").is_visible()
        page.keyboard.press("c")
        page.keyboard.press("1")
        until(page, 'document.getElementById("error").textContent.includes("only watches")')
        assert shown.settings.cam
        assert shown.settings.target == ()


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_accessibility_checker_finds_nothing_serious(
    browser: Browser, shown: Show, scheme: str
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    with visit(browser, shown.url, color_scheme=scheme) as page:
        live(page)
        found = axe.run(page).response["violations"]
        assert not [one for one in found if one["impact"] in ("serious", "critical")], found
        page.keyboard.press("?")
        found = axe.run(page).response["violations"]
        assert not [one for one in found if one["impact"] in ("serious", "critical")], found


@pytest.mark.parametrize(
    ("name", "size", "scheme"),
    [
        ("desk", (1280, 800), "dark"),
        ("laptop", (1366, 768), "dark"),
        ("laptop-window", (1366, 640), "dark"),
        ("phone-landscape", (844, 390), "dark"),
        ("4k", (3840, 2160), "dark"),
        ("phone", (390, 844), "dark"),
        ("projector", (1920, 1080), "light"),
    ],
)
def test_page_fits_its_screen(
    browser: Browser, shown: Show, name: str, size: tuple[int, int], scheme: str
) -> None:
    with visit(browser, shown.url, size, color_scheme=scheme) as page:
        live(page)
        until(page, 'document.getElementById("fps").textContent !== "–"')
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        if name != "phone":  # which is read downwards, in one piece
            assert page.evaluate("document.documentElement.scrollHeight <= innerHeight")
            assert page.evaluate("controls.scrollHeight <= controls.clientHeight + 1")
        picture = page.locator("#frame").bounding_box()
        assert picture is not None
        assert picture["width"] * picture["height"] > 0.25 * min(
            size[0] * size[1], 2 * size[0] ** 2 / 3
        )
        assert picture["y"] + picture["height"] <= size[1], "the whole picture is to be seen"
        for control in page.locator(
            "button:visible, select:visible, input[type=range]:visible"
        ).all():
            box = control.bounding_box()
            assert box is not None
            assert min(box["width"], box["height"]) >= 24, "large enough for a finger (WCAG 2.5.8)"


def test_on_a_phone_held_sideways_the_controls_lie_over_the_picture(
    browser: Browser, shown: Show
) -> None:
    with visit(browser, shown.url, (844, 390)) as page:
        live(page)
        picture = page.locator("#frame").bounding_box()
        assert picture is not None
        assert picture["height"] > 389, "it fills the screen"
        wait_until(lambda: "%" in page.locator("#picture-label").inner_text())
        assert page.locator("#controls").is_hidden()
        page.click("#panel-button")
        page.click("#cam")
        wait_until(lambda: not shown.settings.cam)
        assert page.locator("#frame").bounding_box() == picture
        figures, own = (page.locator(one).bounding_box() for one in (".figures", ".own"))
        assert figures is not None
        assert own is not None
        assert figures["y"] + figures["height"] <= own["y"], "nothing lies over anything"
        page.mouse.click(200, 60)
        assert page.locator("#controls").is_hidden()


def test_scale_of_the_chart_stands_beside_it(page: Page) -> None:
    until(page, 'document.getElementById("chart").ariaLabel.startsWith("Latency now")')
    chart, top = (page.locator(one).bounding_box() for one in ("#chart", "#chart-top"))
    assert chart is not None
    assert top is not None
    assert top["x"] >= chart["x"] + chart["width"]
    assert re.fullmatch(r"\d+ ms", page.locator("#chart-top").inner_text())
