"""`SteadyMaps` with the same two times at every update."""

from __future__ import annotations

from stream_cam.cam.steady import SteadyMaps
from stream_cam.config import LookConfig
from stream_cam.frame import Explanation


class Steady:
    """A filter for a loop by hand."""

    def __init__(self, *, smooth_seconds: float = 0.0, hold_seconds: float = 0.0) -> None:
        self.maps = SteadyMaps()
        self.look = LookConfig(smooth=smooth_seconds, hold=hold_seconds)

    def update(self, explanation: Explanation, seconds: float | None = None) -> Explanation:
        return self.maps.update(explanation, self.look, seconds)
