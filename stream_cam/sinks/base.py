"""What every sink is: a context manager that takes finished pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from types import TracebackType
from typing import TYPE_CHECKING, Protocol

from stream_cam.frame import BgrImage, Colour, Explanation, Frame

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True, slots=True)
class Picture:
    """One finished picture on its way to the sinks."""

    image_bgr: BgrImage
    """(H, W, 3) uint8; sinks must not change it, others read the same array."""
    frame: Frame
    """The frame that it was made from, with its exact time."""
    explanation: Explanation | None
    repeated: bool = False
    """True: no new frame, but the last picture again, with a note that the source is away."""


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """Properties of the source and of the run, known before the first picture."""

    fps: Fraction | None = None
    """The source's average frames per second, if known."""
    still: bool = False
    """True if the source is pictures, not a video."""
    live: bool = False
    colour: Colour | None = None
    """How the source's video is tagged; recordings keep it. None: not at all."""
    file: str | None = None
    """The source's path, if it is a video file of which sound and metadata can be kept."""
    duration_seconds: float | None = None
    """Of the file's video."""
    description: str = ""
    """What makes the pictures: the model, its weights, the class. For a recording's comment."""
    audio_lead_seconds: Fraction = Fraction(0)
    """How much earlier than its first picture a recording of the whole file begins, with sound."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """Why there is no picture yet, in words, secrets redacted."""

    what: str
    """Such as "waiting for rtsp://***@cam/stream"."""
    reason: str = ""
    """Why the last attempt failed."""
    attempt: int = 0
    """Attempts so far."""
    next_try_seconds: float = 0.0
    """Until the next attempt; 0 while one is being made."""

    @property
    def lines(self) -> list[str]:
        """The whole of it, to be shown."""
        if not self.reason:
            return [self.what]
        attempts = f"{self.attempt} attempt{'s' * (self.attempt > 1)} failed"
        again = f"next in {self.next_try_seconds:.0f} s" if self.next_try_seconds else "trying now"
        return [self.what, self.reason, f"{attempts}, {again}"]


class Sink(Protocol):
    """Opens in a `with`; `write` takes pictures in order; `close` finishes what was written.

    A class that inherits from it need have only a `name` and `write`. Whatever ends the pipeline,
    what was recorded stays playable: `close` is called after a failure as well. A sink opens its
    file lazily, at the first `write`, so that a source that never starts leaves nothing behind.
    """

    name: str
    """The URI as it may be shown: secrets redacted."""
    url: str = ""
    """The link under which people can watch it; it may hold a token: for people, not for logs."""
    main_thread: bool = False
    """True if all is called on the main thread (windows)."""
    watched: bool = False
    """True if people look at it while it runs: it is told of a pause."""
    on_demand: bool = False
    """True if it writes only while a viewer asks for it: no run goes on for it alone."""
    takes_repeats: bool = False
    """True if it also gets pictures that are `repeated` while a live source is away: people watch
    it, or its recording is to have pictures throughout."""
    repeat_seconds: float = 0.25
    """How often it wants them."""
    poll_seconds: float | None = None
    """How often `poll` is called while no picture comes; None: never, unless it is a window."""
    segments: Sequence[str] = ()
    """Paths of the files it has finished and that are still there, if it writes one after the
    other, oldest first."""
    removed: int = 0
    """How many older ones of these it has removed."""
    unwanted: int = 0
    """How many pictures it was given and did not write, since nobody had asked for them."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def attach_stats(self, stats: Callable[[], dict[str, object]]) -> None:
        """Gets to know, before it is opened, what tells how far the run is."""
        return

    def wait(self, waiting: Waiting) -> bool:
        """Told again and again, once it is open, until there is a source; where `write` is.

        False asks for the end of the run (the window was closed).
        """
        return True

    def write(self, picture: Picture) -> bool:
        """Takes one picture; False asks the pipeline to stop (the window was closed)."""
        ...

    def source_ended(self) -> None:
        """Told before `close`: the source has ended by itself, and all of it was given."""
        return

    def interrupt(self) -> None:
        """Told, by any thread, when the time after a stop is over: no write is to wait longer."""
        return

    def close(self) -> None:
        """Finishes what was written."""
        return

    def poll(self) -> bool:
        """Called while no picture comes, where `write` is; False asks the pipeline to stop."""
        return True
