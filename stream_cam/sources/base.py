"""What every source is: a context manager that yields frames."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from types import TracebackType
from typing import Protocol

from stream_cam.frame import Frame


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
