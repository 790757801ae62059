"""Sources at a URL: pictures one after the other, one picture, or a video for FFmpeg."""

from __future__ import annotations

import logging
import re
import time
from collections import deque
from collections.abc import Iterator
from typing import Final

from stream_cam.config import CaptureConfig
from stream_cam.errors import SourceError
from stream_cam.frame import NANOSECOND, Frame
from stream_cam.sources.base import Source, SourceInfo, StreamState
from stream_cam.sources.connection import Connection
from stream_cam.sources.images import ImagesSource
from stream_cam.sources.mjpeg import JPEG_START, MOST_PICTURE_BYTES, PNG_START, PictureSplitter
from stream_cam.sources.pictures import begins_like_picture, decode_picture
from stream_cam.sources.video import VideoSource
from stream_cam.uri import redact_uri

logger = logging.getLogger(__name__)

_MOST_WITHOUT_PICTURE: Final = 4 << 20
"""Bytes without a whole picture after which a stream is no motion JPEG."""
_MOST_FILE_BYTES: Final = 256 << 20
_HEAD_BYTES: Final = 12
_MOST_UNDECODABLE_IN_A_ROW: Final = 30
_PART_TYPE: Final = re.compile(rb"content-type:\s*([\w.+/-]+)", re.IGNORECASE)
_PICTURE_TYPES: Final = frozenset({"video/x-motion-jpeg", "video/x-mjpeg", "video/mjpeg"})
_TEXT_TYPES: Final = frozenset({"text/html", "text/plain", "application/json", "text/xml"})
_VIDEOS: Final = (
    *(b"\0\0\1", b"\0\0\0\1", b"G", b"FLV", b"\x1a\x45\xdf\xa3", b"RIFF", b"OggS", b"0&\xb2u"),
    *(b"YUV4", b"DKIF", b"NUT", b"#EXT", b"<", b"v=0"),
)
"""How H.264, HEVC, MPEG, transport streams, FLV, Matroska, AVI, Ogg, ASF, y4m, IVF and NUT begin,
and playlists. FFmpeg knows more formats; those are searched for pictures first."""
_SEARCHED_BYTES: Final = 1 << 20
_SEARCH_SECONDS: Final = 2.0
_PLAYLISTS: Final = (b"#EXTM3U", b"<?xml", b"<MPD", b"v=0", b"\xef\xbb\xbf#EXTM3U")
"""HLS, DASH and SDP: FFmpeg opens further addresses relative to this one."""


class NetworkSource(Source):
    """A camera or file at http://, https:// or tcp://.

    Looks at the first bytes. Motion JPEG is read here, whatever the server says about it. A server
    that gives one picture is a still. All else is a video for FFmpeg. A video without seeking is
    read over this same connection, since some servers take only one.

    Args:
        uri: the URL.
        config: time limits.
        live: as of `open_source`.
    """

    def __init__(self, uri: str, config: CaptureConfig, live: bool | None = None) -> None:
        self._uri, self._name = uri, redact_uri(uri)
        self._config = config
        self._live = live
        self._connection = Connection(uri, config)
        self._source: PictureSource | ImagesSource | VideoSource | None = None

    @property
    def info(self) -> SourceInfo:
        return super().info if self._source is None else self._source.info

    @property
    def corrupt_frames(self) -> int:
        return 0 if self._source is None else self._source.corrupt_frames

    @property
    def stream_state(self) -> StreamState:
        if isinstance(self._source, VideoSource):
            return self._source.stream_state
        return StreamState(read_timeout_seconds=self._config.read_timeout_seconds)

    def __enter__(self) -> NetworkSource:
        try:
            self._open()
        except BaseException:
            self.close()
            raise
        return self

    def __iter__(self) -> Iterator[Frame]:
        if self._source is not None:
            yield from self._source

    def stop(self) -> None:
        self._connection.interrupt()
        if self._source is not None:
            self._source.stop()

    def close(self) -> None:
        if self._source is not None:
            self._source.close()
        self._connection.close()

    def _open(self) -> None:
        connection = self._connection.__enter__()
        head = self._head()
        if _is_picture_file(head, connection):
            self._source = ImagesSource(self._name, self._read_file())
        elif _is_picture_stream(head, connection) or self._has_pictures_later(head):
            self._source = PictureSource(self._name, connection, self._live)
        else:
            self._source = self._open_video(head)
        self._source.__enter__()

    def _open_video(self, head: bytes) -> VideoSource:
        connection = self._connection
        if head.lstrip()[:1] == b"<" and connection.content_type in _TEXT_TYPES:
            raise SourceError(
                f"{self._name} cannot be opened: the data is no video that can be decoded, but "
                f"{connection.content_type}; check the path, or whether a login page answers",
                kind="codec",
            )
        if connection.length is not None or connection.seekable or head.startswith(_PLAYLISTS):
            connection.close()
            return VideoSource(self._uri, self._config, self._live)
        return VideoSource(self._uri, self._config, self._live, connection)

    def _head(self) -> bytes:
        """The first bytes, which stay to be read: some kinds are known by the first twelve."""
        head = b""
        while len(head) < _HEAD_BYTES and (data := self._connection.read()):
            head += data
        if not head:
            raise SourceError(
                f"{self._name} cannot be opened: the server closes the connection without sending "
                f"anything; check the path and the server's log",
                kind="lost",
            )
        self._connection.push_back(head)
        return head

    def _has_pictures_later(self, head: bytes) -> bool:
        """Whether a stream that was joined within a picture, or begins with garbage, has more."""
        connection = self._connection
        if connection.length is not None or head.startswith(_VIDEOS) or head[4:8] == b"ftyp":
            return False
        splitter, seen = PictureSplitter(_SEARCHED_BYTES), bytearray()
        late_at = time.monotonic() + _SEARCH_SECONDS
        while len(seen) < _SEARCHED_BYTES and time.monotonic() < late_at:
            data = connection.read()
            seen += data
            if not data or any(splitter.feed(data)):
                break
        connection.push_back(bytes(seen))
        return splitter.pictures > 0

    def _read_file(self) -> bytes:
        data = bytearray()
        while piece := self._connection.read():
            data += piece
            if len(data) > _MOST_FILE_BYTES:
                raise SourceError(
                    f"{self._name} is a picture of more than {_MOST_FILE_BYTES >> 20} MiB; "
                    f"download it and give the file"
                )
        return bytes(data)


