"""`demo://photos`: a camera that moves over photographs."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from support.photographs import require_photos

from stream_cam.errors import SourceError, UsageError
from stream_cam.frame import BgrImage
from stream_cam.sources import open_source
from stream_cam.sources.demo import photos


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two pictures, one red and one blue, each with a gradient, and a text file."""
    ramp = np.tile(np.linspace(0, 255, 400, dtype=np.uint8), (300, 1))
    for name, channel in (("a.png", 2), ("b.png", 0)):
        image_bgr = np.zeros((300, 400, 3), np.uint8)
        image_bgr[..., 1], image_bgr[..., channel] = ramp, 200
        cv2.imwrite(str(tmp_path / name), image_bgr)
    (tmp_path / "notes.txt").write_text("no picture", encoding="utf-8")
    return tmp_path


def frames_of(uri: str) -> list[BgrImage]:
    with open_source(uri) as source:
        return [frame.image_bgr.copy() for frame in source]


def test_the_pictures_of_a_folder_follow_one_another(folder: Path) -> None:
    uri = f"demo://photos?folder={folder}&size=160x90&fps=5&seconds=12"
    frames = frames_of(uri)
    assert len(frames) == 60
    assert {frame.shape for frame in frames} == {(90, 160, 3)}
    is_red = [bool(frame[..., 2].mean() > frame[..., 0].mean()) for frame in frames]
    # Four seconds each, and 0.25 s into the next one both are half seen; then from the start.
    assert is_red == [True] * 22 + [False] * 20 + [True] * 18
    again = frames_of(uri)
    assert all(np.array_equal(one, other) for one, other in zip(frames, again, strict=True))
    other_seed = frames_of(f"{uri}&seed=1")
    assert not np.array_equal(frames[0], other_seed[0])


def test_the_camera_moves_smoothly(folder: Path) -> None:
    frames = frames_of(f"demo://photos?folder={folder}&size=160x90&fps=30&seconds=4")
    steps = [
        float(np.abs(after[..., 1].astype(float) - before[..., 1]).mean())
        for before, after in pairwise(frames)
    ]
    moved = np.abs(frames[-1][..., 1].astype(float) - frames[0][..., 1]).mean()
    assert moved > 3
    assert max(steps) < moved / 10


def test_a_still_camera_does_not_move(folder: Path) -> None:
    frames = frames_of(f"demo://photos?folder={folder}&size=160x90&fps=5&seconds=1&still=1")
    assert len(frames) == 5
    assert all(np.array_equal(frame, frames[0]) for frame in frames)


def test_a_folder_without_pictures_is_an_error(folder: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(SourceError, match="holds no pictures"):
        open_source(f"demo://photos?folder={empty}")
    with pytest.raises(SourceError, match="is no folder"):
        open_source(f"demo://photos?folder={folder / 'notes.txt'}")
    with pytest.raises(UsageError, match="folder is for demo://photos"):
        open_source(f"demo://shapes?folder={folder}")


def test_without_packages_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photos, "find_spec", lambda name: None)
    assert not photos.has_photos()
    with pytest.raises(SourceError, match=r"pip install 'stream-cam\[photos\]'"):
        open_source("demo://photos")


@pytest.mark.needs_photos
def test_scikit_images_photographs_come_first() -> None:
    require_photos()
    names = [path.stem for path in photos.find_photos(None)]
    assert names[:5] == ["chelsea", "coffee", "motorcycle_left", "camera", "rocket"]
    frames = frames_of("demo://photos?size=96x64&fps=1&seconds=20")
    assert all(frame.std() > 10 for frame in frames)
