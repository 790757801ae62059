"""Results as data: sinks that write predictions, maps and moments instead of pictures."""

from __future__ import annotations

from concurrent.futures import Future
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from stream_cam.config import RecordConfig
from stream_cam.results.paths import result_paths
from stream_cam.sinks.base import Sink

if TYPE_CHECKING:
    from stream_cam.sinks.video.segments import Segment

__all__ = ["open_results", "result_paths"]


def open_results(
    config: RecordConfig,
    title: str = "",
    recording: Path | Future[list[Segment]] | None = None,
    audio_lead_seconds: Fraction = Fraction(0),
) -> list[Sink]:
    """The sinks of the requested results; they write nothing before their first frame.

    Args:
        title: the source's name.
        recording: a video of the same run, or its segments, for links into it.
        audio_lead_seconds: how much earlier than the first picture the recording begins.
    """
    from stream_cam.results.cams import CamsSink
    from stream_cam.results.predictions import PredictionsSink
    from stream_cam.results.sheet import SheetSink
    from stream_cam.results.timeline import TimelineSink

    sinks: list[Sink] = []
    if config.predictions is not None:
        sinks.append(PredictionsSink(config.predictions, title))
    if config.cams is not None:
        sinks.append(CamsSink(config.cams, title))
    if config.timeline is not None:
        sinks.append(TimelineSink(config.timeline, title, recording, audio_lead_seconds))
    if config.sheet is not None:
        sinks.append(SheetSink(config.sheet))
    return sinks
