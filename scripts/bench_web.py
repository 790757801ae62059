"""The age of the pictures that people see in the browser, and the cost of viewers for the run.

    python scripts/bench_web.py [--seconds 20] [--json web.json]

A source draws the time into each of its 1280×720 frames, 30 a second. They go through a network
that keeps up, are drawn, encoded, sent and decoded by Debian's Chromium, which reads the time from
the pixels of its canvas: a picture's age is from the capture of its frame until its pixels are in
the canvas. (The screen itself is not seen.) Before that, without a browser: the frames that a video
recording beside the page gets with no viewer, with twenty, one of whom reads a byte a second, and
with twenty while others misuse the page (web_crowd.py); and the memory of the process then.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from stream_cam.bench.machine import describe_machine, machine_lines
from stream_cam.config import LookConfig, WebConfig
from stream_cam.explain.explainer import Explainer
from stream_cam.frame import Frame
from stream_cam.pipeline.pipeline import Pipeline
from stream_cam.settings import Settings
from stream_cam.sinks.base import Sink, StreamInfo
from stream_cam.sinks.video.sink import VideoSink
from stream_cam.sources.base import Source, SourceInfo
from stream_cam.sources.demo.scene import Scene
from stream_cam.web.address import WebAddress
from stream_cam.web.sink import WebSink

SIZE_HW = (720, 1280)
FPS = 30
INPUT_SIZE = 96
"""Side of the network's input: on two cores one that keeps up with 30 frames/s beside a browser."""
BITS = 32
BLOCK_PX = 32
N_VIEWERS = 20
CROWD = Path(__file__).with_name("web_crowd.py")

_WATCH = """() => {
  const seen = window.seen = [];
  const canvas = document.getElementById("picture"), context = canvas.getContext("2d");
  new MutationObserver(() => {
    const y = canvas.height - BLOCK / 2, row = context.getImageData(0, y, BITS * BLOCK, 1).data;
    let value = 0;
    for (let bit = 0; bit < BITS; bit++) {
      value = value * 2 + (row[(bit * BLOCK + BLOCK / 2) * 4] > 127);
    }
    seen.push([performance.now(), value]);
  }).observe(canvas, { attributes: true, attributeFilter: ["data-n"] });
}""".replace("BITS", str(BITS)).replace("BLOCK", str(BLOCK_PX))


class ClockSource(Source):
    """The demo's wall, moving, with the time in ms of the monotonic clock as blocks below."""

    def __init__(self, seconds: float) -> None:
        self._n_frames = round(seconds * FPS)
        self._info = SourceInfo("clock", SIZE_HW, Fraction(FPS), self._n_frames, live=True)

    def __iter__(self) -> Iterator[Frame]:
        ground = Scene(SIZE_HW[1], SIZE_HW[0], 0).frame(0, 1.0)[0]
        begun = time.monotonic()
        for index in range(self._n_frames):
            time.sleep(max(0.0, begun + index / FPS - time.monotonic()))
            image = np.roll(ground, 3 * index, axis=1)
            now_ns = time.monotonic_ns()
            value = now_ns // 1_000_000 % (1 << BITS)
            for bit in range(BITS):
                x = bit * BLOCK_PX
                image[-BLOCK_PX:, x : x + BLOCK_PX] = 255 * (value >> (BITS - 1 - bit) & 1)
            yield Frame(image, index, index, Fraction(1, FPS), now_ns)


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--seconds", type=float, default=20.0, help="of each measurement")
    options.add_argument("--abuse-seconds", type=float, default=60.0, help="of the abuse")
    options.add_argument("--json", type=Path, help="write the figures here as well")
    given = options.parse_args()
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        print("bench_web: Chromium is not installed: apt-get install chromium")
        return 1
    explainer = Explainer.load("resnet18", weights="demo", input_size=INPUT_SIZE)
    alone = recorded_frames(explainer, given.seconds, 0)
    crowd = recorded_frames(explainer, given.seconds, N_VIEWERS)
    abused = recorded_frames(explainer, given.abuse_seconds, N_VIEWERS, abuse=True)
    ages, span_seconds = ages_in_chromium(explainer, given.seconds, program)
    figures = {
        "command": f"python scripts/bench_web.py --seconds {given.seconds:g} "
                   f"--abuse-seconds {given.abuse_seconds:g}",
        "machine": machine_lines(describe_machine()),
        "picture": "1280x720, 30 frames/s, JPEG quality 80, network input 96x96",
        "latency_ms": {name: round(float(np.percentile(ages, q)), 1) for name, q in
                       (("p50", 50), ("p95", 95), ("p99", 99))},
        "pictures_measured": len(ages),
        "pictures_a_second_in_chromium": round(len(ages) / span_seconds, 1),
        "recording_beside": {"no viewer": alone, f"{N_VIEWERS} viewers": crowd,
                             f"{N_VIEWERS} viewers and abuse": abused},
    }  # fmt: skip
    print(json.dumps(figures, indent=2))
    if given.json is not None:
        given.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return 0


