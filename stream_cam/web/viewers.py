"""Everybody who watches: each has room for one picture, so that nobody waits for the slowest."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

MOST_VIEWERS: Final = 64
_STALE_NS: Final = 1_000_000_000
"""A picture that waited longer for its viewer is not shown: it would pass for a new one."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """A picture as all viewers get it."""

    number: int
    """Counts pictures that were encoded, from 1."""
    jpeg: bytes
    captured_ns: int
    encoded_ns: int = field(default_factory=time.monotonic_ns)
    about: Mapping[str, object] = field(default_factory=dict)
    """What belongs to it: its time, the best classes, plain values."""

    @property
    def age_ms(self) -> float:
        """Since the frame was captured."""
        return (time.monotonic_ns() - self.captured_ns) / 1e6

    def told(self) -> dict[str, object]:
        """All that is said of it to a page, as it is now."""
        return {**self.about, "n": self.number, "age_ms": round(self.age_ms, 1)}


class Viewer:
    """One viewer's room: one picture, and one message of each kind. The event loop's only.

    Args:
        credit: how many pictures may be on their way to it at once.
    """

    def __init__(self, credit: int) -> None:
        self.credit = credit
        """How many more it can take now."""
        self.sent = 0
        self.skipped = 0
        """Pictures that a newer one replaced before it was ready for them."""
        self.ended = False
        """The run is over: after what it gets next nothing more will come."""
        self._picture: Encoded | None = None
        self._messages: dict[str, str] = {}
        self._news = asyncio.Event()

    def show(self, picture: Encoded) -> None:
        """The newest picture, instead of the one that still waits."""
        self.skipped += self._picture is not None
        self._picture = picture
        self._news.set()

    def tell(self, kind: str, message: str, *, last: bool = False) -> None:
        """A message, in the place of one of the same kind that still waits, or after all others."""
        if last:
            self._messages.pop(kind, None)
        self._messages[kind] = message
        self._news.set()

    def returned(self) -> None:
        """A picture has arrived."""
        self.credit += 1
        self._news.set()

    async def next(self) -> tuple[list[str], Encoded | None]:
        """What to send: messages, then a picture if there is one and it can take one."""
        while not self._messages and not self._ready():
            self._news.clear()
            await self._news.wait()
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
        """Whether there is a picture that it can take; one that waited too long is none."""
        if self.credit <= 0 or self._picture is None:
            return False
        if time.monotonic_ns() - self._picture.encoded_ns > _STALE_NS:
            self._picture = None
            self.skipped += 1
            return False
        return True


class Viewers:
    """All of them. Of the event loop's thread, except for `wanting` and what `publish` is for."""

    def __init__(self) -> None:
        self._viewers: set[Viewer] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._of_those_who_left = (0, 0)
        self._newest: Encoded | None = None
        self._due = False
        """`_show` will be called."""

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """From now on things can be published."""
        self._loop = loop

    def __len__(self) -> int:
        return len(self._viewers)

    @property
    def is_full(self) -> bool:
        return len(self._viewers) >= MOST_VIEWERS

    @property
    def wanting(self) -> bool:
        """Whether somebody could take a picture now; any thread."""
        return any(viewer.credit > 0 for viewer in tuple(self._viewers))

    @property
    def sent(self) -> int:
        """Pictures, to all of them."""
        return self._of_those_who_left[0] + sum(v.sent for v in tuple(self._viewers))

    @property
    def skipped(self) -> int:
        """Pictures that viewers were too slow for."""
        return self._of_those_who_left[1] + sum(v.skipped for v in tuple(self._viewers))

    def join(self, credit: int) -> Viewer:
        viewer = Viewer(credit)
        self._viewers.add(viewer)
        return viewer

    def leave(self, viewer: Viewer) -> None:
        if viewer in self._viewers:
            self._viewers.discard(viewer)
            sent, skipped = self._of_those_who_left
            self._of_those_who_left = sent + viewer.sent, skipped + viewer.skipped

    def publish(self, picture: Encoded) -> None:
        """To all of them; the sink's thread. Of pictures that the loop is too slow for, the newest
        remains."""
        self._newest = picture
        if not self._due:
            self._due = True
            self._later(self._show)

    def tell(self, kind: str, message: str) -> None:
        """To all of them; any thread."""
        self._later(self._tell, kind, message)

    def end(self, message: str) -> None:
        """Tells all of them that the run is over; any thread."""
        self._later(self._end, message)

    def _end(self, message: str) -> None:
        for viewer in self._viewers:
            viewer.ended = True
            viewer.tell("end", message)

    def _show(self) -> None:
        self._due = False  # first: what comes from now on is shown once more
        picture, self._newest = self._newest, None
        if picture is not None:
            for viewer in self._viewers:
                viewer.show(picture)

    def _tell(self, kind: str, message: str) -> None:
        for viewer in self._viewers:
            viewer.tell(kind, message)

    def _later(self, work: Callable[..., None], *arguments: object) -> None:
        loop = self._loop
        if loop is None:
            return
        try:
            loop.call_soon_threadsafe(work, *arguments)
        except RuntimeError:
            self._loop = None  # the server has ended meanwhile
