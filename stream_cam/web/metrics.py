"""Metrics for Prometheus."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from stream_cam._version import __version__
from stream_cam.uri import printable
from stream_cam.web.access import Access
from stream_cam.web.page_state import PageState

COUNTERS: Final[Mapping[str, str]] = {
    "captured": "Frames taken from the source.",
    "explained": "Frames that the network saw.",
    "superseded": "Frames that a newer one replaced before the network took them.",
    "rendered": "Pictures drawn.",
    "dropped": "Pictures that outputs were too slow for.",
    "encoded": "Pictures encoded for the page.",
    "sent": "Pictures sent to viewers.",
    "skipped": "Pictures that viewers were too slow for.",
}
GAUGES: Final[Mapping[str, str]] = {
    "fps": "Pictures drawn a second, of late.",
    "age_seconds": "How much older than the last frame the explanation on it was.",
    "viewers": "Viewers of the page.",
}


class Metrics(Collector):
    """Reads the run's statistics when Prometheus asks for them."""

    def __init__(self, page_state: PageState, access: Access) -> None:
        self._page_state = page_state
        self._access = access
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def text(self) -> bytes:
        """The metrics in Prometheus' text format 0.0.4."""
        return bytes(generate_latest(self._registry))

    def collect(self) -> Iterator[Metric]:
        values = self._page_state.statistics()
        for name, text in COUNTERS.items():
            yield CounterMetricFamily(f"stream_cam_{name}", text, value=number_of(values.get(name)))
        for name, text in GAUGES.items():
            yield GaugeMetricFamily(f"stream_cam_{name}", text, value=number_of(values.get(name)))
        yield GaugeMetricFamily(
            "stream_cam_source_up",
            "1 while the source gives frames, 0 while it is away.",
            value=float(values.get("away") is None and values["waiting"] is None),
        )
        yield CounterMetricFamily(
            "stream_cam_refused",
            "Requests without the token, under a foreign name or from a foreign page.",
            value=float(self._access.refused),
        )
        about = {"version": __version__, "source": printable(self._page_state.source)}
        yield InfoMetricFamily("stream_cam", "The run.", value=about)


def number_of(value: object) -> float:
    """A statistic as Prometheus wants it; 0 for one that is not there yet."""
    return float(value) if isinstance(value, int | float) else 0.0
