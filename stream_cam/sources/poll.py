"""A picture at a URL that is fetched again and again."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from stream_cam.config import CaptureConfig
from stream_cam.errors import SourceError
from stream_cam.frame import NANOSECOND, Frame
from stream_cam.sources.base import Source, SourceInfo
from stream_cam.sources.connection import Connection
from stream_cam.sources.mjpeg import MOST_PICTURE_BYTES
from stream_cam.sources.pictures import decode_picture
from stream_cam.uri import redact_uri

logger = logging.getLogger(__name__)


@dataclass
class LatestPicture:
    """The newest picture of a URL, over all connections."""

    data: bytes = b""
    frame: Frame | None = None


class PollSource(Source):
    """Fetches a picture every few seconds; live.

    A picture that has not changed is given as the same `Frame` object again: a sign of life, and
    no new frame. A fetch that fails raises.

    Args:
        uri: http:// or https://.
        seconds: from one fetch to the next.
        config: the time limits of each fetch.
        latest: the picture that earlier connections have got.
    """

    corrupt_frames = 0

    def __init__(
        self, uri: str, seconds: float, config: CaptureConfig, latest: LatestPicture
    ) -> None:
        self._uri, self._name = uri, redact_uri(uri)
        self._seconds = seconds
        self._config = config
        self._latest = latest
        self._stopped = threading.Event()
        self._connection: Connection | None = None
        self._first: Frame | None = None

    def __enter__(self) -> PollSource:
        self._began = time.monotonic()
        self._first = self._decode(self._fetch())
        rate = 1 / Fraction(self._seconds).limit_denominator(1000)
        self._info = SourceInfo(self._name, self._first.size_hw, fps=rate, n_frames=None, live=True)
        return self

    def __iter__(self) -> Iterator[Frame]:
        if self._first is not None:
            yield self._first
        due = self._began
        while not self._stopped.is_set():
            # After a fetch that took long, the next one is not late: it is due later.
            due = max(due + self._seconds, time.monotonic())
            if self._stopped.wait(due - time.monotonic()):
                return
            data = self._fetch()
            try:
                yield self._decode(data)
            except SourceError as exc:
                # A camera may be writing it just now.
                self.corrupt_frames += 1
                logger.debug("damaged picture: %s", exc)

    def stop(self) -> None:
        self._stopped.set()
        connection = self._connection
        if connection is not None:
            connection.interrupt()

    def _fetch(self) -> bytes:
        limit_seconds = self._config.open_timeout_seconds + self._config.read_timeout_seconds
        late_at = time.monotonic() + limit_seconds
        data = bytearray()
        with Connection(self._uri, self._config) as self._connection:
            if self._connection.content_type.startswith("multipart/"):
                raise SourceError(
                    f"{self._name} is a stream of pictures: leave out --poll", kind="codec"
                )
            length = self._connection.length
            while piece := self._connection.read():
                data += piece
                if len(data) > MOST_PICTURE_BYTES:
                    raise SourceError(
                        f"{self._name} is no picture: it has more than "
                        f"{MOST_PICTURE_BYTES >> 20} MiB; a stream needs no --poll",
                        kind="codec",
                    )
                if time.monotonic() > late_at:
                    raise SourceError(
                        f"{self._name} is not there whole within {limit_seconds:g} s",
                        kind="timeout",
                    )
        if length is not None and len(data) < length:
            raise SourceError(
                f"{self._name} was cut off after {len(data)} of {length} bytes", kind="lost"
            )
        return bytes(data)

    def _decode(self, data: bytes) -> Frame:
        latest = self._latest
        if latest.frame is None or data != latest.data:
            captured_ns = time.monotonic_ns()
            image = decode_picture(data, self._name)
            index = 0 if latest.frame is None else latest.frame.index + 1
            latest.frame = Frame(image, index, captured_ns, NANOSECOND, captured_ns)
            latest.data = data
        return latest.frame
