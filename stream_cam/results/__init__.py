"""What a run found, as data: sinks that write predictions, maps and moments instead of pictures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from stream_cam.config import RESULT_SUFFIXES, RecordConfig
from stream_cam.sinks.base import Sink

__all__ = ["open_results", "result_paths"]


def result_paths(config: RecordConfig) -> Iterator[tuple[str, Path]]:
    """The option and the file of each result that is asked for."""
    for name in RESULT_SUFFIXES:
        path = getattr(config, name)
        if path is not None:
            yield f"--{name}", path


def open_results(
    config: RecordConfig, title: str = "", recording: Path | None = None
) -> list[Sink]:
    """The sinks of the results that are asked for; they write nothing before their first frame.

    Args:
        title: what is looked at.
        recording: a video of the same run, for links into it.
    """
    from stream_cam.results.maps import MapsSink
    from stream_cam.results.predictions import PredictionsSink
    from stream_cam.results.timeline import TimelineSink

    sinks: list[Sink] = []
    if config.predictions is not None:
        sinks.append(PredictionsSink(config.predictions))
    if config.cams is not None:
        sinks.append(MapsSink(config.cams))
    if config.timeline is not None:
        sinks.append(TimelineSink(config.timeline, title, recording))
    return sinks
