"""The WebSocket of one page: pictures out, as fast as they arrive there; settings both ways."""

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

LONGEST_MESSAGE: Final = 4096
"""Bytes; longer ones end the connection."""
_PICTURES_UNDER_WAY: Final = 2
"""Sent and not yet confirmed: one is drawn while the next one travels."""
_MESSAGES_A_SECOND: Final = 200
_BURST: Final = 400
_CHANGES_A_SECOND: Final = 40
_CHANGES_BURST: Final = 80
_MOST_WRONG: Final = 20
"""Messages that were none; then the connection is closed."""
_POLICY_VIOLATION: Final = 1008
_TRY_LATER: Final = 1013


class Bucket:
    """Allows so many events a second on average, and a burst of them."""

    def __init__(self, per_second: float, burst: float) -> None:
        self._per_second, self._burst = per_second, burst
        self._left, self._since = burst, time.monotonic()

    def take(self) -> bool:
        """One event; False if that is too many."""
        now = time.monotonic()
        self._left = min(self._burst, self._left + (now - self._since) * self._per_second)
        self._since = now
        self._left -= 1.0
        return self._left >= 0.0


async def talk(socket: WebSocket, page_state: PageState) -> None:
    """Serves one page until it leaves, or breaks the rules."""
    await socket.accept()
    if page_state.viewers.is_full:
        await socket.close(_TRY_LATER, "too many viewers")
        return
    viewer = page_state.viewers.join(_PICTURES_UNDER_WAY)
    conversation = _Conversation(socket, page_state, viewer)
    sending = asyncio.create_task(conversation.send())
    try:
        viewer.tell("hello", json_text(page_state.hello()))
        viewer.tell("stats", json_text({"type": "stats", **page_state.figures()}))
        await conversation.receive()
    finally:
        page_state.viewers.leave(viewer)
        sending.cancel()
        with suppress(asyncio.CancelledError, WebSocketDisconnect, RuntimeError):
            await sending


class _Conversation:
    """What is said on one connection."""

    def __init__(self, socket: WebSocket, page_state: PageState, viewer: Viewer) -> None:
        self._socket = socket
        self._page_state = page_state
        self._viewer = viewer
        self._under_way: deque[Encoded] = deque()
        self._bucket = Bucket(_MESSAGES_A_SECOND, _BURST)
        self._changes = Bucket(_CHANGES_A_SECOND, _CHANGES_BURST)
        self._wrong = 0
        self._latency_ms: float | None = None
        """From capture until the page had drawn it and said so."""

    async def send(self) -> None:
        while True:
            messages, picture = await self._viewer.next()
            for message in messages:
                await self._socket.send_text(message)
            if picture is not None:
                self._under_way.append(picture)
                await self._socket.send_bytes(self._packed(picture))

    async def receive(self) -> None:
        while True:
            try:
                message = await self._socket.receive()
            except RuntimeError:
                return
            if message["type"] == "websocket.disconnect":
                return
            if not self._bucket.take() or self._wrong > _MOST_WRONG:
                await self._socket.close(_POLICY_VIOLATION, "too many messages")
                return
            self._dispatch(message.get("text") or "")

    def _packed(self, picture: Encoded) -> bytes:
        """The length of a header (4 bytes, little end first), the header (JSON), the JPEG."""
        about = picture.told()
        if self._latency_ms is not None:
            about["latency_ms"] = round(self._latency_ms, 1)
        header = json_text(about).encode()
        return struct.pack("<I", len(header)) + header + picture.jpeg

    def _dispatch(self, text: str) -> None:
        try:
            message = json.loads(text)
        except (ValueError, RecursionError):
            message = None
        kind = message.get("type") if isinstance(message, dict) else None
        if kind == "drawn":
            self._confirm(message.get("n"), prompt=message.get("late") is not True)
        elif kind == "set" and isinstance(message.get("changes"), dict):
            self._change(message["changes"])
            # Comes after the news of the change, which is on its way to all viewers by now.
            asyncio.get_running_loop().call_soon(self._answer, message.get("n"))
        else:
            self._wrong += 1
            self._print_error("not a message that is known here")

    def _confirm(self, number: object, *, prompt: bool) -> None:
        """All pictures up to this one were drawn or will not be; `prompt`: just now."""
        while self._under_way and isinstance(number, int) and self._under_way[0].number <= number:
            picture = self._under_way.popleft()
            if picture.number == number and prompt and not picture.about.get("repeated"):
                self._latency_ms = picture.age_ms
            self._viewer.returned()

    def _change(self, changes: dict[str, Any]) -> None:
        try:
            if not self._changes.take():
                raise UsageError("too many changes; the last ones do not count")
            change(self._page_state, changes)
        except UsageError as error:
            self._wrong += 1
            self._print_error(str(error))

    def _answer(self, number: object) -> None:
        """The page's change of this number was made, or was refused."""
        self._viewer.tell("done", json_text({"type": "done", "n": number}), last=True)

    def _print_error(self, what: str) -> None:
        self._viewer.tell("error", json_text({"type": "error", "message": what}))


def change(page_state: PageState, changes: dict[str, Any]) -> None:
    """Changes settings for all viewers.

    Raises:
        UsageError: they may not, or a value is wrong.
    """
    if page_state.viewer_only:
        raise UsageError("this page is for watching only")
    if not all(name.isidentifier() for name in changes):
        raise UsageError("a setting's name is a word")
    page_state.settings.change(**changes)
