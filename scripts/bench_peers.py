"""stream-cam beside pytorch-grad-cam and torch-cam, and further files through `stream-cam run`.

The first part is `stream-cam bench --peers`, which runs a file of drawn scenes as well. It compares
a run's throughput with its slowest stage alone, and with the rate that the shared cores allow.
docs/bench.md explains how.

    python scripts/bench_peers.py [--samples 200] [--frame 1280x720] [--device cpu] [--video F …]
                                  [--json F]
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from stream_cam.bench.command import check_writable, save
from stream_cam.bench.run import run_bench
from stream_cam.bench.table import print_result, print_throughput
from stream_cam.bench.throughput import file_throughput
from stream_cam.config import BenchConfig, ModelConfig
from stream_cam.errors import StreamCamError


def main() -> int:
    options = _options()
    try:
        config = BenchConfig(
            batch=(1,),
            shape=("224x224",),  # the usual input of ResNet18
            device=options.device,
            frame=options.frame,
            peers=True,
            samples=options.samples,
            seconds=options.seconds,
            plot=options.plot,
        )
        for path in filter(None, (options.json, options.plot)):
            check_writable(path)
        result = run_bench(config, shlex.join(["python", *sys.argv]))
        print_result(result)
        for video in options.video:
            result.files.append(file_throughput(video, ModelConfig(weights=config.weights), None))
            print_throughput(result.files[-1])
        save(result, options.json, options.plot)
    except (StreamCamError, ValueError) as error:
        print(f"bench_peers: {error}", file=sys.stderr)
        return getattr(error, "exit_code", 2)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--samples", type=int, default=200, help="timed calls for one row")
    parser.add_argument("--seconds", type=float, default=10.0, help="that these may take together")
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="for the first; files always run where they are fastest",
    )
    parser.add_argument("--frame", default="1280x720", help="width x height of the frames")
    parser.add_argument(
        "--video", type=Path, nargs="*", default=[], help="further files for the throughput"
    )
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--plot", type=Path, help="draw the distributions into this SVG file")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
