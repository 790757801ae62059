"""Starts, kills, freezes and restarts real servers, for the tests and for scripts/soak.py."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import threading
from pathlib import Path

from stream_cam.closing import Closeable

SYSTEM_PYTHON = "/usr/bin/python3"
SERVER = Path(__file__).with_name("rtsp_server.py")
START_SECONDS = 60.0  # GStreamer scans its plugins at its first start

BAND, ROWS, COLUMNS = 8, 2, 16
"""Where the clock is in the picture: see rtsp_server.py."""


def free_port() -> int:
    """A loopback port that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def rtsp_server_problem() -> str | None:
    """Why GStreamer's RTSP server cannot be started here; None if it can."""
    probe = "import gi; gi.require_version('GstRtspServer', '1.0')"
    if (
        not os.path.exists(SYSTEM_PYTHON)
        or subprocess.run([SYSTEM_PYTHON, "-c", probe], capture_output=True).returncode
    ):
        return "no GStreamer RTSP server (apt-get install gir1.2-gst-rtsp-server-1.0)"
    return None


class RtspServer(Closeable):
    """GStreamer's RTSP server in a process of its own, always at the same port.

    Args:
        digest: `user:password` that clients must give.
    """

    def __init__(self, *, size: str = "320x240", fps: int = 30, digest: str = "") -> None:
        self.size, self.fps, self._digest = size, fps, digest
        self.port = free_port()
        self._process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        return f"rtsp://127.0.0.1:{self.port}/test"

    def url_with(self, credentials: str) -> str:
        return self.url.replace("://", f"://{credentials}@")

    def start(self) -> None:
        """Returns when clients may come."""
        command = [SYSTEM_PYTHON, str(SERVER), "--port", str(self.port)]
        command += ["--size", self.size, "--fps", str(self.fps), "--digest", self._digest]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._process.stdout is not None
        deadline = threading.Timer(START_SECONDS, self._process.kill)
        deadline.start()
        line = self._process.stdout.readline()
        deadline.cancel()
        if not line.startswith("PORT "):
            self.kill()
            raise RuntimeError("the RTSP server did not start")

    def kill(self) -> None:
        """kill -9."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def freeze(self) -> None:
        """SIGSTOP: its connections stay open and nothing comes."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def __enter__(self) -> RtspServer:
        self.start()
        return self

    def close(self) -> None:
        self.kill()


class FfmpegServer:
    """The `ffmpeg` program with MPEG-TS over HTTP: a peer that is not GStreamer.

    It serves one client after another, or pushes into an endpoint that listens.
    """

    def __init__(self, *, push_to: str | None = None, size: str = "320x240", fps: int = 25) -> None:
        self.size, self._fps = size, fps
        self.codec: tuple[str, ...] = ("libx264", "-preset", "ultrafast", "-tune", "zerolatency")
        """Encoder of the next start, with its options."""
        self._how = ["-listen", "1"] if push_to is None else ["-method", "POST"]
        self.url = push_to or f"http://127.0.0.1:{free_port()}/live.ts"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        program = shutil.which("ffmpeg")
        assert program is not None
        command = [program, "-v", "quiet", "-re", "-f", "lavfi"]
        command += ["-i", f"testsrc=size={self.size}:rate={self._fps}"]
        command += ["-c:v", *self.codec, "-g", "10"]
        command += ["-threads", "1", "-f", "mpegts", *self._how, self.url]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
