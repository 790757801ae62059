"""Helpers for tests of recordings: a clip of distinguishable pictures, and its recording."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from support.videos import numbered_picture

from stream_cam.config import RecordConfig
from stream_cam.sinks import Picture, StreamInfo, VideoSink
from stream_cam.sources.trim import trim
from stream_cam.sources.video import VideoSource

FPS = 10
SIZE_HW = (48, 64)
RATE = 48_000


def write_clip(
    path: Path,
    *,
    seconds: float = 3,
    more_sound_seconds: float = 0.5,
    codec: str = "aac",
    rate: int = RATE,
    language: str = "",
) -> None:
    """Numbered pictures with half a second more of a tone, and a title."""
    with av.open(str(path), "w") as out:
        out.metadata["title"] = "numbers"
        video = out.add_stream("libx264", rate=FPS, options={"crf": "1", "bf": "0", "g": "5"})
        video.width, video.height, video.pix_fmt = SIZE_HW[1], SIZE_HW[0], "yuv420p"
        sound: Any = out.add_stream(codec, rate=rate, layout="mono")
        if language:
            sound.metadata["language"] = language
        for number in range(round(seconds * FPS)):
            picture = av.VideoFrame.from_ndarray(numbered_picture(number, SIZE_HW), "bgr24")
            picture.pts = number
            out.mux(video.encode(picture))
        n_samples = int((seconds + more_sound_seconds) * rate)
        tone = np.sin(np.arange(n_samples) / rate * 2 * np.pi * 440).astype(np.float32)
        form, each = (
            ("s16", 1024) if codec.startswith("pcm") else ("fltp", sound.frame_size or 1024)
        )
        if form == "s16":
            tone = (tone * 32_000).astype(np.int16)
        for begin in range(0, len(tone), each):
            piece = av.AudioFrame.from_ndarray(tone[None, begin : begin + each], form, "mono")
            piece.sample_rate, piece.pts = rate, begin
            piece.time_base = Fraction(1, rate)
            out.mux(sound.encode(piece))
        out.mux(video.encode(None))
        out.mux(sound.encode(None))


def write_late_clip(path: Path, *, late: Fraction = Fraction(2), n_pictures: int = 5) -> Path:
    """A second of a tone from 0 on, and pictures from `late` seconds on, ten a second."""
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=10, options={"bf": "2"})
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        sound: Any = out.add_stream("aac", rate=RATE, layout="mono")
        tone = np.sin(np.arange(RATE) / RATE * 2 * np.pi * 440).astype(np.float32)
        packets: list[Any] = []
        for begin in range(0, RATE, 1024):
            piece = av.AudioFrame.from_ndarray(tone[None, begin : begin + 1024], "fltp", "mono")
            piece.sample_rate, piece.pts, piece.time_base = RATE, begin, Fraction(1, RATE)
            packets += sound.encode(piece)
        packets += sound.encode(None)
        for number in range(n_pictures):
            picture = av.VideoFrame.from_ndarray(numbered_picture(number, (48, 64)), "bgr24")
            picture.pts, picture.time_base = round(late * 1000) + 100 * number, Fraction(1, 1000)
            packets += video.encode(picture)
        for packet in [*packets, *video.encode(None)]:
            out.mux(packet)
    return path


def annotate(clip: Path, out: Path, **options: Any) -> list[Fraction]:
    """Record the pictures of a file as they are; gives their times in the source."""
    config = RecordConfig(**options)
    times = []
    with trim(VideoSource(str(clip)), config) as source:
        info = source.info
        stream = StreamInfo(
            fps=info.fps,
            still=False,
            live=False,
            colour=info.colour,
            file=info.file,
            duration_seconds=info.duration_seconds,
            audio_lead_seconds=info.audio_lead_seconds,
        )
        with VideoSink(str(out), stream, config) as sink:
            for frame in source:
                times.append(frame.pts * frame.time_base)
                sink.write(Picture(frame.image_bgr, frame, None))
    return times


def times_in(path: Path) -> list[Fraction]:
    with VideoSource(str(path)) as source:
        return [frame.pts * frame.time_base for frame in source]


WRITER = """
import sys
from fractions import Fraction
sys.path[:0] = {path!r}
from support.videos import numbered_picture, picture_at
from stream_cam.sinks import StreamInfo, VideoSink
with VideoSink({out!r}, StreamInfo(Fraction(25), False, False)) as sink:
    for number in range(100_000):
        image = numbered_picture(number % 200, (48, 64))
        sink.write(picture_at(image, number + 500, Fraction(1, 25)))
        print(number / 25, flush=True)
"""


def killed_while_writing(out: Path, n_pictures: int) -> float:
    """Seconds of pictures given to a sink whose process was then killed."""
    here = str(Path(__file__).resolve().parents[1])
    code = WRITER.format(path=[here, *sys.path], out=str(out))
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
    ) as writing:
        assert writing.stdout is not None
        for line in writing.stdout:
            given = float(line)
            if given >= n_pictures / 25:
                break
        writing.kill()
    return given
