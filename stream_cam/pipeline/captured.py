"""A captured frame on its way through the pipeline."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass

from stream_cam.frame import Explanation, Frame
from stream_cam.settings import SettingsSnapshot


@dataclass(frozen=True, slots=True, eq=False)
class CapturedFrame:
    """A frame and the settings at its capture, by which it is explained, filtered and drawn."""

    frame: Frame
    settings: SettingsSnapshot
    explanation: Future[Explanation] | None = None
    """The promise of its own explanation, if every frame counts; None: draw the newest one."""