def _is_picture_file(head: bytes, connection: Connection) -> bool:
    """Whether one file of pictures comes: of a kind that is no stream, or a PNG with a length.

    A PNG may be an animation. A JPEG is left to the splitter, whatever hides behind it.
    """
    kind = connection.content_type
    if kind.startswith(("multipart/", "video/")) or head.lstrip().startswith((JPEG_START, b"--")):
        return False
    if head.startswith(PNG_START):
        return connection.length is not None
    return kind.startswith("image/") or begins_like_picture(head)


def _is_picture_stream(head: bytes, connection: Connection) -> bool:
    """Whether these first bytes begin one picture or a stream of pictures."""
    kind = connection.content_type
    if kind.startswith("multipart/"):
        return True
    if head.startswith((JPEG_START, PNG_START)):
        # A file with a length may be a whole film of JPEGs.
        return not (kind.startswith("video/") and connection.length is not None)
    multipart = head.lstrip().lower().startswith((b"--", b"content-"))
    return multipart or (kind in _PICTURE_TYPES and connection.length is None)


class PictureSource(Source):
    """JPEGs and PNGs that come one after the other; just one is a still.

    A frame's time is when its last byte has come, in ns since the first frame's.

    Args:
        name: the URI, secrets redacted.
        connection: open.
        live: whether the newest frame wins; default: of a stream, not of a still.
    """

    def __init__(self, name: str, connection: Connection, live: bool | None = None) -> None:
        self._name = name
        self._connection = connection
        self._live = live
        self._splitter = PictureSplitter()
        self._waiting: deque[bytes] = deque()
        self._frames = self._read()
        self._first: Frame | None = None
        self._undecodable = 0

    @property
    def corrupt_frames(self) -> int:
        """Pictures so far that did not end, or could not be decoded."""
        return self._splitter.broken + self._undecodable

    def __enter__(self) -> PictureSource:
        self._first = next(self._frames)
        still = self._is_still()
        self._info = SourceInfo(
            name=self._name,
            size_hw=self._first.size_hw,
            fps=None,
            n_frames=1 if still else None,
            live=not still if self._live is None else self._live,
            still=still,
        )
        return self

    def __iter__(self) -> Iterator[Frame]:
        first, self._first = self._first, None
        if first is not None:
            yield first
        yield from self._frames

    def _is_still(self) -> bool:
        """Whether the first picture is the only one; of a stream it waits for the next."""
        connection = self._connection
        if connection.content_type.startswith("multipart/"):
            return False
        if connection.content_type.startswith("image/") and connection.length is not None:
            return True  # whatever hides behind the picture, such as a film
        while not self._waiting and not self._splitter.within:
            data = connection.read()
            if not data:
                return True
            self._waiting.extend(self._splitter.feed(data))
        return False

    def _read(self) -> Iterator[Frame]:
        index = start_ns = failures = 0
        for picture in self._split():
            captured_ns = time.monotonic_ns()
            try:
                image = decode_picture(picture, self._name)
            except SourceError as exc:
                failures += 1
                self._undecodable += 1
                logger.debug("damaged picture: %s", exc)
                if failures >= _MOST_UNDECODABLE_IN_A_ROW:
                    raise self._failure(f"{failures} pictures in a row cannot be decoded") from None
                continue
            failures = 0
            start_ns = start_ns if index else captured_ns
            yield Frame(image, index, captured_ns - start_ns, NANOSECOND, captured_ns)
            index += 1
        if not index:
            raise self._without_picture()

    def _split(self) -> Iterator[bytes]:
        splitter, waiting = self._splitter, self._waiting
        while True:
            while waiting:
                yield waiting.popleft()
            data = self._connection.read()
            if not data:
                return
            waiting.extend(splitter.feed(data))
            if not splitter.pictures and splitter.skipped_bytes > _MOST_WITHOUT_PICTURE:
                raise self._failure(f"{splitter.skipped_bytes >> 20} MiB hold no whole picture")

    def _without_picture(self) -> SourceError:
        """The stream has ended, and there was none."""
        splitter = self._splitter
        part = _PART_TYPE.search(splitter.lead)
        if self._undecodable:
            return self._failure("its pictures cannot be decoded")
        if splitter.broken or (part is not None and not part[1].lower().startswith(b"image/")):
            return self._failure("it ends without a whole picture")
        return SourceError(
            f"{self._name} cannot be read: the connection ends before a picture is whole; check "
            f"the camera or server",
            kind="lost",
        )

    def _failure(self, what: str) -> SourceError:
        splitter = self._splitter
        part = _PART_TYPE.search(splitter.lead)
        if not splitter.pictures and splitter.broken:
            what += f"; {splitter.broken} begin, but have no end"
        elif not splitter.pictures and part is not None:
            what += f"; its parts are {part[1].decode().lower()}"
        return SourceError(
            f"{self._name} is no motion JPEG that can be read: {what}; JPEG and PNG are read, of "
            f"at most {MOST_PICTURE_BYTES >> 20} MiB each",
            kind="codec",
        )
