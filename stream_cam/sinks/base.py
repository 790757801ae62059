"""What every sink is: a context manager that takes finished pictures."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from types import TracebackType
from typing import Protocol

from stream_cam.frame import BgrImage, Explanation, Frame


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
    """What a sink may want to know before the first picture comes."""

    fps: Fraction | None
    """The source's average frames per second, if known."""
    still: bool
    """True if the source is pictures, not a video."""
    live: bool


class Sink(Protocol):
    """Opens in `__enter__`; `write` takes pictures in order; `__exit__` finishes what it wrote.

    `__exit__` with an exception must still leave a valid file if anything was written: whatever
    ends the pipeline, what was recorded stays playable. A sink opens its file lazily, at the first
    `write`, so that a source that never starts leaves nothing behind.

    A sink that people watch while it runs has `takes_repeats = True`: it also gets pictures that
    are `repeated`, a few a second, while a live source is away. Recordings do not.
    """

    @property
    def name(self) -> str:
        """The URI as it may be shown: secrets redacted."""
        ...

    @property
    def main_thread(self) -> bool:
        """True if `write` must be called on the main thread (windows)."""
        ...

    def __enter__(self) -> Sink: ...

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...

    def write(self, picture: Picture) -> bool:
        """Takes one picture; False asks the pipeline to stop (the window was closed)."""
        ...
