"""`stream-cam demo`: drawn shapes, scored against the ground truth."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from stream_cam.cli.options import DemoCommand
from stream_cam.cli.progress import progress_on_terminal
from stream_cam.cli.signals import Signals
from stream_cam.cli.summary import print_links, print_summary
from stream_cam.config import DemoConfig, ModelConfig, PipelineConfig
from stream_cam.pipeline.checks import only_watched
from stream_cam.pipeline.session import run_session
from stream_cam.results.sheet import SheetSink
from stream_cam.sinks import check_outputs
from stream_cam.sinks.base import Sink
from stream_cam.sinks.score import TruthScore

_SECONDS = 10.0
"""How long a demo runs that writes files."""
_VIDEO, _SHEET = "demo.mp4", "demo.png"
_N_MOMENTS = 6
_NEXT_STEPS = """
next:
  stream-cam run 0 --weights demo        draw a shape, hold it before your webcam
  stream-cam demo -o web://              watch it in the browser, and steer it
  stream-cam run clip.mp4 out.mp4        annotate a video with ImageNet's 1000 classes
  stream-cam doctor                      what this machine can do"""


def demo_command(command: DemoCommand, signals: Signals) -> None:
    """Writes `demo.mp4` and `demo.png`, or shows the demo in the outputs that were asked for.

    If all outputs are windows and pages, the demo runs as a camera does, until it is stopped.
    """
    quiet, score = command.run.quiet, TruthScore()
    extra_sinks: list[Sink] = [score]
    outputs: Sequence[str] = command.sink
    if not outputs:
        outputs = [_VIDEO]
        check_outputs([_VIDEO, _SHEET], overwrite=command.run.overwrite)
        extra_sinks.append(
            SheetSink(Path(_SHEET), _N_MOMENTS, captions=False, only_with_truth=True)
        )
    model = ModelConfig(weights="demo", engine=command.demo.engine)
    report = run_session(
        _source_uri(command.demo, watched=only_watched(outputs)),
        outputs,
        PipelineConfig(model, command.look, command.run, web=command.web),
        extra_sinks=extra_sinks,
        on_open=print_links,
        on_start=lambda pipeline: signals.watch(pipeline.stop),
        on_end=None if quiet else partial(print_summary, sheet=True),
        show_progress=progress_on_terminal,
    )
    if not quiet and not report.live:
        print(score.summary())
        print(_NEXT_STEPS)


def _source_uri(demo: DemoConfig, *, watched: bool) -> str:
    """The URI of the drawn scene; a watched one is live and has no end."""
    uri = f"demo://shapes?size={demo.size}&fps={demo.fps}&seed={demo.seed}&live={watched:d}"
    seconds = demo.seconds if demo.seconds is not None or watched else _SECONDS
    return uri if seconds is None else f"{uri}&seconds={seconds:g}"
