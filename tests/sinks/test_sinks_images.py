import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from support.videos import numbered_picture, picture_at, picture_number

from stream_cam.errors import OutputExistsError, SinkError
from stream_cam.frame import BgrImage
from stream_cam.sinks import FolderSink, NullSink, PictureSink


def read(path: Path) -> BgrImage:
    image = cv2.imread(str(path))
    assert image is not None
    return np.asarray(image, dtype=np.uint8)


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".jpeg", ".webp", ".bmp", ".PNG"])
def test_picture_file_is_the_newest_picture(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out{suffix}"
    with PictureSink(str(path)) as sink:
        for index in range(4):
            assert sink.write(picture_at(numbered_picture(index, (16, 16)), index))
        assert not path.exists()
    assert picture_number(read(path)) == 3
    assert names(tmp_path) == [path.name]


def test_picture_file_is_written_when_the_run_is_interrupted(tmp_path: Path) -> None:
    path = tmp_path / "out.png"

    def interrupted_run() -> None:
        with PictureSink(str(path)) as sink:
            sink.write(picture_at(numbered_picture(2, (16, 16))))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted_run()
    assert picture_number(read(path)) == 2


def test_sink_without_pictures_writes_nothing(tmp_path: Path) -> None:
    with PictureSink(str(tmp_path / "out.png")), FolderSink(str(tmp_path / "frames")):
        pass
    assert names(tmp_path) == []


def test_folder_numbers_frames_of_a_video(tmp_path: Path) -> None:
    folder = tmp_path / "frames"
    with FolderSink(f"{folder}/") as sink:
        for index in (0, 1, 7):
            sink.write(picture_at(numbered_picture(index, (16, 16)), index=index))
    assert names(folder) == ["frame_000000.png", "frame_000001.png", "frame_000007.png"]
    assert picture_number(read(folder / "frame_000007.png")) == 7


def test_folder_keeps_whole_names_of_pictures(tmp_path: Path) -> None:
    """Each result's name follows from its picture's alone, whatever lies beside it."""
    sources = ("cat.jpg", "dog.PNG", "cat.png", "sub/deeper/cat.jpg", "scan.tif", "scan.tif")
    with FolderSink(f"{tmp_path}/out") as sink:
        for number, name in enumerate(sources):
            sink.write(picture_at(numbered_picture(number, (16, 16)), name=name))
    results = ("cat.jpg.png", "dog.PNG", "cat.png", "sub/deeper/cat.jpg.png", "scan.tif.png")
    for number, name in enumerate([*results, "scan.tif.1.png"]):
        assert picture_number(read(tmp_path / "out" / name)) == number


def test_existing_pictures_are_replaced_only_when_asked(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"mine")
    picture = picture_at(numbered_picture(1, (16, 16)), name="a.png")
    with pytest.raises(OutputExistsError, match="--overwrite"), PictureSink(str(path)) as one:
        one.write(picture)
    with pytest.raises(OutputExistsError, match="--overwrite"), FolderSink(str(tmp_path)) as many:
        many.write(picture)
    assert path.read_bytes() == b"mine"
    with FolderSink(str(tmp_path), overwrite=True) as many:
        many.write(picture)
    assert picture_number(read(path)) == 1


def test_disk_that_fails_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(source: object, target: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(SinkError, match="No space left"), FolderSink(str(tmp_path)) as sink:
        sink.write(picture_at(numbered_picture(0, (16, 16))))
    assert names(tmp_path) == []


def test_picture_too_large_for_its_format(tmp_path: Path) -> None:
    picture = picture_at(np.zeros((1, 20000, 3), np.uint8))
    with (
        pytest.raises(SinkError, match="cannot hold 20000×1"),
        FolderSink(str(tmp_path), suffix=".webp") as sink,
    ):
        sink.write(picture)
    assert names(tmp_path) == []


def test_null_counts() -> None:
    with NullSink() as sink:
        assert all(sink.write(picture_at(numbered_picture(0, (2, 2)))) for _ in range(3))
    assert sink.written == 3
