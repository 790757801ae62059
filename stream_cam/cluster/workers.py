"""The workers on the nodes: actors with a loaded network, as many as the nodes have room for."""

from __future__ import annotations

import logging
import socket
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from stream_cam._version import __version__
from stream_cam.cluster.annotator import Annotator
from stream_cam.cluster.clip import Clip, Outcome
from stream_cam.cluster.nodes import capacity, living_nodes, node_name
from stream_cam.config import ClusterConfig, PipelineConfig
from stream_cam.errors import StreamCamError

logger = logging.getLogger(__name__)

_LOOK_SECONDS: Final = 2.0
"""Nodes come and go; so often they are counted."""


@dataclass(frozen=True)
class Loaded:
    """A worker's answer once it has loaded its network, or could not."""

    node_id: str
    node: str
    problem: str = ""


class RemoteAnnotator:
    """An annotator in a process of its own on a node: Ray's actor.

    Args:
        queue: gets (clip, frames so far).
    """

    def __init__(self, config: PipelineConfig, queue: Any, drivers_version: str) -> None:
        import ray

        self._drivers_version = drivers_version

        self._node_id = ray.get_runtime_context().get_node_id()
        self._node = node_name(socket.gethostname(), self._node_id)

        def tell(clip: str, frames: int) -> None:
            with suppress(Exception):  # figures only; the node with the queue may be gone
                queue.put_nowait((clip, frames))

        self._annotator = Annotator(config, self._node, tell)

    def load(self) -> Loaded:
        """Loads the network."""
        if self._drivers_version != __version__:
            said = f"has stream-cam {__version__}, the driver has {self._drivers_version}"
            return Loaded(self._node_id, self._node, said)
        try:
            self._annotator.load()
        except StreamCamError as error:
            said = f"cannot load the network: {' '.join(str(error).split())}"
            return Loaded(self._node_id, self._node, said)
        return Loaded(self._node_id, self._node)

    def annotate(self, clip: Clip) -> Outcome:
        """Makes one clip's results."""
        return self._annotator.annotate(clip)


@dataclass(eq=False)
class Worker:
    """The driver's handle of a worker."""

    actor: Any
    answer: Any
    """The call that runs: the loading first, then one clip at a time."""
    loaded: Loaded | None = None
    clip: Clip | None = None


@dataclass
class Workers:
    """As many workers as there are clips left and as the nodes hold.

    A worker that dies is not started again by Ray (`max_restarts`), but replaced: Ray counts a lost
    node and a clip that kills its process alike, and only the second one is the clip's fault.
    """

    ray: Any
    config: PipelineConfig
    cluster: ClusterConfig
    queue: Any
    all: list[Worker] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    """Nodes whose workers could not load the network, with the reason."""
    n_nodes: int = 0
    _capacity: int = 0
    _looked_at: float = -_LOOK_SECONDS

    def __post_init__(self) -> None:
        self._remote = self.ray.remote(
            num_cpus=self.cluster.task_cpus, num_gpus=self.cluster.task_gpus, max_restarts=0
        )(RemoteAnnotator)

    def fit(self, n_clips: int) -> None:
        """Starts workers for clips that are left, and ends idle ones that have none."""
        if time.monotonic() - self._looked_at >= _LOOK_SECONDS:
            nodes = living_nodes(self.ray)
            self.n_nodes = len(nodes)
            self._capacity = capacity(list(nodes.values()), self.cluster)
            self._looked_at = time.monotonic()
        most = self.cluster.max_workers or self._capacity
        for _ in range(min(n_clips, most) - len(self.all)):
            self._start()
        surplus = len(self.all) - n_clips
        for worker in [each for each in self.all if each.clip is None][: max(0, surplus)]:
            self.end(worker)

    def _start(self) -> None:
        spread = self._remote.options(scheduling_strategy="SPREAD")
        actor = spread.remote(self.config, self.queue, __version__)
        self.all.append(Worker(actor, actor.load.remote()))

    def idle(self) -> list[Worker]:
        """Workers that wait for a clip."""
        return [each for each in self.all if each.loaded is not None and each.clip is None]

    def hand(self, worker: Worker, clip: Clip) -> None:
        """Gives a worker a clip."""
        worker.clip, worker.answer = clip, worker.actor.annotate.remote(clip)

    def running(self) -> dict[Any, Worker]:
        """The workers whose call has not been taken, by that call."""
        return {w.answer: w for w in self.all if w.loaded is None or w.clip is not None}

    def end(self, worker: Worker) -> None:
        """Ends a worker, whatever it does."""
        self.all.remove(worker)
        with suppress(Exception):  # it may have ended by itself
            self.ray.kill(worker.actor)

    def end_all(self) -> None:
        for worker in list(self.all):
            self.end(worker)
