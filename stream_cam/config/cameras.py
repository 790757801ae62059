"""Many cameras in one process: what each of them is, and how they share the network."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stream_cam.config import PipelineConfig

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


def check_camera_name(name: str) -> str:
    """The name, which is a part of file names and of URLs.

    Raises:
        ValueError: it is none.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"a camera's name is up to 64 letters, digits, - _ and ., got {name[:80]!r}"
        )
    return name


@dataclass(frozen=True)
class CamerasConfig:
    """How many cameras share one network and one wall."""

    limit_ms: float = 250.0
    """Frames form a batch only while each is explained within this time of its capture, in ms."""
    wall_fps: float = 10.0
    """Pictures a second of a tile on the wall, at most."""
    reload: bool = True
    """Read the file again when it changes. SIGUSR1 does so as well, with --no-reload too."""

    def __post_init__(self) -> None:
        for name in ("limit_ms", "wall_fps"):
            if not getattr(self, name) > 0.0:
                raise ValueError(
                    f"--{name.replace('_', '-')} is a number above 0, got {getattr(self, name):g}"
                )


@dataclass(frozen=True)
class CameraShare:
    """The camera's share of the network."""

    weight: float = 1.0
    """Share of the network under overload, relative to the other cameras'."""
    rate: float | None = None
    """Explained frames a second, at most; default: as many as the share allows."""

    def __post_init__(self) -> None:
        if not 0.0 < self.weight < 1e6:
            raise ValueError(f"--weight is a number above 0, got {self.weight:g}")
        if self.rate is not None and not self.rate > 0.0:
            raise ValueError(f"--rate is a number of frames a second above 0, got {self.rate:g}")


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
