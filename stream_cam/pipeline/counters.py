"""Counters and clocks of a run, and the report that is made of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from stream_cam.explain.frame_explainer import FrameExplainer
from stream_cam.frame import Explanation
from stream_cam.pipeline.captured import CapturedFrame
from stream_cam.pipeline.presenter import Presenter
from stream_cam.pipeline.report import Report, StageClock, versions
from stream_cam.pipeline.sink_queue import SinkQueue
from stream_cam.pipeline.sync import LiveSync
from stream_cam.queues import Handoff
from stream_cam.sources.base import Outage, Source


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of a run."""

    captured: int
    explained: int
    superseded: int
    rendered: int
    fps: float
    """Pictures drawn per second."""
    dropped: int
    """Pictures dropped by all sinks."""
    age_seconds: float | None
    """Live: how much older the newest explanation was than the last picture."""
    connections: int | None
    """Connections so far, of a source that reconnects."""
    away: Outage | None
    """Why there are no frames; None while frames come."""
    last: Explanation | None


class RunCounters:
    """Counts every frame of one run.

    The stages count the frames that they take and finish. The handoffs between them count all
    others (queues.py). `submitted` and `rendered` are written by one thread each.

    Args:
        to_explain: the frames for the network, if the run is live.
        to_render: the frames to be drawn.
        sync: live pictures on their way; None for a run in which every frame counts.
    """

    def __init__(
        self,
        source: Source,
        explainer: FrameExplainer,
        presenter: Presenter,
        sink_queues: Sequence[SinkQueue],
        to_explain: Handoff[CapturedFrame],
        to_render: Handoff[CapturedFrame],
        sync: LiveSync | None,
    ) -> None:
        self._source = source
        self._explainer = explainer
        self._presenter = presenter
        self._sink_queues = sink_queues
        self._to_explain = to_explain
        self._to_render = to_render
        self._sync = sync
        self.submitted = 0
        """Frames that were handed to the network's threads, if every frame is explained."""
        self.read = StageClock()
        self.explain = StageClock()
        self.render = StageClock()
        self.to_explanation = StageClock()
        self.report = Report(
            source=source.info.name,
            live=sync is not None,
            model=explainer.model_name,
            weights=explainer.weights.name,
            weights_sha256=explainer.weights.sha256,
            method=explainer.method,
            parallel=explainer.parallel,
            versions=versions(),
        )

    def progress(self, last: Explanation | None) -> Progress:
        """The progress now; from any thread."""
        health = self._source.health
        return Progress(
            captured=self.report.captured,
            explained=self.explain.count,
            superseded=self._to_explain.dropped,
            rendered=self.report.rendered,
            fps=self._presenter.fps,
            dropped=sum(sink_queue.dropped_so_far for sink_queue in self._sink_queues),
            age_seconds=self._presenter.age_seconds,
            connections=None if health is None else health.connections,
            away=self._source.outage(),
            last=last,
        )

    def close(self, duration_ns: int) -> None:
        """Completes the report, after every stage has ended."""
        report, explaining, drawing = self.report, self._to_explain, self._to_render
        report.seconds = duration_ns / 1e9
        report.explained = self.explain.count
        report.superseded = explaining.dropped
        not_finished = explaining.taken + self.submitted - report.explained
        report.discarded = explaining.abandoned + not_finished
        report.skipped = drawing.dropped + drawing.abandoned + drawing.taken - report.rendered
        report.stale = self._presenter.stale
        if self._sync is not None:
            report.sync = asdict(self._sync.counts)
        report.sinks = [sink_queue.count() for sink_queue in self._sink_queues]
        report.corrupt = self._source.corrupt_frames
        health = self._source.health
        report.connection = {} if health is None else asdict(health)
        info = self._explainer.engine_info
        report.engine = asdict(info) if info else {}
        found = {name: clock.percentiles() for name, clock in self._clocks().items()}
        report.latency = {name: value for name, value in found.items() if value is not None}

    def _clocks(self) -> dict[str, StageClock]:
        clocks = {
            "read": self.read,
            "explain": self.explain,
            "render": self.render,
            "capture_to_explanation": self.to_explanation,
            "map_age": self._presenter.ages,
            "picture_delay": self._presenter.delays,
        }
        for number, sink_queue in enumerate(self._sink_queues):
            clocks[f"write {number}"] = sink_queue.clock
            clocks[f"capture_to_sink {number}"] = sink_queue.age_clock
        return clocks
