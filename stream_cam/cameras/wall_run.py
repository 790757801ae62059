"""The wall: all tiles on one page, in one window or in one recording, until all is over."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack
from fractions import Fraction

from stream_cam.cameras.cameras import Cameras
from stream_cam.cameras.wall_page import WallPage
from stream_cam.cameras.wall_picture import WallPicture
from stream_cam.config import CamerasConfig, RecordConfig, WebConfig
from stream_cam.errors import StreamCamError
from stream_cam.frame import Frame
from stream_cam.pipeline.sink_queue import SinkQueue
from stream_cam.settings import Settings
from stream_cam.sinks import kind_of, open_sink
from stream_cam.sinks.base import Picture, StreamInfo
from stream_cam.uri import hide
from stream_cam.web.address import parse_web_uri

logger = logging.getLogger(__name__)

_TIME_BASE = Fraction(1, 90_000)
_TICK_SECONDS = 0.1
_QUEUE_FRAMES = 4


class WallRun:
    """Shows and records the wall of some cameras.

    Args:
        cameras: their tiles are shown.
        uris: pages, windows and recordings of the wall.
        config: how often tiles change.
        web: how pages are served.
        record: how recordings are written.
        overwrite: replace recordings that exist.

    Raises:
        StreamCamError: an output cannot be opened.
    """

    def __init__(
        self,
        cameras: Cameras,
        uris: Sequence[str],
        config: CamerasConfig,
        web: WebConfig,
        record: RecordConfig,
        *,
        overwrite: bool = False,
    ) -> None:
        self._cameras = cameras
        self._wall = WallPicture(cameras)
        self._fps = config.wall_fps
        self._index = 0
        self.pages: list[WallPage] = []
        self._queues: list[SinkQueue] = []
        stream = StreamInfo(fps=Fraction(config.wall_fps).limit_denominator(1001), live=True)
        with ExitStack() as made:
            for uri in uris:
                if kind_of(uri).name == "web":
                    page = WallPage(cameras, parse_web_uri(uri), config, web)
                    made.callback(page.close)
                    self.pages.append(page)
                    continue
                sink = open_sink(
                    uri, stream, overwrite=overwrite, record=record, settings=Settings()
                )
                made.callback(sink.close)
                self._queues.append(SinkQueue(sink, True, _QUEUE_FRAMES))
            made.pop_all()

    @property
    def urls(self) -> list[str]:
        """The links of the pages, tokens included."""
        return [page.url for page in self.pages]

    def run(self, on_tick: Callable[[], None] = lambda: None) -> None:
        """Returns when the cameras were stopped, all have ended, or a viewer closed the window.

        Raises:
            StreamCamError: an output of the wall failed; the cameras' own files are finished.
        """
        with ExitStack() as stack:
            for page in self.pages:
                stack.enter_context(page)
            windows = [one for one in self._queues if one.sink.main_thread]
            threads = [
                _start(f"wall {one.sink.name}", self._write, one)
                for one in self._queues
                if one not in windows
            ]
            feeds = [self._feed(one, 0.0) for one in windows]
            try:
                self._show(feeds, on_tick)
            finally:
                self._cameras.close()
                for queue in self._queues:
                    queue.waiting.close()
                for feed in feeds:
                    for _ in feed:
                        pass
                for thread in threads:
                    thread.join()
        failed = [one.failed for one in self._queues if one.failed]
        if failed:
            raise StreamCamError("; ".join(failed))

    def _show(
        self, feeds: Sequence[Generator[None, None, None]], on_tick: Callable[[], None]
    ) -> None:
        due, ticked = time.monotonic(), 0.0
        while not self._cameras.stopped.is_set() and self._cameras.running:
            if any(next(feed, "over") == "over" for feed in feeds):
                return
            now = time.monotonic()
            if now - ticked >= _TICK_SECONDS:
                ticked = now
                on_tick()
            if self._queues and now >= due:
                self._put_picture()
                due = max(due + 1.0 / self._fps, now)
            wait = min(_TICK_SECONDS, max(0.0, due - now)) if self._queues else _TICK_SECONDS
            self._cameras.stopped.wait(wait)

    def _put_picture(self) -> None:
        now_ns = time.monotonic_ns()
        pts = round(now_ns / 1e9 / _TIME_BASE)
        frame = Frame(self._wall.draw(), self._index, pts, _TIME_BASE, now_ns)
        self._index += 1
        for queue in self._queues:
            queue.waiting.put(Picture(frame.image_bgr, frame, None))

    def _write(self, queue: SinkQueue) -> None:
        for _ in self._feed(queue, None):
            pass

    def _feed(self, queue: SinkQueue, patience: float | None) -> Generator[None, None, None]:
        try:
            with queue.sink:
                yield from queue.write_all(patience)
        except StreamCamError as error:
            queue.failed = hide(str(error))
            logger.error("%s; the cameras go on", queue.failed)
        finally:
            queue.waiting.abort()


def _start(name: str, work: Callable[..., None], *args: object) -> threading.Thread:
    thread = threading.Thread(target=work, name=name, args=args, daemon=True)
    thread.start()
    return thread
