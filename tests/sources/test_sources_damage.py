"""Damaged streams: no damaged picture is shown, and each one is counted."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import av
import numpy as np
import pytest

from stream_cam.frame import BgrImage
from stream_cam.sources.demo.source import DemoSource
from stream_cam.sources.video import VideoSource

N_FRAMES, GROUP, RATE = 60, 15, 30


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn shapes as MPEG-TS, coded so that damage is noticed."""
    path = tmp_path_factory.mktemp("stream") / "clean.ts"
    with (
        DemoSource(f"demo://shapes?size=320x180&fps=30&seconds={N_FRAMES // RATE}") as scenes,
        av.open(str(path), "w") as out,
    ):
        options = {"preset": "ultrafast", "tune": "zerolatency", "g": str(GROUP)}
        video = out.add_stream("libx264", rate=RATE, options=options)
        video.width, video.height, video.pix_fmt = 320, 180, "yuv420p"
        for frame in scenes:
            out.mux(video.encode(av.VideoFrame.from_ndarray(frame.image_bgr, "bgr24")))
        out.mux(video.encode(None))
    return path


def spoiled(stream: Path, path: Path, numbers: Collection[int]) -> Path:
    """A copy in which a third of the bytes of some packets is zero."""
    with av.open(str(stream)) as source, av.open(str(path), "w") as out:
        video = source.streams.video[0]
        to = out.add_stream_from_template(video)
        packets = [packet for packet in source.demux(video) if packet.dts is not None]
        for number, packet in enumerate(packets):
            data = bytearray(bytes(packet))
            if number in numbers:
                begin, end = len(data) // 3, 2 * len(data) // 3
                data[begin:end] = bytes(end - begin)
            copy = av.Packet(bytes(data))
            copy.pts, copy.dts, copy.time_base = packet.pts, packet.dts, packet.time_base
            copy.is_keyframe = packet.is_keyframe
            copy.stream = to
            out.mux(copy)
    return path


def pictures(path: Path, *, live: bool) -> tuple[list[BgrImage | None], int]:
    """Every frame at its number, None where there is none; how many were counted as corrupt."""
    shown: list[BgrImage | None] = [None] * N_FRAMES
    with VideoSource(str(path), live=live) as source:
        for frame in source:
            shown[round(frame.pts_seconds * RATE)] = frame.image_bgr.copy()
        return shown, source.corrupt_frames


def missing(shown: list[BgrImage | None]) -> list[int]:
    return [number for number, image in enumerate(shown) if image is None]


@pytest.mark.parametrize("damaged", [20, 28, 31])
def test_live_shows_nothing_that_was_predicted_from_damage(
    stream: Path, tmp_path: Path, damaged: int
) -> None:
    clean, none = pictures(stream, live=True)
    assert (missing(clean), none) == ([], 0)
    shown, corrupt = pictures(spoiled(stream, tmp_path / "spoiled.ts", [damaged]), live=True)
    next_key_frame = (damaged // GROUP + 1) * GROUP
    assert missing(shown) == list(range(damaged, next_key_frame))
    assert corrupt == len(missing(shown))
    for image, expected in zip(shown, clean, strict=True):
        assert expected is not None
        assert image is None or np.array_equal(image, expected)


def test_a_file_keeps_all_that_can_be_decoded(stream: Path, tmp_path: Path) -> None:
    shown, corrupt = pictures(spoiled(stream, tmp_path / "spoiled.ts", [20]), live=False)
    assert missing(shown) == []
    assert corrupt == 1


def test_without_a_key_frame_pictures_come_back_after_a_while(
    stream: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoilt = spoiled(stream, tmp_path / "spoiled.ts", [20])
    monkeypatch.setattr("stream_cam.sources.video._REPAIR_SECONDS", -1.0)
    shown, corrupt = pictures(spoilt, live=True)
    assert (missing(shown), corrupt) == ([20], 1)


def test_packets_before_the_first_key_frame_are_no_damage(stream: Path, tmp_path: Path) -> None:
    """A live stream is joined anywhere; in a file the same packets are missing."""
    joined = tmp_path / "joined.ts"
    with av.open(str(stream)) as source, av.open(str(joined), "w") as out:
        video = source.streams.video[0]
        to = out.add_stream_from_template(video)
        for packet in list(source.demux(video))[5:]:
            if packet.dts is not None:
                packet.stream = to
                out.mux(packet)
    shown, corrupt = pictures(joined, live=True)
    assert len(missing(shown)) == GROUP
    assert corrupt == 0


def test_a_place_that_cannot_be_read_counts_once(tmp_path: Path) -> None:
    """FFmpeg fails at it a hundred times."""
    path = tmp_path / "camera.mpjpeg"
    with av.open(str(path), "w", format="mpjpeg") as out:
        video = out.add_stream("mjpeg", rate=10)
        video.width, video.height, video.pix_fmt = 160, 120, "yuvj420p"
        image = np.random.default_rng(0).integers(0, 255, (120, 160, 3), np.uint8)
        for _ in range(10):
            out.mux(video.encode(av.VideoFrame.from_ndarray(image, "bgr24")))
        out.mux(video.encode(None))
    data = bytearray(path.read_bytes())
    begin, end = len(data) // 2, len(data) * 7 // 10
    data[begin:end] = np.random.default_rng(1).bytes(end - begin)
    path.write_bytes(data)
    with VideoSource(str(path), live=True) as source:
        assert len(list(source)) >= 4
        assert source.corrupt_frames == 1
