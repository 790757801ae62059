"""The viewers of a page. Each has its own queue of one picture, so that none waits for another."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

MAX_VIEWERS: Final = 64
_STALE_NS: Final = 1_000_000_000
"""A picture that waited longer for its viewer is dropped: it would pass for a new one."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """A picture as JPEG, the same for all viewers that chose alike."""

    number: int
    """Counts encoded pictures from 1."""
    jpeg: bytes
    captured_ns: int
    encoded_ns: int = field(default_factory=time.monotonic_ns)
    about: Mapping[str, object] = field(default_factory=dict)
    """Plain values for the page, such as the best classes."""

    @property
    def age_ms(self) -> float:
        """Time since the frame was captured."""
        return (time.monotonic_ns() - self.captured_ns) / 1e6

    def header(self) -> dict[str, object]:
        """All values for the page, with the age as it is now."""
        return {**self.about, "n": self.number, "age_ms": round(self.age_ms, 1)}


class Viewer:
    """One viewer's queue: one picture, and one message of each kind. Event loop's thread only.

    Args:
        credit: number of pictures that may be on their way to it at once.
        hud: whether its pictures have the HUD; None: by the settings of the run.
    """

    def __init__(self, credit: int, *, hud: bool | None = None) -> None:
        self.credit = credit
        """Number of pictures that it can take now."""
        self.hud = hud
        self.sent = 0
        self.skipped = 0
        """Pictures that a newer one replaced before the viewer had credit for them."""
        self.ended = False
        """The run is over: the messages and the picture that wait are the last."""
        self._picture: Encoded | None = None
        self._messages: dict[str, str] = {}
        self._changed = asyncio.Event()

    def show(self, picture: Encoded) -> None:
        """Queues the newest picture, in place of one that still waits."""
        self.skipped += self._picture is not None
        self._picture = picture
        self._changed.set()

    def send(self, kind: str, message: str, *, last: bool = False) -> None:
        """Queues a message in place of a waiting one of its kind, or (`last`) at the end."""
        if last:
            self._messages.pop(kind, None)
        self._messages[kind] = message
        self._changed.set()

    def add_credit(self) -> None:
        """A picture has arrived."""
        self.credit += 1
        self._changed.set()

    async def next(self) -> tuple[list[str], Encoded | None]:
        """Waits for the next messages, and a picture if there are one and credit for it."""
        while not self._messages and not self._ready():
            self._changed.clear()
            await self._changed.wait()
        messages = list(self._messages.values())
        self._messages.clear()
        picture = None
        if self._ready():
            picture, self._picture = self._picture, None
        if picture is not None:
            self.credit -= 1
            self.sent += 1
        return messages, picture

    def _ready(self) -> bool:
        """Whether there are a picture and credit for it; drops a picture that waited too long."""
        if self.credit <= 0 or self._picture is None:
            return False
        if time.monotonic_ns() - self._picture.encoded_ns > _STALE_NS:
            self._picture = None
            self.skipped += 1
            return False
        return True


class Viewers:
    """All viewers. For the event loop's thread, except where a method says otherwise."""

    def __init__(self) -> None:
        self._viewers: set[Viewer] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._departed_counts = (0, 0)
        self._newest: Mapping[bool | None, Encoded] = {}
        self._show_is_due = False
        """Whether the loop will call `_show`."""

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Pictures and messages can be published from now on."""
        self._loop = loop

    def __len__(self) -> int:
        return len(self._viewers)

    @property
    def is_full(self) -> bool:
        return len(self._viewers) >= MAX_VIEWERS

    @property
    def wanted(self) -> frozenset[bool | None]:
        """The choices of `hud` of viewers that can take a picture now; any thread."""
        return frozenset(viewer.hud for viewer in tuple(self._viewers) if viewer.credit > 0)

    @property
    def sent(self) -> int:
        """Pictures sent to all viewers."""
        return self._departed_counts[0] + sum(v.sent for v in tuple(self._viewers))

    @property
    def skipped(self) -> int:
        """Pictures dropped because viewers were too slow."""
        return self._departed_counts[1] + sum(v.skipped for v in tuple(self._viewers))

    def join(self, credit: int, *, hud: bool | None = None) -> Viewer:
        viewer = Viewer(credit, hud=hud)
        self._viewers.add(viewer)
        return viewer

    def leave(self, viewer: Viewer) -> None:
        if viewer in self._viewers:
            self._viewers.discard(viewer)
            sent, skipped = self._departed_counts
            self._departed_counts = sent + viewer.sent, skipped + viewer.skipped

    def publish(self, pictures: Mapping[bool | None, Encoded]) -> None:
        """Sends a picture to all viewers; the sink's thread. If the loop is too slow, only the
        newest picture remains.

        Args:
            pictures: the same picture by the viewers' choice of `hud`.
        """
        self._newest = pictures
        if not self._show_is_due:
            self._show_is_due = True
            self._call_in_loop(self._show)

    def send(self, kind: str, message: str) -> None:
        """Sends a message to all viewers; any thread."""
        self._call_in_loop(self._send, kind, message)

    def end(self, message: str) -> None:
        """Tells all viewers that the run is over; any thread."""
        self._call_in_loop(self._end, message)

    def _end(self, message: str) -> None:
        for viewer in self._viewers:
            viewer.ended = True
            viewer.send("end", message)

    def _show(self) -> None:
        self._show_is_due = False  # first: a picture published from now on needs another call
        pictures, self._newest = self._newest, {}
        for viewer in self._viewers:
            if viewer.hud in pictures:
                viewer.show(pictures[viewer.hud])
            elif pictures:
                viewer.skipped += 1  # none who chose like it could take this picture

    def _send(self, kind: str, message: str) -> None:
        for viewer in self._viewers:
            viewer.send(kind, message)

    def _call_in_loop(self, work: Callable[..., None], *arguments: object) -> None:
        loop = self._loop
        if loop is None:
            return
        try:
            loop.call_soon_threadsafe(work, *arguments)
        except RuntimeError:
            self._loop = None  # the server has ended meanwhile
