"""Viewers of a page, and clients that misuse it; bounded, and it stops by itself.

    python scripts/web_crowd.py http://127.0.0.1:8080/?token=... --viewers 20 --abuse --seconds 20

All viewers read /stream.mjpg; the first one reads a byte a second. --abuse adds, all the time:
wrong tokens, 100 a second; 1000 WebSocket messages without meaning; a body of 300 kB and one that
claims 10 MB, five times a second each; other sites' origins and paths outside of the served folder,
ten a second each; and connections that hang after half a request, two a second. Prints as JSON how
each was answered, and the page's own figures at the end.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from urllib.parse import urlsplit

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

N_MALFORMED = 1000
_CHUNK = 1 << 20
_HELD_SECONDS = 12.0
"""How long a hanging connection is held, at the most."""
_ANSWER_SECONDS = 2.0
"""How long an answer is waited for."""


class Crowd:
    """Everybody who asks one page, for so many seconds.

    Args:
        url: the page's link, with its token if it needs one.
        seconds: how long.
    """

    def __init__(self, url: str, seconds: float) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 80
        self._query = f"?{parts.query}" if parts.query else ""
        self._cookie = ""
        self._seconds = seconds
        self._until = time.monotonic() + seconds
        self.answers: dict[str, Counter[str]] = defaultdict(Counter)
        """Attempt → answer → count."""

    async def run(self, n_viewers: int, *, abuse: bool) -> None:
        await self._enter()
        all_of_them = [self._view(slowly=number == 0) for number in range(n_viewers)]
        all_of_them.append(asyncio.sleep(self._seconds))  # also without a viewer
        if abuse:
            all_of_them += [self._repeat(*attempt) for attempt in self._attempts()]
            all_of_them.append(self._mumble(N_MALFORMED))
        await asyncio.gather(*all_of_them)

    async def stats(self) -> dict[str, object]:
        """The page's own figures."""
        reader, writer = await self._asked(f"GET /stats HTTP/1.1\r\n{self._own}\r\n")
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        if b" 200 " not in head[:20]:
            raise RuntimeError(f"no figures: {head[:80]!r}")
        figures: dict[str, object] = json.loads(body)
        return figures

    @property
    def _own(self) -> str:
        """The header lines of somebody who may see the page."""
        return f"Host: {self._host}\r\nConnection: close\r\n{self._cookie}"

    async def _enter(self) -> None:
        """Exchange the token for the cookie."""
        if not self._query:
            return
        reader, writer = await self._asked(
            f"GET /{self._query} HTTP/1.1\r\nHost: {self._host}\r\n\r\n"
        )
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        writer.close()
        for line in head.splitlines():
            if line.lower().startswith("set-cookie:"):
                self._cookie = f"Cookie: {line.split(':', 1)[1].split(';')[0].strip()}\r\n"
        if not self._cookie:
            raise RuntimeError(f"no cookie for the token: {head[:80]!r}")

    async def _asked(self, text: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(self._host, self._port)
        writer.write(text.encode())
        return reader, writer

    async def _view(self, *, slowly: bool) -> None:
        """Read the stream to the end, or until time is over."""
        reader, writer = await self._asked(f"GET /stream.mjpg HTTP/1.1\r\n{self._own}\r\n")
        with suppress(OSError):
            while (left := self._until - time.monotonic()) > 0:
                try:
                    if not await asyncio.wait_for(reader.read(1 if slowly else _CHUNK), left):
                        break
                except asyncio.TimeoutError:
                    break
                if slowly:
                    await asyncio.sleep(1.0)
        self.answers["viewer"]["stayed" if time.monotonic() >= self._until else "lost"] += 1
        writer.transport.abort()

    def _attempts(self) -> list[tuple[str, float, Callable[[], Awaitable[str]]]]:
        """The attempts: name, rate a second, and function."""
        long = "x" * 300_000
        post = "POST /settings HTTP/1.1\r\nContent-Type: application/json\r\n"
        evil = f"{self._own}Origin: http://evil.example\r\n"
        upgrade = "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "
        key = "dGhlIHNhbXBsZSBub25jZQ=="
        requests = {
            "wrong token": (100, f"GET /stats?token={'w' * 32} HTTP/1.1\r\nHost: {self._host}\r\n"),
            "long body": (5, f"{post}{self._own}Content-Length: {len(long)}\r\n\r\n{long}"),
            "huge length": (5, f"{post}{self._own}Content-Length: 10000000\r\n\r\n{long[:9000]}"),
            "wrong origin": (10, f"{post}{evil}Content-Length: 2\r\n\r\n{{}}"),
            "wrong origin, WebSocket": (
                10, f"GET /ws HTTP/1.1\r\n{evil}Connection: upgrade\r\n{upgrade}{key}\r\n"
            ),
            "path out of the folder": (
                10, f"GET /page/../../../etc/passwd HTTP/1.1\r\n{self._own}"
            ),
        }  # fmt: skip
        found: list[tuple[str, float, Callable[[], Awaitable[str]]]] = [
            (name, each_second, partial(self._status, f"{request}\r\n"))
            for name, (each_second, request) in requests.items()
        ]
        return [*found, ("hanging", 2, self._hang)]

    async def _repeat(
        self, name: str, each_second: float, attempt: Callable[[], Awaitable[str]]
    ) -> None:
        """Try something so often a second, without waiting for the answers."""

        async def counted() -> None:
            self.answers[name][await attempt()] += 1

        begun, tasks = time.monotonic(), []
        while time.monotonic() < self._until:
            tasks.append(asyncio.create_task(counted()))
            await asyncio.sleep(max(0.0, begun + len(tasks) / each_second - time.monotonic()))
        await asyncio.gather(*tasks)

    async def _status(self, text: str) -> str:
        """The status that a request is answered with."""
        try:
            reader, writer = await asyncio.wait_for(self._asked(text), _ANSWER_SECONDS)
        except (OSError, asyncio.TimeoutError):
            return "closed"
        try:
            line = await asyncio.wait_for(reader.readline(), _ANSWER_SECONDS)
        except (OSError, asyncio.TimeoutError):
            return "closed"
        finally:
            writer.transport.abort()
        words = line.split()
        return words[1].decode() if len(words) > 1 else "closed"

    async def _hang(self) -> str:
        """Ask for half of something; whether the server has had enough of it before the end."""
        try:
            reader, writer = await self._asked("GET /stats HTTP/1.1\r\nHos")
        except OSError:
            return "closed"
        left = self._until - time.monotonic()
        try:
            await asyncio.wait_for(reader.read(), min(_HELD_SECONDS, left))
        except asyncio.TimeoutError:
            return "held"
        except OSError:
            return "closed"
        finally:
            writer.transport.abort()
        return "closed"

    async def _mumble(self, n_messages: int) -> None:
        """WebSocket messages that mean nothing, by somebody who may come in."""
        seen = self.answers["malformed message"]
        name, _, value = self._cookie.strip().partition(": ")
        headers = {name: value} if name else {}
        url = f"ws://{self._host}:{self._port}/ws"

        def going() -> bool:
            return seen["sent"] < n_messages and time.monotonic() < self._until

        while going():
            with suppress(OSError, ConnectionClosed, InvalidHandshake):
                async with connect(url, additional_headers=headers, proxy=None) as socket:
                    seen["connections"] += 1
                    while going():
                        await socket.send("{" * (1 + seen["sent"] % 50))
                        seen["sent"] += 1
                        await asyncio.sleep(self._seconds / n_messages / 2)
            await asyncio.sleep(0.01)


async def watched(url: str, seconds: float, n_viewers: int, abuse: bool) -> dict[str, object]:
    crowd = Crowd(url, seconds)
    await crowd.run(n_viewers, abuse=abuse)
    return {"answers": crowd.answers, "stats": await crowd.stats()}


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("url", help="of the page, with its token")
    options.add_argument("--viewers", type=int, default=20)
    options.add_argument("--abuse", action="store_true", help="try what is forbidden as well")
    options.add_argument("--seconds", type=float, default=20.0)
    given = options.parse_args()
    print(json.dumps(asyncio.run(watched(given.url, given.seconds, given.viewers, given.abuse))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
