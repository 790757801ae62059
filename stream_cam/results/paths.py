"""The files of a run's results."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from stream_cam.config import RESULT_SUFFIXES, RecordConfig
from stream_cam.errors import UsageError


def result_paths(config: RecordConfig) -> Iterator[tuple[str, Path]]:
    """The option and the file of each requested result, and its temporary file.

    Raises:
        UsageError: a package that writes one is not installed.
    """
    for name in RESULT_SUFFIXES:
        path = getattr(config, name)
        if path is not None:
            yield f"--{name}", path
    part = None if config.predictions is None else part_of(config.predictions)
    if part is not None:
        if find_spec("pyarrow") is None:
            raise UsageError(
                f"--predictions {config.predictions} needs pyarrow: pip install pyarrow, "
                "or write .jsonl or .csv"
            )
        yield "--predictions", part


def part_of(predictions: Path) -> Path | None:
    """The temporary file of a Parquet file's rows; None for the other formats."""
    is_parquet = predictions.suffix.lower() == ".parquet"
    return predictions.with_suffix(".part.jsonl") if is_parquet else None
