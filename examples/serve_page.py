"""Serves the page from a program, and changes the picture while it runs.

python serve_page.py                               # the drawn scene, for ten seconds
python serve_page.py 0 --weights imagenet --seconds 600
"""

from __future__ import annotations

import argparse

import stream_cam


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", nargs="?", default="demo://shapes?size=640x360&live=1")
    parser.add_argument("--weights", default="demo")
    parser.add_argument("--address", default="web://127.0.0.1:0")
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args()

    served = stream_cam.serve(options.source, weights=options.weights, address=options.address)
    with served:
        print(f"open {served.url}", flush=True)
        served.wait(options.seconds / 2)
        served.settings.change(layout="side", smooth=0.3)
        served.wait(options.seconds / 2)
        print(f"{served.stats()['fps']} frames/s")
    print("stopped")


if __name__ == "__main__":
    main()
