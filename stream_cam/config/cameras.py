"""Many cameras in one process: how they share the network and the wall."""

from __future__ import annotations

import re
from dataclasses import dataclass

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
