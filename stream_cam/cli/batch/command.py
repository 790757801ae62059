"""The command: annotate, and say of each video what became of it."""

from __future__ import annotations

import logging
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from stream_cam.cli.batch.jobs import Batch, Job
from stream_cam.config import BatchConfig, PipelineConfig
from stream_cam.errors import SinkError
from stream_cam.uri import printable

logger = logging.getLogger(__name__)


def batch_command(
    places: Sequence[str],
    output: Path,
    config: PipelineConfig,
    batch: BatchConfig,
    *,
    on_start: Callable[[Callable[[str], None]], None],
) -> None:
    """Annotate, and say of each video what became of it.

    Args:
        on_start: gets what stops it.

    Raises:
        SinkError: one or more have failed; each has been told.
        StreamCamError: as `Batch`.
    """
    whole = Batch(places, output, config, batch)
    if batch.dry_run:
        for job in whole.jobs:
            job.foresee(config.run.overwrite)
            print(_told(job))
        return
    on_start(whole.stop)
    with _progress(whole, config.run.quiet) as (on_end, on_tick):
        whole.run(on_end, on_tick)
    fates = Counter(job.fate for job in whole.jobs)
    if not config.run.quiet:
        print(", ".join(f"{count} {fate}" for fate, count in fates.items()), flush=True)
    failed = [job for job in whole.jobs if job.fate == "failed"]
    for job in failed[1:]:
        logger.error("%s", job.reason)
    if failed:
        raise SinkError(f"{len(failed)} of {len(whole.jobs)} videos failed: {failed[0].reason}")


def _told(job: Job) -> str:
    reason = f" ({job.reason})" if job.reason else ""
    return printable(f"{job.fate}: {job.source} → {job.output}{reason}")


@contextmanager
def _progress(
    batch: Batch, quiet: bool
) -> Iterator[tuple[Callable[[Job], None], Callable[[], None]]]:
    """A bar for all and one for each video on its way; without a terminal a line at each end."""

    if quiet or not sys.stderr.isatty():
        yield (lambda job: None if quiet else print(_told(job), flush=True)), lambda: None
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
            bars.console.print(_told(job), markup=False, highlight=False)

        yield on_end, on_tick
