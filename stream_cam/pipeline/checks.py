"""Checks before a run: whether its outputs, pages and results can be written."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from stream_cam.atomic_files import unwritable
from stream_cam.config import PipelineConfig
from stream_cam.errors import OutputExistsError, SinkError, UsageError
from stream_cam.results import result_paths
from stream_cam.sinks import check_outputs, kind_of
from stream_cam.sinks.video.segments import check_segments
from stream_cam.sources import check_source
from stream_cam.uri import scheme_of


def check_run(uris: Sequence[str], source_uri: str, config: PipelineConfig) -> None:
    """Checks before anything slow whether outputs, pages and results can be written.

    Raises:
        OutputExistsError: one error for all files that --overwrite would replace.
        StreamCamError: as its message says.
    """
    existing: list[str] = []
    with _collecting(existing):
        _check_outputs(uris, source_uri, config)
    with _collecting(existing):
        _check_files(config, [source_uri, *uris])
    if existing:
        raise OutputExistsError.of(*existing)


def check_recordings(uris: Sequence[str], config: PipelineConfig, *, live: bool) -> None:
    """Checks recordings in segments, once it is known whether the run is live."""
    if config.record.segment is not None:
        for path in video_paths(uris):
            check_segments(path, config.record, live=live, overwrite=config.run.overwrite)


def video_paths(uris: Sequence[str]) -> list[Path]:
    return [Path(os.path.expanduser(uri)) for uri in uris if kind_of(uri).name == "video"]


def only_watched(uris: Sequence[str]) -> bool:
    """Whether all outputs are windows and pages, and none a file."""
    kinds = [kind_of(uri) for uri in uris]
    watched = any(kind.watched for kind in kinds)
    return watched and all(kind.watched or kind.discards for kind in kinds)


@contextmanager
def _collecting(existing: list[str]) -> Iterator[None]:
    """Collects the files that --overwrite would replace, instead of raising."""
    try:
        yield
    except OutputExistsError as error:
        if not error.names:
            raise
        existing += error.names


def _check_outputs(uris: Sequence[str], source_uri: str, config: PipelineConfig) -> None:
    try:
        check_outputs(
            uris,
            source=source_uri,
            overwrite=config.run.overwrite,
            record=config.record,
            web=config.web,
        )
    except OutputExistsError:
        # With source and output swapped, a hint at --overwrite would cost the user a file.
        check_source(source_uri)
        raise


def _check_files(config: PipelineConfig, taken: Sequence[str]) -> None:
    """Checks whether the report and the results can be written after the run."""
    report = config.run.report
    named = [*result_paths(config.record), *([("--report", report)] if report else [])]
    used = [uri for uri in taken if not scheme_of(uri)]
    existing: list[str] = []
    for option, path in named:
        _check_file(option, path, used)
        used.append(str(path))
        if os.path.isfile(path) and not config.run.overwrite:
            existing.append(str(path))
    if existing:
        raise OutputExistsError.of(*existing)


def _check_file(option: str, path: Path, taken: Sequence[str]) -> None:
    if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):
        return  # /dev/stdout
    name = "the report" if option == "--report" else f"the {option.removeprefix('--')}"
    if any(os.path.realpath(uri) == os.path.realpath(path) for uri in taken):
        raise UsageError(f"{option} {path} is a source or an output already; give another name")
    problem = unwritable(path)
    if problem:
        raise SinkError(f"{name} cannot be written to {path}: {problem}")
