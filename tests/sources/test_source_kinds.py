"""The table of the kinds of sources: which kind a URI is, and which options it takes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from stream_cam.config import CaptureConfig
from stream_cam.errors import UsageError
from stream_cam.sources import Input, check_source, kind_of, open_source, source_kinds


def kind_name(uri: str | Path) -> str:
    return kind_of(Input(str(uri))).name


@pytest.mark.parametrize(
    ("uri", "kind"),
    [
        ("demo://shapes", "demo"),
        ("rtsp://cam/stream", "stream"),
        ("HTTP://cam/still.jpg", "stream"),
        ("0", "camera"),
        ("/dev/video3", "camera"),
        ("-", "pipe"),
        ("pipe:3", "pipe"),
        ("*.none", "pictures"),
        ("cam.sdp", "SDP file"),
        ("clip.mp4", "video file"),
        ("file:///clip.mp4", "video file"),
    ],
)
def test_kind_follows_from_the_uri(uri: str, kind: str) -> None:
    assert kind_name(uri) == kind


def test_kind_follows_from_the_file(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((4, 4, 3), np.uint8))
    (tmp_path / "a.png").rename(tmp_path / "picture")
    os.mkfifo(tmp_path / "fifo.jpg")
    assert kind_name(tmp_path) == "pictures"
    assert kind_name(tmp_path / "picture") == "pictures"
    assert kind_name(f"file://{tmp_path}") == "pictures"
    assert kind_name(tmp_path / "fifo.jpg") == "pipe"


def test_names_of_kinds_are_unique() -> None:
    names = [kind.name for kind in source_kinds()]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("uri", ["0", "demo://shapes", "clip.mp4", "rtsp://cam/stream"])
def test_poll_is_for_http(uri: str) -> None:
    with pytest.raises(UsageError, match=r"--poll fetches a picture at http:// or https://, got "):
        open_source(uri, CaptureConfig(poll=1.0))


def test_check_finds_mistakes_without_opening() -> None:
    with pytest.raises(UsageError, match="names no host"):
        check_source("rtsp:///stream")
    with pytest.raises(UsageError, match="unknown demo scene"):
        check_source("demo://none")
    check_source("rtsp://cam/stream")


def test_drawn_scene_is_opened_without_pyav() -> None:
    code = (
        "import sys\nfrom stream_cam.sources import open_source\n"
        "with open_source('demo://shapes?size=64x64') as source: next(iter(source))\n"
        "assert 'av' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
