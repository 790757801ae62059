"""How long until the first frame is explained: at the first start, which builds, and at the next.

    python scripts/bench_start.py [--model resnet18] [--weights demo] [--precision fp32] [--runs 3]

Each start is a process of its own with a store that was empty before the first one. Two times are
given: from the start of the process, including the import of PyTorch, and from there on. Only the
second one can be saved by a kept engine.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

_START = """
import time
begun = time.clock_gettime(time.CLOCK_MONOTONIC)
import json, sys
sys.path.insert(0, {root!r})
import numpy as np
from stream_cam.explain.explainer import Explainer
imported = time.clock_gettime(time.CLOCK_MONOTONIC)
explainer = Explainer.load({model!r}, weights={weights!r}, precision={precision!r})
explainer.explain(np.zeros((720, 1280, 3), np.uint8))
ended = time.clock_gettime(time.CLOCK_MONOTONIC)
print(json.dumps([ended - begun, ended - imported]))
"""


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--model", default="resnet18")
    options.add_argument("--weights", default="demo")
    options.add_argument("--precision", default="fp32")
    options.add_argument("--runs", type=int, default=3, help="pairs of starts; the median counts")
    given = options.parse_args()
    firsts, seconds = [], []
    for _ in range(given.runs):
        with tempfile.TemporaryDirectory() as store:
            firsts.append(_start(given, store))
            seconds.append(_start(given, store))
    whole = [statistics.median(start[0] for start in starts) for starts in (firsts, seconds)]
    after = [statistics.median(start[1] for start in starts) for starts in (firsts, seconds)]
    print(f"{given.model}, {given.weights}, {given.precision}; median of {given.runs}")
    print("to the first explained frame       first start   next start   ratio")
    for name, (first, second) in (("with imports", whole), ("after imports", after)):
        print(f"{name:32} {first:10.2f} s {second:10.2f} s {first / second:7.1f}")
    return 0


def _start(given: argparse.Namespace, store: str) -> list[float]:
    code = _START.format(
        root=str(ROOT), model=given.model, weights=given.weights, precision=given.precision
    )
    ended = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "STREAM_CAM_ENGINES": store},
        capture_output=True,
        text=True,
        check=True,
    )
    times: list[float] = json.loads(ended.stdout.splitlines()[-1])
    return times


if __name__ == "__main__":
    sys.exit(main())
