"""Shows, live, which part of a video a convolutional network looks at.

    from stream_cam import Explainer, draw_overlay
    explainer = Explainer.load("resnet18", weights="demo")
    explanation = explainer.explain(frame_bgr)
    picture_bgr = draw_overlay(frame_bgr, explanation)

Names are imported when they are first used: `import stream_cam` alone costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from stream_cam import import_order
from stream_cam._version import __version__

if TYPE_CHECKING:
    from stream_cam.cam.steady import SteadyMaps
    from stream_cam.config import (
        CaptureConfig,
        LookConfig,
        ModelConfig,
        PipelineConfig,
        RecordConfig,
        RunConfig,
        WebConfig,
    )
    from stream_cam.draw.overlay import draw_heatmap, draw_overlay
    from stream_cam.draw.renderer import Renderer
    from stream_cam.errors import (
        EngineError,
        ModelError,
        NoCamError,
        OutputExistsError,
        SinkError,
        SourceError,
        SourceNotFoundError,
        StreamCamError,
        UsageError,
        WeightsError,
    )
    from stream_cam.explain.explainer import Explainer
    from stream_cam.frame import Explanation, Features, Frame, Prediction, Region, Truth
    from stream_cam.model.camnet import CamNet
    from stream_cam.pipeline.pipeline import Pipeline
    from stream_cam.pipeline.report import Report
    from stream_cam.pipeline.serve import Served, serve
    from stream_cam.settings import Settings, SettingsSnapshot
    from stream_cam.sinks import open_sink
    from stream_cam.sinks.base import Picture, Sink, StreamInfo
    from stream_cam.sources import open_source
    from stream_cam.sources.base import Source, SourceInfo

import_order.install()

_HOMES = {
    "stream_cam.cam.steady": ("SteadyMaps",),
    "stream_cam.config": (
        "CaptureConfig", "LookConfig", "ModelConfig", "PipelineConfig", "RecordConfig", "RunConfig",
        "WebConfig",
    ),
    "stream_cam.errors": (
        "EngineError", "ModelError", "NoCamError", "OutputExistsError", "SinkError", "SourceError",
        "SourceNotFoundError", "StreamCamError", "UsageError", "WeightsError",
    ),
    "stream_cam.explain.explainer": ("Explainer",),
    "stream_cam.frame": ("Explanation", "Features", "Frame", "Prediction", "Region", "Truth"),
    "stream_cam.model.camnet": ("CamNet",),
    "stream_cam.pipeline.pipeline": ("Pipeline",),
    "stream_cam.draw.overlay": ("draw_heatmap", "draw_overlay"),
    "stream_cam.draw.renderer": ("Renderer",),
    "stream_cam.pipeline.report": ("Report",),
    "stream_cam.pipeline.serve": ("Served", "serve"),
    "stream_cam.settings": ("Settings", "SettingsSnapshot"),
    "stream_cam.sinks": ("open_sink",),
    "stream_cam.sinks.base": ("Picture", "Sink", "StreamInfo"),
    "stream_cam.sources": ("open_source",),
    "stream_cam.sources.base": ("Source", "SourceInfo"),
}  # fmt: skip
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "CamNet",
    "CaptureConfig",
    "EngineError",
    "Explainer",
    "Explanation",
    "Features",
    "Frame",
    "LookConfig",
    "ModelConfig",
    "ModelError",
    "NoCamError",
    "OutputExistsError",
    "Picture",
    "Pipeline",
    "PipelineConfig",
    "Prediction",
    "RecordConfig",
    "Region",
    "Renderer",
    "Report",
    "RunConfig",
    "Served",
    "Settings",
    "SettingsSnapshot",
    "Sink",
    "SinkError",
    "Source",
    "SourceError",
    "SourceInfo",
    "SourceNotFoundError",
    "SteadyMaps",
    "StreamCamError",
    "StreamInfo",
    "Truth",
    "UsageError",
    "WebConfig",
    "WeightsError",
    "__version__",
    "draw_heatmap",
    "draw_overlay",
    "open_sink",
    "open_source",
    "serve",
]


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'stream_cam' has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
