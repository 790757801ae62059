"""Frames to explain, and a file to decode."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

from stream_cam.closing import Closeable
from stream_cam.config import CaptureConfig
from stream_cam.errors import BenchError, UsageError
from stream_cam.frame import BgrImage, Frame
from stream_cam.sources import open_source
from stream_cam.sources.demo.source import DemoSource
from stream_cam.sources.paths import refuse_pipe
from stream_cam.uri import redact_uri

N_FRAMES = 24
"""In memory: 66 MB at 1280×720."""
_FPS = 5
N_ENCODED = 150
"""Frames that are decoded before the file is opened again."""


def scene_frames(size: str, n_frames: int = N_FRAMES) -> list[BgrImage]:
    """Frames of the demo's scene, 0.2 s apart.

    Args:
        size: width x height in pixels, such as 1280x720.

    Raises:
        UsageError: the size is not valid.
    """
    uri = f"demo://shapes?size={size}&fps={_FPS}&seconds={n_frames / _FPS}"
    with DemoSource(uri) as source:
        return [frame.image_bgr for frame in source]


def source_frames(uri: str, n_frames: int = N_FRAMES) -> list[BgrImage]:
    """The first frames of a file.

    Raises:
        UsageError: the URI is a camera or a stream.
        StreamCamError: the file cannot be read, or has no frame.
    """
    refuse_pipe(uri, "--source")
    with open_source(uri, CaptureConfig()) as source:
        if source.info.live:
            raise UsageError(
                f"{redact_uri(uri)} is live; a benchmark needs a file, the same each time"
            )
        frames = [frame.image_bgr.copy() for frame in islice(source, n_frames)]
    if not frames:
        raise BenchError(f"{uri} has no frame to measure with")
    return frames


@contextmanager
def encoded_file(source: str | None, size: str) -> Iterator[str]:
    """The file to decode: the given one, or drawn frames as H.264 in a temporary folder.

    Raises:
        BenchError: PyAV is not installed.
    """
    try:
        importlib.import_module("av")
    except ImportError as error:
        raise BenchError(f"PyAV cannot be imported ({error}): pip install av") from error
    if source is not None:
        refuse_pipe(source, "--source")
        yield source
        return
    with TemporaryDirectory() as folder:
        path = Path(folder) / "drawn.mp4"
        _code(size, path)
        yield str(path)


def _code(size: str, path: Path) -> None:
    from stream_cam.sinks import Picture, StreamInfo, open_sink

    with DemoSource(f"demo://shapes?size={size}&fps=30&seconds={N_ENCODED / 30}") as source:
        stream = StreamInfo(fps=source.info.fps, still=False, live=False)
        with open_sink(str(path), stream, overwrite=True) as sink:
            for frame in source:
                sink.write(Picture(frame.image_bgr, frame, None))


class DecodeLoop(Closeable):
    """Decodes a file's first frames one by one, again and again.

    `prepare` opens the file again at their end and decodes the first one, which includes the
    opening; `decode` gives the next.

    Raises:
        BenchError: the file has fewer than two frames.
    """

    def __init__(self, uri: str) -> None:
        self._uri = uri
        with open_source(uri, CaptureConfig()) as source:
            self._n_frames = sum(1 for _ in islice(source, N_ENCODED))
        if self._n_frames < 2:
            raise BenchError(f"{uri} has {self._n_frames} frames; decoding is timed from 2 on")
        self._opened = ExitStack()
        self._frames: Iterator[Frame] = iter(())
        self._n_left = 0

    def prepare(self) -> None:
        if self._n_left > 0:
            return
        self._opened.close()
        self._frames = iter(self._opened.enter_context(open_source(self._uri, CaptureConfig())))
        next(self._frames)
        self._n_left = self._n_frames - 1

    def decode(self) -> Frame:
        self._n_left -= 1
        return next(self._frames)

    def close(self) -> None:
        self._opened.close()
