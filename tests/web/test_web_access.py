"""Access to the page: viewing it and changing it."""

from __future__ import annotations

import shutil
import ssl
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.web_parts import Page
from websockets.exceptions import InvalidStatus

from stream_cam.config import WebConfig
from stream_cam.errors import SinkError, UsageError
from stream_cam.web.access import Throttle, check_token
from stream_cam.web.address import WebAddress, listen, parse_web_uri
from stream_cam.web.sink import TOKEN_VARIABLE

JSON = {"content-type": "application/json"}


@pytest.fixture
def page() -> Iterator[Page]:
    page = Page()
    with page.sink:
        yield page


@pytest.fixture
def public() -> Iterator[Page]:
    """As on 0.0.0.0, where a token is needed, but only this machine can reach it."""
    page = Page(WebConfig(web_name="cam.example.org"))
    with page.sink:
        yield page


@pytest.mark.parametrize(
    ("uri", "host", "port"),
    [
        ("web://", "127.0.0.1", 8080),
        ("web://127.0.0.1:9000", "127.0.0.1", 9000),
        ("web://:9000", "127.0.0.1", 9000),
        ("web://[::1]:0/", "::1", 0),
        ("web://0.0.0.0", "0.0.0.0", 8080),
    ],
)
def test_address_is_read(uri: str, host: str, port: int) -> None:
    assert parse_web_uri(uri) == WebAddress(host, port)


