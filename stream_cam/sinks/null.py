"""A sink that only counts, for measuring and for tests."""

from __future__ import annotations

from typing import Final

from stream_cam.sinks.base import Picture, Sink
from stream_cam.sinks.kinds import SinkKind


class NullSink(Sink):
    """Takes every picture and keeps none; `written` is how many there were."""

    name = "null"

    def __init__(self) -> None:
        self.written = 0

    def write(self, picture: Picture) -> bool:
        self.written += 1
        return True


NULL: Final = SinkKind(
    "null", usage="null", make=lambda output: NullSink(), words=("null",), discards=True
)
