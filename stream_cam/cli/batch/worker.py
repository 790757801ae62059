"""One video in a process of its own."""

from __future__ import annotations

import multiprocessing
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from stream_cam.config import PipelineConfig
from stream_cam.errors import SinkError, StreamCamError
from stream_cam.pipeline.session import run_session

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from stream_cam.pipeline.pipeline import Pipeline

TICK_SECONDS: Final = 0.2


@dataclass(frozen=True)
class WorkerMessage:
    """What the process of a video tells of itself."""

    n_frames: int | None = None
    n_rendered: int = 0
    ended: bool = False
    error: str = ""


def _work(
    pipe: Connection[WorkerMessage, str], source: str, output: str, config: PipelineConfig
) -> None:
    """In a process of its own: one video from begin to end."""
    # A Ctrl-C, a closed terminal and systemd's stop are for all; the first process tells us.
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    ended = threading.Event()

    def watch(pipeline: Pipeline) -> None:
        try:
            while not ended.is_set():
                pipe.send(WorkerMessage(pipeline.info.n_frames, pipeline.report.rendered))
                if pipe.poll(TICK_SECONDS):
                    pipe.recv()
                    break
            else:
                return
        except (EOFError, OSError):
            pass  # the first process was killed
        pipeline.stop("interrupted")

    watching: list[threading.Thread] = []

    def begin(pipeline: Pipeline) -> None:
        watching.append(threading.Thread(target=watch, args=(pipeline,), daemon=True))
        watching[0].start()

    error = ""
    try:
        run_session(source, [output], config, on_start=begin)
    except StreamCamError as exc:
        error = " ".join(str(exc).split())
    ended.set()
    for thread in watching:
        thread.join()
    pipe.send(WorkerMessage(ended=True, error=error))


def annotate(
    source: Path,
    output: Path,
    config: PipelineConfig,
    stopped: threading.Event,
    on_progress: Callable[[WorkerMessage], None],
) -> None:
    """Run one video in a new process, and wait for it.

    Args:
        stopped: ends it when it is set.

    Raises:
        SinkError: it failed, with its own words, or its process died.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(
        target=_work, args=(theirs, str(source), str(output), config), daemon=True
    )
    process.start()
    theirs.close()
    told_to_stop = False
    try:
        while True:
            if stopped.is_set() and not told_to_stop:
                ours.send("stop")
                told_to_stop = True
            if not ours.poll(TICK_SECONDS):
                continue
            said: WorkerMessage = ours.recv()
            if said.ended:
                break
            on_progress(said)
    except (EOFError, OSError) as exc:
        process.join()
        if stopped.wait(TICK_SECONDS):
            return  # the signal that stops all of them came before it could ignore it
        raise SinkError(f"{source}: its process died ({process.exitcode})") from exc
    process.join()
    if said.error:
        raise SinkError(said.error)
