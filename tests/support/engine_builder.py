"""Processes that build the toy engine, and stop where they are told until they hear a line.

On stdin a line for each: FOLDER STOP PIPES, with tabs between. A process is forked for it (PyTorch
is imported once for all of them), which writes to PIPES/out and reads from PIPES/in. STOP is
`compile`, or a moment of the publication: `blob` (written, without a manifest), `rename` (whole,
under its temporary name), `replace` (the old one put away, the new one not yet there).
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any

from support import toy_engine

from stream_cam.engine import store
from stream_cam.engine.base import Engine, OnStage, ignore_progress
from stream_cam.engine.prepare import load_or_build


def say_and_wait(word: str) -> None:
    print(word, flush=True)
    sys.stdin.readline()


class WaitingBuilder(toy_engine.ToyBuilder):
    def compile(self, on_stage: OnStage = ignore_progress) -> tuple[Engine, bytes]:
        say_and_wait("compile")
        return super().compile(on_stage)


class SayWaiting(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        if "waiting" in record.getMessage():
            print("waiting", flush=True)


def stop_in_publication(moment: str) -> None:
    write_synced, rename = store._write_synced, os.rename

    def writing(path: Path, data: bytes) -> None:
        write_synced(path, data)
        if moment == "blob" and path.name == store.BLOB:
            say_and_wait(moment)

    def renaming(old: Any, new: Any) -> None:
        if moment in ("rename", "replace") and not Path(new).name.startswith("."):
            say_and_wait(moment)
        rename(old, new)

    store._write_synced = writing
    store.os.rename = renaming  # type: ignore[attr-defined]


def build(folder: str, stop: str, pipes: str) -> None:
    os.dup2(os.open(f"{pipes}/out", os.O_WRONLY), 1)
    sys.stdin = os.fdopen(os.open(f"{pipes}/in", os.O_RDONLY))
    if stop != "compile":
        stop_in_publication(stop)
    builder = WaitingBuilder() if stop == "compile" else toy_engine.ToyBuilder()
    say_and_wait(str(os.getpid()))
    prepared = load_or_build(builder, store.EngineStore(Path(folder)), force=stop == "replace")
    print("built" if prepared.built else "taken", flush=True)


def main() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    logging.getLogger("stream_cam").addHandler(SayWaiting())
    for line in sys.stdin:
        if os.fork() == 0:
            build(*line.rstrip("\n").split("\t"))
            os._exit(0)


if __name__ == "__main__":
    main()
