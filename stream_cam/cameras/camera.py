"""One camera: a thread that runs its pipeline, and runs it again after a failure."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from stream_cam.cameras.camera_config import CameraConfig
from stream_cam.cameras.tile import Tile, TileSink
from stream_cam.closing import Closeable
from stream_cam.errors import StreamCamError
from stream_cam.pipeline.session import run_session
from stream_cam.settings import Settings
from stream_cam.sinks.base import Waiting
from stream_cam.uri import hide, redact_uri, scheme_of
from stream_cam.web.page_state import PageState, no_stats

if TYPE_CHECKING:
    from stream_cam.explain.shared import SharedExplainer
    from stream_cam.pipeline.pipeline import Pipeline
    from stream_cam.pipeline.report import Report

logger = logging.getLogger(__name__)

State = Literal["starting", "waiting", "live", "away", "failed", "ended", "stopped"]
_FIRST_RETRY_SECONDS: Final = 5.0
_LAST_RETRY_SECONDS: Final = 60.0
_END_SECONDS: Final = 15.0
"""Longest wait for the end: two seconds for frames, and files are finished."""

Wait = Callable[[threading.Event, float], bool]
"""`threading.Event.wait`, or a test's function in its place."""


@dataclass(frozen=True)
class FrameCounts:
    """The way of all frames over all runs: captured is the sum of the next four."""

    captured: int = 0
    explained: int = 0
    superseded: int = 0
    """A newer one took their place before the network was free."""
    discarded: int = 0
    """Left when a run ended, or failed."""
    paused: int = 0
    """A viewer had paused the camera."""
    on_the_way: int = 0
    """Waiting for the network, or in it."""
    rendered: int = 0

    def __add__(self, other: FrameCounts) -> FrameCounts:
        names = self.__dataclass_fields__
        return FrameCounts(**{name: getattr(self, name) + getattr(other, name) for name in names})

    @classmethod
    def of_report(cls, report: Report) -> FrameCounts:
        """Of a run that is over."""
        return cls(
            report.captured + report.paused,
            report.explained,
            report.superseded,
            report.discarded,
            report.paused,
            0,
            report.rendered,
        )

    @classmethod
    def of_pipeline(cls, pipeline: Pipeline) -> FrameCounts:
        """Of a run that goes on."""
        stats = pipeline.stats()
        # Captured is read last: a frame is counted there before it goes anywhere.
        explained, superseded, rendered = (
            int(str(stats[name])) for name in ("explained", "superseded", "rendered")
        )
        captured = pipeline.report.captured
        left = max(0, captured - explained - superseded)
        paused = pipeline.report.paused
        return cls(captured + paused, explained, superseded, 0, paused, left, rendered)