@pytest.mark.parametrize(
    "uri", ["web://x:99999", "web://x:y", "web://me:secret@x", "web://x/page", "web://x?a=b"]
)
def test_wrong_address_is_refused_without_its_secrets(uri: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_web_uri(uri)
    assert "web://127.0.0.1:8080" in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        *(("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("localhost", True)),
        *(("0.0.0.0", False), ("192.168.1.7", False), ("::", False), ("camera.local", False)),
    ],
)
def test_only_loopback_is_private(host: str, loopback: bool) -> None:
    assert WebAddress(host).is_loopback is loopback


def test_port_in_use_is_an_error(page: Page) -> None:
    with pytest.raises(SinkError, match=f"port {page.port} is in use; give another one"):
        listen(WebAddress("127.0.0.1", page.port))
    with pytest.raises(SinkError, match="is not known"):
        listen(WebAddress("no-such-host.invalid", 0))


def test_loopback_needs_no_token(page: Page) -> None:
    assert page.sink.url == f"http://127.0.0.1:{page.port}/"
    assert page.ask("/")[0] == 200


def test_every_other_address_has_a_token() -> None:
    page = Page(host="0.0.0.0")  # listens, and answers nobody: it is not started
    try:
        assert len(page.token) >= 32
        assert "0.0.0.0" not in page.sink.url
        assert page.token not in page.sink.name
    finally:
        page.sink.close()


def test_foreign_name_is_turned_away(page: Page) -> None:
    for host in ("evil.example", f"evil.example:{page.port}", "127.0.0.1.evil.example", ""):
        status, _, body = page.ask("/", headers={"host": host})
        assert status in (400, 421), host
        assert b"stream-cam" not in body
    for host in ("localhost", "localhost:9", "[::1]:1", "x.localhost", f"127.0.0.1:{page.port}"):
        assert page.ask("/", headers={"host": host})[0] == 200, host


def test_token_is_exchanged_for_a_cookie_that_scripts_cannot_read(public: Page) -> None:
    status, headers, _ = public.ask(f"/?token={public.token}")
    assert status == 303
    assert headers["location"] == "./"
    cookie = headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "samesite=lax" in cookie.lower()
    assert public.token not in cookie
    kept = cookie.partition(";")[0]
    assert public.ask("/", headers={"cookie": kept})[0] == 200
    assert public.ask("/stats", headers={"cookie": kept})[0] == 200
    assert public.ask("/stats", headers={"cookie": kept[:-1] + "x"})[0] == 401


def test_nothing_is_shown_without_the_token(public: Page) -> None:
    for path in ("/", "/page/main.js", "/stream.mjpg", "/snapshot.jpg", "/stats", "/metrics"):
        assert public.ask(path)[0] == 401, path
    assert public.ask("/healthz")[0] == 200
    assert public.ask("/settings", "POST", b'{"alpha": 0.9}', JSON)[0] == 401
    assert public.settings.alpha == 0.8
    with pytest.raises(InvalidStatus), public.talk():
        pass


def test_programs_send_the_token_as_bearer(public: Page) -> None:
    bearer = {"authorization": f"Bearer {public.token}"}
    assert public.ask("/metrics", headers=bearer)[0] == 200
    assert public.ask("/metrics", headers={"authorization": "Bearer x"})[0] == 401
    with public.talk(headers=bearer) as talk:
        assert talk.hear("hello")["source"]


def test_wrong_tokens_are_throttled_and_viewers_stay(public: Page) -> None:
    cookie = public.ask(f"/?token={public.token}")[1]["set-cookie"].partition(";")[0]
    statuses = [public.ask(f"/?token=wrong-{number}")[0] for number in range(30)]
    assert statuses == [401] * 10 + [429] * 20
    status, headers, _ = public.ask(f"/?token={public.token}")
    assert status == 429
    assert 0 < int(headers["retry-after"]) <= 61
    assert public.ask("/stats", headers={"cookie": cookie})[0] == 200


def test_proxy_gives_the_clients_address(public: Page) -> None:
    """Each address has its own count."""
    for number in range(12):
        headers = {"x-forwarded-for": f"10.0.0.{number % 2}"}
        status = public.ask(f"/?token=wrong-{number}", headers=headers)[0]
        assert status == 401
    for _ in range(10):
        public.ask("/?token=wrong", headers={"x-forwarded-for": "10.0.0.0"})
    assert public.ask("/?token=wrong", headers={"x-forwarded-for": "10.0.0.0"})[0] == 429
    assert public.ask("/?token=wrong", headers={"x-forwarded-for": "10.0.0.9"})[0] == 401


def test_name_of_a_proxy_may_have_capitals_and_a_port() -> None:
    page = Page(WebConfig(web_name="Cam.Example.org:8443"))
    with page.sink:
        headers = {"host": "cam.example.org:8443", "authorization": f"Bearer {page.token}"}
        assert page.ask("/stats", headers=headers)[0] == 200
        origin = {**JSON, **headers, "origin": "https://cam.example.org:8443"}
        assert page.ask("/settings", "POST", b'{"alpha": 0.9}', origin)[0] == 200
        cookie = page.ask(f"/?token={page.token}", headers={"host": headers["host"]})[1]
        assert "Secure" in cookie["set-cookie"]
    with pytest.raises(ValueError, match="a host name such as"):
        WebConfig(web_name="https://cam.example.org/")


def test_throttle_forgets_after_a_minute_and_keeps_little() -> None:
    clock = [0.0]
    throttle = Throttle(lambda: clock[0])
    for _ in range(10):
        throttle.count_wrong("here")
    assert throttle.wait_seconds("here") == 60.0
    assert throttle.wait_seconds("there") == 0.0
    clock[0] = 61.0
    assert throttle.wait_seconds("here") == 0.0
    throttle.count_wrong("here")
    assert throttle.wait_seconds("here") == 0.0
    for number in range(5000):
        throttle.count_wrong(str(number))
    assert len(throttle._wrong) <= 1024


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "null",
        "http://127.0.0.1:1",
        "file://",
        "https://127.0.0.1",
        "http://[",
    ],
)
def test_other_sites_change_nothing(
    page: Page, origin: str, caplog: pytest.LogCaptureFixture
) -> None:
    headers = {**JSON, "origin": origin}
    assert page.ask("/settings", "POST", b'{"alpha": 0.9}', headers)[0] == 403
    assert page.settings.alpha == 0.8
    with pytest.raises(InvalidStatus), page.talk(origin=origin):
        pass
    page.ask("/healthz")  # by then the server has done with it
    assert not caplog.records, "nobody can fill the log by being refused"


