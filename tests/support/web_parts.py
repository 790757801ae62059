"""A page's sink with pictures that a test makes, and those who talk to it."""

from __future__ import annotations

import http.client
import json
import socket
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction

import numpy as np
from support.waiting import DEADLINE_SECONDS
from websockets.sync.client import ClientConnection, connect

from stream_cam.config import WebConfig
from stream_cam.frame import BgrImage, Explanation, Frame, Prediction, Region
from stream_cam.settings import Settings
from stream_cam.sinks.base import Picture
from stream_cam.web.address import WebAddress
from stream_cam.web.sink import WebSink

LABELS = ("circle", "square", "star", "heart", "cross", "arrow")
SOURCE = "rtsp://***@camera/live"


def explanation_of(index: int, size_hw: tuple[int, int]) -> Explanation:
    """Says that it sees the class of the frame's number."""
    best = index % len(LABELS)
    order = [best, *(other for other in range(len(LABELS)) if other != best)][:5]
    predictions = tuple(
        Prediction(LABELS[one], one, 0.8 if place == 0 else 0.05) for place, one in enumerate(order)
    )
    return Explanation(
        logits=np.zeros(len(LABELS), np.float32),
        predictions=predictions,
        targets=predictions[:1],
        cams=np.zeros((1, 7, 7), np.float32),
        region=Region.whole(size_hw),
        frame_size_hw=size_hw,
        frame_index=index,
        captured_ns=time.monotonic_ns(),
    )


def picture(
    index: int, size_hw: tuple[int, int] = (48, 64), *, value: int | None = None
) -> Picture:
    """A grey picture, as bright as its number says."""
    image: BgrImage = np.full((*size_hw, 3), index % 256 if value is None else value, np.uint8)
    frame = Frame(image, index, index, Fraction(1, 30), time.monotonic_ns())
    return Picture(image, frame, explanation_of(index, size_hw))


class Page:
    """A sink that serves, and the settings behind it."""

    def __init__(
        self,
        config: WebConfig | None = None,
        host: str = "127.0.0.1",
        labels: Sequence[str] = LABELS,
        source: str = SOURCE,
    ) -> None:
        self.settings = Settings(labels=labels)
        self.sink = WebSink(WebAddress(host, 0), self.settings, source, config)
        self.port = self.sink.address.port

    @property
    def token(self) -> str:
        return self.sink.url.partition("token=")[2]

    def ask(
        self,
        path: str,
        method: str = "GET",
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> tuple[int, dict[str, str], bytes]:
        """One request: status, headers in lower case, body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE_SECONDS)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return answer.status, found, answer.read()
        finally:
            connection.close()

    def change(self, /, **changes: object) -> tuple[int, dict[str, object]]:
        """Over HTTP."""
        status, _, body = self.ask(
            "/settings", "POST", json.dumps(changes).encode(), {"content-type": "application/json"}
        )
        return status, json.loads(body)

    @contextmanager
    def talk(
        self, origin: str | None = None, headers: dict[str, str] | None = None
    ) -> Iterator[Talk]:
        """Over a WebSocket."""
        with connect(
            f"ws://127.0.0.1:{self.port}/ws",
            origin=origin,  # type: ignore[arg-type]
            additional_headers=headers,
            open_timeout=DEADLINE_SECONDS,
            compression=None,
            proxy=None,
        ) as socket:
            yield Talk(socket)

    @contextmanager
    def film(self, size_hw: tuple[int, int] = (48, 64), fps: float = 60.0) -> Iterator[list[int]]:
        """Pictures come all the time; the list holds the number of the last one."""
        over, last = threading.Event(), [0]

        def write() -> None:
            while not over.wait(1 / fps):
                last[0] += 1
                self.sink.write(picture(last[0], size_hw))

        thread = threading.Thread(target=write)
        thread.start()
        try:
            yield last
        finally:
            over.set()
            thread.join()


class Talk:
    """A page's side of the WebSocket."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket

    def hear_the_end(self) -> None:
        """Until the server has closed the connection, which raises ConnectionClosed."""
        while True:
            self.socket.recv(DEADLINE_SECONDS)

    def say(self, **message: object) -> None:
        self.socket.send(json.dumps(message))

    def hear(self, *kinds: str) -> dict[str, object]:
        """The next message of one of these kinds; pictures are confirmed meanwhile."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while True:
            message = self.socket.recv(max(0.0, deadline - time.monotonic()))
            if isinstance(message, bytes):
                self.confirm(unpacked(message)[0])
                continue
            heard: dict[str, object] = json.loads(message)
            if heard["type"] in kinds:
                return heard

    def see(self, *, confirm: bool = True) -> tuple[dict[str, object], bytes]:
        """The next picture."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while True:
            message = self.socket.recv(max(0.0, deadline - time.monotonic()))
            if isinstance(message, bytes):
                about, jpeg = unpacked(message)
                if confirm:
                    self.confirm(about)
                return about, jpeg

    def confirm(self, about: dict[str, object]) -> None:
        self.say(type="drawn", n=about["n"])


def unpacked(message: bytes) -> tuple[dict[str, object], bytes]:
    (length,) = struct.unpack_from("<I", message)
    return json.loads(message[4 : 4 + length]), message[4 + length :]


def slow_reader(port: int, path: str) -> socket.socket:
    """Asks, and reads nothing."""
    plain = socket.socket()
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    plain.connect(("127.0.0.1", port))
    plain.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
    return plain
