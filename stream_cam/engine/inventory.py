"""The engines in the store, and which of them can serve this machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Literal

from stream_cam.engine.machine import Machine
from stream_cam.engine.manifest import EngineKey, Manifest, difference
from stream_cam.engine.store import (
    EngineStore,
    UnusableEngineError,
    folder_bytes,
    read_blob,
    read_manifest,
)
from stream_cam.errors import EngineError

EngineStatus = Literal["usable", "outdated", "damaged", "foreign"]

MachinesOf = Callable[[str], list[Machine]]
"""A backend's name → this machine, once for each device that its engines may be for; raises
EngineError where it does not work."""


@dataclass(frozen=True)
class StoredEngine:
    """One folder of the store."""

    path: Path
    status: EngineStatus
    """usable here; outdated: made by other versions; damaged; foreign: of another machine, or
    under another engine's name."""
    why: str
    """Why it is not usable; empty if it is."""
    size_bytes: int
    manifest: Manifest | None
    """None if it cannot be read."""


def list_engines(store: EngineStore, machines_of: MachinesOf) -> list[StoredEngine]:
    """All stored engines, each checked to the last byte.

    Args:
        machines_of: `backends.machines_for`.
    """
    machines_of = lru_cache(maxsize=None)(machines_of)
    return [_check_engine(path, store, machines_of) for path in store.entries()]


def prune(
    store: EngineStore, kept: list[StoredEngine], machines_of: MachinesOf
) -> tuple[list[StoredEngine], int]:
    """Removes the engines that are not usable here, and the files of killed builders.

    Args:
        machines_of: as in `list_engines`; each engine is checked again before it goes.

    Returns:
        The engines removed, and how many bytes were freed in all.
    """

    def is_useless(engine: StoredEngine) -> bool:
        return _check_engine(engine.path, store, machines_of).status != "usable"

    removed = [
        engine
        for engine in kept
        if engine.status != "usable" and store.remove(engine.path, partial(is_useless, engine))
    ]
    return removed, sum(engine.size_bytes for engine in removed) + store.remove_left_overs()


def _check_engine(path: Path, store: EngineStore, machines_of: MachinesOf) -> StoredEngine:
    size_bytes = folder_bytes(path)
    try:
        manifest = read_manifest(path)
    except UnusableEngineError as error:
        return StoredEngine(path, error.kind, str(error), size_bytes, None)
    status, why = _status(path, manifest, store, machines_of)
    return StoredEngine(path, status, why, size_bytes, manifest)


def _status(
    path: Path, manifest: Manifest, store: EngineStore, machines_of: MachinesOf
) -> tuple[EngineStatus, str]:
    key = manifest.key
    try:
        if store.path(key).name != path.name:
            return "foreign", "its manifest is of another engine"
        read_blob(path, manifest)
        return _status_here(key, machines_of(key.backend))
    except UnusableEngineError as error:
        return error.kind, str(error)
    except EngineError as error:
        return "foreign", str(error)


def _status_here(key: EngineKey, machines: list[Machine]) -> tuple[EngineStatus, str]:
    for versions, hardware in machines:
        if key.hardware == hardware:
            same = key.versions == versions
            return ("usable", "") if same else ("outdated", difference(key.versions, versions))
    return "foreign", f"another machine: {difference(key.hardware, machines[0][1])}"
