"""The progress of a run on a terminal: a status line, or a bar with the time left."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from stream_cam.config import RunConfig
from stream_cam.sources.base import SourceInfo

if TYPE_CHECKING:
    from stream_cam.pipeline.counters import Progress

    OnTick = Callable[[Progress], None]

_STATUS_SECONDS = 1.0
"""Time between two changes of the status line."""


@contextmanager
def progress_on_terminal(info: SourceInfo, run: RunConfig, live: bool) -> Iterator[OnTick | None]:
    """Shows a status line for live video, a bar for files, nothing where there is no terminal."""
    if run.quiet or not sys.stderr.isatty():
        yield None
        return
    with _status_line() if live else _bar(info, run) as on_tick:
        yield on_tick


class StatusLine:
    """Shows the rates of a live run once a second.

    Args:
        show: takes the line.
        now: monotonic, in seconds.
    """

    def __init__(self, show: Callable[[str], None], now: Callable[[], float] = time.monotonic):
        self._show = show
        self._now = now
        self._shown_at = now()
        self._counts = (0, 0, 0)

    def __call__(self, progress: Progress) -> None:
        elapsed = self._now() - self._shown_at
        if elapsed < _STATUS_SECONDS:
            return
        counts = (progress.captured, progress.rendered, progress.explained)
        captured, rendered, explained = (
            (count - before) / elapsed for count, before in zip(counts, self._counts, strict=True)
        )
        self._shown_at += elapsed
        self._counts = counts
        parts = [
            *_connection(progress),
            f"fps {captured:.1f} captured, {rendered:.1f} drawn, {explained:.1f} explained",
            f"age {_age(progress)}",
            f"{progress.superseded} superseded",
            f"{progress.dropped} dropped by outputs",
        ]
        self._show(" · ".join(parts))


def _connection(progress: Progress) -> list[str]:
    """The state of a source that reconnects, as no or one part of the line."""
    if progress.connections is None:
        return []
    back = f"{max(0, progress.connections - 1)} reconnections"
    if progress.away is None:
        return [f"connected, {back}"]
    away = progress.away
    return [f"{away.state}, last frame {away.last_frame_age_seconds:.1f} s ago, {back}"]


def _age(progress: Progress) -> str:
    return "-" if progress.age_seconds is None else f"{progress.age_seconds:.2f} s"


@contextmanager
def _status_line() -> Iterator[OnTick]:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    console = Console(stderr=True)
    with Live(console=console, auto_refresh=False, transient=True) as line:
        yield StatusLine(
            lambda text: line.update(Text(text, no_wrap=True, overflow="ellipsis"), refresh=True)
        )


@contextmanager
def _bar(info: SourceInfo, run: RunConfig) -> Iterator[OnTick]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    total = run.limit if info.n_frames is None else min(info.n_frames, run.limit or info.n_frames)
    with Bar(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[fps]:.0f} fps"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[label]}", style="dim", markup=False),
        console=Console(stderr=True),
        transient=True,
    ) as bar:
        task = bar.add_task(Path(info.name).name or info.name, total=total, fps=0.0, label="")

        def on_tick(progress: Progress) -> None:
            best = progress.last.shown() if progress.last else None
            label = f"{best.label} {best.probability:.0%}" if best else ""
            bar.update(task, completed=progress.rendered, fps=progress.fps, label=label)

        yield on_tick
