"""Streams that come in bursts are played at their own times, and nothing of them twice."""

from __future__ import annotations

import http.server
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pytest
from support.manual_clock import DEADLINE_SECONDS
from support.pipeline_parts import Frames
from support.videos import write_video

from stream_cam.closing import Closeable
from stream_cam.config import CaptureConfig
from stream_cam.frame import BgrImage, Frame
from stream_cam.sources import open_source
from stream_cam.sources.base import SourceInfo, StreamState
from stream_cam.sources.playout import Playout, PlayoutSource, SeenFrames, names_segments
from stream_cam.sources.reconnecting import ReconnectingSource
from stream_cam.sources.video import VideoSource

FPS = 10


def played(playout: Playout, arrivals: list[tuple[float, float]]) -> list[float]:
    """When frames are shown that could be read at some time, one after the other.

    Args:
        arrivals: own time and time of arrival, s.
    """
    now, shown = 0.0, []
    for pts, arrival in arrivals:
        now = max(now, arrival)
        now += playout.wait_seconds(pts, now)
        shown.append(now)
    return shown


def test_bursts_are_played_evenly() -> None:
    """Two segments of 6 s at the start, then one every 6 s."""
    arrivals = [(frame / 10, 6.0 * max(0, frame // 60 - 1)) for frame in range(600)]
    shown = played(Playout(skips_gaps=True), arrivals)
    assert shown == pytest.approx([frame / 10 for frame in range(600)])


def test_late_segment_moves_the_frames_after_it() -> None:
    arrivals = [(frame / 10, 0.0 if frame < 60 else 9.0) for frame in range(120)]
    shown = played(Playout(skips_gaps=True), arrivals)
    assert shown[60:] == pytest.approx([9.0 + frame / 10 for frame in range(60)])


def test_frame_that_is_a_little_late_does_not_move_the_others() -> None:
    arrivals = [(frame / 10, 6.2 if frame == 60 else 0.0) for frame in range(120)]
    shown = played(Playout(skips_gaps=True), arrivals)
    assert shown[60] == pytest.approx(6.2)
    assert shown[63:] == pytest.approx([frame / 10 for frame in range(63, 120)])


def test_lost_segment_is_not_waited_for_but_a_slow_camera_is() -> None:
    lost = [(frame / 10 + 6.0 * (frame >= 60), 0.0) for frame in range(120)]
    shown = played(Playout(skips_gaps=True), lost)
    assert max(b - a for a, b in pairwise(shown)) == pytest.approx(0.1)
    slow = [(frame * 8.0, 0.0) for frame in range(10)]
    assert played(Playout(skips_gaps=True), slow)[-1] == pytest.approx(72.0)
    assert played(Playout(), lost)[-1] == pytest.approx(17.9)


def test_frames_are_known_by_time_and_pixels() -> None:
    seen = SeenFrames()
    frames = list(Frames(3))
    assert [seen.is_new(frame) for frame in frames] == [True] * 3
    assert [seen.is_new(frame) for frame in frames] == [False] * 3
    another = np.full_like(frames[0].image_bgr, 77)
    assert seen.is_new(replace(frames[0], image_bgr=another))
    assert seen.is_new(replace(frames[0], pts=frames[0].pts + 1000))


class Segments(Frames):
    """Frames that come in segments, and that `stop` ends."""

    @property
    def stream_state(self) -> StreamState:
        return StreamState(in_segments=True)


def test_second_connection_gives_only_new_frames() -> None:
    seen, given = SeenFrames(), []
    for n_frames in (5, 9):
        with PlayoutSource(
            Segments(n_frames, live=True), seen, lambda: 0.0, lambda _: False
        ) as one:
            given += [frame.pts_seconds for frame in one]
    assert given == pytest.approx([frame / 25 for frame in range(9)])


def test_playlist_of_a_stream_that_has_ended_is_not_played_again() -> None:
    seen = SeenFrames()
    with PlayoutSource(Segments(5, live=True), seen, lambda: 0.0, lambda _: False) as source:
        assert len(list(source)) == 5
    with PlayoutSource(Segments(50), seen) as source:
        assert list(source) == []
    with PlayoutSource(Segments(50), SeenFrames()) as source:  # a recording from the start
        assert len(list(source)) == 50


def test_stop_ends_the_waiting() -> None:
    class Hourly(Segments):
        def __iter__(self) -> Iterator[Frame]:
            for frame in super().__iter__():
                yield replace(frame, time_base=Fraction(3600))

    with PlayoutSource(Hourly(9, live=True), SeenFrames()) as source:
        frames = iter(source)
        next(frames)
        threading.Timer(0.05, source.stop).start()
        begun = time.monotonic()
        assert next(frames, None) is None
        assert time.monotonic() - begun < DEADLINE_SECONDS


def test_patience_depends_on_the_protocol() -> None:
    config = CaptureConfig(read_timeout_seconds=4.0)
    for url, seconds in (
        ("https://host/a/live.m3u8?token=x", 24.0),
        ("https://host/LIVE.MPD", 24.0),
        ("https://host/live.ts", 4.0),
        ("rtsp://host/live.m3u8/1", 4.0),
    ):
        assert names_segments(url) == (seconds > 4.0)
        assert VideoSource(url, config).stream_state.read_timeout_seconds == seconds


def numbered(index: int) -> BgrImage:
    """Two grey halves that tell a number below 196 after coding."""
    image = np.empty((48, 64, 3), np.uint8)
    image[:, :32], image[:, 32:] = 16 + 16 * (index % 14), 16 + 16 * (index // 14)
    return image


def number(image: BgrImage) -> int:
    low, high = (round((float(half.mean()) - 16) / 16) for half in (image[:, :28], image[:, 36:]))
    return low + 14 * high


class LiveHls(Closeable):
    """A playlist of the newest four segments of a second, at one port, which can go away."""

    def __init__(self, folder: Path, n_segments: int) -> None:
        images = [numbered(index) for index in range(n_segments * FPS)]
        options = {"preset": "ultrafast", "g": str(FPS), "bf": "0"}
        for index in range(n_segments):
            part = images[index * FPS : (index + 1) * FPS]
            times = list(range(index * FPS, (index + 1) * FPS))
            write_video(folder / f"{index}.ts", images=part, times=times, fps=FPS, options=options)
        outer = self

        class Handler(http.server.SimpleHTTPRequestHandler):
            def do_GET(self) -> None:
                if not self.path.endswith(".m3u8"):
                    super().do_GET()
                    return
                body = outer.playlist().encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/vnd.apple.mpegurl")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def __init__(self, *args: object) -> None:
                super().__init__(*args, directory=str(folder))  # type: ignore[arg-type]

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._handler, self._n_segments = Handler, n_segments
        self._started = time.monotonic()
        self.port = 0
        self._server: http.server.ThreadingHTTPServer | None = None

    def playlist(self) -> str:
        first = min(int(time.monotonic() - self._started), self._n_segments - 4)
        lines = ["#EXTM3U", "#EXT-X-VERSION:3", "#EXT-X-TARGETDURATION:1"]
        lines += [f"#EXT-X-MEDIA-SEQUENCE:{first}"]
        for index in range(first, first + 4):
            lines += ["#EXTINF:1.0,", f"{index}.ts"]
        return "\n".join(lines) + "\n"

    def start(self) -> None:
        address = ("127.0.0.1", self.port)
        self._server = http.server.ThreadingHTTPServer(address, self._handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


def test_live_hls_over_an_outage(tmp_path: Path) -> None:
    """Pictures come at their rate, and after an outage no picture comes that came before."""
    with LiveHls(tmp_path, 19) as server:
        server.start()
        with open_source(f"http://127.0.0.1:{server.port}/live.m3u8") as source:
            assert isinstance(source, ReconnectingSource)
            assert source.info.live
            frames = ((number(frame.image_bgr), time.monotonic()) for frame in source)
            found = list(islice(frames, 25))
            (first, begun), (last, ended) = found[0], found[-1]
            assert first // FPS == 2  # two segments behind the end of the playlist
            assert (last - first) / FPS == pytest.approx(ended - begun, abs=0.6)
            server.close()
            again = threading.Timer(1.0, server.start)
            again.start()
            while source.health.connections == 1:
                found.append(next(frames))
                assert found[-1][0] < 140, "no outage"
            found += islice(frames, 12)
            again.join()
    numbers = [each for each, _ in found]
    assert all(a < b for a, b in pairwise(numbers)), numbers


def test_info_stays_the_same() -> None:
    info: SourceInfo = Frames(3).info
    with PlayoutSource(Frames(3), SeenFrames()) as source:
        assert source.info == info
        assert len(list(source)) == 3
