"""What can be found out before a run: whether its outputs, pages and results can be written."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from stream_cam.atomic_files import unwritable
from stream_cam.config import PipelineConfig
from stream_cam.errors import OutputExistsError, SinkError, UsageError
from stream_cam.results import result_paths
from stream_cam.sinks import check_outputs
from stream_cam.sources import check_source
from stream_cam.uri import scheme_of


def check_run(uris: Sequence[str], source_uri: str, config: PipelineConfig) -> None:
    """Finds out before anything slow whether outputs, pages and results can be written."""
    there: list[str] = []
    with _noted(there):
        _check_outputs(uris, source_uri, config)
    with _noted(there):
        _check_files(config, [source_uri, *uris])
    if there:  # all are told at once
        raise OutputExistsError.of(*there)


@contextmanager
def _noted(there: list[str]) -> Iterator[None]:
    """Adds what --overwrite would replace, for one error at the end."""
    try:
        yield
    except OutputExistsError as error:
        if not error.names:
            raise
        there += error.names


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
        # Whoever has given the two the wrong way round must not be told of --overwrite.
        check_source(source_uri)
        raise


def _check_files(config: PipelineConfig, taken: Sequence[str]) -> None:
    """Finds out before the run whether the report and the results can be written after it."""
    report = config.run.report
    named = [*result_paths(config.record), *([("--report", report)] if report else [])]
    used = [uri for uri in taken if not scheme_of(uri)]
    there: list[str] = []
    for option, path in named:
        _check_file(option, path, used)
        used.append(str(path))
        if os.path.isfile(path) and not config.run.overwrite:
            there.append(str(path))
    if there:
        raise OutputExistsError.of(*there)


def _check_file(option: str, path: Path, taken: Sequence[str]) -> None:
    if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):
        return  # /dev/stdout
    what = "the report" if option == "--report" else f"the {option.removeprefix('--')}"
    if any(os.path.realpath(uri) == os.path.realpath(path) for uri in taken):
        raise UsageError(f"{option} {path} is a source or an output already; give another name")
    problem = unwritable(path)
    if problem:
        raise SinkError(f"{what} cannot be written to {path}: {problem}")
