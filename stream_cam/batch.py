"""`stream-cam batch`: many videos, one after another or some at once, and only what is missing."""

from __future__ import annotations

import glob
import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from stream_cam.config import RESULT_SUFFIXES, BatchConfig, PipelineConfig
from stream_cam.errors import SinkError, SourceNotFoundError, StreamCamError, UsageError
from stream_cam.session import run_session
from stream_cam.sinks.encoders import check_codec, check_settings
from stream_cam.sinks.video import part_of, unfinished_of
from stream_cam.sources.paths import VIDEO_SUFFIXES, is_pattern, natural_key

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from stream_cam.pipeline import Pipeline

logger = logging.getLogger(__name__)

NAME: Final = "{name}"
"""Stands for a source's name, without its suffix, in the paths of results."""
_TICK_SECONDS: Final = 0.2

Fate = Literal["done", "there already", "failed", "stopped", "to do"]


@dataclass
class Job:
    """One video, what becomes of it, and how far it is."""

    source: Path
    output: Path
    fate: Fate = "to do"
    reason: str = ""
    begun: bool = False
    n_frames: int | None = None
    """How many it has, as far as its file says so."""
    n_rendered: int = 0

    @property
    def unfinished(self) -> Path:
        return unfinished_of(self.output)

    @property
    def was_begun(self) -> bool:
        """Whether an earlier run has left something of it."""
        return self.unfinished.exists() or part_of(self.unfinished).exists()


@dataclass
class Batch:
    """Annotates videos into a folder; those that are there already are left as they are.

    Each is annotated in a process of its own: torch traces one network at a time in a process, and
    what crashes ends with its own video.

    A recording has its name once it is complete: what was stopped or failed is called
    `name.unfinished.mp4` and made anew the next time. One failure does not end the others.

    Args:
        places: videos, folders of videos, globs.
        output: the folder that the recordings go into; it is made if it is not there.
        config: how each of them is run.
        batch: of which type, and how many at once.

    Raises:
        StreamCamError: nothing to do was found, or it cannot be done as it is asked for.
    """

    places: Sequence[str]
    output: Path
    config: PipelineConfig
    batch: BatchConfig = field(default_factory=BatchConfig)
    jobs: list[Job] = field(init=False)
    _stopped: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        suffix = f".{self.batch.container}"
        self.jobs = [
            Job(source, self.output / f"{source.stem}{suffix}")
            for source in find_videos(self.places)
        ]
        self._check()

    def _check(self) -> None:
        if self.config.record.segment is not None:
            raise UsageError("--segment is for `stream-cam run`; a batch makes one file a video")
        if self.output.exists() and not self.output.is_dir():
            raise UsageError(f"{self.output} is a file; give a folder with -o")
        codec = check_codec(f".{self.batch.container}", self.config.record.codec)
        check_settings(codec, self.config.record)
        named = Counter(job.output for job in self.jobs)
        for output, count in named.items():
            if count > 1:
                same = [str(job.source) for job in self.jobs if job.output == output]
                raise UsageError(
                    f"{' and '.join(same)} would both become {output}; give them two folders"
                )
        for job in self.jobs:
            if os.path.realpath(job.source) == os.path.realpath(job.output):
                raise UsageError(f"{job.output} is a source; give another folder with -o")
        for name, path in _results(self.config):
            if NAME not in str(path) and len(self.jobs) > 1:
                raise UsageError(
                    f"--{name} {path} is one file for {len(self.jobs)} videos: put {NAME} into it, "
                    f"such as {path.with_name(NAME + path.suffix)}"
                )

    def stop(self, _reason: str) -> None:
        """Ends the videos on their way, and begins no other; from any thread."""
        self._stopped.set()

    def run(self, on_end: Callable[[Job], None], on_tick: Callable[[], None]) -> None:
        """Do what is missing.

        Args:
            on_end: told of each job as it ends, on this thread.
            on_tick: called a few times a second on this thread.
        """
        try:
            self.output.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            raise SinkError(f"the folder {self.output} cannot be made: {exc.strerror}") from exc
        todo = []
        for job in self.jobs:
            if job.output.exists() and not self.config.run.overwrite:
                job.fate = "there already"
                on_end(job)
            else:
                todo.append(job)
        with ThreadPoolExecutor(self.batch.jobs, "job") as pool:
            waiting: dict[Future[None], Job] = {pool.submit(self._do, job): job for job in todo}
            while waiting:
                ended, _ = wait(waiting, _TICK_SECONDS, FIRST_COMPLETED)
                on_tick()
                for future in ended:
                    job = waiting.pop(future)
                    future.result()
                    on_end(job)

    def _do(self, job: Job) -> None:
        if self._stopped.is_set():
            job.fate = "stopped"
            return
        # What an earlier run left of it, results included, is replaced.
        overwrite = self.config.run.overwrite or job.was_begun
        run = replace(self.config.run, quiet=True, overwrite=overwrite)
        config = _named(replace(self.config, run=run), job.source.stem)
        new = [path for _, path in _results(config) if not path.exists()]
        try:
            self._do_elsewhere(job, config)
            if self._stopped.is_set():
                job.fate = "stopped"
                return
            os.replace(job.unfinished, job.output)
            job.fate = "done"
        except StreamCamError as error:
            job.fate, job.reason = "failed", " ".join(str(error).split())
        except OSError as error:
            job.fate, job.reason = "failed", f"{job.output}: {error.strerror}"
        if job.fate == "failed" and not job.was_begun:
            # Without its recording nothing says that they are to be made anew the next time.
            for path in new:
                path.unlink(missing_ok=True)

    def _do_elsewhere(self, job: Job, config: PipelineConfig) -> None:
        """Run one video in a new process, and wait for it.

        Raises:
            SinkError: it failed, with its own words, or its process died.
        """
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(
            target=_work, args=(theirs, str(job.source), str(job.unfinished), config), daemon=True
        )
        process.start()
        theirs.close()
        told_to_stop = False
        try:
            while True:
                if self._stopped.is_set() and not told_to_stop:
                    ours.send("stop")
                    told_to_stop = True
                if not ours.poll(_TICK_SECONDS):
                    continue
                said: _Said = ours.recv()
                if said.ended:
                    break
                job.begun, job.n_frames, job.n_rendered = True, said.n_frames, said.n_rendered
        except (EOFError, OSError) as exc:
            process.join()
            if self._stopped.wait(_TICK_SECONDS):
                return  # the signal that stops all of them came before it could ignore it
            raise SinkError(f"{job.source}: its process died ({process.exitcode})") from exc
        process.join()
        if said.error:
            raise SinkError(said.error)


