"""CamNet compiled for a device: `load_engine` takes the fastest engine that works here."""

from __future__ import annotations

from stream_cam.engine.base import Engine, EngineInfo, HostSession, OnStage, Session
from stream_cam.engine.load import check_buildable, load_engine, open_builder, read_kept_engine
from stream_cam.engine.options import Batch, EngineOptions

__all__ = [
    "Batch",
    "Engine",
    "EngineInfo",
    "EngineOptions",
    "HostSession",
    "OnStage",
    "Session",
    "check_buildable",
    "load_engine",
    "open_builder",
    "read_kept_engine",
]
