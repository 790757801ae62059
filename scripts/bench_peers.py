"""stream-cam beside pytorch-grad-cam and torch-cam: same frames, network, weights and process.

The region timed is a decoded frame in (H, W, 3) uint8 to a full-size picture with the map on it:
preprocessing, network, map, colours, blend. The three take turns frame by frame, so that whatever
else the machine does meets them all. The second table runs whole video files through `stream-cam
run`'s pipeline and compares its throughput with what its slowest stage alone allows, and with what
the cores allow that all stages share.

    python scripts/bench_peers.py [--frames 60] [--size 1280x720] [--video F …] [--json F]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from stream_cam.config import (
    CaptureConfig,
    EngineName,
    LookConfig,
    ModelConfig,
    PipelineConfig,
    Precision,
    RunConfig,
)
from stream_cam.explain import Explainer
from stream_cam.frame import BgrImage
from stream_cam.model import build_network, load_parameters
from stream_cam.render import Renderer
from stream_cam.report import Report, versions
from stream_cam.session import parallel_frames, run_session
from stream_cam.sinks import Picture, StreamInfo, open_sink
from stream_cam.sources import open_source
from stream_cam.weights import load_weights

Explain = Callable[[BgrImage], BgrImage]

WEIGHTS = "demo"


def main() -> None:
    options = _options()
    frames = _frames(options.size, options.frames)
    contenders: dict[str, Explain] = {
        "pytorch-grad-cam": grad_cam(),
        "torch-cam": torch_cam(),
        "stream-cam (eager)": ours("eager"),
        "stream-cam": ours("openvino"),
    }
    if "BF16" in core_can():
        contenders["stream-cam (bf16)"] = ours("openvino", "bf16")
    samples = measure(contenders, frames)
    result = {
        "machine": _machine(),
        "frame": options.size,
        "frames": options.frames,
        "per_frame_ms": {name: _percentiles(values) for name, values in samples.items()},
        "files": [file_throughput(video, options.size) for video in [None, *options.video]],
    }
    _print(result)
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def measure(contenders: dict[str, Explain], frames: list[BgrImage]) -> dict[str, list[float]]:
    """Milliseconds a frame of each contender, in turns, after five frames of warming up."""
    samples: dict[str, list[float]] = {name: [] for name in contenders}
    for number, frame in enumerate(frames[:5] + frames):
        for name, explain in contenders.items():
            started = time.perf_counter()
            picture = explain(frame)
            elapsed = time.perf_counter() - started
            if picture.shape != frame.shape or picture.dtype != np.uint8:
                raise RuntimeError(f"{name} gave {picture.shape} {picture.dtype}")
            if number >= 5:
                samples[name].append(elapsed * 1e3)
    return samples


def ours(engine: EngineName, precision: Precision = "fp32") -> Explain:
    explainer = Explainer.load(
        "resnet18", weights=WEIGHTS, engine=engine, device="cpu", precision=precision
    )

    def explain(frame_bgr: BgrImage) -> BgrImage:
        return explainer.overlay(frame_bgr, explainer.explain(frame_bgr))

    return explain


def _network() -> tuple[nn.Module, Any]:
    weights = load_weights(WEIGHTS, "resnet18")
    module = build_network("resnet18", weights.n_classes)
    load_parameters(module, weights.state_dict, weights.name)
    return module.eval(), weights


def grad_cam() -> Explain:
    """As its README shows: preprocess_image, GradCAM, show_cam_on_image."""
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.image import preprocess_image, show_cam_on_image

    module, weights = _network()
    extractor = GradCAM(model=module, target_layers=[module.layer4[-1]])  # type: ignore[index]

    def explain(frame_bgr: BgrImage) -> BgrImage:
        rgb = cv2.cvtColor(frame_bgr, cv2.COLOR_BGR2RGB)
        small = cv2.resize(rgb, (224, 224)).astype(np.float32) / 255.0
        batch = preprocess_image(small, mean=list(weights.mean), std=list(weights.std))
        grayscale = extractor(input_tensor=batch, targets=None)[0]
        full = cv2.resize(grayscale, (rgb.shape[1], rgb.shape[0]))
        picture = show_cam_on_image(rgb.astype(np.float32) / 255.0, full, use_rgb=True)
        return np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), np.uint8)

    return explain


def torch_cam() -> Explain:
    """As its README shows: CAM in a context, to_pil_image, overlay_mask."""
    from PIL import Image
    from torchcam.methods import CAM
    from torchcam.utils import overlay_mask
    from torchvision.transforms.v2.functional import normalize, resize, to_pil_image

    module, weights = _network()
    extractor = CAM(module, target_layer="layer4")

    def explain(frame_bgr: BgrImage) -> BgrImage:
        rgb = cv2.cvtColor(frame_bgr, cv2.COLOR_BGR2RGB)
        image = torch.from_numpy(rgb).permute(2, 0, 1)
        batch = normalize(
            resize(image, [224, 224]).float() / 255.0, list(weights.mean), list(weights.std)
        )
        with torch.no_grad():
            scores = module(batch[None])
            cam = extractor(int(scores.argmax()), scores)[0]
        mask = to_pil_image(cam[0], mode="F")
        picture = overlay_mask(Image.fromarray(rgb), mask, alpha=0.6)
        return np.asarray(cv2.cvtColor(np.asarray(picture), cv2.COLOR_RGB2BGR), np.uint8)

    return explain


def file_throughput(video: Path | None, size: str) -> dict[str, Any]:
    """Frames a second of `run` on a file, and of each of its stages by itself."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if video is None:
            video = folder / "made.mp4"
            config = PipelineConfig(
                look=LookConfig(hud=False, alpha=0.0), run=RunConfig(quiet=True)
            )
            _run(f"demo://shapes?size={size}&fps=30&seconds=10", video, config)
        alone = stages_alone(video, folder / "encoded.mp4")
        report = _run(str(video), folder / "annotated.mp4")
    slowest = min(alone, key=lambda name: alone[name]["fps"])
    core_ms = sum(stage["core_ms"] for stage in alone.values())
    cores_allow = 1e3 * len(os.sched_getaffinity(0)) / core_ms
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


