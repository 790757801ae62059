"""The page in Firefox, and in WebKit, Safari's engine: every feature that depends on the browser,
once in each. Features that depend only on the page are in test_web_page.py."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.other_browsers import BROWSERS, Viewer
from support.waiting import wait_until
from support.web_show import Show, difference, live, pause, pixels, recording_into, settled, until


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=getattr(pytest.mark, f"needs_{name}")) for name in BROWSERS],
)
def viewer(request: pytest.FixtureRequest) -> Iterator[Viewer]:
    with BROWSERS[request.param]() as viewer:
        yield viewer


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Show]:
    with recording_into(tmp_path_factory.mktemp("recordings")), Show() as shown:
        yield shown


@pytest.fixture
def shown(viewer: Viewer, running: Show) -> Show:
    """The run as at first, and the page open in the browser."""
    running.as_at_first()
    viewer.visit(running.url)
    live(viewer)
    return running


def test_picture_moves_and_is_what_the_run_drew(viewer: Viewer, shown: Show) -> None:
    number = viewer.evaluate("Number(picture.dataset.frame)")
    until(viewer, f"Number(picture.dataset.frame) > {number + 15}")
    seen = pause(viewer, shown)
    assert shown.truths.last is not None
    assert difference(seen, shown.truths.last.labelled(False)) < 3.0  # JPEG


def test_bars_name_what_is_there(viewer: Viewer, shown: Show) -> None:
    def agrees() -> bool:
        number, label = viewer.evaluate(
            """[Number(picture.dataset.explained),
                document.querySelector("#bars .name")?.textContent ?? ""]"""
        )
        return bool(shown.truths.of_frame.get(number) == label)

    wait_until(agrees)


def test_buttons_sliders_and_lists_change_the_picture(viewer: Viewer, shown: Show) -> None:
    first = pause(viewer, shown)
    viewer.click("#cam")
    without = settled(viewer, shown, cam=False)
    assert difference(first, without) > 3.0
    viewer.click("#cam")
    assert difference(settled(viewer, shown, cam=True), first) < 1.0
    viewer.click('#layout label:has(input[value="side"])')
    assert settled(viewer, shown, layout="side").shape == (360, 1280, 3)
    viewer.click('#layout label:has(input[value="overlay"])')
    settled(viewer, shown, layout="overlay")
    viewer.evaluate("document.getElementById('alpha').focus()")
    viewer.press("Home")
    assert difference(settled(viewer, shown, alpha=0.0), without) < 1.0
    viewer.press("ArrowRight")
    wait_until(lambda: 0.0 < shown.settings.alpha <= 0.1)


def test_keys_work(viewer: Viewer, shown: Show) -> None:
    settings = shown.settings
    viewer.press("]")
    wait_until(lambda: settings.alpha == 0.9)
    viewer.press("m")
    wait_until(lambda: settings.colormap == "magma")
    viewer.press(" ")
    until(viewer, 'document.body.dataset.state === "paused"')
    index = viewer.evaluate("Number(document.querySelectorAll('#bars button')[1].dataset.index)")
    viewer.press("2")
    wait_until(lambda: settings.now.targets == (index,))
    viewer.press("Escape")
    wait_until(lambda: settings.now.targets == ())
    viewer.press("?")
    until(viewer, "document.getElementById('help').checkVisibility()")
    viewer.press("?")
    until(viewer, "!document.getElementById('help').checkVisibility()")


def test_class_is_searched_and_locked(viewer: Viewer, shown: Show) -> None:
    viewer.press("/", *"hert")  # nearly
    until(viewer, """document.querySelector("#found li")?.textContent === "heart" """)
    viewer.press("Enter")
    wait_until(lambda: shown.settings.target == ("heart",))
    viewer.click("#follow")
    wait_until(lambda: shown.settings.target == ())


def test_divider_is_dragged(viewer: Viewer, shown: Show) -> None:
    pause(viewer, shown)
    viewer.click("#cam")
    without = settled(viewer, shown, cam=False)
    viewer.click("#cam")
    first = settled(viewer, shown, cam=True)
    middle = """(() => {
        const frame = document.getElementById("frame").getBoundingClientRect();
        const grip = document.getElementById("divider").getBoundingClientRect();
        return frame.x + frame.width / 2 - (grip.x + grip.width / 2);
    })()"""
    viewer.drag("#divider", (viewer.evaluate(middle), 0))
    wait_until(lambda: abs(shown.settings.divider - 0.5) < 0.02)
    half = settled(viewer, shown)
    assert difference(half[:, :280], without[:, :280]) < 1.0
    assert difference(half[:, 360:], first[:, 360:]) < 1.0
    viewer.press("Home")
    wait_until(lambda: shown.settings.divider == 0.0)


def test_page_fits_and_comes_back(viewer: Viewer) -> None:
    with Show() as first:
        viewer.visit(first.url)
        live(viewer)
        assert viewer.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert pixels(viewer).shape == (360, 640, 3)
        run = viewer.evaluate("document.body.dataset.run")
        port = first.url.rstrip("/").rsplit(":", 1)[1]
        first.stop()
        until(viewer, 'document.getElementById("banner").textContent.includes("HAS ENDED")')
        with Show(address=f"web://127.0.0.1:{port}"):
            until(viewer, f'document.body.dataset.run !== "{run}"')
            live(viewer)
