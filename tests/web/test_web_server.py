"""The server's answers, and its handling of slow, wrong or silent clients."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import cv2
import numpy as np
import pytest
from support.pipeline_parts import Frames, make_explainer, make_pipeline, run, tiny_network
from support.waiting import wait_until
from support.web_parts import LABELS, Page, picture, slow_reader
from websockets.exceptions import ConnectionClosed, InvalidStatus

from stream_cam.config import N_PREDICTIONS
from stream_cam.sinks import StreamInfo, open_sink
from stream_cam.web import server as server_module
from stream_cam.web.viewers import Encoded, Viewer
from stream_cam.web.websocket import MAX_MESSAGE_BYTES


@pytest.fixture
def page() -> Iterator[Page]:
    page = Page()
    with page.sink:
        yield page


def decoded(data: bytes) -> np.ndarray:
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    return image


def test_page_and_its_parts_are_served(page: Page) -> None:
    status, headers, body = page.ask("/")
    assert status == 200
    assert headers["content-type"].startswith("text/html")
    for part in ("main.js", "style.css", "icon.svg"):
        assert f"page/{part}".encode() in body
        assert page.ask(f"/page/{part}")[0] == 200
    assert b"http" not in body.replace(b"http-equiv", b""), "nothing comes from elsewhere"


@pytest.mark.parametrize(
    "path",
    [
        "/page/../page/main.js",
        "/page/..%2f..%2fdemo_labels.txt",
        "/page/%2e%2e/%2e%2e/demo.safetensors",
        "/page//etc/passwd",
        "/page/",
        "/page/main.js/",
        "/page/main",
        "/../../etc/passwd",
        "/%00",
        "/page/main.js%00.html",
    ],
)
def test_nothing_else_is_served(page: Page, path: str) -> None:
    assert page.ask(path)[0] in (307, 404)


def test_snapshots(page: Page) -> None:
    assert page.ask("/snapshot.jpg")[0] == 503
    assert page.ask("/snapshot.png")[0] == 503
    page.sink.write(picture(2, (240, 320), value=200))
    status, headers, jpeg = page.ask("/snapshot.jpg")
    assert (status, headers["content-type"]) == (200, "image/jpeg")
    assert abs(int(decoded(jpeg)[120, 160, 0]) - 200) <= 2
    status, headers, png = page.ask("/snapshot.png")
    assert status == 200
    assert "-star.png" in headers["content-disposition"]
    assert "attachment" in headers["content-disposition"]
    image = decoded(png)
    assert image.shape == (240, 320, 3)
    assert (image[120:] == 200).all()
    assert (image[:20] != 200).any(), "label and time stand on it"


def test_nothing_is_encoded_without_viewers(page: Page) -> None:
    for number in range(5):
        page.sink.write(picture(number))
    assert json.loads(page.ask("/stats")[2])["encoded"] == 0


def test_one_encode_serves_all_viewers(page: Page) -> None:
    with page.talk() as one, page.talk() as two:
        one.hear("hello"), two.hear("hello")
        page.sink.write(picture(77))
        seen = [one.see(), two.see()]
        assert seen[0][1] == seen[1][1]
        assert [about["n"] for about, _ in seen] == [1, 1]
        assert abs(int(decoded(seen[0][1])[5, 5, 0]) - 77) <= 2
    figures = json.loads(page.ask("/stats")[2])
    assert (figures["encoded"], figures["sent"]) == (1, 2)


def test_picture_says_what_it_shows(page: Page) -> None:
    with page.talk() as talk:
        talk.hear("hello")
        page.sink.write(picture(3))
        about, _ = talk.see()
        assert about["frame"] == 3
        assert about["repeated"] is False
        assert about["top"][0] == ["heart", 3, 0.8]  # type: ignore[index]
        assert len(about["top"]) == 5  # type: ignore[arg-type]
        assert 0 <= about["age_ms"] < 20_000  # type: ignore[operator]
        with page.film():
            while "latency_ms" not in about:  # the confirmation may still be on its way
                about, _ = talk.see()
        assert 0 < about["latency_ms"] < 20_000  # type: ignore[operator]


def test_viewer_who_confirms_nothing_gets_two_pictures_and_then_the_newest(page: Page) -> None:
    with page.talk() as slow, page.talk() as quick, page.film() as last:
        slow.hear("hello")
        first, second = slow.see(confirm=False)[0], slow.see(confirm=False)[0]
        seen = [int(str(quick.see()[0]["n"])) for _ in range(30)]
        assert seen == sorted(set(seen))
        before = last[0]
        slow.confirm(first)
        third = slow.see(confirm=False)[0]
        assert third["n"] > second["n"] + 1  # type: ignore[operator]
        assert third["frame"] >= before - 2, "the newest one, not the oldest that waited"  # type: ignore[operator]
    assert json.loads(page.ask("/stats")[2])["skipped"] > 0


def test_change_is_seen_by_all_and_by_python(page: Page) -> None:
    with page.talk() as one, page.talk() as two:
        assert one.hear("hello")["settings"]["alpha"] == 0.8  # type: ignore[index]
        two.hear("hello")
        one.say(type="set", changes={"alpha": 0.7, "layout": "side", "target": "star"})
        for talk in (one, two):
            settings = talk.hear("settings")["settings"]
            assert settings["alpha"] == 0.7  # type: ignore[index]
            assert settings["target"] == ["star"]  # type: ignore[index]
            assert settings["target_index"] == [2]  # type: ignore[index]
        assert page.settings.layout == "side"
        page.settings.colormap = "jet"
        assert two.hear("settings")["settings"]["colormap"] == "jet"  # type: ignore[index]
        assert page.change(divider=0.5)[1]["divider"] == 0.5
        assert one.hear("settings")["settings"]["colormap"] == "jet"  # type: ignore[index]


def test_change_is_confirmed_after_its_message(page: Page) -> None:
    with page.talk() as talk:
        talk.hear("hello")
        for number, alpha in enumerate((0.1, 0.2, 0.3, 0.45, 0.5)):
            talk.say(type="set", n=number, changes={"alpha": alpha})
        told = [0.0]
        while (news := talk.hear("settings", "done")).get("n") != 4:
            if news["type"] == "settings":
                told.append(news["settings"]["alpha"])  # type: ignore[index]
    assert told == sorted(told)
    assert told[-1] == 0.5


def test_confirmation_waits_behind_the_newest_settings() -> None:
    async def told() -> list[str]:
        viewer = Viewer(1)
        viewer.send("settings", "settings 1")
        viewer.send("done", "done 1", last=True)
        viewer.send("settings", "settings 2")  # somebody else's, which holds the first change too
        first, _ = await viewer.next()
        viewer.send("done", "done 2", last=True)
        viewer.send("settings", "settings 3")
        viewer.send("done", "done 3", last=True)
        second, _ = await viewer.next()
        return first + second

    assert asyncio.run(told()) == ["settings 2", "done 1", "settings 3", "done 3"]


def test_wrong_change_is_explained_and_changes_nothing(page: Page) -> None:
    with page.talk() as talk:
        talk.hear("hello")
        talk.say(type="set", n=7, changes={"alpha": 0.9, "colormap": "jett"})
        assert "did you mean jet" in str(talk.hear("error")["message"])
        assert talk.hear("done")["n"] == 7
    assert page.settings.alpha == 0.8
    for changes, said in (
        ({"alpha": "x"}, "alpha is a number"),
        ({"alpha": True}, "alpha is a number"),
        ({"divider": 2}, "from 0 to 1"),
        ({"divider": None}, "divider is a number"),
        ({"target": "strr"}, "star"),
        ({"target": 99}, "99"),
        ({"target": {}}, "a label or a class index"),
        ({"recording": 1}, "true or false"),
        ({"max_age": float("inf")}, "a number below"),
        ({"alpha": 10**400}, "a number below"),
        ({"target": list(range(6)) * 2}, "at most 10 classes"),
        ({"__class__": 1}, "unknown setting"),
        ({"self": 1}, "unknown setting"),
    ):
        status, answer = page.change(**changes)
        assert status == 422, changes
        assert said in str(answer["error"]), changes


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"{", "application/json", 400),
        (b"[1]", "application/json", 422),
        (b"\xff\xfe", "application/json", 400),
        (b'{"a":' * 700, "application/json", 400),
        (b"x" * (MAX_MESSAGE_BYTES + 1), "application/json", 413),
        (b'{"alpha": 0.9}', "text/plain", 415),
        (b'{"alpha": NaN}', "application/json", 422),
    ],
)
def test_wrong_body_is_refused(page: Page, body: bytes, kind: str, status: int) -> None:
    assert page.ask("/settings", "POST", body, {"content-type": kind})[0] == status
    assert page.settings.alpha == 0.8


def test_thousand_malformed_messages_cost_one_connection(page: Page) -> None:
    wrong = ("{", "[]", '{"type": 1}', "\x00", b"\xff", "9" * 300)
    with page.talk() as good:
        good.hear("hello")
        with page.talk() as bad:
            with suppress(ConnectionClosed):
                for number in range(1000):
                    bad.socket.send(wrong[number % len(wrong)])
            with pytest.raises(ConnectionClosed):
                bad.hear_the_end()
            assert bad.socket.close_code == 1008
        page.sink.write(picture(1))
        assert good.see()[0]["n"] == 1


def test_too_long_message_ends_the_connection(page: Page) -> None:
    with page.talk() as talk:
        talk.hear("hello")
        talk.socket.send("x" * (MAX_MESSAGE_BYTES + 1))
        with pytest.raises(ConnectionClosed):
            talk.hear_the_end()


def test_page_shows_as_many_classes_as_are_predicted(page: Page) -> None:
    script = page.ask("/page/classes.js")[2].decode()
    assert f"const N_BARS = {N_PREDICTIONS};" in script
    assert f"<kbd>1</kbd> … <kbd>{N_PREDICTIONS}</kbd>" in page.ask("/")[2].decode()


def test_head_that_is_too_long_is_refused(page: Page) -> None:
    with socket.create_connection(("127.0.0.1", page.port), timeout=20) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n" + b"X: " + b"y" * 40_000)
        assert b"400" in plain.recv(100)
    assert page.ask("/healthz")[0] == 200


@pytest.mark.parametrize(
    "asked",
    [b"GET / HTTP/1.1\r\nHo", b"GET /stats HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\nGET /he"],
    ids=["nothing", "nothing more"],
)
def test_silent_connections_are_closed(
    page: Page, monkeypatch: pytest.MonkeyPatch, asked: bytes
) -> None:
    monkeypatch.setattr(server_module, "_REQUEST_SECONDS", 0.2)
    with socket.create_connection(("127.0.0.1", page.port), timeout=20) as plain:
        plain.sendall(asked)
        with suppress(ConnectionResetError):
            while plain.recv(65536):
                pass


def test_refused_clients_keep_no_connection(page: Page) -> None:
    for path, host in (("/", "evil.example"), ("/healthz", "127.0.0.1")):
        with socket.create_connection(("127.0.0.1", page.port), timeout=20) as plain:
            plain.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            while plain.recv(65536):
                pass


def test_picture_that_waited_long_is_not_shown_as_new(page: Page) -> None:
    def figure(name: str) -> int:
        return int(json.loads(page.ask("/stats")[2])[name])

    with page.talk() as talk:
        talk.hear("hello")
        for number in (1, 2):  # these are under way, the third one waits
            page.sink.write(picture(number))
            wait_until(lambda n=number: figure("sent") == n)  # type: ignore[misc]
        viewers = page.sink._page_state.viewers
        old = Encoded(3, b"", time.monotonic_ns(), encoded_ns=time.monotonic_ns() - 10**10)
        viewers.publish({False: old})
        for _ in range(2):
            talk.see()
        wait_until(lambda: figure("skipped") == 1)
        page.sink.write(picture(9))
        assert talk.see()[0]["frame"] == 9


def test_client_that_pings_and_does_not_read_is_disconnected(page: Page) -> None:
    with page.talk() as good:
        good.hear("hello")
        plain = socket.create_connection(("127.0.0.1", page.port), timeout=20)
        with plain:
            plain.sendall(
                b"GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
                b"Connection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
                b"Sec-WebSocket-Version: 13\r\n\r\n"
            )
            ping = b"\x89\xfd" + b"\0" * 4 + b"x" * 125
            with suppress(ConnectionResetError, BrokenPipeError, TimeoutError):
                for _ in range(3000):
                    plain.sendall(ping * 64)
                raise AssertionError("24 MB of answers wait for nobody")
        page.sink.write(picture(1))
        assert good.see()[0]["frame"] == 1


def test_too_many_connections_are_closed(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "_MAX_CONNECTIONS", 3)
    plain = [socket.create_connection(("127.0.0.1", page.port), timeout=20) for _ in range(6)]
    try:
        ended = 0
        for one in plain:
            one.settimeout(0.5)
            try:
                ended += one.recv(1) == b""
            except ConnectionResetError:
                ended += 1
            except TimeoutError:
                pass
        assert ended == 3
    finally:
        for one in plain:
            one.close()
    wait_until(lambda: page.ask("/healthz")[0] == 200)


def test_stream_is_multipart_and_ends_with_the_run(page: Page) -> None:
    with slow_reader(page.port, "/stream.mjpg") as plain:
        plain.settimeout(20)
        wait_until(lambda: json.loads(page.ask("/stats")[2])["viewers"] == 1)
        with page.film():
            data = b""
            while data.count(b"Content-Type: image/jpeg") < 3:
                data += plain.recv(65536)
        head, _, rest = data.partition(b"\r\n\r\n")
        assert b"multipart/x-mixed-replace; boundary=frame" in head
        start = rest.index(b"\xff\xd8")
        assert decoded(rest[start : rest.index(b"\xff\xd9") + 2]).shape == (48, 64, 3)
        page.sink.close()
        while data := plain.recv(65536):
            pass


def test_client_that_does_not_read_slows_nobody(page: Page) -> None:
    """Pictures that fill every buffer: the other viewer gets all of them, one after the other."""
    big = (720, 1280)
    noise = np.random.default_rng(0).integers(0, 256, (*big, 3)).astype(np.uint8)
    with slow_reader(page.port, "/stream.mjpg"), page.talk() as quick:
        quick.hear("hello")
        wait_until(lambda: json.loads(page.ask("/stats")[2])["viewers"] == 2)
        for number in range(20):
            one = picture(number)
            page.sink.write(type(one)(noise, one.frame, one.explanation))
            assert quick.see()[0]["frame"] == number
        figures = json.loads(page.ask("/stats")[2])
    assert figures["sent"] < 20 + 12
    assert figures["skipped"] >= 8


def test_crowd_and_abuse_do_not_stop_the_pictures(page: Page) -> None:
    """Twenty viewers, one who does not read, and clients that misuse the page."""
    stop = threading.Event()

    def abuse(number: int) -> None:
        while not stop.is_set():
            with suppress(OSError, http.client.HTTPException, InvalidStatus, ConnectionClosed):
                if number % 3 == 0:
                    page.ask("/settings", "POST", b"x" * 100_000, {"origin": "http://evil"})
                elif number % 3 == 1:
                    page.ask(f"/page/{number}/../../etc/passwd", headers={"host": "evil"})
                else:
                    with page.talk() as bad:
                        for _ in range(30):
                            bad.socket.send("{")
            stop.wait(0.01)

    with ExitStack() as stack:
        stack.enter_context(slow_reader(page.port, "/stream.mjpg"))
        streams = [slow_reader(page.port, "/stream.mjpg") for _ in range(16)]
        for plain in streams:
            stack.enter_context(plain)
            threading.Thread(target=_drain, args=(plain,), daemon=True).start()
        talks = [stack.enter_context(page.talk()) for _ in range(3)]
        abusers = [threading.Thread(target=abuse, args=(number,)) for number in range(3)]
        for thread in abusers:
            thread.start()
        with page.film(fps=30) as last:
            for talk in talks:
                numbers = [int(str(talk.see()[0]["n"])) for _ in range(30)]
                assert numbers == sorted(set(numbers))
        stop.set()
        for thread in abusers:
            thread.join()
        figures = json.loads(page.ask("/stats")[2])
        assert figures["viewers"] == 20
        assert figures["encoded"] > 0.8 * last[0], "pictures went on being made"
    assert "stream_cam_refused_total 0.0" not in page.ask("/metrics")[2].decode()


def _drain(plain: socket.socket) -> None:
    with suppress(OSError):
        while plain.recv(1 << 20):
            pass


def test_viewers_who_left_are_forgotten(page: Page) -> None:
    for _ in range(3):
        with page.talk() as talk:
            talk.hear("hello")
    plain = slow_reader(page.port, "/stream.mjpg")
    wait_until(lambda: json.loads(page.ask("/stats")[2])["viewers"] == 1)
    plain.close()
    with page.film():  # a stream that nobody reads is noticed when it is written to
        wait_until(lambda: json.loads(page.ask("/stats")[2])["viewers"] == 0)


def test_end_is_sent_to_viewers(page: Page) -> None:
    with page.talk() as talk:
        talk.hear("hello")
        page.sink.close()
        assert talk.hear("end") == {"type": "end"}


def test_labels_stats_and_metrics(page: Page) -> None:
    assert json.loads(page.ask("/labels")[2]) == list(LABELS)
    page.sink.attach_stats(lambda: {"captured": 7, "fps": 29.5, "away": None, "live": True})
    figures = json.loads(page.ask("/stats")[2])
    assert (figures["captured"], figures["fps"], figures["viewers"]) == (7, 29.5, 0)
    assert figures["settings"]["layout"] == "overlay"
    status, headers, body = page.ask("/metrics")
    assert status == 200
    assert headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = body.decode().splitlines()
    assert "stream_cam_captured_total 7.0" in lines
    assert "stream_cam_fps 29.5" in lines
    assert "stream_cam_source_up 1.0" in lines
    assert any('source="rtsp://***@camera/live"' in line for line in lines)


def test_statistics_come_every_second(page: Page) -> None:
    with page.talk() as talk:
        talk.hear("hello")
        begun = time.monotonic()
        assert talk.hear("stats")["viewers"] == 1
        talk.hear("stats")
        assert time.monotonic() - begun >= 0.9


def test_page_of_a_pipeline_has_its_statistics() -> None:
    """Without a session: `open_sink` makes the page, as every other sink."""
    captured: list[int] = []

    def ask(index: int) -> None:
        if index == 5:
            with urllib.request.urlopen(f"{sink.url}stats", timeout=20) as answer:
                captured.append(json.load(answer)["captured"])

    sink = open_sink("web://127.0.0.1:0", StreamInfo(), overwrite=False)
    run(make_pipeline(Frames(10, before=ask), [sink], make_explainer(tiny_network())))
    assert captured == [5]
