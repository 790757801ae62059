"""One camera: its name, its source and all its options."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from stream_cam.config import CameraShare, PipelineConfig
from stream_cam.config.cameras import check_camera_name


@dataclass(frozen=True)
class CameraConfig:
    """One camera with all its options; two equal ones are the same camera, unchanged."""

    name: str
    source: str
    """Its URI, as on the command line."""
    pipeline: PipelineConfig
    """`model` holds only its targets: the network is shared."""
    sink: tuple[str, ...] = ()
    """Its own outputs; {name} is its name."""
    share: CameraShare = field(default_factory=CameraShare)

    def __post_init__(self) -> None:
        check_camera_name(self.name)

    def named(self) -> CameraConfig:
        """With its name in the place of each {name}."""
        record, run = self.pipeline.record, self.pipeline.run
        names = ("predictions", "cams", "timeline", "sheet")
        paths: dict[str, Any] = {name: self._named_path(getattr(record, name)) for name in names}
        pipeline = replace(
            self.pipeline,
            record=replace(record, **paths),
            run=replace(run, report=self._named_path(run.report)),
        )
        sink = tuple(uri.replace("{name}", self.name) for uri in self.sink)
        return replace(self, pipeline=pipeline, sink=sink)

    def _named_path(self, path: Path | None) -> Path | None:
        return None if path is None else Path(str(path).replace("{name}", self.name))
