"""An RTSP server with moving pictures, for tests; runs under the system's python3.

    /usr/bin/python3 tests/rtsp_server.py [--size 320x240] [--fps 30]

Listens on a free loopback port, prints `PORT <number>` when it serves `/test`, and ends when its
standard input closes, so that it cannot outlive the tests.
"""

from __future__ import annotations

import argparse
import sys
import threading

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", default="320x240")
    parser.add_argument("--fps", type=int, default=30)
    options = parser.parse_args()
    width, height = options.size.split("x")
    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service("0")
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch(
        f"( videotestsrc is-live=true pattern=ball ! "
        f"video/x-raw,width={width},height={height},framerate={options.fps}/1 ! "
        f"x264enc tune=zerolatency speed-preset=ultrafast key-int-max=15 threads=1 ! "
        f"rtph264pay name=pay0 pt=96 config-interval=1 )"
    )
    factory.set_shared(True)
    server.get_mount_points().add_factory("/test", factory)
    server.attach(None)
    loop = GLib.MainLoop()
    threading.Thread(target=lambda: (sys.stdin.read(), loop.quit()), daemon=True).start()
    print(f"PORT {server.get_bound_port()}", flush=True)
    loop.run()


if __name__ == "__main__":
    main()
