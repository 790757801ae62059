"""Whole authenticated sessions, whose every written byte is searched for the password."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from conftest import ROOT
from support.rtsp_harness import RtspServer, free_port, rtsp_server_problem
from support.waiting import wait_until

PASSWORD = "p@ss/w0rd?#1:x"
WRONG = "wr0ng/pa@ss"
DEADLINE_SECONDS = 120.0

CHATTY = """
import sys, av.logging
av.logging.set_level(av.logging.DEBUG)  # FFmpeg's own lines
from stream_cam.cli import main
sys.exit(main())
"""
CRASHING = """
import sys, threading, stream_cam.pipeline.session
def crash(uri, *args, **kwargs):
    def die():
        raise RuntimeError("a thread dies of " + uri + " and " + {password!r})
    thread = threading.Thread(target=die)
    thread.start()
    thread.join()
    try:
        raise OSError("Basic " + {basic!r})
    except OSError as error:
        raise RuntimeError("crash at " + uri) from error
stream_cam.pipeline.session.run_session = crash
from stream_cam.cli import main
sys.exit(main())
"""


def forms_of(*passwords: str) -> list[bytes]:
    """How a password may look where it should not be."""
    forms: set[str] = set()
    for password in passwords:
        forms |= {password, quote(password), quote(password, safe="")}
        for text in (password, f"me:{password}"):
            forms |= {base64.b64encode(text.encode()).decode()}
            forms |= {base64.urlsafe_b64encode(text.encode()).decode()}
    return [form.encode() for form in forms]


def assert_no_secret_in(folder: Path) -> None:
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) >= 2
    for path in files:
        content = path.name.encode() + path.read_bytes()
        for form in forms_of(PASSWORD, WRONG):
            assert form not in content, f"{path.name} holds {form!r}"


@pytest.fixture
def server() -> Iterator[RtspServer]:
    problem = rtsp_server_problem()
    if problem is not None:
        pytest.skip(problem)
    with RtspServer(digest=f"me:{PASSWORD}") as server:
        yield server


class Session:
    """`stream-cam run` in a process of its own that writes all it says into its folder."""

    def __init__(self, folder: Path, program: str, *arguments: str) -> None:
        self._errors = folder / "stderr.txt"
        with open(folder / "stdout.txt", "wb") as out, open(self._errors, "wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-c", program, "run", *arguments],
                cwd=folder,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdout=out,
                stderr=err,
                stdin=subprocess.DEVNULL,
            )

    def wait_for(self, text: str) -> None:
        """Until it has said so."""

        def said() -> bool:
            errors = self._errors.read_text(errors="replace")
            assert self.process.poll() is None or text in errors, errors
            return text in errors

        wait_until(said, DEADLINE_SECONDS)

    def end(self) -> int:
        try:
            return self.process.wait(DEADLINE_SECONDS)
        finally:
            self.process.kill()


@pytest.mark.needs_rtsp_server
def test_session_that_is_cut_and_interrupted(server: RtspServer, tmp_path: Path) -> None:
    uri = server.url_with(f"me:{quote(PASSWORD, safe='')}")
    program = CHATTY.replace("av.logging.DEBUG", "av.logging.WARNING")
    session = Session(
        tmp_path, program, uri, "frames/", "-o", "out.mp4", "--weights", "demo", "--verbose",
        "--report", "report.json", "--read-timeout-seconds", "2", "--engine", "eager",
    )  # fmt: skip
    wait_until(lambda: list(tmp_path.glob("frames/*")), DEADLINE_SECONDS)
    server.kill()
    session.wait_for("trying again")
    server.start()
    session.wait_for("is back")
    session.process.send_signal(signal.SIGINT)
    assert session.end() == 130
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["connection"]["recoveries"] == 1
    assert report["source"] == server.url_with("***")
    assert (tmp_path / "out.mp4").stat().st_size > 0
    assert_no_secret_in(tmp_path)


@pytest.mark.needs_rtsp_server
@pytest.mark.parametrize("kind", ["rtsp", "http"])
def test_session_with_a_wrong_password(server: RtspServer, tmp_path: Path, kind: str) -> None:
    uri = server.url_with(f"me:{WRONG}").replace("rtsp://", f"{kind}://")
    options = ["--verbose", "--report", "report.json", "--give-up-after", "2"]
    session = Session(tmp_path, CHATTY, uri, "null", "--weights", "demo", *options)
    assert session.end() == 1
    said = (tmp_path / "stderr.txt").read_text()
    assert "***@127.0.0.1" in said
    if kind == "rtsp":
        assert "wrong or missing user and password" in said
    assert_no_secret_in(tmp_path)


def test_session_that_crashes(tmp_path: Path) -> None:
    uri = f"rtsp://me:{PASSWORD.replace('@', '%40')}@cam.invalid/stream"
    basic = base64.b64encode(f"me:{PASSWORD}".encode()).decode()
    session = Session(
        tmp_path, CRASHING.format(password=PASSWORD, basic=basic), uri, "null", "--verbose"
    )
    assert session.end() == 1
    said = (tmp_path / "stderr.txt").read_text()
    assert "a thread dies of" in said
    assert "crash at" in said
    assert "Traceback" in said
    assert_no_secret_in(tmp_path)


@pytest.mark.needs_rtsp_server
def test_ctrl_c_while_nobody_is_there(tmp_path: Path) -> None:
    uri = f"rtsp://me:{WRONG}@127.0.0.1:{free_port()}/test"
    session = Session(tmp_path, CHATTY, uri, "null", "--weights", "demo")
    session.wait_for("trying again")
    session.process.send_signal(signal.SIGINT)
    started = time.monotonic()
    assert session.end() == 130
    assert time.monotonic() - started < 5.0
    assert_no_secret_in(tmp_path)
