"""An archive's run in the driver: hands clips out, takes their outcomes, keeps the account."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from stream_cam.cluster import storage
from stream_cam.cluster.clip import Clip, Outcome
from stream_cam.cluster.manifest import Manifest
from stream_cam.cluster.nodes import check_capacity, check_nodes, connected, living_nodes
from stream_cam.cluster.workers import Loaded, Worker, Workers
from stream_cam.config import ClusterConfig, PipelineConfig
from stream_cam.errors import ClusterError

logger = logging.getLogger(__name__)

_TICK_SECONDS: Final = 0.2
_MOST_DEATHS: Final = 2
_MOST_FAILED_STARTS: Final = 5
_DEATH_NOTICE_SECONDS: Final = 20.0
"""Ray may need so long to notice that a node is gone, and not only a worker on it."""


@dataclass
class Standing:
    """How far a run is."""

    n_clips: int
    n_ended: int = 0
    n_failed: int = 0
    n_nodes: int = 0
    n_workers: int = 0
    frames: int = 0
    """Frames of this run so far."""
    seconds: float = 0.0
    seconds_left: float | None = None
    """An estimate, once a clip has ended."""

    @property
    def frames_per_second(self) -> float:
        return self.frames / self.seconds if self.seconds else 0.0


@dataclass
class Archive:
    """Annotates clips on a cluster; those whose recording exists are kept.

    A clip that fails does not end the others. A clip whose worker or node dies is done again; one
    that has killed its worker twice is poison, and is left. A lost node is no fault of a clip.

    Args:
        clips: all of them, those that are done already included.
        destination: the folder or URL of the recordings and of the manifest.
        config: the options of each run; paths in it are absolute.
        cluster: the cluster, and the share of one clip.
    """

    clips: Sequence[Clip]
    destination: str
    config: PipelineConfig
    cluster: ClusterConfig
    standing: Standing = field(init=False)
    _stopped: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.standing = Standing(len(self.clips))
        self._waiting: deque[Clip] = deque()
        self._deaths: dict[Clip, list[str]] = {}
        self._suspects: dict[Clip, float] = {}
        self._in_hand: dict[str, int] = {}
        self._frames_ended = self._failed_starts = 0

    def stop(self, _reason: str) -> None:
        """Ends the run within seconds; from any thread. The same command resumes it."""
        self._stopped.set()

    def run(self, on_end: Callable[[Outcome], None], on_tick: Callable[[], None]) -> None:
        """Runs until each clip has an outcome, or `stop` is called.

        Args:
            on_end: called with each clip's outcome, on this thread.
            on_tick: called a few times a second, on this thread.

        Raises:
            UsageError, ClusterError: as the message says; the account is kept.
        """
        self._on_end = on_end
        self._manifest = Manifest(self.destination)
        self._begin()
        try:
            if self._waiting and not self._stopped.is_set():
                with connected(self.cluster) as ray:
                    self._run(ray, on_tick)
        finally:
            self._manifest.close()

    def _begin(self) -> None:
        """Sorts out the clips that earlier runs have finished or given up."""
        storage.make_folder(self.destination)
        there = {storage.join(self.destination, n) for n in storage.files_below(self.destination)}
        for clip in self.clips:
            earlier = self._manifest.earlier.get(clip.source)
            if clip.output in there and not self.config.run.overwrite:
                outcome = Outcome(clip.source, "there already")
                self._end(outcome, known=earlier is not None and earlier.state == "done")
            elif earlier is not None and earlier.state == "poison" and not self.retries_poison:
                self._end(earlier, known=True)
            else:
                self._waiting.append(clip)
        self._n_before = self.standing.n_ended

    @property
    def retries_poison(self) -> bool:
        return self.cluster.retry_poison or self.config.run.overwrite

    def _run(self, ray: Any, on_tick: Callable[[], None]) -> None:
        check_capacity(ray, self.cluster)
        check_nodes(ray, self._places(), self._files())
        queue = _progress_queue(ray)
        workers = Workers(ray, self.config, self.cluster, queue)
        started = time.monotonic()
        try:
            while self._waiting or self._suspects or any(w.clip for w in workers.all):
                if self._stopped.is_set():
                    break
                self._step(ray, workers)
                self._count(workers, queue, time.monotonic() - started)
                on_tick()
        finally:
            workers.end_all()

    def _step(self, ray: Any, workers: Workers) -> None:
        n_in_hand = sum(worker.clip is not None for worker in workers.all)
        workers.fit(len(self._waiting) + n_in_hand)
        for worker in workers.idle():
            if self._waiting:
                workers.hand(worker, self._waiting.popleft())
        running = workers.running()
        if not running:
            self._stopped.wait(_TICK_SECONDS)
            ended = []
        else:
            ended, _ = ray.wait(list(running), timeout=_TICK_SECONDS)
        for answer in ended:
            self._take(ray, workers, running[answer])
        self._judge(ray)

    def _take(self, ray: Any, workers: Workers, worker: Worker) -> None:
        """The answer of a worker, or its death."""
        clip = worker.clip
        try:
            answer = ray.get(worker.answer)
        except ray.exceptions.RayTaskError as error:
            if clip is None:
                raise ClusterError(f"a worker cannot start: {_last_line(error)}") from error
            answer = Outcome(clip.source, "failed", reason=_last_line(error))
        except ray.exceptions.RayError as error:
            logger.info("a worker died: %s", _last_line(error))
            workers.end(worker)
            if clip is not None:
                self._lose(clip, worker)
            elif worker.loaded is None:
                self._count_failed_start(error)
            return
        if isinstance(answer, Loaded):
            self._take_loaded(workers, worker, answer)
            return
        worker.clip = None
        self._end(answer)

    def _take_loaded(self, workers: Workers, worker: Worker, answer: Loaded) -> None:
        if answer.problem:
            raise ClusterError(f"node {answer.node} {answer.problem}")
        worker.loaded = answer
        self._failed_starts = 0

    def _count_failed_start(self, error: Exception) -> None:
        self._failed_starts += 1
        if self._failed_starts >= _MOST_FAILED_STARTS:
            raise ClusterError(
                f"{self._failed_starts} workers in a row died while they started: "
                f"{_last_line(error)}; is there memory for --task-cpus {self.cluster.task_cpus:g}?"
            ) from error

    def _lose(self, clip: Clip, worker: Worker) -> None:
        """A clip whose worker died is next in line, or suspected of having killed it."""
        deaths = self._deaths.setdefault(clip, [])
        deaths.append(worker.loaded.node_id if worker.loaded else "")
        self._in_hand.pop(clip.source, None)
        if len(deaths) < _MOST_DEATHS:
            self._waiting.appendleft(clip)
        else:
            self._suspects[clip] = time.monotonic() + _DEATH_NOTICE_SECONDS

    def _judge(self, ray: Any) -> None:
        """Takes deaths of nodes off the account of a suspect; without them it goes on."""
        if not self._suspects:
            return
        living = living_nodes(ray)
        for clip, until in list(self._suspects.items()):
            deaths = [node for node in self._deaths[clip] if node in living]
            if len(deaths) < _MOST_DEATHS:
                self._deaths[clip] = deaths
                del self._suspects[clip]
                self._waiting.appendleft(clip)
            elif time.monotonic() >= until:
                del self._suspects[clip]
                reason = f"it killed its worker {len(deaths)} times; --retry-poison tries it again"
                self._end(Outcome(clip.source, "poison", reason=reason))

    def _end(self, outcome: Outcome, *, known: bool = False) -> None:
        """Accounts for a clip.

        Args:
            known: the manifest says so already.
        """
        if not known:
            self._manifest.append(outcome)
        self._in_hand.pop(outcome.clip, None)
        self._frames_ended += outcome.frames
        self.standing.n_ended += 1
        self.standing.n_failed += outcome.state in ("failed", "poison")
        self._on_end(outcome)

    def _count(self, workers: Workers, queue: Any, seconds: float) -> None:
        with suppress(Exception):  # figures only; the node with the queue may be gone
            for clip, frames in queue.get_nowait_batch(queue.qsize()):
                self._in_hand[clip] = frames
        in_hand = {worker.clip.source for worker in workers.all if worker.clip}
        self._in_hand = {k: v for k, v in self._in_hand.items() if k in in_hand}
        standing = self.standing
        standing.n_nodes, standing.n_workers = workers.n_nodes, len(workers.all)
        standing.frames = self._frames_ended + sum(self._in_hand.values())
        standing.seconds = seconds
        made = standing.n_ended - self._n_before
        left = standing.n_clips - standing.n_ended
        standing.seconds_left = seconds * left / made if made else None

    def _places(self) -> list[str]:
        """The folders and stores that each node must reach."""
        first = self._waiting[0].source
        folder = str(storage.as_path(first).parent) if storage.is_local(first) else first
        return [folder, self.destination]

    def _files(self) -> list[str]:
        model = self.config.model
        named = [] if model.weights in ("auto", "imagenet", "demo") else [model.weights]
        return named + ([] if model.labels is None else [str(model.labels)])


def _progress_queue(ray: Any) -> Any:
    """Ray's queue for figures of running clips, on this machine's node where it has one."""
    from ray.util.queue import Queue
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    return Queue(actor_options={"num_cpus": 0, "max_restarts": -1, "scheduling_strategy": here})


def _last_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[-1][:300]
