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
    """A message from the process of a video."""

    n_frames: int | None = None
    n_rendered: int = 0
    ended: bool = False
    error: str = ""


def _work(
    pipe: Connection[WorkerMessage, str], source: str, output: str, config: PipelineConfig
) -> None:
    """Runs one video from start to end; the main function of its process."""
    # Ctrl-C, a closed terminal and systemd's stop signal all processes; the first one decides.
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
            pass  # the first process was killed: stop
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
    """Runs one video in a new process, and waits for it.

    Args:
        stopped: ends the video when it is set.

    Raises:
        SinkError: the video failed, with its own message, or its process died.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(
        target=_work, args=(theirs, str(source), str(output), config), daemon=True
    )
    process.start()
    theirs.close()
    stop_sent = False
    try:
        while True:
            if stopped.is_set() and not stop_sent:
                ours.send("stop")
                stop_sent = True
            if not ours.poll(TICK_SECONDS):
                continue
            message: WorkerMessage = ours.recv()
            if message.ended:
                break
            on_progress(message)
    except (EOFError, OSError) as exc:
        process.join()
        if stopped.wait(TICK_SECONDS):
            return  # it got the signal for all processes before it could ignore it
        raise SinkError(f"{source}: its process died ({process.exitcode})") from exc
    process.join()
    if message.error:
        raise SinkError(message.error)