def test_own_page_changes_things(page: Page) -> None:
    origin = f"http://127.0.0.1:{page.port}"
    headers = {**JSON, "origin": origin}
    assert page.ask("/settings", "POST", b'{"alpha": 0.9}', headers)[0] == 200
    assert page.settings.alpha == 0.9
    with page.talk(origin=origin) as talk:
        assert talk.hear("hello")["viewer_only"] is False


def test_page_behind_a_proxy_that_ends_tls(public: Page) -> None:
    bearer = {"authorization": f"Bearer {public.token}", "host": "cam.example.org"}
    headers = {**JSON, **bearer, "origin": "https://cam.example.org"}
    assert public.sink.url.startswith("https://cam.example.org/?token=")
    assert public.ask("/settings", "POST", b'{"alpha": 0.9}', headers)[0] == 200
    headers["origin"] = "https://evil.example"
    assert public.ask("/settings", "POST", b'{"alpha": 0.5}', headers)[0] == 403


def test_answers_carry_a_strict_policy(page: Page) -> None:
    for path in ("/", "/stats", "/page/main.js", "/nothing", "/healthz"):
        _, headers, _ = page.ask(path)
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self';" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert "access-control-allow-origin" not in headers
        assert "server" not in headers


def test_strange_host_does_not_reach_the_policy(public: Page) -> None:
    bearer = {"authorization": f"Bearer {public.token}"}
    host = "cam.example.org; script-src *"
    _, headers, _ = public.ask("/", headers={**bearer, "host": host})
    assert "script-src *" not in headers["content-security-policy"]


def test_viewer_only_page_changes_nothing() -> None:
    page = Page(WebConfig(viewer_only=True))
    with page.sink:
        assert page.change(alpha=0.9)[0] == 403
        with page.talk() as talk:
            assert talk.hear("hello")["viewer_only"] is True
            talk.say(type="set", changes={"alpha": 0.9})
            assert "watching only" in str(talk.hear("error")["message"])
        assert page.settings.alpha == 0.8


def test_token_may_be_chosen_if_it_is_long(monkeypatch: pytest.MonkeyPatch) -> None:
    token = "a-token-of-our-own-0123456789"
    assert check_token(token) == token
    monkeypatch.setenv(TOKEN_VARIABLE, token)
    page = Page(WebConfig(web_name="cam.example.org"))
    with page.sink:
        assert page.token == token
    monkeypatch.setenv(TOKEN_VARIABLE, "short")
    with pytest.raises(UsageError, match="16 or more letters"):
        Page(WebConfig(web_name="cam.example.org"))


@pytest.mark.needs_openssl
def test_tls(tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed (apt-get install openssl)")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-nodes", "-days", "1", "-newkey", "ec"),
            *("-pkeyopt", "ec_paramgen_curve:prime256v1", "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)),
        ],
        check=True,
        capture_output=True,
    )
    page = Page(WebConfig(tls_cert=cert, tls_key=key))
    with page.sink:
        assert page.sink.url.startswith("https://127.0.0.1:")
        context = ssl.create_default_context(cafile=str(cert))
        with urllib.request.urlopen(
            f"{page.sink.url}healthz", context=context, timeout=20
        ) as answer:
            assert answer.read() == b"ok\n"
    with pytest.raises(SinkError, match="cannot be used"):
        Page(WebConfig(tls_cert=key, tls_key=cert))
    with pytest.raises(SinkError, match="there is no file"):
        Page(WebConfig(tls_cert=tmp_path / "none.pem", tls_key=key))
    with pytest.raises(UsageError, match="belong together"):
        Page(WebConfig(tls_cert=cert))
