"""The base class of every source, and the values that a source reports."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from stream_cam.closing import Closeable
from stream_cam.errors import SourceErrorKind
from stream_cam.frame import Colour, Frame

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True, slots=True)
class SourceInfo:
    """The properties of an open source."""

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
    """The colour tags of a video; None where it has none."""
    file: str | None = None
    """The path of a video file."""
    note: str = ""
    """A note for the user at the start, such as a camera's requested and actual mode."""
    audio_lead_seconds: Fraction = Fraction(0)
    """How much earlier than the first picture a file's sound begins; 0: hardly, or no sound."""


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
    """Counts of a live source's connections and outages."""

    connections: int = 0
    recoveries: int = 0
    """Outages after which frames came again."""
    slowest_recovery_seconds: float = 0.0
    """The longest time from the last frame before an outage to the first one after it."""
    abandoned_readers: int = 0
    """Reads that did not return in time and were left to themselves."""
    overtaken: int = 0
    """Frames that a newer one replaced before the run took them; not captured."""


@dataclass(frozen=True, slots=True)
class StreamState:
    """The state of one connection to a stream, for the source that reconnects."""

    packets_read: int = 0
    awaits_key_frame: bool = False
    """Packets come, and none of them can be decoded before the next key frame."""
    read_timeout_seconds: float = 0.0
    """How long its protocol may give no frame; 0: as long as any other."""
    in_segments: bool = False
    """It comes in bursts, segment by segment: HLS, DASH."""


class Source(Closeable):
    """Opens in `__enter__`, yields frames once, closes in `close`.

    Iteration ends at the end of the source; it raises SourceError when the source fails. A
    subclass defines `__iter__`, and sets `_info` when it opens. All else has a default.
    """

    _info: SourceInfo | None = None

    @property
    def info(self) -> SourceInfo:
        """Known once the source is open."""
        if self._info is None:
            raise ValueError("the source is not open; use it in a with-statement")
        return self._info

    @property
    def corrupt_frames(self) -> int:
        """Packets and frames so far that could not be decoded."""
        return 0

    @property
    def health(self) -> Health | None:
        """Its connections so far; None: it does not reconnect."""
        return None

    @property
    def stream_state(self) -> StreamState:
        """The state of the connection, if the source is one."""
        return StreamState()

    def __iter__(self) -> Iterator[Frame]:
        raise NotImplementedError

    def outage(self) -> Outage | None:
        """Why there are no frames; None while they come. Any thread may ask."""
        return None

    def stop(self) -> None:
        """Ends the iteration soon; any thread may call it. The default: at the next frame."""
        return


class WrappedSource(Source):
    """A source that changes another one's frames, or when they come."""

    def __init__(self, source: Source) -> None:
        self._source = source

    @property
    def info(self) -> SourceInfo:
        return self._source.info

    @property
    def corrupt_frames(self) -> int:
        return self._source.corrupt_frames

    @property
    def health(self) -> Health | None:
        return self._source.health

    @property
    def stream_state(self) -> StreamState:
        return self._source.stream_state

    def __enter__(self) -> Self:
        self._source.__enter__()
        return self

    def outage(self) -> Outage | None:
        return self._source.outage()

    def stop(self) -> None:
        self._source.stop()

    def close(self) -> None:
        self._source.__exit__(None, None, None)
