"""An RTSP server with moving pictures and a readable clock, for tests; under the system's python3.

    /usr/bin/python3 tests/support/rtsp_server.py [--port 0] [--size 320x240] [--fps 30]
        [--digest USER:PW]

Listens on a loopback port (0: a free one), prints `PORT <number>` when it serves `/test`, and ends
when its standard input closes, so that it cannot outlive the tests.

The upper part of each picture is a clock: the milliseconds of CLOCK_MONOTONIC at which it was
drawn, as black and white blocks that survive coding and an overlay (frame_clock.py reads them).
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from typing import Any

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtsp", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtsp, GstRtspServer  # noqa: E402

COLUMNS, ROWS = 16, 2
"""Blocks of the clock: 24 bits of milliseconds, 8 bits that check them, highest bit first."""
START_SECONDS = 10.0
BAND = 8
"""The clock takes 1 / BAND of the picture's height."""


def clock_bits(milliseconds: int) -> list[bool]:
    value = milliseconds & 0xFFFFFF
    check = ((value >> 16) ^ (value >> 8) ^ value ^ 0x5A) & 0xFF
    word = value << 8 | check
    return [bool(word >> (31 - bit) & 1) for bit in range(32)]


class Painter:
    """Draws grey pictures: the clock, a ramp, and a square that moves over it."""

    def __init__(self, width: int, height: int) -> None:
        self._width, self._height = width, height
        ramp = bytes(60 + 100 * x // width for x in range(width))
        self._paper = ramp * height

    def paint(self, milliseconds: int) -> bytes:
        width, height = self._width, self._height
        picture = bytearray(self._paper)
        bits = clock_bits(milliseconds)
        row_px = height // BAND // ROWS
        for row in range(ROWS):
            line = b"".join(
                bytes([235 if bits[row * COLUMNS + column] else 16])
                * ((column + 1) * width // COLUMNS - column * width // COLUMNS)
                for column in range(COLUMNS)
            )
            start = row * row_px * width
            picture[start : start + row_px * width] = line * row_px
        side = height // 5
        left = milliseconds // 8 % (width - side)
        for y in range(height // 2, height // 2 + side):
            picture[y * width + left : y * width + left + side] = b"\xdc" * side
        return bytes(picture)


def push(source: Any, painter: Painter, fps: int) -> None:
    """Feeds pictures at their rate until nobody takes them any more."""
    started = time.monotonic()
    taken, patience_until = False, started + START_SECONDS
    for number in range(1 << 40):
        wait = started + number / fps - time.monotonic()
        if wait > 0:
            time.sleep(wait)
        elif wait < -1:
            started -= wait  # the process was stopped for a while
        buffer = Gst.Buffer.new_wrapped(painter.paint(time.monotonic_ns() // 1_000_000))
        if source.emit("push-buffer", buffer) == Gst.FlowReturn.OK:
            taken = True
        elif taken or time.monotonic() > patience_until:
            return  # not before: on a busy machine the pictures are early


def make_factory(width: int, height: int, fps: int) -> Any:
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch(
        f"( appsrc name=pictures is-live=true do-timestamp=true format=time block=true "
        f"caps=video/x-raw,format=GRAY8,width={width},height={height},framerate={fps}/1 ! "
        f"videoconvert ! video/x-raw,format=I420 ! "
        f"x264enc tune=zerolatency speed-preset=ultrafast key-int-max={fps} threads=1 ! "
        f"rtph264pay name=pay0 pt=96 config-interval=1 )"
    )
    factory.set_shared(True)

    def configure(_: Any, media: Any) -> None:
        source = media.get_element().get_by_name_recurse_up("pictures")
        painter, wanted = Painter(width, height), threading.Event()
        source.connect("need-data", lambda *_: wanted.set())

        def feed() -> None:
            # Pictures that come before the stream runs may leave it standing for good.
            if wanted.wait(START_SECONDS):
                push(source, painter, fps)

        threading.Thread(target=feed, daemon=True).start()

    factory.connect("media-configure", configure)
    return factory


def guard(server: Any, factory: Any, user: str, password: str) -> None:
    """Lets nobody in without that user and password, by digest authentication."""
    token = GstRtspServer.RTSPToken()
    token.set_string("media.factory.role", "viewer")
    auth = GstRtspServer.RTSPAuth()
    auth.set_supported_methods(GstRtsp.RTSPAuthMethod.DIGEST)
    auth.add_digest(user, password, token)
    server.set_auth(auth)
    permissions = GstRtspServer.RTSPPermissions()
    permissions.add_permission_for_role("viewer", "media.factory.access", True)
    permissions.add_permission_for_role("viewer", "media.factory.construct", True)
    factory.set_permissions(permissions)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", default="0")
    parser.add_argument("--size", default="320x240")
    parser.add_argument("--fps", type=int, default=30)
    parser.add_argument("--digest", default="")
    options = parser.parse_args()
    width, height = map(int, options.size.split("x"))
    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(options.port)
    factory = make_factory(width, height, options.fps)
    if options.digest:
        guard(server, factory, *options.digest.split(":", 1))
    server.get_mount_points().add_factory("/test", factory)
    if server.attach(None) == 0:
        sys.exit(f"port {options.port} cannot be had")
    loop = GLib.MainLoop()
    threading.Thread(target=lambda: (sys.stdin.read(), loop.quit()), daemon=True).start()
    print(f"PORT {server.get_bound_port()}", flush=True)
    loop.run()


if __name__ == "__main__":
    main()
