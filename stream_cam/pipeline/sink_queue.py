"""A sink and the pictures that wait for it, counted."""

from __future__ import annotations

import time
from collections.abc import Iterator

from stream_cam.pipeline.report import SinkCount, StageClock
from stream_cam.queues import EndOfStream, Handoff
from stream_cam.sinks.base import Picture, Sink


class SinkQueue:
    """Hands pictures from the render thread to the thread that writes them to a sink.

    Args:
        sink: opened and closed by whoever writes.
        live: the newest picture wins, or all are written.
        queue_frames: how many pictures may wait if all are written.
    """

    def __init__(self, sink: Sink, live: bool, queue_frames: int) -> None:
        self.sink = sink
        self.waiting: Handoff[Picture] = Handoff(
            1 if live else queue_frames,
            drop_oldest=live,
            counts=lambda picture: not picture.repeated,
        )
        self.closed = False
        """The viewer has left."""
        self.failed = ""
        """The message of its failure; empty: it works."""
        self.clock = StageClock()
        """Busy time of the sink; one sample a picture written."""
        self.age_clock = StageClock()
        """From a frame's capture until it was written."""
        self._repeated = 0

    @property
    def dropped_so_far(self) -> int:
        return self.waiting.dropped + self.waiting.abandoned

    def count(self) -> SinkCount:
        """The sink's counts, once it is closed."""
        waiting, taken = self.waiting, self.clock.count
        at_its_failure = waiting.taken - taken
        return SinkCount(
            self.sink.name,
            offered=waiting.offered,
            written=taken - self.sink.unwanted,
            unwanted=self.sink.unwanted,
            repeated=self._repeated,
            dropped=self.dropped_so_far + at_its_failure,
            failed=self.failed,
            segments=list(self.sink.segments),
            removed=self.sink.removed,
        )

    def write_all(self, patience_seconds: float | None) -> Iterator[None]:
        """Writes until no more pictures come or the viewer leaves (`closed`).

        Pauses after each picture, and polls the sink and pauses when none comes within
        `patience_seconds`.
        """
        while not self.closed:
            try:
                picture = self.waiting.take(patience_seconds)
            except TimeoutError:
                self.closed = not self.sink.poll()
            except EndOfStream:
                return
            else:
                self.closed = not self._write(picture)
            yield

    def _write(self, picture: Picture) -> bool:
        started_ns = time.monotonic_ns()
        go_on = self.sink.write(picture)
        if picture.repeated:
            self._repeated += 1
            return go_on
        done_ns = time.monotonic_ns()
        self.clock.add(done_ns - started_ns)
        self.age_clock.add(done_ns - picture.frame.captured_ns)
        return go_on
