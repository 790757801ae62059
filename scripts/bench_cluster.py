#!/usr/bin/env python3
"""Measures `batch --cluster local:N` beside `batch --jobs N`, and simulates more nodes.

    bench_cluster.py [--clips 12] [--frames 60] [--jobs 2] [--archive 50000]

Prints the wall time of both commands, the driver's time for a clip, and the speed-up that a
simulation gives for 1 to 64 nodes with the measured task times. The simulation knows no network
and no store: it tells what the driver and the start of workers cost, and nothing else.
"""

from __future__ import annotations

import argparse
import heapq
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import av
import numpy as np


def write_clip(path: Path, n_frames: int) -> None:
    """Moving noise of 640×360, as hard to encode as video."""
    noise = np.random.default_rng(0).integers(0, 255, (360, 640 + n_frames, 3), np.uint8)
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 640, 360, "yuv420p"
        for index in range(n_frames):
            image = np.ascontiguousarray(noise[:, index : index + 640])
            out.mux(stream.encode(av.VideoFrame.from_ndarray(image, "bgr24")))
        out.mux(stream.encode(None))


def run(folder: Path, output: str, *options: str) -> float:
    """Runs `stream-cam batch`; its wall time in seconds."""
    command = [sys.executable, "-m", "stream_cam", "batch", "clips", "-o", output, "--quiet"]
    started = time.monotonic()
    subprocess.run([*command, "--weights", "demo", *options], cwd=folder, check=True)
    return time.monotonic() - started


def simulated_seconds(
    tasks: list[float], n_workers: int, start_seconds: float, driver_seconds: float
) -> float:
    """The end of the last task; the driver hands one at a time to the first free worker."""
    free = [start_seconds] * n_workers
    driver = 0.0
    for seconds in tasks:
        driver = max(driver, free[0]) + driver_seconds
        heapq.heapreplace(free, driver + seconds)
    return max(free)


def handing_seconds(n_calls: int = 300) -> float:
    """The driver's time for a clip: an empty call of a worker, and the wait for its answer."""
    from stream_cam.cluster.nodes import connected
    from stream_cam.config import ClusterConfig

    with connected(ClusterConfig("local:1", task_cpus=1)) as ray:

        class Empty:
            def annotate(self, clip: str) -> str:
                return clip

        worker = ray.remote(Empty).remote()
        ray.get(worker.annotate.remote("first"))
        started = time.monotonic()
        for _ in range(n_calls):
            ended, _ = ray.wait([worker.annotate.remote("clip")])
            ray.get(ended[0])
        return (time.monotonic() - started) / n_calls


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    for name, usual in (("clips", 12), ("frames", 60), ("jobs", 2), ("archive", 50_000)):
        parser.add_argument(f"--{name}", type=int, default=usual)
    asked = parser.parse_args()
    jobs = str(asked.jobs)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "clips").mkdir()
        for index in range(asked.clips):
            write_clip(folder / "clips" / f"{index}.mp4", asked.frames)
        here = run(folder, "here", "--jobs", jobs)
        ray = run(folder, "ray", "--cluster", f"local:{jobs}", "--task-cpus", "1")
        account = (folder / "ray" / "manifest.jsonl").read_text().splitlines()
    lines = [json.loads(line) for line in account]
    tasks = sorted(line["seconds"] for line in lines)
    print(f"{asked.clips} clips of {asked.frames} frames, {jobs} at a time")
    print(f"  batch --jobs {jobs}              {here:7.1f} s")
    print(f"  batch --cluster local:{jobs}     {ray:7.1f} s, Ray's start and end included")
    print(f"  a clip on its worker: median {tasks[len(tasks) // 2]:.2f} s")
    driver = handing_seconds()
    print(f"  the driver's share of a clip: {1000 * driver:.2f} ms")
    print(f"simulation of {asked.archive} such clips, {jobs} workers a node, 20 s to start each:")
    drawn = random.Random(0).choices(tasks, k=asked.archive)
    one = simulated_seconds(drawn, asked.jobs, 20.0, driver)
    for n_nodes in (1, 2, 4, 8, 16, 32, 64):
        seconds = simulated_seconds(drawn, asked.jobs * n_nodes, 20.0, driver)
        print(f"  {n_nodes:3} nodes {seconds / 60:8.1f} min {one / seconds:6.1f} times as fast")


if __name__ == "__main__":
    main()
