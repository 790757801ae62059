"""Runs the real pipeline on a camera that is killed, frozen and cut again and again.

    python scripts/soak.py --minutes 30 [--json soak.json]

A real RTSP server behind a proxy that corrupts the stream (rtsp_harness and chaos_proxy in
tests/support), the demo weights, a sink that only counts. Prints frames, recoveries, memory,
threads and file descriptors at the start and at the end; exits 1 if something was left over, did
not come back, or came back late after a kill.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from support.chaos_proxy import ChaosProxy, Fault  # noqa: E402
from support.rtsp_harness import RtspServer, rtsp_server_problem  # noqa: E402

from stream_cam.config import CaptureConfig, ModelConfig  # noqa: E402
from stream_cam.explain.explainer import Explainer  # noqa: E402
from stream_cam.pipeline.pipeline import Pipeline  # noqa: E402
from stream_cam.sinks.base import Picture, Sink  # noqa: E402
from stream_cam.sources import open_source  # noqa: E402
from stream_cam.sources.reconnecting import ReconnectingSource  # noqa: E402

START_SIZE = "1280x720"
RSS_GROWTH = 0.02
"""More than this fraction is a leak."""
KILL_BACK_SECONDS = 2.0
"""Longest time until a picture after a killed server is back."""
BACK_SECONDS = 30.0
"""A picture that is not back by then does not come back."""


@dataclass
class Usage:
    """Memory of the process."""

    rss_mb: float
    threads: int
    fds: int

    @classmethod
    def now(cls) -> Usage:
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return cls(
            pages * os.sysconf("SC_PAGE_SIZE") / 1e6,
            len(os.listdir("/proc/self/task")),
            len(os.listdir("/proc/self/fd")) - 1,
        )


class CountingSink(Sink):
    """Counts pictures, and tells when a new frame has come."""

    name = "counting"
    takes_repeats = True

    def __init__(self) -> None:
        self.frames = self.repeats = 0
        self.captured_ns = 0
        self._came = threading.Condition()

    def write(self, picture: Picture) -> bool:
        with self._came:
            if picture.repeated:
                self.repeats += 1
            else:
                self.frames += 1
                self.captured_ns = picture.frame.captured_ns
                self._came.notify_all()
        return True

    def wait_for_frame_after(self, moment_ns: int, timeout_seconds: float) -> bool:
        with self._came:
            return self._came.wait_for(lambda: self.captured_ns > moment_ns, timeout_seconds)


@dataclass
class Outcome:
    kills: int = 0
    faults: int = 0
    slowest_back_seconds: float = 0.0
    """From a server's return to the first new frame at the sink, less the back-off's wait."""
    kills_back_seconds: list[float] = field(default_factory=list)
    """The same of each kill."""
    problems: list[str] = field(default_factory=list)
    rss_mb: list[int] = field(default_factory=list)
    """Before each fault."""
    start: Usage | None = None
    end: Usage | None = None


class Chaos:
    """Does harm and waits for the picture to come back, until the time is over."""

    def __init__(
        self, server: RtspServer, proxy: ChaosProxy, source: ReconnectingSource, sink: CountingSink
    ) -> None:
        self._server, self._proxy, self._source, self._sink = server, proxy, source, sink
        self._pause = threading.Event()
        self.outcome = Outcome()

    def run(self, minutes: float) -> None:
        deadline = time.monotonic() + 60 * minutes
        harm: list[Callable[[], None]] = [
            self._kill,
            self._freeze,
            self._change_size,
            lambda: self._spoil("stall", 7.0),
            lambda: self._spoil("trickle", 7.0),
            lambda: self._spoil("cut", 2.0),
            lambda: self._spoil("flip", 5.0),
            lambda: self._spoil("handshake", 4.0),
        ]
        self._calm(20.0)
        # The first outage loads code for outages, which is not a leak.
        self._kill()
        self._calm(10.0)
        self.outcome.start = Usage.now()
        number = 0
        while time.monotonic() < deadline and not self.outcome.problems:
            self.outcome.rss_mb.append(round(Usage.now().rss_mb))
            harm[number % len(harm)]()
            self._calm(4.0)
            number += 1
        if self._server.size != START_SIZE:
            self._change_size()
        # As at the start: memory held for a while after a change of size is no leak either.
        self._kill()
        self._calm(10.0)
        self.outcome.end = Usage.now()

    def _calm(self, seconds: float) -> None:
        self._pause.wait(seconds)

    def _kill(self) -> None:
        self._server.kill()
        self._calm(1.0)
        self._server.start()
        self.outcome.kills += 1
        self.outcome.kills_back_seconds.append(round(self._await_picture(), 2))

    def _change_size(self) -> None:
        self._server.size, self._server.fps = (
            ("640x360", 15) if self._server.size == START_SIZE else (START_SIZE, 30)
        )
        self._kill()

    def _freeze(self) -> None:
        self._server.freeze()
        self._calm(8.0)
        self._server.thaw()
        self._await_picture()

    def _spoil(self, fault: Fault, seconds: float) -> None:
        self._proxy.fault = fault
        self._calm(seconds)
        self._proxy.fault = "none"
        self._await_picture()

    def _await_picture(self) -> float:
        """Seconds until a new picture came, without the wait that had been planned before."""
        self.outcome.faults += 1
        returned_ns = time.monotonic_ns()
        away = self._source.outage()
        wait = away.next_try_seconds if away is not None else 0.0
        if not self._sink.wait_for_frame_after(returned_ns, wait + BACK_SECONDS):
            self.outcome.problems.append(f"no picture came back after fault {self.outcome.faults}")
            return BACK_SECONDS
        back = (time.monotonic_ns() - returned_ns) / 1e9 - wait
        self.outcome.slowest_back_seconds = max(self.outcome.slowest_back_seconds, back)
        return back


def faults_of(outcome: Outcome) -> list[str]:
    start, end = outcome.start, outcome.end
    if start is None or end is None:
        return ["it did not run to its end"]
    found = []
    slow = [seconds for seconds in outcome.kills_back_seconds if seconds > KILL_BACK_SECONDS]
    if slow:
        found.append(f"{len(slow)} of {outcome.kills} kills took up to {max(slow)} s to heal")
    if end.rss_mb > start.rss_mb * (1 + RSS_GROWTH):
        found.append(f"memory grew by {end.rss_mb / start.rss_mb - 1:.1%}")
    if end.threads > start.threads:
        found.append(f"{end.threads - start.threads} threads are left over")
    if end.fds > start.fds:
        found.append(f"{end.fds - start.fds} file descriptors are left over")
    return found


def soak(minutes: float) -> dict[str, object]:
    sink = CountingSink()
    with (
        RtspServer(size=START_SIZE, fps=30) as server,
        ChaosProxy(server.port, every=5000) as proxy,
        open_source(f"rtsp://127.0.0.1:{proxy.port}/test", CaptureConfig()) as source,
    ):
        assert isinstance(source, ReconnectingSource)
        explainer = Explainer.from_config(ModelConfig(weights="demo"))
        pipeline = Pipeline(source, [sink], explainer)
        chaos = Chaos(server, proxy, source, sink)

        def work() -> None:
            try:
                chaos.run(minutes)
            except Exception as error:
                chaos.outcome.problems.append(repr(error))
            pipeline.stop("the time is over")

        worker = threading.Thread(target=work, name="chaos")
        worker.start()
        cpu = time.process_time()
        report = pipeline.run()
        worker.join()
        cpu = time.process_time() - cpu
        corrupt, health = source.corrupt_frames, asdict(source.health)
    outcome = chaos.outcome
    return {
        "minutes": report.seconds / 60,
        "captured": report.captured,
        "explained": report.explained,
        "superseded": report.superseded,
        "discarded": report.discarded,
        "rendered": report.rendered,
        "skipped": report.skipped,
        "stale": report.stale,
        "corrupt": corrupt,
        "frames_at_sink": sink.frames,
        "repeated_at_sink": sink.repeats,
        "cores": cpu / report.seconds,
        **health,
        **asdict(outcome),
        "problems": outcome.problems + faults_of(outcome),
    }


def print_table(result: dict[str, object]) -> None:
    usages = {name: result.pop(name) for name in ("start", "end")}
    for name, value in result.items():
        print(f"{name:28} {value:.2f}" if isinstance(value, float) else f"{name:28} {value}")
    print(f"{'':28} {'RSS MB':>10} {'threads':>8} {'fds':>6}")
    for name, usage in usages.items():
        if isinstance(usage, dict):
            print(f"{name:28} {usage['rss_mb']:10.1f} {usage['threads']:8} {usage['fds']:6}")
    result.update(usages)


def main() -> int:
    parser = argparse.ArgumentParser(description="soak test of a live source")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    problem = rtsp_server_problem()
    if problem is not None:
        print(problem, file=sys.stderr)
        return 1
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")
    result = soak(options.minutes)
    print_table(result)
    text = json.dumps(result, indent=2)
    if options.json is not None:
        options.json.write_text(text + "\n")
    print(text)
    return 1 if result["problems"] else 0


if __name__ == "__main__":
    sys.exit(main())
