"""`stream-cam demo`: drawn shapes, scored against the ground truth, photographs, or a wall."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from stream_cam.cli.options import CamerasCommand, DemoCommand
from stream_cam.cli.progress import progress_on_terminal
from stream_cam.cli.signals import Signals
from stream_cam.cli.summary import print_links, print_summary
from stream_cam.config import ModelConfig, PipelineConfig, size_hw
from stream_cam.pipeline.checks import only_watched
from stream_cam.pipeline.session import run_session
from stream_cam.results.sheet import SheetSink
from stream_cam.sinks import check_outputs
from stream_cam.sinks.base import Sink
from stream_cam.sinks.score import TruthScore
from stream_cam.sources.demo.photos import has_photos

_SECONDS = {"shapes": 10.0, "photos": 20.0}
"""How long a demo runs that writes files."""
_FILES = {"shapes": ("demo.mp4", "demo.png"), "photos": ("photos.mp4", "photos.png")}
_PHOTOS_STEP = (
    "  stream-cam demo photos                 the same on photographs, with ImageNet's classes\n"
)
_MODELS = {
    "shapes": ModelConfig(weights="demo"),
    "photos": ModelConfig(model="efficientnet_lite0", weights="imagenet"),
}
_N_MOMENTS = 6
_CAMERAS = {
    "door": (16, 9),
    "hall": (4, 3),
    "yard": (16, 9),
    "lab": (1, 1),
    "gate": (16, 9),
    "roof": (4, 3),
}
"""The cameras of the wall, with the shapes of their pictures."""
_NEXT_STEPS = """
next:
{photos}  stream-cam run 0 --weights demo        draw a shape, hold it before your webcam
  stream-cam demo -o web://              watch it in the browser, and steer it
  stream-cam demo cameras                six cameras on one wall, with one network
  stream-cam run clip.mp4 out.mp4        annotate a video with ImageNet's 1000 classes
  stream-cam doctor                      what this machine can do"""


def demo_command(command: DemoCommand, signals: Signals) -> None:
    """Writes a video and a contact sheet, or shows the demo in the outputs that were asked for.

    If all outputs are windows and pages, the demo runs as a camera does, until it is stopped.
    """
    if command.scene == "cameras":
        _run_cameras(command, signals)
        return
    quiet, score, drawn = command.run.quiet, TruthScore(), command.scene == "shapes"
    extra_sinks: list[Sink] = [score] if drawn else []
    outputs: Sequence[str] = command.sink
    if not outputs:
        video, sheet = _FILES[command.scene]
        outputs = [video]
        check_outputs([video, sheet], overwrite=command.run.overwrite)
        extra_sinks.append(
            SheetSink(Path(sheet), _N_MOMENTS, captions=False, only_with_truth=drawn)
        )
    model = _MODELS[command.scene]
    report = run_session(
        _source_uri(command, watched=only_watched(outputs)),
        outputs,
        PipelineConfig(
            replace(model, engine=command.demo.engine), command.look, command.run, web=command.web
        ),
        extra_sinks=extra_sinks,
        on_open=print_links,
        on_start=lambda pipeline: signals.watch(pipeline.stop),
        on_end=None if quiet else partial(print_summary, sheet=True),
        show_progress=progress_on_terminal,
    )
    if not quiet and not report.live:
        if drawn:
            print(score.summary())
        print(_NEXT_STEPS.format(photos=_PHOTOS_STEP if drawn and has_photos() else ""))


def _run_cameras(command: DemoCommand, signals: Signals) -> None:
    """A wall of six drawn scenes of different shapes and rates, until it is stopped."""
    from stream_cam.cli.cameras import cameras_command

    demo = command.demo
    height, _ = size_hw(demo.size, "--size")
    length = "" if demo.seconds is None else f"&seconds={demo.seconds:g}"
    sources = []
    for number, (name, (numerator, denominator)) in enumerate(_CAMERAS.items()):
        # Half the size and rate of the single demo: six of them share the same cores.
        size = f"{height // 2 * numerator // denominator // 2 * 2}x{height // 2 // 2 * 2}"
        fps = max(1, demo.fps // 2 - number)
        seed = demo.seed + number
        sources.append(f"{name}=demo://shapes?size={size}&fps={fps}&seed={seed}&live=1{length}")
    cameras_command(
        CamerasCommand(
            source=tuple(sources),
            sink=command.sink,
            model=ModelConfig(weights="demo", engine=demo.engine),
            look=command.look,
            run=command.run,
            web=command.web,
        ),
        signals,
    )


def _source_uri(command: DemoCommand, *, watched: bool) -> str:
    """The URI of the scene; a watched one is live and has no end."""
    demo = command.demo
    uri = (
        f"demo://{command.scene}?size={demo.size}&fps={demo.fps}&seed={demo.seed}&live={watched:d}"
    )
    seconds = demo.seconds if demo.seconds is not None or watched else _SECONDS[command.scene]
    return uri if seconds is None else f"{uri}&seconds={seconds:g}"
