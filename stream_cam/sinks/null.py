"""A sink that only counts, for measuring and for tests."""

from __future__ import annotations

from types import TracebackType

from stream_cam.sinks.base import Picture


class NullSink:
    """Takes every picture and keeps none; `written` is how many there were."""

    name = "null"
    main_thread = False

    def __init__(self) -> None:
        self.written = 0

    def __enter__(self) -> NullSink:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        return None

    def write(self, picture: Picture) -> bool:
        self.written += 1
        return True
