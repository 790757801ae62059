"""The page behind a real reverse proxy: under a path, and without WebSockets."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.cookiejar import CookieJar
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.browser import chromium
from support.reverse_proxy import nginx
from support.waiting import DEADLINE_SECONDS, wait_until
from support.web_parts import Page
from support.web_show import live, until, visit

from stream_cam.config import WebConfig

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.needs_nginx


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def page() -> Iterator[Page]:
    """With a token, as every page behind a proxy."""
    with served(WebConfig(web_name="cam.example.org")) as page:
        yield page


@contextmanager
def served(config: WebConfig) -> Iterator[Page]:
    page = Page(config)
    with page.sink, page.film((96, 128)):
        yield page


def visited(url: str) -> tuple[str, str]:
    """The final address and page of a browser that keeps cookies."""
    jar = urllib.request.HTTPCookieProcessor(CookieJar())
    with urllib.request.build_opener(jar).open(url, timeout=DEADLINE_SECONDS) as answer:
        return answer.url, answer.read().decode()


def test_token_link_stays_under_its_path(page: Page, tmp_path: Path) -> None:
    with nginx(tmp_path, page.port) as portal:
        url, body = visited(f"{portal}/cam/?token={page.token}")
    assert url == f"{portal}/cam/"
    assert "<title>stream-cam</title>" in body


@pytest.mark.parametrize("way", ["cam", "kept/deep"])
def test_root_path_whether_the_proxy_strips_it_or_not(way: str, tmp_path: Path) -> None:
    config = WebConfig(web_name="cam.example.org", web_root_path=f"/{way}/")
    with served(config) as page, nginx(tmp_path, page.port) as portal:
        link = page.sink.url
        assert link == f"https://cam.example.org/{way}/?token={page.token}"
        url, body = visited(link.replace("https://cam.example.org", portal))
        assert (url, "<title>stream-cam</title>" in body) == (f"{portal}/{way}/", True)
        url, body = visited(f"{portal}/{way}?token={page.token}")
        assert (url, "<title>stream-cam</title>" in body) == (f"{portal}/{way}/", True)


@pytest.mark.needs_chromium
def test_page_is_live_under_a_path(browser: Browser, page: Page, tmp_path: Path) -> None:
    with (
        nginx(tmp_path, page.port) as portal,
        visit(browser, f"{portal}/cam/?token={page.token}") as view,
    ):
        live(view)
        assert view.url == f"{portal}/cam/"
        assert view.locator("#fallback").is_hidden()
        view.keyboard.press("c")
        wait_until(lambda: not page.settings.cam)


@pytest.mark.needs_chromium
def test_page_without_websockets_falls_back_and_says_so(
    browser: Browser, page: Page, tmp_path: Path
) -> None:
    with (
        nginx(tmp_path, page.port) as portal,
        visit(browser, f"{portal}/nows/?token={page.token}") as view,
    ):
        live(view)
        assert "No WebSocket gets through" in view.locator("#fallback").inner_text()
        number = view.evaluate("Number(picture.dataset.n)")
        until(view, f"Number(picture.dataset.n) > {number + 20}")
        assert view.locator("#bars .name").first.inner_text() in page.sink._page_state.labels
        until(view, "viewers.innerText === '1'")
        view.keyboard.press("c")
        wait_until(lambda: not page.settings.cam)
        until(view, "document.getElementById('cam').ariaPressed === 'false'")
        page.settings.paused = True  # by somebody else
        until(view, "document.body.dataset.state === 'paused'")
        page.sink._page_state.viewers.end('{"type": "end"}')
        until(view, "document.body.dataset.state === 'ended'")
