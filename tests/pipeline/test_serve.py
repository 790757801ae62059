"""A page from Python in one line, and from the command line."""

from __future__ import annotations

import json
import re
import signal
import urllib.request
from pathlib import Path

import pytest
import torch
from support.processes import process
from support.waiting import DEADLINE_SECONDS, wait_until
from torch import nn

import stream_cam
from stream_cam.errors import SinkError, SourceNotFoundError
from stream_cam.uri import hide

SCENE = "demo://shapes?size=160x120&fps=10&live=1"


def fetched(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=DEADLINE_SECONDS) as answer:
        content: bytes = answer.read()
    return content


def test_one_line_serves_and_gives_the_settings() -> None:
    with stream_cam.serve(SCENE, weights="demo") as served:
        assert served.running
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", served.url)
        assert served.url in served._repr_html_()
        served.settings.alpha = 0.6
        assert json.loads(fetched(f"{served.url}settings"))["alpha"] == 0.6
        wait_until(lambda: int(str(served.stats()["explained"])) > 1)
        with urllib.request.urlopen(served.url, timeout=DEADLINE_SECONDS) as answer:
            policy = answer.headers["content-security-policy"]
        assert "frame-ancestors 'self' http://localhost:*" in policy, "a notebook may show it"
        report = served.stop()
    assert report is not None
    assert report.explained > 1
    assert not served.running
    assert "ended" in repr(served)


def foreign_explainer() -> stream_cam.Explainer:
    """A network that no list knows, with random parameters."""
    torch.manual_seed(0)
    network = nn.Sequential(
        *(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(4)),
        *(nn.Conv2d(8, 5, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 3)),
    )
    return stream_cam.Explainer.from_module(
        network, labels=["bolt", "nut", "gap"], input_size=32, engine="eager", device="cpu"
    )


def test_a_network_of_ones_own_runs_and_is_served(tmp_path: Path) -> None:
    explainer = foreign_explainer()
    path = tmp_path / "out.jsonl"
    scene = "demo://shapes?size=160x120&fps=10&seconds=1"
    report = stream_cam.run(explainer, scene, predictions=path)
    assert (report.model, report.weights, report.explained) == ("Sequential", "Sequential", 10)
    written = path.read_text()
    assert len(written.splitlines()) == 10
    assert any(f'"{label}"' in written for label in explainer.labels)
    with stream_cam.serve(SCENE, explainer=explainer) as served:
        wait_until(lambda: int(str(served.stats()["explained"])) > 1)
        report_served = served.stop()
    assert report_served is not None
    assert report_served.model == "Sequential"


def test_failures_are_raised_at_once(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFoundError):
        stream_cam.serve(str(tmp_path / "none.mp4"), weights="demo")
    with (
        stream_cam.serve(SCENE, weights="demo") as served,
        pytest.raises(SinkError, match="is in use"),
    ):
        stream_cam.serve(SCENE, weights="demo", address=served.url.replace("http", "web"))


def test_run_without_display_opens_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.chdir(tmp_path)
    running = process("run", SCENE, "--weights", "demo")
    try:
        assert running.stdout is not None
        line = running.stdout.readline()
        url = re.search(r"watch at (http://127\.0\.0\.1:\d+/)", line)
        assert url is not None, line
        assert fetched(f"{url[1]}healthz") == b"ok\n"
        running.send_signal(signal.SIGINT)
        assert running.wait(DEADLINE_SECONDS) == 130
    finally:
        running.kill()
        running.communicate()


def test_token_is_printed_once_and_in_no_report(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    running = process(
        *("demo", "-o", "web://0.0.0.0:0", "--seconds", "1", "--size", "160x120", "--quiet"),
        *("--report", str(report)),
    )
    out, err = running.communicate(timeout=6 * DEADLINE_SECONDS)
    assert running.returncode == 0, err
    token = re.search(r"token=([\w-]{32})", out)
    assert token is not None, out
    assert out.count(token[1]) == 1
    assert token[1] not in err
    assert token[1] not in report.read_text()
    assert token[1] not in hide(f"opened http://10.0.0.1:8080/?token={token[1]}")