def run(
    explainer: Explainer,
    seconds: float,
    extra: list[Sink],
    watch: Callable[[WebSink], None],
    web: WebConfig | None = None,
) -> None:
    """One run with a page; `watch` gets it while it runs."""
    settings = Settings(LookConfig(hud=False), explainer.labels)
    page = WebSink(WebAddress(port=0), settings, "clock", web or WebConfig())
    pipeline = Pipeline(ClockSource(seconds), [page, *extra], explainer, settings=settings)
    page.attach_stats(pipeline.stats)
    thread = threading.Thread(target=pipeline.run)
    thread.start()
    try:
        watch(page)
    finally:
        thread.join()


def recorded_frames(
    explainer: Explainer, seconds: float, n_viewers: int, *, abuse: bool = False
) -> dict[str, Any]:
    """Frames that a recording gets while viewers watch, without its last five seconds; and the
    memory of the process meanwhile."""
    figures: dict[str, Any] = {}
    memory_mb: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        stream = StreamInfo(fps=Fraction(FPS), still=False, live=True)
        video = VideoSink(os.path.join(folder, "out.mp4"), stream)

        def watch(page: WebSink) -> None:
            token = page.url.partition("?")[2]
            url = f"http://127.0.0.1:{page.address.port}/?{token}"
            # They leave before the run ends, so that the page is there for its figures.
            staying = max(1.0, seconds - 5.0)
            arguments = [url, f"--viewers={n_viewers}", f"--seconds={staying}"]
            arguments += ["--abuse"] if abuse else []
            with subprocess.Popen(
                [sys.executable, str(CROWD), *arguments], stdout=subprocess.PIPE
            ) as crowd:
                while crowd.poll() is None:
                    memory_mb.append(_memory_mb())
                    time.sleep(1.0)
                if crowd.returncode or crowd.stdout is None:
                    raise RuntimeError(f"{CROWD.name} ended with {crowd.returncode}")
                figures.update(json.load(crowd.stdout))

        # Behind a name of its own the page wants a token.
        run(explainer, seconds, [video], watch, WebConfig(web_name="page.example"))
    third = max(1, len(memory_mb) // 3)
    stats = figures["stats"]
    return {
        "frames": round(seconds * FPS),
        "recorded": video.written,
        "recorded_share": round(video.written / (seconds * FPS), 4),
        "memory_mb": {
            "first third": statistics.median(memory_mb[:third]),
            "last third": statistics.median(memory_mb[-third:]),
        },
        **{name: stats[name] for name in ("encoded", "sent", "skipped")},
        "answers": figures["answers"],
    }


def _memory_mb() -> float:
    """Memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return round(pages * os.sysconf("SC_PAGESIZE") / 1e6, 1)


def ages_in_chromium(
    explainer: Explainer, seconds: float, program: str
) -> tuple[list[float], float]:
    """Milliseconds from a frame's capture until its pixels are in the canvas; measured how long."""
    from playwright.sync_api import sync_playwright

    ages: list[float] = []
    spans: list[float] = []

    def watch(page: WebSink) -> None:
        tab.goto(page.url)
        tab.wait_for_selector('body[data-state="live"]')
        tab.evaluate(_WATCH)
        time.sleep(max(0.0, seconds - 4.0))
        seen = tab.evaluate("() => window.seen")
        offset = _offset_ms(tab)
        # The first second is the browser's warming up.
        begin = seen[0][0] + 1000.0
        spans.append((seen[-1][0] - begin) / 1000.0)
        ages.extend(
            (at + offset - value) % (1 << BITS) for at, value in seen if at >= begin and value
        )

    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=program, args=arguments)
        tab = browser.new_page(viewport={"width": 1440, "height": 900})
        run(explainer, seconds, [], watch)
        browser.close()
    return ages, spans[0]


def _offset_ms(tab: Any) -> float:
    """How far the page's clock is behind the monotonic clock, by the quickest of many requests."""
    best = (float("inf"), 0.0)
    for _ in range(50):
        before = time.monotonic_ns() / 1e6
        there = tab.evaluate("performance.now()")
        after = time.monotonic_ns() / 1e6
        best = min(best, (after - before, (before + after) / 2 - there))
    return best[1]


if __name__ == "__main__":
    sys.exit(main())
