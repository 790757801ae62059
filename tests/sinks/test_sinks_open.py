import json
import os
import tempfile
import urllib.request
from fractions import Fraction
from pathlib import Path

import pytest

from stream_cam.config import RecordConfig
from stream_cam.errors import OutputExistsError, SinkError, UsageError
from stream_cam.sinks import (
    FolderSink,
    NullSink,
    PictureSink,
    StreamInfo,
    VideoSink,
    check_output,
    check_outputs,
    kind_of,
    open_sink,
    sink_kinds,
)

STREAM = StreamInfo(fps=Fraction(25), still=False, live=False)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("null", NullSink),
        ("out.mp4", VideoSink),
        ("out.MKV", VideoSink),
        ("out.mov", VideoSink),
        ("out.png", PictureSink),
        ("out.jpeg", PictureSink),
        ("frames/", FolderSink),
        ("there", FolderSink),
        ("there.mp4/", FolderSink),
    ],
)
def test_uri_decides_the_sink_and_nothing_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, kind: type
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("there", "there.mp4"):
        Path(folder).mkdir()
    assert isinstance(open_sink(name, STREAM, overwrite=False), kind)
    assert sorted(os.listdir()) == ["there", "there.mp4"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("out.mpg", r"unknown type of output '\.mpg'.*\.mp4"),
        ("out.jpgg", r"\.jpg"),
        ("windw", "did you mean window"),
        ("out", r"out\.mp4"),
        ("rtsp://user:s3cret@host/live", "not in this version yet"),
        ("ftp://user:s3cret@host/out.mp4", "cannot be written to"),
    ],
)
def test_unknown_output_lists_the_kinds(name: str, text: str) -> None:
    with pytest.raises(UsageError, match=text) as caught:
        check_output(name, overwrite=False)
    assert "s3cret" not in str(caught.value)


def test_every_kind_has_a_name_and_a_way_to_be_named_in_a_uri() -> None:
    kinds = sink_kinds()
    assert len({kind.name for kind in kinds}) == len(kinds) == 7
    for kind in kinds:
        assert kind.usage
        words = [*kind.words, *(f"{scheme}://" for scheme in kind.schemes)]
        words += [f"out{suffix}" for suffix in kind.suffixes]
        assert all(kind_of(word) is kind for word in words or [kind.usage.split()[0]])


def test_a_page_opens_as_every_other_sink() -> None:
    with open_sink("web://127.0.0.1:0", STREAM, overwrite=False, source="demo://shapes") as sink:
        assert sink.name.startswith("web://127.0.0.1:")
        with urllib.request.urlopen(f"{sink.url}hello", timeout=20) as answer:
            assert json.load(answer)["source"] == "demo://shapes"


def test_existing_output_needs_overwrite(tmp_path: Path) -> None:
    for name in ("out.mp4", "out.png"):
        path = tmp_path / name
        path.touch()
        with pytest.raises(OutputExistsError, match=f"{name} exists; give --overwrite"):
            check_output(str(path), overwrite=False)
        check_output(str(path), overwrite=True)
    with pytest.raises(OutputExistsError, match="holds 1 pictures already"):
        check_output(f"{tmp_path}/", overwrite=False)
    check_output(f"{tmp_path}/", overwrite=True)


def test_missing_or_wrong_folder(tmp_path: Path) -> None:
    for name in ("no/out.mp4", "no/frames/"):
        with pytest.raises(SinkError, match=f"there is no folder {tmp_path / 'no'}"):
            check_output(f"{tmp_path}/{name}", overwrite=False)
    (tmp_path / "file").touch()
    with pytest.raises(SinkError, match="is a file, not a folder"):
        check_output(f"{tmp_path}/file/out.mp4", overwrite=False)
    with pytest.raises(SinkError, match="is a file, not a folder"):
        check_output(f"{tmp_path}/file/", overwrite=False)


def test_folder_that_may_not_be_written_to(unprivileged: None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o555)
        for name in ("out.mp4", "out.png", "frames/", ""):
            with pytest.raises(SinkError, match="may not be written to"):
                check_output(f"{folder}/{name}", overwrite=False)


def test_folder_that_may_not_be_entered(unprivileged: None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o600)
        for name in ("out.mp4", "out.png", "frames/"):
            with pytest.raises(SinkError, match="may not be written to"):
                check_output(f"{folder}/{name}", overwrite=False)
        os.chmod(folder, 0o700)


@pytest.mark.parametrize("letters", [246, 300])
@pytest.mark.parametrize("suffix", [".mp4", ".png"])
def test_name_that_is_too_long_is_told_before_the_run(
    tmp_path: Path, letters: int, suffix: str
) -> None:
    with pytest.raises(SinkError, match=r"too long a name: \d+ bytes, at most 248"):
        check_output(f"{tmp_path}/{'a' * letters}{suffix}", overwrite=False)
    check_output(f"{tmp_path}/{'a' * 244}{suffix}", overwrite=False)


def test_segments_names_are_longer(tmp_path: Path) -> None:
    with pytest.raises(SinkError, match="at most 228"):
        check_output(
            f"{tmp_path}/{'a' * 244}.mp4", overwrite=False, record=RecordConfig(segment="10m")
        )


def test_tilde_that_is_nobodys_home_is_a_letter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    check_output("~nobody-of-that-name.mp4", overwrite=False, source="~clip.mp4")


def test_output_must_not_be_the_source(tmp_path: Path) -> None:
    clip, cat, link = tmp_path / "clip.mp4", tmp_path / "cat.png", tmp_path / "link.mp4"
    percent = tmp_path / "50% off.mp4"
    for path in (clip, cat, percent):
        path.touch()
    link.symlink_to(clip)
    folder = str(tmp_path)
    for output, source in [
        (clip, clip),
        (link, clip),
        (cat, cat),
        (f"{folder}/", folder),
        (f"{folder}/", cat),
        (f"{folder}/", f"{folder}/*.png"),
        (f"{folder}/../{tmp_path.name}/clip.mp4", clip),
        (percent, f"file://{folder}/50%25%20off.mp4"),
        (cat, folder),
        (cat, f"{folder}/*.png"),
        (f"{folder}/", f"{folder}/**/*.png"),
        (f"{folder}/", f"{folder}/*/cat.*"),
    ]:
        with pytest.raises(UsageError, match="is where the source is"):
            check_output(str(output), overwrite=True, source=str(source))
    check_output(f"{folder}/", overwrite=True, source=str(clip))
    check_output(f"{folder}/new.png", overwrite=True, source=folder)
    check_output(f"{folder}/new.mp4", overwrite=True, source="rtsp://camera/")


def test_two_outputs_must_not_be_the_same(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="given twice"):
        check_outputs([f"{tmp_path}/a.mp4", f"{tmp_path}/./a.mp4"], overwrite=True)
    with pytest.raises(UsageError, match="given twice"):
        check_outputs(["web://127.0.0.1:0", "web://:0/"], overwrite=True)
    check_outputs(["null", "null", f"{tmp_path}/a.mp4", f"{tmp_path}/a.png"], overwrite=False)
