"""Whole video files through `run`, beside each of its stages alone.

The stages of a run work at once, so its throughput is held against its slowest stage alone, and
against what the cores allow that all stages share.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from time import process_time
from typing import Any, TypeVar

from stream_cam.bench.clock import HostClock
from stream_cam.config import CaptureConfig, LookConfig, ModelConfig, PipelineConfig, RunConfig
from stream_cam.explain import Explainer
from stream_cam.processor import usable_cores
from stream_cam.render import Renderer
from stream_cam.report import Report
from stream_cam.session import parallel_frames, run_session
from stream_cam.sinks import Picture, StreamInfo, open_sink
from stream_cam.sources import open_source

T = TypeVar("T")


def file_throughput(video: Path | None, size: str, weights: str) -> dict[str, Any]:
    """Frames a second of `run` on a file, and of each of its stages by itself.

    Args:
        video: default: 10 s of drawn scenes at 30 frames a second.
        size: width x height of these.

    Returns:
        video, frames, alone (by stage: fps and core_ms, milliseconds of one core a frame), slowest,
        run_fps, of_slowest, cores_allow_fps, of_what_cores_allow.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if video is None:
            video = folder / "made.mp4"
            write_scenes(video, size, seconds=10)
        alone = _stages_alone(video, folder / "encoded.mp4", weights)
        report = _run(str(video), folder / "annotated.mp4", weights)
    slowest = min(alone, key=lambda name: alone[name]["fps"])
    core_ms = sum(stage["core_ms"] for stage in alone.values())
    cores_allow = 1e3 * usable_cores() / core_ms
    return {
        "video": video.name,
        "frames": report.rendered,
        "alone": alone,
        "slowest": slowest,
        "run_fps": report.fps,
        "of_slowest": report.fps / alone[slowest]["fps"],
        "cores_allow_fps": cores_allow,
        "of_what_cores_allow": report.fps / cores_allow,
    }


def write_scenes(video: Path, size: str, seconds: float, fps: int = 30) -> None:
    """Drawn scenes as H.264, with nothing laid over them."""
    look = LookConfig(hud=False, alpha=0.0)
    config = PipelineConfig(look=look, run=RunConfig(quiet=True))
    _run(f"demo://shapes?size={size}&fps={fps}&seconds={seconds:g}", video, "demo", config)


def print_file(file: dict[str, Any], n_cores: int) -> None:
    """What `file_throughput` found, on stdout."""
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    table = Table(title=f"{file['video']}, {file['frames']} frames")
    for column in ("", "frames/s", "ms of a core"):
        table.add_column(column, justify="left" if not column else "right")
    for name, stage in file["alone"].items():
        table.add_row(f"{name} alone", f"{stage['fps']:.1f}", f"{stage['core_ms']:.1f}")
    table.add_row("run, all at once", f"{file['run_fps']:.1f}", "")
    console.print(table)
    console.print(
        f"run reaches {file['of_slowest']:.0%} of its slowest stage ({file['slowest']}), and "
        f"{file['of_what_cores_allow']:.0%} of the {file['cores_allow_fps']:.1f} frames/s that "
        f"{n_cores} cores allow for all stages together"
    )


def _stages_alone(video: Path, encoded: Path, weights: str) -> dict[str, dict[str, float]]:
    """Figures of decoding, explaining, rendering, encoding; each with nothing beside it."""
    with open_source(str(video), CaptureConfig()) as source:
        frames, decode = _timed(lambda: list(source))
        stream = StreamInfo(fps=source.info.fps, still=False, live=False)
        parallel = parallel_frames(source.info, live=False)
    explainer = Explainer.load("resnet18", weights=weights, parallel=parallel)
    renderer = Renderer(explainer)
    with ThreadPoolExecutor(parallel) as pool:
        list(pool.map(explainer.explain, frames[:10]))
        explanations, explain = _timed(lambda: list(pool.map(explainer.explain, frames)))
    pairs = list(zip(frames, explanations, strict=True))
    images, render = _timed(lambda: [renderer.render(*pair) for pair in pairs])

    def write() -> None:
        with open_sink(str(encoded), stream, overwrite=True) as sink:
            for image, (frame, explanation) in zip(images, pairs, strict=True):
                sink.write(Picture(image, frame, explanation))

    _, encode = _timed(write)
    seconds = {"decode": decode, "explain": explain, "render": render, "encode": encode}
    return {
        name: {"fps": len(frames) / wall, "core_ms": cpu * 1e3 / len(frames)}
        for name, (wall, cpu) in seconds.items()
    }


def _timed(call: Callable[[], T]) -> tuple[T, tuple[float, float]]:
    """What a call returns, and its seconds: of the host's clock, and of all cores together."""
    returned: list[T] = []
    cpu = process_time()
    wall_ms = HostClock().time_ms(lambda: returned.append(call()))
    return returned[0], (wall_ms / 1e3, process_time() - cpu)


def _run(source: str, output: Path, weights: str, config: PipelineConfig | None = None) -> Report:
    config = config or PipelineConfig(run=RunConfig(quiet=True))
    config = replace(config, model=ModelConfig(weights=weights))
    return run_session(source, [str(output)], config)
