"""`stream-cam bench`: measure and show the figures, or compare two files of them."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from stream_cam.atomic_files import unwritable
from stream_cam.config import BenchConfig
from stream_cam.errors import BenchError, EngineError, UsageError, first_line
from stream_cam.uri import redact_uri

if TYPE_CHECKING:
    from stream_cam.bench.recorder import OnStage
    from stream_cam.bench.result import BenchResult


def bench_command(config: BenchConfig, arguments: Sequence[str], *, verbose: bool = False) -> None:
    """Runs the benchmark or the comparison of `config`, and prints it.

    Args:
        arguments: the command line, for the header.
        verbose: print the reason for each engine that is left out.

    Raises:
        BenchError: a row became slower; a file holds no benchmark, or cannot be written.
        EngineError: an engine that was named has no figures, with the reason.
        StreamCamError: see `run_bench`.
    """
    if config.compare is not None:
        _compare(*config.compare, config.tolerance)
        return
    outputs = [path for path in (config.json, config.plot) if path is not None]
    for path in outputs:
        check_writable(path)
    if len({os.path.realpath(path) for path in outputs}) < len(outputs):
        raise UsageError(f"--json and --plot are both {outputs[0]}; give another name")
    from stream_cam.bench.run import run_bench
    from stream_cam.bench.table import print_result

    command = shlex.join(["stream-cam", *map(redact_uri, arguments)])
    found: list[BenchResult] = []

    def keep(result: BenchResult) -> None:
        found[:] = [result]
        with suppress(BenchError):  # a full disk is reported at the end
            save(result, config.json, config.plot if result.rows else None)

    try:
        with _progress() as on_stage:
            result = run_bench(config, command, on_stage=on_stage, on_result=keep)
    except BaseException as error:  # Ctrl-C too: keep the figures so far
        if found and found[0].rows:
            interrupted = isinstance(error, KeyboardInterrupt)
            found[0].cut_short("interrupted" if interrupted else first_line(error))
            print_result(found[0], verbose=verbose)
            keep(found[0])
        raise
    print_result(result, verbose=verbose)
    save(result, config.json, config.plot)
    _check_requested(config, result)


def save(result: BenchResult, json: Path | None, plot: Path | None) -> None:
    """Writes the figures and their picture.

    Raises:
        BenchError: one cannot be written.
    """
    if json is not None:
        result.write(json)
    if plot is not None:
        from stream_cam.bench.plot import write_plot

        write_plot(result, plot)


def check_writable(path: Path) -> None:
    """Checks before the measurement that a file can be written.

    Raises:
        BenchError: it cannot.
    """
    problem = unwritable(path)
    if problem:
        raise BenchError(f"{path} cannot be written: {problem}")


def _compare(old: Path, new: Path, tolerance: float) -> None:
    from stream_cam.bench.compare import compare, print_comparison
    from stream_cam.bench.result import BenchResult

    comparison = compare(BenchResult.read(old), BenchResult.read(new), tolerance)
    print_comparison(comparison)
    if comparison.slower:
        worst = max(comparison.slower, key=lambda change: change.ratio)
        raise BenchError(
            f"{len(comparison.slower)} of {len(comparison.changes)} became slower by more than "
            f"{tolerance:.0%}, most of all {worst.new.subject} ({worst.ratio:.2f} times)"
        )


def _check_requested(config: BenchConfig, result: BenchResult) -> None:
    """Raises an error for each named engine, and for peers, without figures."""
    for name in config.engines:
        engine, _, precision = name.partition(":")
        there = any(
            row.subject.engine == engine and precision in ("", row.subject.precision)
            for row in result.rows
        )
        if not there:
            reasons = [one["why"] for one in result.left_out if one["what"].startswith(name)]
            raise EngineError(f"{name} has no figures: {'; '.join(dict.fromkeys(reasons))}")
    if config.peers and not any(row.subject.group == "peer" for row in result.rows):
        from stream_cam.bench.peers import PEERS

        reasons = [one["why"] for one in result.left_out if one["what"] in ("peers", *PEERS)]
        raise BenchError(f"the peers have no figures: {'; '.join(reasons)}")


@contextmanager
def _progress() -> Iterator[OnStage]:
    """A terminal line with the present stage; nothing without a terminal."""
    if not sys.stderr.isatty():
        yield lambda stage: None
        return
    from rich.console import Console

    with Console(stderr=True, highlight=False).status("loading") as status:
        yield status.update
