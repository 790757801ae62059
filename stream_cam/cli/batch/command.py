"""`stream-cam batch`: annotates many videos, with a bar or a line for each."""

from __future__ import annotations

import logging
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from stream_cam.cli.batch.jobs import Job, VideoBatch
from stream_cam.cli.options import BatchCommand
from stream_cam.cli.signals import Signals
from stream_cam.config import PipelineConfig
from stream_cam.errors import SinkError
from stream_cam.uri import printable

logger = logging.getLogger(__name__)


def batch_command(command: BatchCommand, signals: Signals) -> None:
    """Annotates the videos, and prints a line for each.

    Raises:
        SinkError: one or more have failed; each failure has been printed.
        StreamCamError: as `VideoBatch`.
    """
    if command.cluster.cluster is not None:
        from stream_cam.cli.batch.on_cluster import cluster_batch

        cluster_batch(command, signals)
        return
    config = PipelineConfig(command.model, command.look, command.run, record=command.record)
    batch = VideoBatch(command.source, Path(command.output), config, command.batch)
    if command.batch.dry_run:
        for job in batch.jobs:
            job.predict_fate(config.run.overwrite)
            print(_line(job))
        return
    signals.watch(batch.stop)
    with _progress(batch, config.run.quiet) as (on_end, on_tick):
        batch.run(on_end, on_tick)
    fates = Counter(job.fate for job in batch.jobs)
    if not config.run.quiet:
        print(", ".join(f"{count} {fate}" for fate, count in fates.items()), flush=True)
    failed = [job for job in batch.jobs if job.fate == "failed"]
    for job in failed[1:]:
        logger.error("%s", job.reason)
    if failed:
        raise SinkError(f"{len(failed)} of {len(batch.jobs)} videos failed: {failed[0].reason}")


def _line(job: Job) -> str:
    reason = f" ({job.reason})" if job.reason else ""
    return printable(f"{job.fate}: {job.source} → {job.output}{reason}")


@contextmanager
def _progress(
    batch: VideoBatch, quiet: bool
) -> Iterator[tuple[Callable[[Job], None], Callable[[], None]]]:
    """A bar for all videos and one for each running; without a terminal a line at each end."""
    if quiet or not sys.stderr.isatty():
        yield (lambda job: None if quiet else print(_line(job), flush=True)), lambda: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        Remaining(),
        console=Console(stderr=True),
        transient=True,
    ) as bars:
        whole = bars.add_task("videos", total=len(batch.jobs))
        tasks: dict[int, TaskID] = {}

        def on_tick() -> None:
            for number, job in enumerate(batch.jobs):
                if not job.begun or job.fate != "to do":
                    continue
                if number not in tasks:
                    tasks[number] = bars.add_task(job.source.name, total=job.n_frames)
                bars.update(tasks[number], completed=job.n_rendered)

        def on_end(job: Job) -> None:
            task = tasks.pop(batch.jobs.index(job), None)
            if task is not None:
                bars.remove_task(task)
            bars.advance(whole)
            bars.console.print(_line(job), markup=False, highlight=False)

        yield on_end, on_tick
