"""Playout of HLS and DASH, which come in bursts, segment by segment, at the frames' own times."""

from __future__ import annotations

import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final
from urllib.parse import urlsplit

from stream_cam.frame import Frame
from stream_cam.sources.base import Source, WrappedSource

SEGMENTED_FORMATS: Final = frozenset({"hls", "dash"})
"""FFmpeg's demuxers of streams in segments."""
SEGMENTED_OPTIONS: Final = {"live_start_index": "-2"}
"""Begin two segments behind the newest one: while one is played, the next one is made."""
SEGMENTED_PATIENCE: Final = 6.0
"""Factor of the read time limit of these streams: segments last 2 to 10 s."""

_LATE_SECONDS: Final = 0.5
"""A frame that is later moves those after it; until then they catch up."""
_JUMP_SECONDS: Final = 1.0
"""A longer gap between two frames that are usually closer is no pause, but a lost segment."""
_USUAL: Final = 5
_MOST_SEEN: Final = 3600
"""Frames that are known again: those of two minutes at 30 fps."""
_COARSE: Final = 8
"""Every so many-th pixel and row tells two frames of the same time apart."""


def names_segments(url: str) -> bool:
    """Whether a URL is a playlist's of HLS or DASH, by its name."""
    return urlsplit(url).path.lower().endswith((".m3u8", ".m3u", ".mpd"))


class Playout:
    """Computes when each frame is due by its own time, so that none is shown early.

    Args:
        late_seconds: a frame that is later moves the ones after it.
        skips_gaps: do not wait through a gap in the frames' times; its frames are lost.
    """

    def __init__(self, late_seconds: float = _LATE_SECONDS, *, skips_gaps: bool = False) -> None:
        self._late_seconds = late_seconds
        self._skips_gaps = skips_gaps
        self._begin: float | None = None
        self._last: float | None = None
        self._steps: deque[float] = deque(maxlen=_USUAL)

    def wait_seconds(self, pts_seconds: float, now: float) -> float:
        """How long the next frame is to wait, from `now` in seconds of a monotonic clock."""
        is_late = self._begin is None or self._begin + pts_seconds < now - self._late_seconds
        if self._begin is None or is_late or self._is_after_gap(pts_seconds):
            self._begin = now - pts_seconds
        self._last = pts_seconds
        return max(0.0, self._begin + pts_seconds - now)

    def _is_after_gap(self, pts_seconds: float) -> bool:
        if self._last is None or not self._skips_gaps:
            return False
        step = pts_seconds - self._last
        usual = max(self._steps, default=step)
        self._steps.append(step)
        return step > max(_JUMP_SECONDS, _USUAL * usual)


class SeenFrames:
    """Remembers the newest frames of a stream over all its connections.

    A playlist begins again with segments that were played before. Their frames have the same times
    and the same pixels; neither is enough, because encoders start anew and pictures stand still.
    """

    def __init__(self) -> None:
        self._order: deque[tuple[float, int]] = deque(maxlen=_MOST_SEEN)
        self._seen: set[tuple[float, int]] = set()

    def __bool__(self) -> bool:
        return bool(self._seen)

    def is_new(self, frame: Frame) -> bool:
        """Whether the frame was not seen before; from now on it was."""
        pixels = frame.image_bgr[::_COARSE, ::_COARSE].tobytes()
        key = frame.pts_seconds, zlib.crc32(pixels)
        if key in self._seen:
            return False
        if len(self._order) == _MOST_SEEN:
            self._seen.discard(self._order[0])
        self._order.append(key)
        self._seen.add(key)
        return True


class PlayoutSource(WrappedSource):
    """One connection to a live stream. Segments are played at the frames' own times.

    Frames that an earlier connection has given are left out. All other sources are passed through.

    Args:
        source: says in its `stream_state` whether it comes in segments.
        seen: shared by all connections to the stream.
        now: seconds of a monotonic clock.
        wait: takes seconds; gives True if it was ended before they were over.
    """

    def __init__(
        self,
        source: Source,
        seen: SeenFrames,
        now: Callable[[], float] = time.monotonic,
        wait: Callable[[float], bool] | None = None,
    ) -> None:
        super().__init__(source)
        self._seen = seen
        self._stopped = threading.Event()
        self._now, self._wait = now, wait or self._stopped.wait

    def stop(self) -> None:
        self._stopped.set()
        super().stop()

    def __iter__(self) -> Iterator[Frame]:
        if self.stream_state.in_segments and self.info.live:
            yield from self._played()
        elif not self._seen:
            yield from self._source
        # Else the live stream has ended, and its playlist lists frames that were shown.

    def _played(self) -> Iterator[Frame]:
        playout = Playout(skips_gaps=True)
        for frame in self._source:
            if not self._seen.is_new(frame):
                continue
            if self._wait(playout.wait_seconds(frame.pts_seconds, self._now())):
                return
            yield replace(frame, captured_ns=time.monotonic_ns())
