"""`stream-cam run`: explain one source."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from stream_cam.cli.messages import print_line
from stream_cam.cli.options import RunCommand
from stream_cam.cli.progress import progress_on_terminal
from stream_cam.cli.signals import Signals
from stream_cam.cli.summary import mode_line, print_links, print_summary
from stream_cam.config import PipelineConfig
from stream_cam.errors import UsageError
from stream_cam.pipeline.session import run_session

if TYPE_CHECKING:
    from stream_cam.pipeline.pipeline import Pipeline


def run_command(command: RunCommand, signals: Signals) -> None:
    """Runs the source to its end, or until a signal stops it."""
    config = PipelineConfig(
        command.model, command.look, command.run, command.capture, command.record, command.web
    )
    quiet = command.run.quiet
    _check_source(command.source)

    def on_start(pipeline: Pipeline) -> None:
        signals.watch(pipeline.stop)
        if not quiet:
            if pipeline.info.note:
                print_line(pipeline.info.note)
            print_line(mode_line(pipeline.report, command.look))

    run_session(
        command.source,
        [*([command.output] if command.output is not None else []), *command.sink],
        config,
        on_open=print_links,
        on_start=on_start,
        on_end=None if quiet else print_summary,
        show_progress=progress_on_terminal,
    )


def _check_source(source: str) -> None:
    """Raises UsageError for the name of the demo, which is no source."""
    if source == "demo" and not os.path.exists(source):
        raise UsageError(
            "demo does not exist; the demo is `stream-cam demo`, and its drawn scene is the source "
            "of `stream-cam run demo://shapes`"
        )
