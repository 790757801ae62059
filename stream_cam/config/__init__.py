"""Every option of a run and its default, once; the command line is made of these classes.

The docstring below a field is its help text. tyro keeps its line breaks: one statement a line.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from stream_cam.config.bench import BenchConfig
from stream_cam.config.cameras import CamerasConfig, CameraShare
from stream_cam.config.capture import CaptureConfig, Deinterlace
from stream_cam.config.cluster import ClusterConfig
from stream_cam.config.look import (
    AlphaMode,
    Colormap,
    LayoutName,
    LookConfig,
    ScaleName,
    SyncName,
    Upsampling,
)
from stream_cam.config.model import (
    FITS,
    N_PREDICTIONS,
    Activation,
    Channels,
    Device,
    EngineName,
    Fit,
    InputScale,
    ModelConfig,
    ModuleConfig,
    Precision,
)
from stream_cam.config.record import (
    RESULT_SUFFIXES,
    CodecName,
    OnGap,
    RecordConfig,
    StreamFormat,
)
from stream_cam.config.run import BatchConfig, DemoConfig, RunConfig
from stream_cam.config.values import size_hw
from stream_cam.config.web import WebConfig

__all__ = [
    "FITS",
    "N_PREDICTIONS",
    "RESULT_SUFFIXES",
    "Activation",
    "AlphaMode",
    "BatchConfig",
    "BenchConfig",
    "CameraShare",
    "CamerasConfig",
    "CaptureConfig",
    "Channels",
    "ClusterConfig",
    "CodecName",
    "Colormap",
    "Deinterlace",
    "DemoConfig",
    "Device",
    "EngineName",
    "Fit",
    "InputScale",
    "LayoutName",
    "LookConfig",
    "ModelConfig",
    "ModuleConfig",
    "OnGap",
    "PipelineConfig",
    "Precision",
    "RecordConfig",
    "RunConfig",
    "ScaleName",
    "StreamFormat",
    "SyncName",
    "Upsampling",
    "WebConfig",
    "size_hw",
]


@dataclass(frozen=True)
class PipelineConfig:
    """Everything `stream-cam run` can be told, as one value."""

    model: ModelConfig = field(default_factory=ModelConfig)
    look: LookConfig = field(default_factory=LookConfig)
    run: RunConfig = field(default_factory=RunConfig)
    capture: CaptureConfig = field(default_factory=CaptureConfig)
    record: RecordConfig = field(default_factory=RecordConfig)
    web: WebConfig = field(default_factory=WebConfig)
