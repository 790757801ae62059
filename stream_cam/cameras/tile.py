"""What the wall knows of one camera, and the sink that its pipeline writes it to."""

from __future__ import annotations

import time

from stream_cam.sinks.base import Picture, Sink, Waiting
from stream_cam.web.page_state import PageState, Stats


class Tile:
    """The newest picture of one camera; written by its pipeline, read by the wall.

    It outlives the camera's runs: a viewer sees the same tile before and after a failure.

    Args:
        name: the camera's.
        page_state: of its own page.
    """

    def __init__(self, name: str, page_state: PageState) -> None:
        self.name = name
        self.page_state = page_state
        self.shown = 0
        """How many pictures there were."""

    @property
    def newest(self) -> Picture | None:
        return self.page_state.newest

    @property
    def age_seconds(self) -> float | None:
        """Since the capture of the last picture that was no repetition; None before the first."""
        picture = self.newest
        if picture is None:
            return None
        return max(0.0, time.monotonic() - picture.frame.captured_ns / 1e9)

    def show(self, picture: Picture) -> None:
        self.page_state.show(picture)
        self.shown += 1


class TileSink(Sink):
    """Shows one run's pictures on a camera's tile and on its page."""

    watched = True
    takes_repeats = True
    labels_are_optional = True

    def __init__(self, tile: Tile) -> None:
        self.name = f"tile {tile.name}"
        self._tile = tile

    def attach_stats(self, stats: Stats) -> None:
        self._tile.page_state.stats, self._tile.page_state.waiting = stats, None

    def wait(self, waiting: Waiting) -> bool:
        self._tile.page_state.waiting = waiting
        return True

    def write(self, picture: Picture) -> bool:
        self._tile.show(picture)
        return True
