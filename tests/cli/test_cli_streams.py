"""Closed streams and closed terminals neither end a run nor lose its files."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import av
import pytest
from support.waiting import wait_until

from stream_cam._version import __version__
from stream_cam.cli.signals import Signals

DEADLINE_SECONDS = 120.0
OPTIONS = ("--weights", "demo", "--engine", "eager", "--device", "cpu", "--input-size", "64")
SOURCE = "demo://shapes?size=96x64&fps=10&seconds=0.5"
ENDLESS = "demo://shapes?size=96x64&fps=30&live=1"


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def n_frames(path: Path | str) -> int:
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


def shell(redirected: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-c", f'"$@" {redirected}', "sh", sys.executable, "-m", "stream_cam", *arguments],
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
    )


@pytest.mark.parametrize("redirected", [">&-", "2>&-", "<&- >&- 2>&-", "| true", "2>&1 | true"])
def test_version_whatever_the_streams_are(redirected: str) -> None:
    done = shell(redirected, "--version")
    assert (done.returncode, done.stdout + done.stderr) == (
        0,
        f"stream-cam {__version__}\n" if redirected == "2>&-" else "",
    )


def test_words_that_cannot_be_written_are_a_failure_at_the_end(place: Path) -> None:
    """A full disk under a log does not end the run."""
    done = shell(">/dev/full", "run", SOURCE, "out.mp4", *OPTIONS)
    assert done.returncode == 1
    assert done.stderr == "stream-cam: stdout cannot be written: No space left on device\n"
    assert n_frames("out.mp4") == 5


@pytest.mark.parametrize("redirected", ["<&- >&- 2>&-", "2>&1 | true"])
def test_run_does_its_work_with_closed_streams(redirected: str) -> None:
    done = shell(redirected, "run", SOURCE, "out.mp4", *OPTIONS, "--verbose")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert n_frames("out.mp4") == 5


def test_files_do_not_get_the_number_of_a_closed_stream(place: Path) -> None:
    code = (
        "import os\n"
        "from stream_cam.cli.streams import use_lenient_streams\n"
        "use_lenient_streams()\n"
        "assert os.open('file', os.O_WRONLY | os.O_CREAT) > 2\n"
        "os.write(2, b'a library complains')\n"
    )
    subprocess.run(
        ["sh", "-c", '"$@" <&- >&- 2>&-', "sh", sys.executable, "-c", code],
        check=True,
        timeout=DEADLINE_SECONDS,
    )
    assert (place / "file").read_bytes() == b""


def test_closed_terminal_finishes_file_and_report(place: Path) -> None:
    """The kernel sends SIGHUP, and every later write to the terminal fails."""
    ours, theirs = pty.openpty()
    code = (
        "import fcntl, runpy, sys, termios\n"
        "fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
        "runpy.run_module('stream_cam', run_name='__main__')\n"
    )
    arguments = ["run", ENDLESS, "out.mp4", "--report", "r.json", *OPTIONS]
    running: subprocess.Popen[str] = subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm"},
        start_new_session=True,
        text=True,
    )
    os.close(theirs)
    os.set_blocking(ours, False)

    def begun() -> bool:
        with suppress(BlockingIOError):
            os.read(ours, 65536)
        assert running.poll() is None
        return (place / "out.part.mp4").exists()

    try:
        wait_until(begun, DEADLINE_SECONDS)
        os.close(ours)
        assert running.wait(DEADLINE_SECONDS) == 129
    finally:
        running.kill()
        running.wait()
    report = json.loads((place / "r.json").read_text())
    assert report["ended_by"] == "interrupted"
    assert n_frames("out.mp4") == report["sinks"][0]["written"] > 0


def test_nohup_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Signals() as signals:
            signals.watch(lambda reason: pytest.fail(reason))
            os.kill(os.getpid(), signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        assert signals.exit_code == 0
    finally:
        signal.signal(signal.SIGHUP, before)
