"""Whole video files through `run`, beside each of its stages alone.

The stages of a run work at once. So its throughput is compared with its slowest stage alone, and
with the rate that the shared cores allow.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from time import process_time
from typing import Any, TypeVar

import numpy as np

from stream_cam.bench.result import percentile
from stream_cam.bench.timing import HostTimer
from stream_cam.config import CaptureConfig, LookConfig, ModelConfig, PipelineConfig, RunConfig
from stream_cam.draw.renderer import Renderer
from stream_cam.explain.explainer import Explainer
from stream_cam.frame import Explanation, Frame
from stream_cam.host import usable_cores
from stream_cam.pipeline.report import Report
from stream_cam.pipeline.session import parallel_frames, run_session
from stream_cam.settings import SettingsSnapshot
from stream_cam.sinks import Picture, StreamInfo, open_sink
from stream_cam.sources import open_source
from stream_cam.uri import redact_uri

T = TypeVar("T")


def file_throughput(
    video: Path | str, model: ModelConfig, most_frames: int | None
) -> dict[str, Any]:
    """Frames a second of `run` on a file, and of each of its stages by itself.

    Args:
        most_frames: of a longer file, its first ones.

    Returns:
        video, frames, engine, parallel (frames explained at once), alone (by stage: fps and
        core_ms, milliseconds of one core a frame), explain_p50_ms (of one frame, while others are
        explained beside it), slowest, run_fps, of_slowest, n_cores, cores_allow_fps,
        of_what_cores_allow.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found = _stages_alone(str(video), folder / "encoded.mp4", model, most_frames)
        report = _run(str(video), folder / "annotated.mp4", model, most_frames)
    alone: dict[str, dict[str, float]] = found["alone"]
    slowest = min(alone, key=lambda name: alone[name]["fps"])
    core_ms = sum(stage["core_ms"] for stage in alone.values())
    cores_allow = 1e3 * usable_cores() / core_ms
    return {
        "video": Path(redact_uri(str(video))).name,
        "frames": report.rendered,
        **found,
        "slowest": slowest,
        "run_fps": report.fps,
        "of_slowest": report.fps / alone[slowest]["fps"],
        "n_cores": usable_cores(),
        "cores_allow_fps": cores_allow,
        "of_what_cores_allow": report.fps / cores_allow,
    }


def write_scenes(video: Path, size: str, seconds: float, fps: int = 30) -> None:
    """Encodes drawn scenes as H.264, without HUD or heatmap."""
    source = f"demo://shapes?size={size}&fps={fps}&seconds={seconds:g}"
    _run(source, video, ModelConfig(weights="demo"), look=LookConfig(hud=False, alpha=0.0))


def _stages_alone(
    video: str, encoded: Path, model: ModelConfig, most_frames: int | None
) -> dict[str, Any]:
    """Figures of decoding, explaining, rendering and encoding, each run alone."""
    with open_source(video, CaptureConfig()) as source:
        frames, decode = _time_call(lambda: list(islice(source, most_frames)))
        stream = StreamInfo(fps=source.info.fps, still=source.info.still, live=False)
        parallel = parallel_frames(source.info, live=False)
    explainer = Explainer.from_config(model, parallel=parallel)
    info = explainer.engine_info
    renderer, settings = Renderer(len(explainer.labels)), SettingsSnapshot()
    taken_ms: list[float] = []

    def explained(frame: Frame) -> Explanation:
        made: list[Explanation] = []
        taken_ms.append(HostTimer().time_ms(lambda: made.append(explainer.explain(frame))))
        return made[0]

    with ThreadPoolExecutor(parallel) as pool:
        list(pool.map(explainer.explain, frames[:10]))
        explanations, explain = _time_call(lambda: list(pool.map(explained, frames)))
    pairs = list(zip(frames, explanations, strict=True))
    images, render = _time_call(lambda: [renderer.render(*pair, settings) for pair in pairs])

    def write() -> None:
        with open_sink(str(encoded), stream, overwrite=True) as sink:
            for image, (frame, explanation) in zip(images, pairs, strict=True):
                sink.write(Picture(image, frame, explanation))

    _, encode = _time_call(write)
    seconds = {"decode": decode, "explain": explain, "render": render, "encode": encode}
    return {
        "engine": "" if info is None else f"{info.name} {info.precision} on {info.device}",
        "parallel": parallel,
        "explain_p50_ms": percentile(np.array(taken_ms), 50),
        "alone": {
            name: {"fps": len(frames) / wall, "core_ms": cpu * 1e3 / len(frames)}
            for name, (wall, cpu) in seconds.items()
        },
    }


def _time_call(call: Callable[[], T]) -> tuple[T, tuple[float, float]]:
    """The result of a call, its wall-clock seconds, and its seconds of all cores together."""
    returned: list[T] = []
    cpu = process_time()
    wall_ms = HostTimer().time_ms(lambda: returned.append(call()))
    return returned[0], (wall_ms / 1e3, process_time() - cpu)


def _run(
    source: str,
    output: Path,
    model: ModelConfig,
    limit: int | None = None,
    look: LookConfig | None = None,
) -> Report:
    run = RunConfig(quiet=True, limit=limit)
    return run_session(source, [str(output)], PipelineConfig(model, look or LookConfig(), run))
