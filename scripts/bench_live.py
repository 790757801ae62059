"""The processor time of a live run beyond decoding and explaining, and the cost of waiting.

    python scripts/bench_live.py [--seconds 20] [--size 1280x720] [--json F]

GStreamer's RTSP server is the camera, in a process of its own (tests/support/rtsp_harness.py).
Decoding alone and explaining alone are measured first, in processor time a frame; then a run into
`null` as a user runs it; then the same run while the camera is frozen and stays away. Processor
time is the whole process's, in cores: 1.0 is one core busy all the time.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from collections import deque
from itertools import islice
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from support.rtsp_harness import RtspServer, rtsp_server_problem  # noqa: E402

from stream_cam.config import CaptureConfig, ModelConfig  # noqa: E402
from stream_cam.explain.explainer import Explainer  # noqa: E402
from stream_cam.frame import Frame  # noqa: E402
from stream_cam.pipeline.counters import Progress  # noqa: E402
from stream_cam.pipeline.pipeline import Pipeline  # noqa: E402
from stream_cam.sinks import NullSink  # noqa: E402
from stream_cam.sources import open_source  # noqa: E402
from stream_cam.sources.reconnecting import ReconnectingSource  # noqa: E402

FPS = 30
AWAY_WITHIN_SECONDS = 60.0


class Watch:
    """Wall-clock and processor seconds since it was made."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.monotonic(), time.process_time()

    @property
    def wall(self) -> float:
        return time.monotonic() - self._wall

    @property
    def cpu(self) -> float:
        return time.process_time() - self._cpu

    @property
    def cores(self) -> float:
        return self.cpu / self.wall


def decoding(url: str, seconds: float) -> tuple[float, list[Frame]]:
    """Processor seconds a frame of reading the stream, and a few of its frames."""
    with open_source(url, CaptureConfig()) as source:
        frames = iter(source)
        kept = list(islice(frames, 2 * FPS))  # past the second read to recognise the stream
        watch, count = Watch(), round(seconds * FPS)
        for _ in islice(frames, count):
            pass
        return watch.cpu / count, kept


def explaining(explainer: Explainer, frames: list[Frame]) -> float:
    """Processor seconds a frame."""
    for frame in frames[:10]:
        explainer.explain(frame)
    watch = Watch()
    for frame in frames:
        explainer.explain(frame)
    return watch.cpu / len(frames)


def running(server: RtspServer, explainer: Explainer, seconds: float) -> dict[str, float]:
    """A run into `null`, then its camera freezes."""
    found: dict[str, float] = {}
    with open_source(server.url, CaptureConfig()) as source:
        assert isinstance(source, ReconnectingSource)
        pipeline = Pipeline(source, [NullSink()], explainer)
        newest: deque[Progress] = deque(maxlen=1)

        def measure() -> None:
            pause = threading.Event()
            pause.wait(3.0)
            before, watch = newest[-1], Watch()
            pause.wait(seconds)
            found["run_cores"] = watch.cores
            found["captured_fps"] = (newest[-1].captured - before.captured) / watch.wall
            found["explained_fps"] = (newest[-1].explained - before.explained) / watch.wall
            server.freeze()
            deadline = time.monotonic() + AWAY_WITHIN_SECONDS
            while (away := source.outage()) is None or not away.reconnecting:
                if time.monotonic() > deadline:
                    break
                pause.wait(0.05)
            watch = Watch()
            pause.wait(seconds)
            found["away_cores"] = watch.cores
            server.thaw()
            pipeline.stop("measured")

        threading.Thread(target=measure, daemon=True).start()
        pipeline.run(newest.append)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each measurement")
    parser.add_argument("--size", default="1280x720", help="width x height of the stream")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    problem = rtsp_server_problem()
    if problem is not None:
        print(problem, file=sys.stderr)
        return 1
    explainer = Explainer.from_config(ModelConfig(weights="demo"))
    with RtspServer(size=options.size, fps=FPS) as server:
        decode, frames = decoding(server.url, options.seconds)
        explain = explaining(explainer, frames)
        result = {
            "decode_core_ms": decode * 1e3,
            "explain_core_ms": explain * 1e3,
            **running(server, explainer, options.seconds),
        }
    needed = decode * result["captured_fps"] + explain * result["explained_fps"]
    result |= {"needed_cores": needed, "beyond_cores": result["run_cores"] - needed}
    for name, value in result.items():
        print(f"{name:16} {value:8.2f}")
    if options.json is not None:
        options.json.write_text(json.dumps({"size": options.size, **result}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
