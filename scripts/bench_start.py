"""The cost of a start: `stream-cam run picture.jpg out.png`, first and next, and its imports.

    python scripts/bench_start.py [--model resnet18] [--weights demo] [--precision auto] [--runs 3]

Each start is a process of its own. The store of engines is empty before the first one, which builds
the engine. The next one finds it and needs no PyTorch. The imports are those of such a next start:
each package with its share of the time, by Python's `-X importtime`.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
_IMPORT = re.compile(r"import time:\s+(\d+) \|\s+\d+ \| +(\S+)")
_MB = 1024.0 if sys.platform == "linux" else 1024.0**2
"""`ru_maxrss` counts kilobytes on Linux and bytes on macOS."""


@dataclass(frozen=True)
class Start:
    """One process, from its beginning to its end."""

    wall_seconds: float
    processor_seconds: float
    peak_mb: float
    log: str


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--model", default="resnet18")
    options.add_argument("--weights", default="demo")
    options.add_argument("--precision", default="auto")
    options.add_argument("--runs", type=int, default=3, help="pairs of starts; the median counts")
    options.add_argument(
        "--least-ms", type=float, default=5.0, help="smaller imports are summed up"
    )
    given = options.parse_args()
    names = ["--model", given.model, "--weights", given.weights, "--precision", given.precision]
    firsts: list[Start] = []
    nexts: list[Start] = []
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder, "picture.jpg")
        cv2.imwrite(str(picture), _picture())
        for index in range(given.runs):
            store = Path(folder, str(index))
            firsts.append(start(picture, store, names))
            nexts.append(start(picture, store, names))
        traced = start(picture, store, names, ["-X", "importtime"])
    print(f"{' '.join(names)}; median of {given.runs}")
    print(f"{'':22}{'first start':>14}{'next start':>14}")
    for name, unit in (("wall_seconds", "s"), ("processor_seconds", "s"), ("peak_mb", "MB")):
        first, following = (
            statistics.median(getattr(one, name) for one in starts) for starts in (firsts, nexts)
        )
        print(f"{name.replace('_', ' '):22}{first:11.2f} {unit:2}{following:11.2f} {unit:2}")
    print_imports(traced.log, given.least_ms)
    return 0


def start(picture: Path, store: Path, names: list[str], python: list[str] | None = None) -> Start:
    """Runs the command once and waits for its end.

    Args:
        python: options of the interpreter.
    """
    command = [sys.executable, *(python or []), "-m", "stream_cam", "run", str(picture)]
    command += [str(picture.with_name("out.png")), "--overwrite", *names]
    environment = {**os.environ, "STREAM_CAM_ENGINES": str(store), "PYTHONPATH": str(ROOT)}
    begun = time.monotonic()
    with tempfile.TemporaryFile("w+", encoding="utf-8") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.monotonic() - begun
        log.seek(0)
        text = log.read()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{text}")
    return Start(seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / _MB, text)


def print_imports(log: str, least_ms: float) -> None:
    """A line for each package, by the time that its own modules took, the slowest first."""
    taken_us: Counter[str] = Counter()
    for microseconds, module in _IMPORT.findall(log):
        taken_us[module.partition(".")[0]] += int(microseconds)
    print(
        f"imports of a next start: {sum(taken_us.values()) / 1e3:.0f} ms, {len(taken_us)} packages"
    )
    small = 0
    for package, microseconds in taken_us.most_common():
        if microseconds < least_ms * 1e3:
            small += microseconds
        else:
            print(f"  {package:24}{microseconds / 1e3:8.1f} ms")
    print(f"  {'all others':24}{small / 1e3:8.1f} ms")


def _picture() -> np.ndarray:
    """A picture of a usual size, with something on it."""
    picture = np.full((720, 1280, 3), 160, np.uint8)
    cv2.circle(picture, (700, 360), 150, (40, 60, 200), -1, cv2.LINE_AA)
    return picture


if __name__ == "__main__":
    sys.exit(main())
