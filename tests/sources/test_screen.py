"""`screen://` on a virtual X server, and its mistakes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from support.displays import x_server

pytest.importorskip("mss", reason="pip install -e '.[screen]'")

from stream_cam.errors import SourceError, UsageError
from stream_cam.frame import BgrImage
from stream_cam.sources import open_source
from stream_cam.sources.screen import parse_screen_uri

SECONDS = 60.0
COLOUR_BGR = (40, 200, 90)
WINDOW = f"""
import cv2, numpy
from stream_cam.sinks.window import display_problem
assert display_problem() is None  # which also lets Qt read its events: else it may never paint
image = numpy.full((240, 320, 3), {COLOUR_BGR}, numpy.uint8)
cv2.namedWindow("w", cv2.WINDOW_AUTOSIZE | cv2.WINDOW_GUI_NORMAL)
cv2.imshow("w", image)
while True:
    cv2.waitKey(50)
"""


def of_the_colour(image: BgrImage) -> int:
    """Pixels that the window has painted."""
    return int((np.abs(image.astype(int) - COLOUR_BGR).max(axis=2) <= 3).sum())


def test_a_window_on_the_screen_is_seen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with x_server() as display:
        monkeypatch.setenv("DISPLAY", display)
        window = subprocess.Popen([sys.executable, "-c", WINDOW], stderr=subprocess.DEVNULL)
        try:
            with open_source("screen://?fps=10") as source:
                assert source.info.live
                assert source.info.size_hw == (1000, 1600)
                for frame in source:
                    if of_the_colour(frame.image_bgr) > 50_000:
                        break
                    assert frame.pts_seconds < SECONDS, "the window never came"
            places = np.argwhere(np.abs(frame.image_bgr.astype(int) - COLOUR_BGR).max(axis=2) <= 3)
            top, left = (int(value) for value in places.min(axis=0))
            with open_source(f"screen://?region=100x60+{left + 50}+{top + 50}") as source:
                part = next(iter(source))
            assert part.size_hw == (60, 100)
            assert of_the_colour(part.image_bgr) == 6000
            for uri, expected in (
                ("screen://3", "has screens 1 to 1"),
                ("screen://?region=100x60+1550+0", "beyond the screen of 1600x1000"),
            ):
                with pytest.raises(UsageError, match=expected), open_source(uri):
                    pass
            environment = {**os.environ, "DISPLAY": display}
            command = [
                "run",
                f"screen://?region=320x240+{left}+{top}&fps=10",
                "-o",
                "shots/",
                "--limit",
                "3",
                "--alpha",
                "0",
            ]
            done = subprocess.run(
                [sys.executable, "-m", "stream_cam", *command, "--weights", "demo"],
                cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=SECONDS * 2,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
            shots = sorted((tmp_path / "shots").iterdir())
            assert shots
            picture = cv2.imread(str(shots[0]))
            assert picture is not None
            assert picture.shape == (240, 320, 3)
            # Without colours on it the window is seen as it is, but for the label.
            assert of_the_colour(np.asarray(picture, np.uint8)) > 40_000
        finally:
            window.terminate()
            window.wait(SECONDS)


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("screen://left", "screen:// takes the number of a screen"),
        ("screen://?size=3", "parameter of screen://"),
        ("screen://?region=10x10", r"region is WIDTHxHEIGHT\+LEFT\+TOP"),
        ("screen://?region=1x10+0+0", "at least 2x2"),
        ("screen://?fps=0", "whole number from 1 to 120"),
    ],
)
def test_mistakes_name_the_right_form(uri: str, expected: str) -> None:
    with pytest.raises(UsageError, match=expected):
        parse_screen_uri(uri)


@pytest.mark.skipif(sys.platform != "linux", reason="DISPLAY is for X11")
def test_without_a_display_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    with pytest.raises(SourceError, match="DISPLAY is not set"):
        open_source("screen://")
    monkeypatch.setenv("DISPLAY", ":97531")
    with pytest.raises(SourceError, match="cannot be grabbed"), open_source("screen://"):
        pass
