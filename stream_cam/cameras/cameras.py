"""All cameras of a process: they come, change and go while the others run on."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from stream_cam.cameras.camera import Camera, FrameCounts
from stream_cam.cameras.camera_config import CameraConfig
from stream_cam.closing import Closeable
from stream_cam.config import ModelConfig
from stream_cam.errors import UsageError, unknown_name
from stream_cam.uri import redact_uri

if TYPE_CHECKING:
    from stream_cam.explain.shared import SharedExplainer

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Changes:
    """The names of cameras that a new list has added, changed and removed."""

    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()

    def __str__(self) -> str:
        parts = [
            f"{one.name} {', '.join(getattr(self, one.name))}"
            for one in fields(self)
            if getattr(self, one.name)
        ]
        return "; ".join(parts) or "nothing changed"


class Cameras(Closeable):
    """The cameras of one process, by name; every method from any thread.

        with Cameras(shared) as cameras:
            cameras.add(CameraConfig("door", "rtsp://…", PipelineConfig()))

    Args:
        shared: explains the frames of all.
        on_change: called after cameras came or went, on the changing thread.
    """

    def __init__(
        self, shared: SharedExplainer, on_change: Callable[[], None] = lambda: None
    ) -> None:
        self.shared = shared
        self.on_change = on_change
        self._cameras: dict[str, Camera] = {}
        self._gone = FrameCounts()
        """Of cameras that were removed."""
        self._changing = threading.Lock()
        self._stopped = threading.Event()

    def __len__(self) -> int:
        return len(self._cameras)

    @property
    def all(self) -> tuple[Camera, ...]:
        """In the order in which they came."""
        return tuple(self._cameras.values())

    def camera(self, name: str) -> Camera:
        """Raises UsageError if there is none of this name."""
        try:
            return self._cameras[name]
        except KeyError:
            raise unknown_name("camera", name, self._cameras) from None

    def add(self, config: CameraConfig) -> Camera:
        """Starts a camera.

        Raises:
            UsageError: there is one of this name already.
        """
        with self._changing:
            if config.name in self._cameras:
                raise UsageError(f"there is a camera {config.name} already; give another name")
            camera = self._start(config)
        self.on_change()
        return camera

    def remove(self, name: str) -> None:
        """Ends a camera; its files are finished when this returns.

        Raises:
            UsageError: there is none of this name.
        """
        camera = self.camera(name)
        with self._changing:
            self._end([camera])
        self.on_change()

    def apply(self, configs: Iterable[CameraConfig]) -> Changes:
        """Makes these the cameras; those that did not change are not touched."""
        wanted = {config.name: config for config in configs}
        with self._changing:
            running = {camera.name: camera for camera in self.all}
            removed = [name for name in running if name not in wanted]
            changed = [
                name
                for name, config in wanted.items()
                if name in running and running[name].config != config
            ]
            added = [name for name in wanted if name not in running]
            self._end([running[name] for name in (*removed, *changed)])
            for name in (*changed, *added):
                self._start(wanted[name], again=name in changed)
            self._cameras = {name: self._cameras[name] for name in wanted}
        self.on_change()
        return Changes(tuple(added), tuple(changed), tuple(removed))

    def stop(self, reason: str = "stopped") -> None:
        """Asks all for their end and returns at once."""
        self._stopped.set()
        for camera in self.all:
            camera.stop(reason)

    @property
    def stopped(self) -> threading.Event:
        """Set by `stop`."""
        return self._stopped

    @property
    def running(self) -> bool:
        """Whether any camera may still give a picture."""
        return any(camera.running for camera in self.all)

    @property
    def counts(self) -> FrameCounts:
        """Of all cameras, those that were removed included."""
        return sum((camera.counts for camera in self.all), self._gone)

    def stats(self) -> dict[str, object]:
        """Plain values for `/cameras.json`."""
        shared = self.shared
        total = self.counts
        return {
            "cameras": [camera.stats() for camera in self.all],
            "total": {one.name: getattr(total, one.name) for one in fields(total)},
            "network": {
                "model": shared.explainer.model_name,
                "weights": shared.explainer.weights.name,
                "explained": shared.explained,
                "busy_seconds": round(shared.busy_seconds, 3),
                "batches": dict(shared.batches),
                "cost_ms": {
                    size: round(1e3 * shared.costs.seconds(size), 2) for size in shared.costs.sizes
                },
            },
        }

    def close(self) -> None:
        """Ends all cameras at once, and waits until their files are finished."""
        self.stop()
        with self._changing:
            self._end(self.all, keep=True)

    def _start(self, config: CameraConfig, *, again: bool = False) -> Camera:
        camera = Camera(config, self.shared)
        camera.runs = int(again)  # its files are there already
        self._cameras[config.name] = camera
        if not self._stopped.is_set():
            camera.start()
        return camera

    def _end(self, cameras: Iterable[Camera], *, keep: bool = False) -> None:
        listed = list(cameras)
        for camera in listed:
            camera.stop()
        with ThreadPoolExecutor(max(1, len(listed))) as pool:
            list(pool.map(Camera.close, listed))
        if keep:
            return
        for camera in listed:
            self._gone += camera.counts
            del self._cameras[camera.name]


def shared_model(model: ModelConfig, configs: Iterable[CameraConfig]) -> ModelConfig:
    """The network for all cameras: `auto` weights are the demo's if every source is drawn."""
    sources = [redact_uri(config.source) for config in configs]
    other = next((uri for uri in sources if not uri.startswith("demo://shapes")), None)
    return model.for_source(other or (sources[0] if sources else ""))
