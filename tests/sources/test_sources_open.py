import os
import tempfile
import traceback
import wave
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import VideoMaker

from stream_cam.config import CaptureConfig
from stream_cam.errors import SourceError, SourceNotFoundError, StreamCamError, UsageError
from stream_cam.sources import open_source
from stream_cam.sources.images import ImagesSource
from stream_cam.sources.reconnecting import ReconnectingSource
from stream_cam.sources.video import VideoSource

CONFIG = CaptureConfig(open_timeout_seconds=3, read_timeout_seconds=3, give_up_after=1)


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """A folder that the unprivileged user can reach, which pytest's own is not."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


def fails(uri: str) -> str:
    """The one line that opening and reading `uri` ends with."""
    with pytest.raises(SourceError) as caught, open_source(uri, CONFIG) as source:
        list(source)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("uri", "kind"),
    [(uri, ReconnectingSource) for uri in ("0", "12", "/dev/video3")]
    + [(f"{scheme}://host/x", ReconnectingSource) for scheme in ("rtsp", "rtsps", "http", "https")],
)
def test_uri_decides_the_source_without_opening_it(uri: str, kind: type) -> None:
    assert isinstance(open_source(uri, CONFIG), kind)


def test_video_file_on_a_web_server_is_not_waited_for() -> None:
    assert isinstance(open_source("https://u:p/w@host/clip.MP4?x=1", CONFIG), VideoSource)
    assert isinstance(open_source("http://host/clip.mp4", CONFIG, live=True), ReconnectingSource)


def test_stream_of_which_every_frame_counts_does_not_reconnect() -> None:
    assert isinstance(open_source("rtsp://host/x", CONFIG, live=False), VideoSource)


def test_files_are_told_apart_by_name_and_by_content(
    make_video: VideoMaker, tmp_path: Path
) -> None:
    video = make_video("clip.mp4")
    assert isinstance(open_source(str(video), CONFIG), VideoSource)
    assert isinstance(open_source(f"file://{video}", CONFIG), VideoSource)
    nameless = tmp_path / "clip"
    nameless.write_bytes(video.read_bytes())
    assert isinstance(open_source(str(nameless), CONFIG), VideoSource)
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((4, 4, 3), np.uint8))
    picture = tmp_path / "picture"
    (tmp_path / "a.png").rename(picture)
    assert isinstance(open_source(str(picture), CONFIG), ImagesSource)


def test_missing_file_names_the_nearest(make_video: VideoMaker, tmp_path: Path) -> None:
    make_video("holiday.mp4")
    missing = tmp_path / "holyday.mp4"
    message = fails(str(missing))
    assert f"{missing} does not exist" in message
    assert f"did you mean {tmp_path / 'holiday.mp4'}?" in message
    with pytest.raises(SourceNotFoundError, match="no folder"):
        open_source(str(tmp_path / "no" / "clip.mp4"), CONFIG)


@pytest.mark.parametrize("uri", ["http:/me:pw@host/x", "RTSP:host/x", "demo:shapes"])
def test_scheme_without_its_slashes(uri: str) -> None:
    with pytest.raises(UsageError, match=r"begins with (http|rtsp|demo)://$"):
        open_source(uri, CONFIG)


def test_unknown_scheme_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="rtsp://"):
        open_source("rtps://cam/stream", CONFIG)


def test_empty_file(tmp_path: Path) -> None:
    for name in ("empty.mp4", "empty.jpg", "empty"):
        (tmp_path / name).touch()
        assert "is empty (0 bytes)" in fails(str(tmp_path / name))


@pytest.mark.parametrize("name", ["text.mp4", "text.mkv", "text.txt", "text"])
def test_file_that_is_no_video(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("This is no video.\n" * 100)
    assert "is not a video that FFmpeg can read" in fails(str(tmp_path / name))


def test_truncated_mp4_says_that_its_index_is_missing(
    make_video: VideoMaker, tmp_path: Path
) -> None:
    whole = make_video("whole.mp4", n_frames=10).read_bytes()
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole[: len(whole) // 2])
    assert "truncated" in fails(str(cut))
    assert "moov" in fails(str(cut))


def test_audio_only_file(tmp_path: Path) -> None:
    path = tmp_path / "sound.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(b"\0\0" * 8000)
    assert "has no video in it, only audio" in fails(str(path))


def test_folder_without_pictures_names_its_files(make_video: VideoMaker, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "has no pictures" in fails(str(empty))
    video = make_video("clip.mp4")
    said = fails(str(tmp_path))
    assert f"only 1 video: `stream-cam batch {tmp_path}` annotates all" in said
    assert f"`stream-cam run {video}` one" in said
    assert f"`stream-cam run {video}` one" in fails(str(tmp_path / "*.mp4"))


def test_glob_without_match(tmp_path: Path) -> None:
    assert "nothing matches" in fails(str(tmp_path / "*.jpg"))


def test_file_with_brackets_in_its_name_is_no_glob(make_video: VideoMaker) -> None:
    assert isinstance(open_source(str(make_video("clip[1].mp4")), CONFIG), VideoSource)


@pytest.mark.parametrize("name", ["a:b.mp4", "%03d.mp4", "ünï cödé.mp4", "-i.mp4", "pipe:0.mkv"])
def test_names_that_ffmpeg_would_read_as_something_else(make_video: VideoMaker, name: str) -> None:
    with open_source(str(make_video(name, n_frames=3)), CONFIG) as source:
        assert len(list(source)) == 3


def test_not_permitted(public_folder: Path, unprivileged: None) -> None:
    for name in ("clip.mp4", "a.jpg"):
        path = public_folder / name
        os.seteuid(os.getuid())
        path.write_bytes(b"x" * 100)
        path.chmod(0)
        if os.getuid() == 0:
            os.seteuid(65534)
        assert "permission denied" in fails(str(path))


@pytest.mark.parametrize(
    "uri",
    [
        "rtsp://admin:s3cret@127.0.0.1:1/stream",
        "rtsp://admin:s3cret@nowhere.invalid/stream",
        "http://admin:s3cret@127.0.0.1:1/clip.mp4?token=s3cret",
        "srt://admin:s3cret@127.0.0.1:1/s3cret@x?passphrase=s3cret",
        "foo://admin:s3cret@127.0.0.1:1/",
    ],
)
def test_no_error_shows_a_password(uri: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(StreamCamError) as caught, open_source(uri, CONFIG):
        pass
    text = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    # The traceback quotes this test's own source lines, but not its arguments.
    assert "s3cret" not in text
    assert caught.value.__context__ is None
    assert capfd.readouterr() == ("", "")


def test_failing_to_open_leaks_no_descriptor(make_video: VideoMaker, tmp_path: Path) -> None:
    text = tmp_path / "text.mp4"
    text.write_text("no video" * 100)
    video = make_video("clip.mp4")

    def opened() -> int:
        return len(os.listdir("/proc/self/fd"))

    for _ in range(2):  # the first time, libraries open files that they keep
        before = opened()
        for _ in range(5):
            fails(str(text))
            with open_source(str(video), CONFIG) as source:
                next(iter(source))
    assert opened() <= before


def test_video_of_a_codec_that_ffmpeg_does_not_know(make_video: VideoMaker) -> None:
    path = make_video("odd.mp4")
    path.write_bytes(path.read_bytes().replace(b"avc1", b"zzz1"))
    with pytest.raises(SourceError, match="of a codec that FFmpeg does not know"):
        VideoSource(str(path)).__enter__()
