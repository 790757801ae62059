"""What every source is: a context manager that yields frames."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from types import TracebackType
from typing import Protocol, runtime_checkable

from stream_cam.errors import SourceErrorKind
from stream_cam.frame import Colour, Frame


@dataclass(frozen=True, slots=True)
class SourceInfo:
    """What is known of a source once it is open."""

    name: str
    """The URI as it may be shown: secrets redacted."""
    size_hw: tuple[int, int]
    """Height and width of the first frame in pixels; later frames may differ."""
    fps: Fraction | None
    """Average frames per second; None where it is not known (pictures, some streams)."""
    n_frames: int | None
    """How many frames will come, if the source says so; a hint, not a promise."""
    live: bool
    """True: the newest frame wins. False: every frame is explained, none is dropped."""
    duration_seconds: float | None = None
    still: bool = False
    """True for single pictures: the frames are not a video."""
    colour: Colour | None = None
    """How a video is tagged; None where it is not."""
    file: str | None = None
    """The path of a video file."""
    note: str = ""
    """What the user should know at the start: a camera's mode, as asked for and as it is."""
    audio_lead_seconds: Fraction = Fraction(0)
    """How much earlier than the first picture a file's sound begins; 0: hardly, or no sound."""


class Source(Protocol):
    """Opens in `__enter__`, yields frames once, closes in `__exit__`.

    Iteration ends at the end of the source; it raises SourceError when the source fails.
    """

    @property
    def info(self) -> SourceInfo: ...

    def __enter__(self) -> Source: ...

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...

    def __iter__(self) -> Iterator[Frame]: ...


@dataclass(frozen=True, slots=True)
class Outage:
    """A live source that gives no frames at present."""

    reconnecting: bool
    """False: it is connected, but nothing has come for a while."""
    last_frame_age_seconds: float
    attempt: int
    """Attempts to reconnect so far."""
    next_try_seconds: float
    """Until the next attempt; 0 while one is being made."""
    kind: SourceErrorKind
    reason: str
    """In words, secrets redacted."""
    awaits_key_frame: bool = False
    """It is connected and sends video, which can be decoded from the next key frame on."""

    @property
    def state(self) -> str:
        """In few words, for a line of text."""
        if self.reconnecting:
            return "reconnecting"
        return "waiting for a key frame" if self.awaits_key_frame else "no picture"


@dataclass(slots=True)
class Health:
    """What became of a live source's connections."""

    connections: int = 0
    recoveries: int = 0
    """Outages after which frames came again."""
    slowest_recovery_seconds: float = 0.0
    """The longest time from the last frame before an outage to the first one after it."""
    abandoned_readers: int = 0
    """Reads that did not return in time and were left to themselves."""
    overtaken: int = 0
    """Frames that a newer one replaced before the run took them; not captured."""


@runtime_checkable
class Stoppable(Protocol):
    """A source that waits, and can be told to wait no longer; from any thread."""

    def stop(self) -> None:
        """Ends the iteration at once, whatever the source is doing."""
        ...


@runtime_checkable
class Reconnects(Protocol):
    """What a source that reconnects can be asked and told besides being read; from any thread."""

    @property
    def health(self) -> Health: ...

    def status(self) -> Outage | None:
        """Why there are no frames; None while they come."""
        ...

    def stop(self) -> None:
        """Ends the iteration at once, whatever the source is doing."""
        ...
