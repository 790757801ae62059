"""Files as the world makes them, by FFmpeg: recordings have their frames, times and shape."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from support.recordings import annotate, times_in
from support.videos import write_video

from stream_cam.cli import main
from stream_cam.sources.video import VideoSource

pytestmark = pytest.mark.needs_ffmpeg

DEADLINE_SECONDS = 60.0
PICTURES = "testsrc=size={size}:rate=10:duration={seconds}"


@dataclass(frozen=True)
class Made:
    """A file that FFmpeg makes, and the expected properties of its recording."""

    arguments: Sequence[str]
    suffix: str = ".mp4"
    size: str = "96x64"
    seconds: float = 1.6
    n_frames: int = 16
    out_size: tuple[int, int] = (96, 64)
    sound: str = ""


X264 = ("-c:v", "libx264", "-preset", "ultrafast")
INPUTS = {
    "plain": Made(X264),
    "variable rate": Made(
        ("-vf", "select='not(mod(n\\,3))+gt(n\\,10)'", "-vsync", "vfr", *X264), n_frames=9
    ),
    "odd sides": Made((*X264, "-pix_fmt", "yuv444p"), ".mkv", "97x65", out_size=(98, 66)),
    "ten bits": Made((*X264, "-pix_fmt", "yuv420p10le")),
    "hdr": Made(
        (
            *(*X264, "-pix_fmt", "yuv420p10le", "-color_primaries", "bt2020"),
            *("-color_trc", "smpte2084", "-colorspace", "bt2020nc", "-color_range", "tv"),
        )
    ),
    "full range": Made(("-pix_fmt", "yuvj420p", *X264, "-colorspace", "bt470bg")),
    "interlaced": Made(
        ("-vf", "tinterlace=interleave_top", *X264, "-flags", "+ildct+ilme", "-x264opts", "tff=1"),
        n_frames=8,
    ),
    "longer sound": Made(X264, sound="sine=duration=3"),
    "shorter sound": Made(X264, sound="sine=duration=0.7"),
    "reordered": Made(("-c:v", "libx264", "-bf", "3", "-g", "8")),
    "one frame": Made(("-frames:v", "1", *X264), n_frames=1),
    "transport stream": Made(X264, ".ts"),
    "mpeg-4 in avi": Made(("-c:v", "mpeg4", "-bf", "0"), ".avi"),
    "vp9": Made(("-c:v", "libvpx-vp9", "-deadline", "realtime"), ".webm"),
    "no duration": Made((*X264, "-f", "matroska"), ".mkv"),
}


def ffmpeg(*arguments: str, stdout: Path | None = None) -> str:
    """Run it; returns its stderr."""
    program = shutil.which("ffmpeg")
    if program is None:
        pytest.skip("ffmpeg is not installed (apt-get install ffmpeg)")
    done = subprocess.run(
        [program, "-nostdin", "-hide_banner", "-y", *arguments],
        capture_output=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )
    said = done.stderr.decode(errors="replace")
    assert done.returncode == 0, said
    if stdout is not None:
        stdout.write_bytes(done.stdout)
    return said


def make(folder: Path, made: Made, *, piped: bool = False) -> Path:
    path = folder / f"in{made.suffix}"
    inputs = ["-f", "lavfi", "-i", PICTURES.format(size=made.size, seconds=made.seconds)]
    if made.sound:
        inputs += ["-f", "lavfi", "-i", made.sound]
    if piped:  # an output that cannot be rewound has no duration in its header
        ffmpeg("-v", "error", *inputs, *made.arguments, "pipe:1", stdout=path)
    else:
        ffmpeg("-v", "error", *inputs, *made.arguments, str(path))
    return path


def colour_of(path: Path) -> tuple[int, ...]:
    """Matrix, primaries, transfer and range as they are tagged."""
    with av.open(str(path)) as container:
        codec = container.streams.video[0].codec_context
        next(container.decode(video=0))
        return tuple(
            int(tag)
            for tag in (codec.colorspace, codec.color_primaries, codec.color_trc, codec.color_range)
        )


@pytest.mark.parametrize("name", INPUTS)
def test_frames_times_and_shape_are_the_sources(name: str, tmp_path: Path) -> None:
    made = INPUTS[name]
    path, out = make(tmp_path, made, piped=name == "no duration"), tmp_path / "out.mp4"
    if name == "no duration":
        with VideoSource(str(path)) as source:
            assert source.info.n_frames is None
    times = annotate(path, out)
    assert len(times) == made.n_frames
    shifted = [seconds - times[0] for seconds in times]
    assert max(abs(a - b) for a, b in zip(times_in(out), shifted, strict=True)) < Fraction(1, 1000)
    with av.open(str(out)) as container:
        video = container.streams.video[0]
        assert (video.width, video.height) == made.out_size
        assert video.duration is not None
        assert video.time_base is not None
        lasts = float(video.duration * video.time_base)
        assert lasts == pytest.approx(float(shifted[-1]) + 0.1, abs=0.11)
        assert bool(container.streams.audio) is bool(made.sound)
    # Another implementation has nothing to say about it, sound included.
    assert ffmpeg("-v", "warning", "-xerror", "-i", str(out), "-f", "null", "-") == ""


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("hdr", (9, 9, 16, 1), (1, 1, 1, 1)),  # tone-mapped to BT.709, and said to be
        ("full range", (5, 2, 2, 2), (5, 2, 2, 2)),
    ],
)
def test_colours_are_tagged_as_they_are(
    name: str, before: tuple[int, ...], after: tuple[int, ...], tmp_path: Path
) -> None:
    path, out = make(tmp_path, INPUTS[name]), tmp_path / "out.mp4"
    annotate(path, out)
    assert colour_of(path) == before
    assert colour_of(out) == after


def test_a_rotated_file_is_recorded_upright(tmp_path: Path) -> None:
    """Phones write lying pictures, and a matrix that turns them by a quarter to the right."""
    left_bright = np.zeros((48, 64, 3), np.uint8)
    left_bright[:, :32] = 255
    path = write_video(tmp_path / "in.mp4", images=[left_bright] * 5, display_matrix=(0, 1, -1, 0))
    out = tmp_path / "out.mp4"
    times = annotate(path, out)
    assert times_in(out) == times
    with av.open(str(out)) as container:
        frame = next(container.decode(video=0))
        assert (frame.width, frame.height, frame.rotation) == (48, 64, 0)
        shown = frame.to_ndarray(format="gray")
    assert shown[:28].min() > 240
    assert shown[36:].max() < 20
    assert ffmpeg("-v", "warning", "-xerror", "-i", str(out), "-f", "null", "-") == ""


def test_frames_before_an_edit_list_are_hidden(tmp_path: Path) -> None:
    path, cut, out = make(tmp_path, INPUTS["reordered"]), tmp_path / "cut.mp4", tmp_path / "out.mp4"
    # Copied from its middle: the file begins at a key frame, and says to show it only later.
    ffmpeg("-v", "error", "-ss", "1.05", "-i", str(path), "-c", "copy", str(cut))
    times = annotate(cut, out)
    with av.open(str(cut)) as container:
        n_packets = sum(1 for packet in container.demux(video=0) if packet.size)
    assert 0 < len(times) <= n_packets
    assert times_in(out) == [seconds - times[0] for seconds in times]
    assert times_in(out)[-1] == pytest.approx(Fraction(len(times) - 1, 10))


def test_a_file_without_a_frame_is_an_error_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "empty.mkv"
    ffmpeg(
        *("-v", "error", "-f", "lavfi", "-i", PICTURES.format(size="96x64", seconds=1)),
        *("-vf", "select=0", *X264, str(path)),
    )
    out = tmp_path / "out.mp4"
    assert main(["run", str(path), str(out), "--weights", "demo", "--engine", "eager"]) == 1
    said = capsys.readouterr().err
    assert str(path) in said
    assert len(said.splitlines()) == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["empty.mkv"]
