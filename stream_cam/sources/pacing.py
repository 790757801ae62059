"""A file at its own speed and pictures one after the other: watched, or as if they were live."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from stream_cam.frame import Frame
from stream_cam.sources.base import Source, SourceInfo, WrappedSource
from stream_cam.sources.playout import Playout

_PICTURE_SECONDS = 3.0
"""How long a picture stays before the next one comes; the last one stays until the end."""
_AGAIN_SECONDS = 0.5
"""How often a picture that stays is given again: settings take effect, and it does not age."""


class PacedSource(WrappedSource):
    """Gives each frame of a file when it is due by its time in the file, and not before.

    Pictures are given again and again for three seconds each, the last one until it is stopped.

    Args:
        source: not live.
        now: seconds of a monotonic clock.
        wait: takes seconds; gives True if it was ended before they were over.
        once: each picture is given once and stays as long, the last one too: somebody counts them.
    """

    def __init__(
        self,
        source: Source,
        now: Callable[[], float] = time.monotonic,
        wait: Callable[[float], bool] | None = None,
        *,
        once: bool = False,
    ) -> None:
        super().__init__(source)
        self._once = once
        self._stopped = threading.Event()
        self._now, self._wait = now, wait or self._stopped.wait

    @property
    def info(self) -> SourceInfo:
        info = self._source.info
        return replace(info, n_frames=None) if info.still and not self._once else info

    def close(self) -> None:
        self._stopped.set()
        super().close()

    def stop(self) -> None:
        self._stopped.set()
        super().stop()

    def __iter__(self) -> Iterator[Frame]:
        still = self._source.info.still
        frames = (self._each() if self._once else self._pictures()) if still else self._video()
        for frame in frames:
            # Not when it was decoded: its waiting is no delay.
            yield replace(frame, captured_ns=time.monotonic_ns())

    def _video(self) -> Iterator[Frame]:
        playout = Playout()
        for frame in self._source:
            if self._wait(playout.wait_seconds(frame.pts_seconds, self._now())):
                return
            yield frame

    def _each(self) -> Iterator[Frame]:
        for frame in self._source:
            yield frame
            if self._wait(_PICTURE_SECONDS):
                return

    def _pictures(self) -> Iterator[Frame]:
        index = 0
        frames = iter(self._source)
        frame = next(frames, None)
        while frame is not None:
            following = next(frames, None)
            since = self._now()
            while following is None or self._now() < since + _PICTURE_SECONDS:
                yield replace(frame, index=index)
                index += 1
                if self._wait(_AGAIN_SECONDS):
                    return
            frame = following
