"""The wall's WebSocket: the viewer names its visible tiles, and gets only their pictures."""

from __future__ import annotations

import asyncio
import json
import struct
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final

from starlette.concurrency import run_in_threadpool
from starlette.websockets import WebSocket, WebSocketDisconnect

from stream_cam.cameras.tile_jpegs import TileJpegs
from stream_cam.uri import json_text
from stream_cam.web.websocket import MAX_MESSAGE_BYTES, TokenBucket

_STATS_SECONDS: Final = 1.0
_MESSAGES_A_SECOND: Final = 400
_BURST: Final = 1200
_POLICY_VIOLATION: Final = 1008
_UNDRAWN_SECONDS: Final = 5.0
"""A picture that is not confirmed by then is taken for lost."""


class WallConnection:
    """One viewer of the wall.

    Args:
        socket: not accepted yet.
        jpegs: by camera, as they are now.
        stats: the values of `/cameras.json`.
        fps: pictures a second of a tile, at most.
    """

    def __init__(
        self,
        socket: WebSocket,
        jpegs: Callable[[], Mapping[str, TileJpegs]],
        stats: Callable[[], dict[str, object]],
        fps: float,
    ) -> None:
        self._socket = socket
        self._jpegs, self._stats = jpegs, stats
        self._seconds = 1.0 / fps
        self._widths: dict[str, int] = {}
        self._sent: dict[str, int] = {}
        """The number of the newest picture that went out, by camera."""
        self._undrawn: dict[str, float] = {}
        """When the picture went out that the page has not drawn yet, by camera."""
        self._limit = TokenBucket(_MESSAGES_A_SECOND, _BURST)

    async def serve(self) -> None:
        """Until the viewer leaves, or sends too much."""
        await self._socket.accept()
        sending = asyncio.create_task(self._send())
        try:
            await self._receive()
        finally:
            sending.cancel()
            with suppress(asyncio.CancelledError, WebSocketDisconnect, RuntimeError):
                await sending

    async def _send(self) -> None:
        told = 0.0
        while True:
            started = time.monotonic()
            if started - told >= _STATS_SECONDS:
                told = started
                message = {"type": "cameras", **self._stats()}
                await self._socket.send_text(json_text(message))
            await self._send_pictures()
            await asyncio.sleep(max(0.01, started + self._seconds - time.monotonic()))

    async def _send_pictures(self) -> None:
        jpegs = self._jpegs()
        for name, width in list(self._widths.items()):
            since = self._undrawn.get(name)
            if name not in jpegs or (
                since is not None and time.monotonic() - since < _UNDRAWN_SECONDS
            ):
                continue
            found = await run_in_threadpool(jpegs[name].jpeg, width)
            if found is None or found.number == self._sent.get(name):
                continue
            self._sent[name] = found.number
            self._undrawn[name] = time.monotonic()
            about: dict[str, object] = {"name": name, "n": found.number}
            if found.label is not None:
                about |= {"label": found.label, "probability": found.probability}
            header = json_text(about).encode()
            await self._socket.send_bytes(struct.pack("<I", len(header)) + header + found.jpeg)

    async def _receive(self) -> None:
        while True:
            try:
                message = await self._socket.receive()
            except RuntimeError:
                return
            if message["type"] == "websocket.disconnect":
                return
            text = message.get("text") or ""
            if not self._limit.allow() or len(text) > MAX_MESSAGE_BYTES:
                await self._socket.close(_POLICY_VIOLATION, "too many messages")
                return
            with suppress(ValueError, RecursionError):
                self._take(json.loads(text))

    def _take(self, message: object) -> None:
        """`{"show": {NAME: WIDTH}}`: the visible tiles; `{"drawn": NAME}`: its picture is shown."""
        if not isinstance(message, dict):
            return
        shown = message.get("show")
        if isinstance(shown, dict):
            self._widths = {
                str(name): width for name, width in shown.items() if isinstance(width, int)
            }
            for name in set(self._sent) - set(self._widths):
                # When it is seen again, its newest picture is sent, even if it is the same one.
                del self._sent[name]
        drawn = message.get("drawn")
        if isinstance(drawn, str):
            self._undrawn.pop(drawn, None)
