"""Metrics of all cameras for Prometheus, each with its camera's label."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from stream_cam._version import __version__
from stream_cam.cameras.cameras import Cameras
from stream_cam.web.access import Access
from stream_cam.web.metrics import COUNTERS, GAUGES, number_of

_LABELS = ("camera",)


class WallMetrics(Collector):
    """Reads all cameras' statistics when Prometheus asks for them."""

    def __init__(self, cameras: Cameras, access: Access) -> None:
        self._cameras, self._access = cameras, access
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def text(self) -> bytes:
        """The metrics in Prometheus' text format 0.0.4."""
        return bytes(generate_latest(self._registry))

    def collect(self) -> Iterator[Metric]:
        found = [
            (camera.name, {**camera.tile.page_state.statistics(), **camera.stats()})
            for camera in self._cameras.all
        ]
        for name, text in COUNTERS.items():
            counter = CounterMetricFamily(f"stream_cam_{name}", text, labels=_LABELS)
            for camera, values in found:
                counter.add_metric([camera], number_of(values.get(name)))
            yield counter
        for name, text in GAUGES.items():
            gauge = GaugeMetricFamily(f"stream_cam_{name}", text, labels=_LABELS)
            for camera, values in found:
                gauge.add_metric([camera], number_of(values.get(name)))
            yield gauge
        up = GaugeMetricFamily(
            "stream_cam_source_up", "1 while the source gives frames, else 0.", labels=_LABELS
        )
        for camera, values in found:
            up.add_metric([camera], float(values["state"] == "live"))
        yield up
        yield from self._shared()

    def _shared(self) -> Iterator[Metric]:
        shared = self._cameras.shared
        yield CounterMetricFamily(
            "stream_cam_network_busy_seconds",
            "Time that the shared network was at work.",
            value=shared.busy_seconds,
        )
        batches = CounterMetricFamily(
            "stream_cam_network_batches", "Batches of each size.", labels=("size",)
        )
        for size, count in dict(shared.batches).items():
            batches.add_metric([str(size)], float(count))
        yield batches
        yield CounterMetricFamily(
            "stream_cam_refused",
            "Requests without the token, under a foreign name or from a foreign page.",
            value=float(self._access.refused),
        )
        yield InfoMetricFamily("stream_cam", "The run.", value={"version": __version__})