class Stage:
    """Times what happens in its `with` block."""

    def __enter__(self) -> Stage:
        self._wall, self._cpu = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self._wall = time.perf_counter() - self._wall
        self._cpu = time.process_time() - self._cpu

    def figures(self, n_frames: int) -> dict[str, float]:
        """Frames a second, and milliseconds of one core a frame."""
        return {"fps": n_frames / self._wall, "core_ms": self._cpu * 1e3 / n_frames}


def stages_alone(video: Path, encoded: Path) -> dict[str, dict[str, float]]:
    """Figures of decoding, explaining, rendering, encoding; each with nothing beside it."""
    with open_source(str(video), CaptureConfig()) as source:
        with Stage() as decode:
            frames = list(source)
        stream = StreamInfo(fps=source.info.fps, still=False, live=False)
        parallel = parallel_frames(source.info, live=False)
    explainer = Explainer.load("resnet18", weights=WEIGHTS, parallel=parallel)
    renderer = Renderer(explainer)
    with ThreadPoolExecutor(parallel) as pool:
        list(pool.map(explainer.explain, frames[:10]))
        with Stage() as explain:
            explanations = list(pool.map(explainer.explain, frames))
    with Stage() as render:
        images = [renderer.render(*pair) for pair in zip(frames, explanations, strict=True)]
    with Stage() as encode, open_sink(str(encoded), stream, overwrite=True) as sink:
        for image, frame, explanation in zip(images, frames, explanations, strict=True):
            sink.write(Picture(image, frame, explanation))
    stages = {"decode": decode, "explain": explain, "render": render, "encode": encode}
    return {name: stage.figures(len(frames)) for name, stage in stages.items()}


def _run(source: str, output: Path, config: PipelineConfig | None = None) -> Report:
    config = config or PipelineConfig(run=RunConfig(quiet=True))
    config = replace(config, model=ModelConfig(weights=WEIGHTS))
    return run_session(source, [str(output)], config)


def _frames(size: str, n_frames: int) -> list[BgrImage]:
    uri = f"demo://shapes?size={size}&fps=5&seconds={n_frames / 5}"
    with open_source(uri, CaptureConfig()) as source:
        return [frame.image_bgr.copy() for frame in source]


def _machine() -> dict[str, Any]:
    return {
        "processor": core_name(),
        "cores": len(os.sched_getaffinity(0)),
        "system": platform.platform(),
        **versions(("torch", "torchvision", "openvino", "grad-cam", "torchcam")),
    }


def core_name() -> str:
    import openvino

    return str(openvino.Core().get_property("CPU", "FULL_DEVICE_NAME"))


def core_can() -> list[str]:
    import openvino

    return list(openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))


def _percentiles(values: list[float]) -> dict[str, float]:
    p50, p95 = np.percentile(values, [50, 95])
    return {"p50": float(p50), "p95": float(p95)}


def _print(result: dict[str, Any]) -> None:
    console = Console()
    machine = result["machine"]
    console.print(f"{machine['processor']}, {machine['cores']} cores, torch {machine['torch']}")
    table = Table(title=f"decoded {result['frame']} frame to full-size picture, ResNet18")
    for column in ("", "p50 ms", "p95 ms", "× stream-cam"):
        table.add_column(column, justify="left" if not column else "right")
    best = result["per_frame_ms"]["stream-cam"]["p50"]
    for name, times in result["per_frame_ms"].items():
        table.add_row(
            name, f"{times['p50']:.1f}", f"{times['p95']:.1f}", f"{times['p50'] / best:.2f}"
        )
    console.print(table)
    for file in result["files"]:
        _print_file(console, file, machine["cores"])


def _print_file(console: Console, file: dict[str, Any], n_cores: int) -> None:
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


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--frames", type=int, default=60, help="frames a contender is timed on")
    parser.add_argument("--size", default="1280x720", help="width x height of the frames")
    parser.add_argument(
        "--video", type=Path, nargs="*", default=[], help="further files for the throughput"
    )
    parser.add_argument("--json", type=Path, help="write the figures here")
    return parser.parse_args()


if __name__ == "__main__":
    main()