@dataclass(frozen=True)
class _Said:
    """What the process of a video tells of itself."""

    n_frames: int | None = None
    n_rendered: int = 0
    ended: bool = False
    error: str = ""


def _work(pipe: Connection[_Said, str], source: str, output: str, config: PipelineConfig) -> None:
    """In a process of its own: one video from begin to end."""
    # A Ctrl-C, a closed terminal and systemd's stop are for all; the first process tells us.
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    ended = threading.Event()

    def watch(pipeline: Pipeline) -> None:
        try:
            while not ended.is_set():
                pipe.send(_Said(pipeline.info.n_frames, pipeline.report.rendered))
                if pipe.poll(_TICK_SECONDS):
                    pipe.recv()
                    break
            else:
                return
        except (EOFError, OSError):
            pass  # the first process was killed
        pipeline.stop("interrupted")

    watching: list[threading.Thread] = []

    def begin(pipeline: Pipeline) -> None:
        watching.append(threading.Thread(target=watch, args=(pipeline,), daemon=True))
        watching[0].start()

    error = ""
    try:
        run_session(source, [output], config, on_start=begin)
    except StreamCamError as exc:
        error = " ".join(str(exc).split())
    ended.set()
    for thread in watching:
        thread.join()
    pipe.send(_Said(ended=True, error=error))


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
            there = job.output.exists() and not config.run.overwrite
            print(f"{'there already' if there else 'to do'}: {job.source} → {job.output}")
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


def find_videos(places: Sequence[str]) -> list[Path]:
    """Videos, those in folders and of globs, in the order in which people count.

    Raises:
        UsageError: none is given.
        SourceNotFoundError: a place where there are none.
    """
    if not places:
        raise UsageError("which videos? give files, folders or a pattern in quotes")
    found: list[Path] = []
    for place in map(os.path.expanduser, places):
        if is_pattern(place):
            inside = [path for path in glob.glob(place, recursive=True) if os.path.isfile(path)]
        elif os.path.isdir(place):
            inside = [entry.path for entry in os.scandir(place) if entry.is_file()]
        else:
            found.append(Path(place))
            continue
        videos = [path for path in inside if Path(path).suffix.lower() in VIDEO_SUFFIXES]
        left = [path for path in videos if not Path(path).name.startswith(".")]
        if not left:
            raise SourceNotFoundError(f"there are no videos in {place}")
        found += [Path(path) for path in sorted(left, key=natural_key)]
    return list(dict.fromkeys(found))


def _results(config: PipelineConfig) -> Iterator[tuple[str, Path]]:
    """The option's name and the path of each file that is asked for beside the recordings."""
    wanted = {name: getattr(config.record, name) for name in RESULT_SUFFIXES}
    for name, path in (*wanted.items(), ("report", config.run.report)):
        if path is not None:
            yield name, path


def _named(config: PipelineConfig, name: str) -> PipelineConfig:
    """The options with the source's name in the paths of results."""
    named = {option: Path(str(path).replace(NAME, name)) for option, path in _results(config)}
    record = replace(
        config.record,
        predictions=named.get("predictions"),
        cams=named.get("cams"),
        timeline=named.get("timeline"),
        sheet=named.get("sheet"),
    )
    return replace(config, run=replace(config.run, report=named.get("report")), record=record)


@contextmanager
def _progress(
    batch: Batch, quiet: bool
) -> Iterator[tuple[Callable[[Job], None], Callable[[], None]]]:
    """A bar for all and one for each video on its way; without a terminal a line at each end."""

    def told(job: Job) -> str:
        reason = f" ({job.reason})" if job.reason else ""
        return f"{job.fate}: {job.source} → {job.output}{reason}"

    if quiet or not sys.stderr.isatty():
        yield (lambda job: None if quiet else print(told(job), flush=True)), lambda: None
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
            bars.console.print(told(job), markup=False, highlight=False)

        yield on_end, on_tick
