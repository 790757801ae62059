"""The interface of all sinks: a context manager that takes finished pictures."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from types import TracebackType
from typing import TYPE_CHECKING, Final, Protocol

from stream_cam.frame import BgrImage, Colour, Explanation, Frame

if TYPE_CHECKING:
    from typing_extensions import Self

    from stream_cam.draw.drawing import Drawing


class Picture:
    """One finished picture on its way to the sinks; never changed.

    Args:
        image_bgr: (H, W, 3) uint8, or a function that draws it when a sink first asks for it.
        frame: the frame that it was made from, with its exact time.
        repeated: the last picture again, with a note that the source is away or the run is paused.
        drawing: the same picture with and without labels, for sinks that let their viewers choose.
    """

    __slots__ = ("_image_bgr", "_lock", "drawing", "explanation", "frame", "repeated")

    def __init__(
        self,
        image_bgr: BgrImage | Callable[[], BgrImage],
        frame: Frame,
        explanation: Explanation | None,
        repeated: bool = False,
        *,
        drawing: Drawing | None = None,
    ) -> None:
        self.frame: Final = frame
        self.explanation: Final = explanation
        self.repeated: Final = repeated
        self._image_bgr = image_bgr
        self.drawing: Final = drawing
        self._lock = threading.Lock()

    @property
    def image_bgr(self) -> BgrImage:
        """(H, W, 3) uint8. All sinks read the same array; none may change it."""
        with self._lock:
            if callable(self._image_bgr):
                self._image_bgr = self._image_bgr()
            return self._image_bgr

    def labelled(self, hud: bool | None) -> BgrImage:
        """The picture with or without the HUD, and without a note on a pause or an outage.

        Args:
            hud: None: by the settings, with the note.
        """
        if hud is None or self.drawing is None:
            return self.image_bgr
        return self.drawing.labelled(hud)


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """Properties of the source and of the run, known before the first picture."""

    fps: Fraction | None = None
    """The source's average frames per second, if known."""
    still: bool = False
    """True if the source is pictures, not a video."""
    live: bool = False
    colour: Colour | None = None
    """The tags of the source's video, which recordings keep. None: it has none."""
    file: str | None = None
    """The source's path, if it is a video file with audio and metadata to keep."""
    duration_seconds: float | None = None
    """The duration of the file's video."""
    description: str = ""
    """Model, weights and class, for a recording's comment."""
    audio_lead_seconds: Fraction = Fraction(0)
    """How much earlier than the first picture the file's audio begins."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """The reason why there is no picture yet, in words, secrets redacted."""

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
        """The lines that are shown."""
        if not self.reason:
            return [self.what]
        attempts = f"{self.attempt} attempt{'s' * (self.attempt > 1)} failed"
        again = f"next in {self.next_try_seconds:.0f} s" if self.next_try_seconds else "trying now"
        return [self.what, self.reason, f"{attempts}, {again}"]


class Sink(Protocol):
    """Opens in a `with`; `write` takes pictures in order; `close` finishes the output.

    A subclass needs only a `name` and `write`. `close` is called after a failure as well, so that
    recordings stay playable whatever ends the pipeline. A sink opens its file at the first `write`:
    a source that never starts leaves no file behind.
    """

    name: str
    """The URI, secrets redacted."""
    url: str = ""
    """The link under which people can watch it. It may hold a token and stays out of logs."""
    main_thread: bool = False
    """True if all methods are called on the main thread (windows)."""
    watched: bool = False
    """True if people look at it during the run; it then gets pictures of a pause."""
    labels_are_optional: bool = False
    """True if it asks for pictures with or without the HUD, as its viewers choose."""
    on_demand: bool = False
    """True if it writes only while a viewer asks for it; no run goes on for it alone."""
    takes_repeats: bool = False
    """True if it also gets `repeated` pictures, while a live source is away or a run is paused."""
    repeat_seconds: float = 0.25
    """The interval of repeated pictures."""
    poll_seconds: float | None = None
    """The interval of `poll` while no picture comes. None: never, unless it is a window."""
    segments: Sequence[str] = ()
    """Paths of finished files that are still there, oldest first, if it writes several."""
    removed: int = 0
    """Number of older segments that it has removed."""
    unwanted: int = 0
    """Number of pictures that it did not write because nobody had asked for them."""

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
        """Takes the function that returns the run's statistics, before the sink is opened."""
        return

    def wait(self, waiting: Waiting) -> bool:
        """Called repeatedly on `write`'s thread, from opening until the source is there.

        Returns:
            False ends the run (the window was closed).
        """
        return True

    def write(self, picture: Picture) -> bool:
        """Takes one picture; False ends the run (the window was closed)."""
        ...

    def source_ended(self) -> None:
        """Called before `close` if the source has ended by itself and all of it was written."""
        return

    def interrupt(self) -> None:
        """Called by any thread when the time after a stop is over: no write may wait longer."""
        return

    def close(self) -> None:
        """Finishes the output."""
        return

    def poll(self) -> bool:
        """Called on `write`'s thread while no picture comes; False ends the run."""
        return True
