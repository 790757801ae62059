"""The crowd of the page's benchmark makes its requests, and gets the right answers."""

from __future__ import annotations

import json
import subprocess
import sys

from conftest import ROOT
from support.web_parts import Page

from stream_cam.config import WebConfig


def test_crowd_is_shown_the_picture_and_refused_the_rest() -> None:
    page = Page(WebConfig(web_name="page.example"))
    url = f"http://127.0.0.1:{page.port}/?token={page.token}"
    program = [sys.executable, str(ROOT / "scripts" / "web_crowd.py"), url, "--abuse"]
    with page.sink, page.film(fps=30):
        done = subprocess.run(
            [*program, "--viewers=3", "--seconds=3"], capture_output=True, text=True, timeout=120
        )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    answers = said["answers"]
    assert answers.pop("viewer") == {"stayed": 3}
    assert answers.pop("malformed message")["sent"] > 10
    # "closed" is for those who were not answered in two seconds, on a machine that is busy.
    expected = {
        "wrong token": {"401", "429"},
        "long body": {"413"},
        "huge length": {"413"},
        "wrong origin": {"403"},
        "wrong origin, WebSocket": {"403"},
        "path out of the folder": {"404"},
        "hanging": {"held"},
    }
    assert set(answers) == set(expected)
    for name, counts in answers.items():
        assert set(counts) - {"closed"} <= expected[name], (name, counts)
    told = answers["wrong token"]
    assert told.get("401", 0) <= 10, "then none is looked at for a minute"
    assert told.get("401", 0) + told.get("429", 0) > 0
    assert said["stats"]["encoded"] > 10
