"""One network for many pipelines: a thread that owns the explainer, and a stand-in for each camera.

    camera's explain thread ──▶ request ──▶ scheduler decides ──▶ newest frames taken ──▶ network
            ◀──────────────────────── explanation, or that frame's own failure ─────────────┘

The scheduler (scheduler.py) decides whose turn it is. A frame is taken when its turn comes, so a
camera that waited is explained by its newest frame. A frame that cannot be explained fails its own
camera only.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from stream_cam.closing import Closeable
from stream_cam.config import LookConfig
from stream_cam.draw.layouts import count_maps
from stream_cam.engine import EngineInfo
from stream_cam.explain.explainer import Explainer
from stream_cam.explain.frame_explainer import TakeNewest
from stream_cam.explain.scheduler import Batch, BatchCosts, Scheduler
from stream_cam.frame import BgrImage, Explanation, Frame
from stream_cam.model.recipe import WeightsInfo
from stream_cam.queues import EndOfStream
from stream_cam.settings import SettingsSnapshot
from stream_cam.targets import Target

_MEASURED_HW = (720, 1280)
"""Height and width of the frames that costs are measured with."""
_MEASURED_TIMES = 7


@dataclass(frozen=True, slots=True)
class _Request:
    work: Callable[[], Explanation]
    """Takes the newest frame and explains it."""
    explanation: Future[Explanation]
    camera: str | None = None
    """None: a frame between two batches, which no counter counts."""


def measure_costs(explainer: Explainer, sizes: Sequence[int]) -> BatchCosts:
    """Times batches of each size: the median of several, after one to warm up.

    A batch is as many frames at once as the explainer serves in parallel.
    """
    image = np.full((*_MEASURED_HW, 3), 127, np.uint8)
    frame = Frame(image, 0, 0, Fraction(1, 30), 0)
    seconds: dict[int, float] = {}
    with ThreadPoolExecutor(max(sizes)) as pool:
        for size in sizes:
            times = []
            for _ in range(_MEASURED_TIMES + 1):
                started = time.perf_counter()
                list(pool.map(explainer.explain, [frame] * size))
                times.append(time.perf_counter() - started)
            seconds[size] = sorted(times[1:])[_MEASURED_TIMES // 2]
    return BatchCosts(seconds)


class SharedExplainer(Closeable):
    """Serves many pipelines with one explainer, from its construction until it is closed.

    Args:
        explainer: used by this object's threads alone.
        limit_seconds: the latency limit of a batch, from capture to explanation.
        costs: of each batch size; default: measured here, up to what the explainer does at once.
    """

    def __init__(
        self, explainer: Explainer, *, limit_seconds: float = 0.25, costs: BatchCosts | None = None
    ) -> None:
        self.explainer = explainer
        sizes = sorted({1, explainer.parallel})
        self.costs = costs or measure_costs(explainer, sizes)
        self._scheduler = Scheduler(self.costs, limit_seconds)
        self._requests: dict[str, _Request] = {}
        self._aside: deque[_Request] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self.explained = 0
        """Frames of all cameras, failed ones not counted."""
        self.batches: dict[int, int] = dict.fromkeys(self.costs.sizes, 0)
        """How many there were of each size."""
        self.busy_seconds = 0.0
        self._pool = ThreadPoolExecutor(max(self.costs.sizes), thread_name_prefix="network")
        self._thread = threading.Thread(target=self._serve, name="network", daemon=True)
        self._thread.start()

    def join(
        self, camera: str, *, weight: float = 1.0, rate: float | None = None
    ) -> CameraExplainer:
        """A camera's stand-in for the explainer; it closes it when it leaves.

        Args:
            weight: its share of the network, relative to the other cameras'.
            rate: explained frames a second at most.
        """
        with self._changed:
            self._scheduler.add(camera, weight=weight, rate=rate)
        return CameraExplainer(self, camera)

    def leave(self, camera: str) -> None:
        """The camera is gone; a frame of its that waits is not explained."""
        with self._changed:
            self._scheduler.remove(camera)
            request = self._requests.pop(camera, None)
        if request is not None:
            request.explanation.set_exception(EndOfStream())

    def explain(self, camera: str, captured: float, work: Callable[[], Explanation]) -> Explanation:
        """Waits for the camera's turn and for its explanation."""
        request = _Request(work, Future(), camera)
        with self._changed:
            if self._closed:
                raise EndOfStream
            self._requests[camera] = request
            self._scheduler.offer(camera, captured)
            self._changed.notify_all()
        return request.explanation.result()

    def explain_aside(self, work: Callable[[], Explanation]) -> Explanation:
        """Explains a frame between two batches, such as the picture of a pause."""
        request = _Request(work, Future())
        with self._changed:
            if self._closed:
                raise EndOfStream
            self._aside.append(request)
            self._changed.notify_all()
        return request.explanation.result()

    def close(self) -> None:
        """Ends the thread; whoever waits gets EndOfStream."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()
        self._pool.shutdown()

    def _serve(self) -> None:
        while True:
            requests = self._wait_for_batch()
            if requests is None:
                return
            started = time.perf_counter()
            if len(requests) == 1:
                _explain(requests[0])
            else:
                list(self._pool.map(_explain, requests))
            self._count(requests, time.perf_counter() - started)

    def _count(self, requests: Sequence[_Request], seconds: float) -> None:
        self.busy_seconds += seconds
        cameras = [one.camera for one in requests if one.camera is not None]
        failed = [one for one in requests if one.explanation.exception() is not None]
        with self._changed:
            self._scheduler.done(cameras, time.monotonic())
            if cameras:
                self.explained += len(requests) - len(failed)
            if cameras and not failed:
                self.batches[len(requests)] += 1
                self.costs.record(len(requests), seconds)

    def _wait_for_batch(self) -> list[_Request] | None:
        with self._changed:
            while not self._closed:
                if self._aside:
                    return [self._aside.popleft()]
                batch = self._scheduler.next(time.monotonic())
                if batch.cameras:
                    return [self._requests.pop(camera) for camera in batch.cameras]
                self._changed.wait(_seconds(batch))
            left = [*self._requests.values(), *self._aside]
            self._requests.clear()
            self._aside.clear()
        for request in left:
            request.explanation.set_exception(EndOfStream())
        return None


class CameraExplainer:
    """An explainer to one pipeline; the network behind it is shared.

    It has the parts of `Explainer` that a pipeline uses.

    Args:
        shared: serves it.
        camera: its name there.
    """

    parallel = 1
    """A pipeline has one frame on its way at a time; the scheduler fills batches."""

    def __init__(self, shared: SharedExplainer, camera: str) -> None:
        self._shared, self._camera = shared, camera
        self._explainer = shared.explainer
        self.labels = self._explainer.labels
        self.model_name = self._explainer.model_name
        self.method = self._explainer.method

    @property
    def weights(self) -> WeightsInfo:
        return self._explainer.weights

    @property
    def engine_info(self) -> EngineInfo | None:
        return self._explainer.engine_info

    def resolve(self, target: Target) -> int:
        """The class index of an index or a label."""
        return self._explainer.resolve(target)

    def explain(
        self,
        frame: BgrImage | Frame,
        target: Target | Sequence[Target] | None = None,
        *,
        n_maps: int | None = None,
        keep_features: bool = False,
        against: Target | Sequence[Target] | None = None,
        against_weight: float = LookConfig.against_weight,
    ) -> Explanation:
        """As `Explainer.explain`, between two batches of the cameras' frames."""
        return self._shared.explain_aside(
            lambda: self._explainer.explain(
                frame,
                target,
                n_maps=n_maps,
                keep_features=keep_features,
                against=against,
                against_weight=against_weight,
            )
        )

    def explain_drawn(
        self,
        frame: BgrImage | Frame,
        settings: SettingsSnapshot | None = None,
        *,
        ticket: AbstractContextManager[object] | None = None,
    ) -> Explanation:
        """As `Explainer.explain_drawn`, when it is the camera's turn.

        Args:
            ticket: not needed: a camera has one frame on its way.
        """
        wanted = settings or SettingsSnapshot()
        return self._shared.explain(
            self._camera, time.monotonic(), lambda: self._explain(frame, wanted)
        )

    def explain_newest(self, take: TakeNewest) -> Explanation:
        """Takes the newest frame when it is the camera's turn, and explains it."""
        return self._shared.explain(self._camera, time.monotonic(), lambda: self._explain(*take()))

    def _explain(self, frame: BgrImage | Frame, settings: SettingsSnapshot) -> Explanation:
        look = settings.look
        if look.smooth > 0.0 or look.hold > 0.0:
            # A graph steadies the frames of one stream; here the pipeline's own filter does so.
            return self._explainer.explain(
                frame,
                settings.targets or None,
                n_maps=count_maps(settings, len(self.labels)),
                keep_features=look.hold > 0.0,
                against=settings.against,
                against_weight=look.against_weight,
            )
        return self._explainer.explain_drawn(frame, settings)

    def close(self) -> None:
        """Leaves the shared explainer."""
        self._shared.leave(self._camera)


def _explain(request: _Request) -> None:
    """Keeps the promise, with the explanation or with this frame's own failure."""
    try:
        explanation = request.work()
    except BaseException as error:
        request.explanation.set_exception(error)
    else:
        request.explanation.set_result(explanation)


def _seconds(batch: Batch) -> float | None:
    return None if batch.wait_seconds is None else max(0.0, batch.wait_seconds)
