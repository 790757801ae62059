"""The file of `stream-cam cameras`: what it says, and every fault with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from stream_cam.cameras.camera_config import CameraConfig
from stream_cam.cameras.config_file import CamerasFile, read_cameras
from stream_cam.cameras.toml_lines import TomlLines
from stream_cam.config import LookConfig, PipelineConfig
from stream_cam.errors import SourceNotFoundError, UsageError

BASE = PipelineConfig(look=LookConfig(alpha=0.6))


def read(tmp_path: Path, text: str) -> CamerasFile:
    path = tmp_path / "shop.toml"
    path.write_text(text, encoding="utf-8")
    return read_cameras(path, BASE)


def faults(tmp_path: Path, text: str) -> list[str]:
    """What is said, without the file's own name."""
    with pytest.raises(UsageError) as caught:
        read(tmp_path, text)
    return [line.removeprefix(f"{tmp_path}/shop.toml:") for line in str(caught.value).splitlines()]


def test_options_come_from_the_line_the_defaults_and_the_camera(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        """
        [network]
        weights = "demo"
        input-size = 128
        [defaults]
        sink = ["recordings/{name}.mp4"]
        segment = "10m"
        keep = "2d"
        sync = "newest"
        [cameras.door]
        source = 0
        target = "star"
        weight = 2
        [cameras."till.2"]
        source = "rtsp://cam/stream"
        sink = []
        rate = 5
        max_delay = 0.2
        predictions = "{name}.jsonl"
        segment = 60
        """,
    )
    assert (found.network.weights, found.network.input_size) == ("demo", 128)
    door, till = (camera.named() for camera in found.cameras)
    assert (door.name, door.source, door.pipeline.model.target) == ("door", "0", ("star",))
    assert door.sink == ("recordings/door.mp4",)
    assert (door.share.weight, door.share.rate) == (2.0, None)
    assert door.pipeline.look == LookConfig(alpha=0.6, sync="newest")
    assert door.pipeline.record.segment_seconds == 600
    assert door.pipeline.run.live is True
    assert (till.sink, till.share.rate, till.pipeline.look.max_delay) == ((), 5.0, 0.2)
    assert till.pipeline.record.predictions == Path("till.2.jsonl")
    assert till.pipeline.record.segment_seconds == 60


def test_every_fault_is_told_with_its_line(tmp_path: Path) -> None:
    said = faults(
        tmp_path,
        """[network]
weigths = "demo"
target = ["star"]
[defaults]
sink = ["all.mp4"]
[cameras.a]
source = "demo://shapes"
alpha = "much"
[cameras.b]
note = \"\"\"
sync = "this is no key"
\"\"\"
sync = "now"
[cameras.c]
source = "demo://shapes"
keep = "1d"
weight = -1
[cameras."d e"]
source = "demo://shapes"
[cameras.f]
source = "demo://shapes"
sink = "window"
[camera.g]
""",
    )
    starts = [
        "2: unknown option 'weigths'; did you mean weights?",
        "3: unknown option 'target'",
        "8: a: alpha is a number, got 'much'",
        '9: b has no source; add source = "rtsp://…"',
        "10: b: unknown option 'note'",
        "13: b: unknown sync 'now'; known are auto, matched, newest",
        "16: c: keep removes old segments",
        "17: c: weight is a number above 0, got -1",
        "18: a camera's name is up to 64 letters",
        "22: f: window is an output of the wall",
        "23: unknown table 'camera'; did you mean cameras?",
    ]
    assert len([line for line in said if "all.mp4" in line]) == 1  # of c: a has it already
    said = [line for line in said if "all.mp4" not in line]
    assert len(said) == len(starts)
    for line, start in zip(said, starts, strict=True):
        assert line.startswith(start)


def test_a_camera_that_cannot_run_is_a_fault_of_its_line(tmp_path: Path) -> None:
    path = tmp_path / "shop.toml"
    path.write_text('[cameras.a]\nsource = "nix.mp4"\n[cameras.b]\nsource = "x"\n')

    def check(camera: CameraConfig) -> None:
        if camera.source == "x":
            raise SourceNotFoundError("x does not exist")

    with pytest.raises(UsageError, match=r"shop\.toml:4: b: x does not exist$"):
        read_cameras(path, BASE, check)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "1: there is no camera; add"),
        ("[cameras.a\n", "this is not TOML"),
        ('cameras = "a"', "cameras is a table"),
        ('[cameras]\na = "rtsp://cam"', "a is a table, "),
    ],
)
def test_a_file_that_is_none_is_refused(tmp_path: Path, text: str, message: str) -> None:
    assert message in "\n".join(faults(tmp_path, text))


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        read_cameras(tmp_path / "nix.toml", BASE)


def test_passwords_are_not_repeated(tmp_path: Path) -> None:
    said = faults(tmp_path, '[cameras.a]\nsource = "rtsp://me:geheim@cam/s"\nsinks = "geheim"\n')
    assert "geheim" not in "".join(said)


def test_lines_of_dotted_and_quoted_keys() -> None:
    lines = TomlLines('a.b = 1\n["x y".z]\n"k k" = 2 # n = 3\n[x]\n')
    assert lines.line("a", "b") == 1
    assert lines.line("x y", "z", "k k") == 3
    assert lines.line("x y", "z", "other") == 2
    assert lines.line("nowhere") == 1
