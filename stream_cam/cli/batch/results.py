"""Paths of the results beside each recording of a batch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from stream_cam.config import RESULT_SUFFIXES, PipelineConfig
from stream_cam.sinks.video.recording_names import unfinished_path

NAME: Final = "{name}"
"""Stands for a recording's name, without its suffix, in the paths of results."""


def results_of(config: PipelineConfig) -> dict[str, Path]:
    """The path of each file that is asked for beside the recordings, by its option's name."""
    wanted = {name: getattr(config.record, name) for name in RESULT_SUFFIXES}
    wanted["report"] = config.run.report
    return {name: path for name, path in wanted.items() if path is not None}


def named(pattern: Path, name: str) -> Path:
    """A result's path with the recording's name in it, in the recording's subfolder."""
    folder, stem = os.path.split(name)
    if NAME in str(pattern.parent):
        parent = Path(str(pattern.parent).replace(NAME, name))
    else:
        parent = pattern.parent / folder if NAME in pattern.name else pattern.parent
    return parent / pattern.name.replace(NAME, stem)


def unfinished_result(path: Path) -> Path:
    """The path of a result until its recording is finished; /dev/stdout stays itself."""
    special = path.exists() and not path.is_file()
    return path if special else unfinished_path(path)


def with_results(config: PipelineConfig, paths: Mapping[str, Path]) -> PipelineConfig:
    """The options of one video: its own results; unfinished files are replaced."""
    results: dict[str, Any] = {name: paths.get(name) for name in RESULT_SUFFIXES}
    run = replace(config.run, quiet=True, overwrite=True, report=paths.get("report"))
    return replace(config, run=run, record=replace(config.record, **results))