class Camera(Closeable):
    """One camera from its start until it is closed.

    A run that fails is begun again after a while; meanwhile the tile says why. No failure of one
    camera reaches another.

    Args:
        config: with {name} still in its paths.
        shared: explains its frames.
        wait: waits between two runs.
    """

    def __init__(
        self, config: CameraConfig, shared: SharedExplainer, wait: Wait = threading.Event.wait
    ) -> None:
        self.config = config
        self.name = config.name
        self._shared, self._wait = shared, wait
        self.settings = Settings(config.pipeline.look)
        web = config.pipeline.web
        page_state = PageState(
            self.settings,
            f"{config.name}: {redact_uri(config.source)}",
            viewer_only=web.viewer_only,
            quality=web.web_quality,
        )
        self.tile = Tile(config.name, page_state)
        self.error = ""
        """Why the last run failed; empty: it did not."""
        self.runs = 0
        self._state: State = "starting"
        self._pipeline: Pipeline | None = None
        self._over = FrameCounts()
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"camera {self.name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, reason: str = "stopped") -> None:
        """Asks for the end and returns at once; any thread."""
        self._stopping.set()
        with self._lock:
            if self._pipeline is not None:
                self._pipeline.stop(reason)

    def close(self) -> None:
        """Ends it; its files are finished."""
        self.stop()
        if self._thread.ident is not None:
            self._thread.join(_END_SECONDS)
            if self._thread.is_alive():
                logger.warning("%s does not end; it is left behind", self.name)

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    @property
    def state(self) -> State:
        """What a viewer is told of it."""
        with self._lock:
            pipeline, state = self._pipeline, self._state
        if pipeline is None or state != "live":
            return state
        return "live" if pipeline.stats()["away"] is None else "away"

    @property
    def counts(self) -> FrameCounts:
        """Of all its runs so far."""
        with self._lock:
            pipeline, over = self._pipeline, self._over
            return over if pipeline is None else over + FrameCounts.of_pipeline(pipeline)

    def stats(self) -> dict[str, object]:
        """Plain values for the wall and for `/cameras.json`."""
        values, counts = self.tile.page_state.stats(), self.counts
        predictions = values.get("predictions")
        best = predictions[0] if isinstance(predictions, list) and predictions else None
        age = self.tile.age_seconds
        waiting = self.tile.page_state.waiting
        return {
            "name": self.name,
            "source": redact_uri(self.config.source),
            "state": self.state,
            "error": self.error,
            "waiting": [] if waiting is None else waiting.lines,
            "class": best["label"] if best else None,
            "probability": round(best["probability"], 4) if best else None,
            "age_seconds": None if age is None else round(age, 3),
            "fps": values.get("fps", 0.0),
            "runs": self.runs,
            "recording": self.settings.now.recording,
            **{name: getattr(counts, name) for name in FrameCounts.__dataclass_fields__},
        }

    def _run(self) -> None:
        seconds = _FIRST_RETRY_SECONDS
        while not self._stopping.is_set():
            failure = self._run_once()
            if failure is None:
                break
            if failure != self.error:  # not once a minute for weeks
                logger.error("%s: %s; again in %.0f s", self.name, failure, seconds)
            self.error = failure
            self._change("failed")
            self.tile.page_state.waiting = Waiting(f"{self.name} has failed", failure, self.runs)
            if self.counts.explained:
                seconds = _FIRST_RETRY_SECONDS
            self._wait(self._stopping, seconds)
            seconds = min(2.0 * seconds, _LAST_RETRY_SECONDS)
        if self._stopping.is_set():
            self._change("stopped")
        else:
            self._change("ended")

    def _run_once(self) -> str | None:
        """Runs until the source ends, a stop or a failure; returns the failure."""
        self._change("starting")
        self.runs += 1
        share = self.config.share
        explainer = self._shared.join(self.name, weight=share.weight, rate=share.rate)
        config = _without_overwriting(self.config.named(), again=self.runs > 1)
        try:
            run_session(
                config.source,
                config.sink or ("null",),
                config.pipeline,
                explainer=explainer,
                extra_sinks=[TileSink(self.tile)],
                settings=self.settings,
                on_wait=self._on_wait,
                on_start=self._on_start,
                on_end=self._on_end,
            )
        except StreamCamError as error:
            return hide(str(error))
        except Exception as error:
            logger.debug("%s has failed", self.name, exc_info=True)
            return hide(f"{type(error).__name__}: {error}")
        finally:
            explainer.close()
            self.tile.page_state.stats = no_stats
        return None

    def _on_wait(self, waiting: Waiting) -> bool:
        self.tile.page_state.waiting = waiting
        self._change("waiting")
        return not self._stopping.is_set()

    def _on_start(self, pipeline: Pipeline) -> None:
        with self._lock:
            self._pipeline, self._state, self.error = pipeline, "live", ""
        if self._stopping.is_set():
            pipeline.stop()

    def _on_end(self, report: Report) -> None:
        with self._lock:
            self._pipeline = None
            self._over += FrameCounts.of_report(report)

    def _change(self, state: State) -> None:
        with self._lock:
            self._state = state


def _without_overwriting(config: CameraConfig, *, again: bool) -> CameraConfig:
    """For a later run: files that are there already get a number instead of being replaced."""
    if not again or config.pipeline.run.overwrite:
        return config
    record = config.pipeline.record
    paths = {name: getattr(record, name) for name in ("predictions", "cams", "timeline", "sheet")}
    numbered: dict[str, Any] = {
        name: None if path is None else unused_path(path) for name, path in paths.items()
    }
    report = config.pipeline.run.report
    pipeline = replace(
        config.pipeline,
        record=replace(record, **numbered),
        run=replace(config.pipeline.run, report=None if report is None else unused_path(report)),
    )
    sink = tuple(uri if scheme_of(uri) else _unused_uri(uri) for uri in config.sink)
    return replace(config, pipeline=pipeline, sink=sink)


def _unused_uri(uri: str) -> str:
    path = os.path.expanduser(uri)
    return str(unused_path(Path(path))) if os.path.isfile(path) else uri


def unused_path(path: Path) -> Path:
    """The path, with -2, -3 and so on before its suffix if there is such a file."""
    path, number = Path(os.path.expanduser(path)), 1
    unused = path
    while unused.exists():
        number += 1
        unused = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return unused
