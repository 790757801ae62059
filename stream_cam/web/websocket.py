"""The WebSocket of one page: pictures as fast as they arrive there, and settings both ways."""

from __future__ import annotations

import asyncio
import json
import struct
import time
from collections import deque
from contextlib import suppress
from typing import Any, Final

from starlette.websockets import WebSocket, WebSocketDisconnect

from stream_cam.errors import UsageError
from stream_cam.uri import json_text
from stream_cam.web.page_state import PageState
from stream_cam.web.viewers import Encoded, Viewer

MAX_MESSAGE_BYTES: Final = 4096
"""Longer messages end the connection."""
_UNCONFIRMED_PICTURES: Final = 2
"""One is drawn while the next one travels."""
_MESSAGES_A_SECOND: Final = 200
_BURST: Final = 400
_CHANGES_A_SECOND: Final = 40
_CHANGES_BURST: Final = 80
_MAX_INVALID: Final = 20
"""Invalid messages; then the connection is closed."""
_POLICY_VIOLATION: Final = 1008
_TRY_LATER: Final = 1013


class TokenBucket:
    """Limits events per second on average, with bursts."""

    def __init__(self, per_second: float, burst: float) -> None:
        self._per_second, self._burst = per_second, burst
        self._left, self._since = burst, time.monotonic()

    def allow(self) -> bool:
        """Counts an event; False if it is beyond the limit."""
        now = time.monotonic()
        self._left = min(self._burst, self._left + (now - self._since) * self._per_second)
        self._since = now
        self._left -= 1.0
        return self._left >= 0.0


async def serve_websocket(socket: WebSocket, page_state: PageState) -> None:
    """Serves one page until it leaves or exceeds a limit."""
    await socket.accept()
    if page_state.viewers.is_full:
        await socket.close(_TRY_LATER, "too many viewers")
        return
    # The page has the labels beside the picture, until it asks for them on it.
    viewer = page_state.viewers.join(_UNCONFIRMED_PICTURES, hud=False)
    connection = _Connection(socket, page_state, viewer)
    sending = asyncio.create_task(connection.send())
    try:
        viewer.send("hello", json_text(page_state.hello()))
        viewer.send("stats", json_text({"type": "stats", **page_state.statistics()}))
        await connection.receive()
    finally:
        page_state.viewers.leave(viewer)
        sending.cancel()
        with suppress(asyncio.CancelledError, WebSocketDisconnect, RuntimeError):
            await sending


class _Connection:
    """The messages of one connection, both ways."""

    def __init__(self, socket: WebSocket, page_state: PageState, viewer: Viewer) -> None:
        self._socket = socket
        self._page_state = page_state
        self._viewer = viewer
        self._unconfirmed: deque[Encoded] = deque()
        self._message_limit = TokenBucket(_MESSAGES_A_SECOND, _BURST)
        self._change_limit = TokenBucket(_CHANGES_A_SECOND, _CHANGES_BURST)
        self._n_invalid = 0
        self._latency_ms: float | None = None
        """From capture until the page confirmed that the picture is drawn."""

    async def send(self) -> None:
        while True:
            messages, picture = await self._viewer.next()
            for message in messages:
                await self._socket.send_text(message)
            if picture is not None:
                self._unconfirmed.append(picture)
                await self._socket.send_bytes(self._packet(picture))

    async def receive(self) -> None:
        while True:
            try:
                message = await self._socket.receive()
            except RuntimeError:
                return
            if message["type"] == "websocket.disconnect":
                return
            if not self._message_limit.allow() or self._n_invalid > _MAX_INVALID:
                await self._socket.close(_POLICY_VIOLATION, "too many messages")
                return
            self._dispatch(message.get("text") or "")

    def _packet(self, picture: Encoded) -> bytes:
        """The length of a header (4 bytes, little-endian), the header (JSON), the JPEG."""
        header = picture.header()
        if self._latency_ms is not None:
            header["latency_ms"] = round(self._latency_ms, 1)
        encoded = json_text(header).encode()
        return struct.pack("<I", len(encoded)) + encoded + picture.jpeg

    def _dispatch(self, text: str) -> None:
        try:
            message = json.loads(text)
        except (ValueError, RecursionError):
            message = None
        kind = message.get("type") if isinstance(message, dict) else None
        if kind == "drawn":
            self._confirm(message.get("n"), prompt=message.get("late") is not True)
        elif kind == "hud" and isinstance(message.get("on"), bool):
            self._viewer.hud = message["on"]
        elif kind == "set" and isinstance(message.get("changes"), dict):
            self._change(message["changes"])
            # Later than the message about the change, which the loop has queued for all viewers.
            asyncio.get_running_loop().call_soon(self._confirm_change, message.get("n"))
        else:
            self._n_invalid += 1
            self._send_error("not a message that is known here")

    def _confirm(self, number: object, *, prompt: bool) -> None:
        """All pictures up to this number were drawn or dropped by the page; `prompt`: just now."""
        while (
            self._unconfirmed and isinstance(number, int) and self._unconfirmed[0].number <= number
        ):
            picture = self._unconfirmed.popleft()
            if picture.number == number and prompt and not picture.about.get("repeated"):
                self._latency_ms = picture.age_ms
            self._viewer.add_credit()

    def _change(self, changes: dict[str, Any]) -> None:
        try:
            if not self._change_limit.allow():
                raise UsageError("too many changes; the last ones do not count")
            change_settings(self._page_state, changes)
        except UsageError as error:
            self._n_invalid += 1
            self._send_error(str(error))

    def _confirm_change(self, number: object) -> None:
        """Tells the page that its change of this number was made or refused."""
        self._viewer.send("done", json_text({"type": "done", "n": number}), last=True)

    def _send_error(self, text: str) -> None:
        self._viewer.send("error", json_text({"type": "error", "message": text}))


def change_settings(page_state: PageState, changes: dict[str, Any]) -> None:
    """Changes settings for all viewers.

    Raises:
        UsageError: the page is for viewing only, or a value is wrong.
    """
    if page_state.viewer_only:
        raise UsageError("this page is for watching only")
    if not all(name.isidentifier() for name in changes):
        raise UsageError("a setting's name is a word")
    page_state.settings.change(**changes)
