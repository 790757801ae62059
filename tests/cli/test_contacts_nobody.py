"""The command contacts nobody, and writes only where it was told to; its children likewise."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.needs_strace

ROOT = Path(__file__).resolve().parents[2]
_CONNECTION = re.compile(r"(?:connect|sendto|sendmsg|sendmmsg)\(.*sa_family=AF_INET6?\b.*")
_WRITING = re.compile(r'(?:mkdir\w*|rename\w*|symlink\w*|openat)\(.*?"([^"]*)".*')
_SYSTEM = ("/dev/", "/proc/")


class Machine:
    """An empty home, store and temporary folder."""

    def __init__(self, folder: Path) -> None:
        strace = shutil.which("strace")
        if strace is None:
            pytest.skip("strace is not installed (apt-get install strace)")
        self._strace = strace
        self._folder = folder
        for name in ("home", "temporary", "outputs", "store"):
            (folder / name).mkdir()

    def run(self, *arguments: str) -> str:
        """The output of the command, traced with its children. Fails if it reached out."""
        trace = self._folder / "trace"
        environment = {name: value for name, value in os.environ.items() if name[:4] != "XDG_"}
        environment |= {
            "HOME": str(self._folder / "home"),
            "CI": "",  # OpenVINO's telemetry would be silent by itself
            "STREAM_CAM_ENGINES": str(self._folder / "store"),
            "TMPDIR": str(self._folder / "temporary"),
            "PYTHONPATH": str(ROOT),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        calls = "connect,sendto,sendmsg,sendmmsg,openat,mkdir,mkdirat,rename,renameat2,symlink"
        tracer = [self._strace, "-f", "--seccomp-bpf", "-qq", "-e", "signal=none"]
        tracer += ["-e", f"trace={calls}", "-o", str(trace)]
        done = subprocess.run(
            [*tracer, sys.executable, "-m", "stream_cam", *arguments],
            env=environment,
            cwd=self._folder / "outputs",
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        lines = trace.read_text(errors="replace").splitlines()
        assert any("openat(" in line for line in lines)
        assert [line for line in lines if _CONNECTION.search(line)] == []
        assert self._written_elsewhere(lines) == []
        return done.stdout

    def _written_elsewhere(self, lines: list[str]) -> list[str]:
        """Calls that created or opened for writing something that is not under our folder."""
        own = (str(self._folder), *_SYSTEM)
        return [
            line
            for line in lines
            if (call := _WRITING.search(line))
            and call.group(1).startswith("/")
            and not call.group(1).startswith(own)
            and ("openat(" not in line or re.search(r"O_(WRONLY|RDWR|CREAT)", line))
            and " = -1 " not in line
        ]

    def left(self, name: str) -> list[str]:
        """Files in one of the folders."""
        return sorted(path.name for path in (self._folder / name).iterdir())


def test_building_and_running_contact_nobody_and_leave_nothing(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    scene = "demo://shapes?seconds=1&size=160x120&fps=5"
    machine.run("build", "--weights", "demo", "--engine", "openvino")
    machine.run("run", scene, "out.mp4", "-o", "web://127.0.0.1:0", "--weights", "demo")
    assert machine.left("outputs") == ["out.mp4"]
    assert machine.left("home") == []
    # PyTorch makes an empty folder at import.
    assert [name for name in machine.left("temporary") if "torchinductor" not in name] == []
    assert [name for name in machine.left("store") if "openvino" not in name] == ["networks"]


def test_doctor_contacts_nobody(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    assert "OpenVINO" in machine.run("doctor")
    assert machine.left("home") == machine.left("outputs") == []
