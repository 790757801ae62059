"""A run's report: counters, latencies and versions, as a value that can be written as JSON."""

from __future__ import annotations

import platform
import threading
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from stream_cam._version import __version__
from stream_cam.atomic_files import write_atomic
from stream_cam.config import PipelineConfig
from stream_cam.errors import SinkError, StreamCamError
from stream_cam.frame import Method
from stream_cam.uri import hide, json_text, redact_uri

_KEPT_SAMPLES = 100_000
"""The newest of each clock: an hour at 25 fps."""


class StageClock:
    """Durations of one stage, in nanoseconds, from any thread; keeps the newest 100 000."""

    def __init__(self) -> None:
        # A ring buffer: a deque of ints grows by 4 MB a clock in the first hour.
        self._samples_ns = np.zeros(_KEPT_SAMPLES, np.int64)
        self._lock = threading.Lock()
        self.count = 0

    def add(self, duration_ns: int) -> None:
        with self._lock:
            self._samples_ns[self.count % _KEPT_SAMPLES] = duration_ns
            self.count += 1

    def percentiles(self) -> Percentiles | None:
        """p50, p95 and p99 in milliseconds; None if nothing was timed."""
        with self._lock:
            count = self.count
            samples = self._samples_ns[: min(count, _KEPT_SAMPLES)] / 1e6
        if not samples.size:
            return None
        p50, p95, p99 = np.percentile(samples, [50, 95, 99])
        return Percentiles(count, float(p50), float(p95), float(p99), float(samples.mean()))


@dataclass(frozen=True, slots=True)
class Percentiles:
    count: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    mean_ms: float


@dataclass(slots=True)
class SinkCount:
    """The pictures of one sink: offered = written + unwanted + dropped."""

    name: str
    offered: int = 0
    """All pictures that were drawn."""
    written: int = 0
    repeated: int = 0
    """Pictures that say that the source is away or the run paused; not in `written`. A recording
    has written + repeated pictures."""
    dropped: int = 0
    """Replaced by newer ones before the sink was free (live), or lost when it or the run ended."""
    unwanted: int = 0
    """Came to the recorder while it was switched off."""
    failed: str = ""
    """Why the sink ended early, or why its file could not be finished."""
    segments: list[str] = field(default_factory=list)
    """The finished files of a recording in segments that still exist."""
    removed: int = 0
    """Segments that were removed by --keep, those of earlier runs included."""


@dataclass(slots=True)
class Report:
    """The result of a run. Every captured frame is counted, also after a failure:

    captured = explained + superseded + discarded
    captured = rendered + skipped
    rendered = offered = written + unwanted + dropped, of each sink
    """

    source: str
    live: bool
    model: str
    weights: str
    weights_sha256: str
    captured: int = 0
    explained: int = 0
    superseded: int = 0
    """Live frames that were replaced by a newer one before the network was free."""
    discarded: int = 0
    """Frames still waiting when the run was stopped, or that the network failed on."""
    rendered: int = 0
    skipped: int = 0
    """Frames that were not drawn: replaced by newer ones before the renderer was free (live), or
    still waiting when the run was stopped."""
    paused: int = 0
    """Live frames that came while the run was paused; not captured."""
    corrupt: int = 0
    """Pictures or packets of the source that could not be decoded."""
    connection: dict[str, object] = field(default_factory=dict)
    """For a source that reconnects: connections, recoveries, slowest_recovery_seconds,
    abandoned_readers, overtaken."""
    stale: int = 0
    """Live pictures whose map was older than --max-age, so that it was faded or not shown."""
    sync: dict[str, object] = field(default_factory=dict)
    """Live: how pictures met their maps. shown: pictures by mode (own, interpolated, matched,
    newest); late: interpolated ones that the next map did not reach in time; most_waiting and
    most_waiting_bytes: frames held at once."""
    parallel: int = 1
    """Frames that are explained at once; the latency of `explain` is that of one of them."""
    seconds: float = 0.0
    ended_by: str = "end of source"
    engine: dict[str, object] = field(default_factory=dict)
    method: Method = "cam"
    """How the maps come about: `grad-cam (head)` where the network's head is not linear."""
    sinks: list[SinkCount] = field(default_factory=list)
    latency: dict[str, Percentiles] = field(default_factory=dict)
    """Milliseconds: read, explain, render, `write N` (busy time of each stage, sinks by their
    number); capture_to_explanation and `capture_to_sink N` (age of a frame); live also map_age
    (how much older the drawn explanation was than its frame) and picture_delay (from a frame's
    capture to its finished picture)."""
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def fps(self) -> float:
        """Pictures finished a second, over the whole run."""
        return self._per_second(self.rendered)

    @property
    def failed_sinks(self) -> list[SinkCount]:
        return [sink for sink in self.sinks if sink.failed]

    def _per_second(self, count: int) -> float:
        return count / self.seconds if self.seconds > 0 else 0.0

    def write(self, path: Path) -> None:
        """Writes JSON; raises SinkError if it cannot be written."""
        rates = {
            "fps": self.fps,
            "captured_fps": self._per_second(self.captured),
            "explained_fps": self._per_second(self.explained),
        }
        text = json_text({**asdict(self), **rates}, indent=2) + "\n"
        try:
            write_atomic(path, text.encode())
        except OSError as error:
            raise SinkError(f"the report cannot be written to {path}: {error.strerror}") from error


def failed_report(
    source_uri: str, config: PipelineConfig, reason: StreamCamError | KeyboardInterrupt | str
) -> Report:
    """The report of a run that ended before its first frame: no source, or no network."""
    interrupted = isinstance(reason, KeyboardInterrupt)
    return Report(
        source=redact_uri(source_uri),
        live=bool(config.run.live),
        model=config.model.name,
        weights=config.model.weights,
        weights_sha256="",
        ended_by="interrupted" if interrupted else hide(str(reason)),
        versions=versions(),
    )


def versions(
    packages: Iterable[str] = ("torch", "torchvision", "openvino", "av"),
) -> dict[str, str]:
    """Versions of stream-cam, Python and those of the packages that are installed."""
    found = {"stream-cam": __version__, "python": platform.python_version()}
    for package in (*packages, "numpy", "opencv-python"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # noqa: PERF203
            continue
    return found
