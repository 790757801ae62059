"""The videos of a batch, and the outcome of each."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from stream_cam.cli.batch.results import NAME, named, results_of, unfinished_result, with_results
from stream_cam.cli.batch.videos import find_videos
from stream_cam.cli.batch.worker import TICK_SECONDS, WorkerMessage, annotate
from stream_cam.config import BatchConfig, PipelineConfig
from stream_cam.errors import OutputExistsError, SinkError, StreamCamError, UsageError
from stream_cam.sinks.video.encoders import check_codec, check_settings
from stream_cam.sinks.video.lock import RecordingLock, is_locked
from stream_cam.sinks.video.recording_names import part_path, unfinished_path
from stream_cam.uri import result_name

Fate = Literal["done", "there already", "skipped", "failed", "stopped", "to do"]

_ELSEWHERE: Final = "another batch is making it"


@dataclass
class Job:
    """One video, its outcome and its progress."""

    source: Path
    output: Path
    name: str
    """The recording's path in the batch's folder, without its suffix."""
    fate: Fate = "to do"
    reason: str = ""
    begun: bool = False
    n_frames: int | None = None
    """Number of frames, if the file says so."""
    n_rendered: int = 0

    @property
    def unfinished(self) -> Path:
        return unfinished_path(self.output)

    @property
    def was_begun(self) -> bool:
        """Whether an earlier run has left unfinished files."""
        return self.unfinished.exists() or part_path(self.unfinished).exists()

    @property
    def lock(self) -> Path:
        """The lock file of the batch that makes the recording."""
        return self.output.with_name(f".{self.output.name}.lock")

    def predict_fate(self, overwrite: bool) -> None:
        """Sets the fate that a run would lead to, for --dry-run."""
        if self.output.exists() and not overwrite:
            self.fate = "there already"
        elif is_locked(self.lock):
            self.fate, self.reason = "skipped", _ELSEWHERE


def check_options(config: PipelineConfig, batch: BatchConfig) -> None:
    """Finds out whether a batch can be recorded with these options.

    Raises:
        UsageError: it cannot.
    """
    if config.record.segment is not None:
        raise UsageError("--segment is for `stream-cam run`; a batch makes one file a video")
    codec = check_codec(f".{batch.container}", config.record.codec)
    check_settings(codec, config.record)


def check_distinct(outputs: Mapping[str, str]) -> None:
    """Finds out whether each source has a recording of its own.

    Raises:
        UsageError: two have the same.
    """
    counts = Counter(outputs.values())
    for output, count in counts.items():
        if count > 1:
            same = [source for source, own in outputs.items() if own == output]
            raise UsageError(
                f"{' and '.join(same)} would both become {output}; give them two folders"
            )


@dataclass
class VideoBatch:
    """Annotates videos into a folder; recordings that exist are kept.

    Each video has a process of its own: torch traces one network at a time in a process, and a
    crash ends one video only.

    A recording and its results get their names once they are complete. A stopped recording is
    called `name.unfinished.mp4` and is made anew the next time. One failure does not end the
    others. A recording that another batch is making is skipped.

    Args:
        places: videos, folders of videos, globs.
        output: the folder for the recordings; it is created if it does not exist.
        config: the options of each run.
        batch: the type of the recordings, and the number of jobs.

    Raises:
        StreamCamError: there are no videos, or the options do not fit together.
    """

    places: Sequence[str]
    output: Path
    config: PipelineConfig
    batch: BatchConfig = field(default_factory=BatchConfig)
    jobs: list[Job] = field(init=False)
    _stopped: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        suffix = f".{self.batch.container}"
        found = find_videos(self.places, recursive=self.batch.recursive, leave_out=self.output)
        self.jobs = []
        for source, name in found.items():
            result = result_name(name, suffix)
            self.jobs.append(Job(source, self.output / result, result[: -len(suffix)]))
        self._check()

    def _check(self) -> None:
        check_options(self.config, self.batch)
        if self.output.exists() and not self.output.is_dir():
            raise UsageError(f"{self.output} is a file; give a folder with -o")
        check_distinct({str(job.source): str(job.output) for job in self.jobs})
        for job in self.jobs:
            if os.path.realpath(job.source) == os.path.realpath(job.output):
                raise UsageError(f"{job.output} is a source; give another folder with -o")
        for name, path in results_of(self.config).items():
            if NAME not in str(path) and len(self.jobs) > 1:
                raise UsageError(
                    f"--{name} {path} is one file for {len(self.jobs)} videos: put {NAME} into it, "
                    f"such as {path.with_name(NAME + path.suffix)}"
                )

    def stop(self, _reason: str) -> None:
        """Ends the running videos, and starts no other; from any thread."""
        self._stopped.set()

    def run(self, on_end: Callable[[Job], None], on_tick: Callable[[], None]) -> None:
        """Annotates the videos whose recordings do not exist.

        Args:
            on_end: called with each job at its end, on this thread.
            on_tick: called a few times a second, on this thread.
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
            waiting: dict[Future[None], Job] = {
                pool.submit(self._run_job, job): job for job in todo
            }
            while waiting:
                ended, _ = wait(waiting, TICK_SECONDS, FIRST_COMPLETED)
                on_tick()
                for future in ended:
                    job = waiting.pop(future)
                    future.result()
                    on_end(job)

    def _run_job(self, job: Job) -> None:
        if self._stopped.is_set():
            job.fate = "stopped"
            return
        try:
            job.output.parent.mkdir(parents=True, exist_ok=True)
            with RecordingLock(job.lock, create=True):
                try:
                    self._run_locked(job)
                finally:
                    job.lock.unlink(missing_ok=True)
        except OutputExistsError:
            job.fate, job.reason = "skipped", _ELSEWHERE
        except OSError as error:
            job.fate, job.reason = "failed", f"{job.output}: {error.strerror}"

    def _run_locked(self, job: Job) -> None:
        if job.output.exists() and not self.config.run.overwrite:
            job.fate = "there already"  # another batch has made it meanwhile
            return
        if is_locked(part_path(job.unfinished)):  # a process whose batch was killed still runs
            job.fate, job.reason = "skipped", _ELSEWHERE
            return
        results = {
            option: named(path, job.name) for option, path in results_of(self.config).items()
        }
        made = {option: unfinished_result(path) for option, path in results.items()}
        waiting = {made[option]: path for option, path in results.items() if made[option] != path}
        try:
            self._remove_leftovers(job, waiting)
            self._run_in_process(job, with_results(self.config, made))
            if self._stopped.is_set():
                job.fate = "stopped"
                return
            for unfinished, path in waiting.items():
                if unfinished.exists():  # a run without a frame writes no result
                    os.replace(unfinished, path)
            os.replace(job.unfinished, job.output)
            job.fate = "done"
        except StreamCamError as error:
            job.fate, job.reason = "failed", " ".join(str(error).split())
        if job.fate == "failed" and not job.was_begun:
            for unfinished in waiting:
                unfinished.unlink(missing_ok=True)

    def _run_in_process(self, job: Job, config: PipelineConfig) -> None:
        def on_progress(message: WorkerMessage) -> None:
            job.begun, job.n_frames = True, message.n_frames
            job.n_rendered = message.n_rendered

        annotate(job.source, job.unfinished, config, self._stopped, on_progress)

    def _remove_leftovers(self, job: Job, waiting: Mapping[Path, Path]) -> None:
        """Removes unfinished results of an earlier run, and creates the subfolders of results.

        Raises:
            OutputExistsError: a result exists, but not its recording.
        """
        for unfinished, path in waiting.items():
            if path.exists() and not (self.config.run.overwrite or job.was_begun):
                raise OutputExistsError(f"{path} exists; give --overwrite to replace it")
            unfinished.unlink(missing_ok=True)
        for pattern in results_of(self.config).values():
            above = [part.parent for part in pattern.parents if NAME in part.name]
            # Only in a folder that exists: a missing one is a typing error.
            if (above[-1] if above else pattern.parent).is_dir():
                named(pattern, job.name).parent.mkdir(parents=True, exist_ok=True)
