"""Motion JPEG: pictures one after the other in a stream of bytes, with or without multipart."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Final

JPEG_START: Final = b"\xff\xd8\xff"
PNG_START: Final = b"\x89PNG\r\n\x1a\n"
MOST_PICTURE_BYTES: Final = 32 << 20

_START: Final = re.compile(re.escape(JPEG_START) + b"|" + re.escape(PNG_START))
_LEAD: Final = 512
"""Bytes before the first picture that are kept: a part's header names its type."""
_SOI, _EOI, _SOS = 0xD8, 0xD9, 0xDA
MARKERS_WITHOUT_LENGTH: Final = frozenset({0x01, *range(0xD0, 0xD8)})
"""JPEG markers that stand alone: ITU T.81, table B.1."""
_AFTER_SCAN: Final = re.compile(rb"\xff[\xc4\xd8-\xdd\xe0-\xef\xfe]|" + re.escape(PNG_START))
"""Markers that may follow coded data. Stuffed bytes (FF00), restart markers and fill bytes belong
to it, and codes that no encoder writes are damage for the decoder to find."""


class _Broken(Exception):
    """The bytes are no picture; the search goes on at `at`."""

    def __init__(self, at: int) -> None:
        super().__init__(at)
        self.at = at


class PictureSplitter:
    """Finds each JPEG and PNG by its own marks, whatever stands between them.

    Boundaries, part headers and lengths are not looked at, so that wrong ones do no harm. A JPEG is
    followed from segment to segment: a thumbnail inside a segment has marks of its own. Memory is
    bounded by `most_bytes` and one piece that is fed.

    Args:
        most_bytes: a picture of more is given up.
    """

    def __init__(self, most_bytes: int = MOST_PICTURE_BYTES) -> None:
        self._most_bytes = most_bytes
        self._buffer = bytearray()
        self._follow: Callable[[int], tuple[bool, int]] | None = None
        self._at = self._last = 0
        self.pictures = 0
        """Whole pictures so far."""
        self.broken = 0
        """Pictures so far that began and did not end."""
        self.skipped_bytes = 0
        """Bytes so far that belong to no whole picture."""
        self.lead = b""
        """Up to 512 bytes of those before the first picture."""

    @property
    def within(self) -> bool:
        """Whether a picture has begun that has not ended yet."""
        return self._follow is not None

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Take the next bytes and give the pictures that are whole with them."""
        self._buffer += data
        while self._follow is not None or self._find_start():
            assert self._follow is not None
            try:
                ended, self._at = self._follow(self._at)
            except _Broken as broken:
                self._give_up(broken.at)
                continue
            if ended:
                picture = bytes(self._buffer[: self._at])
                self.pictures += 1
                self._drop(self._at)
                yield picture
            elif len(self._buffer) > self._most_bytes:
                self._give_up(2)
            else:
                return

    def _find_start(self) -> bool:
        found = _START.search(self._buffer)
        if found is None:
            # A mark may be cut in two.
            self._skip(max(0, len(self._buffer) - len(PNG_START) + 1))
            return False
        self._skip(found.start())
        is_jpeg = self._buffer.startswith(JPEG_START)
        self._follow = self._follow_segments if is_jpeg else self._follow_chunks
        self._at = 2 if is_jpeg else len(PNG_START)
        self._last = 0
        return True

    def _give_up(self, at: int) -> None:
        self.broken += 1
        self._skip(at)

    def _skip(self, n_bytes: int) -> None:
        if not self.pictures and len(self.lead) < _LEAD:
            self.lead += bytes(self._buffer[: min(n_bytes, _LEAD - len(self.lead))])
        self.skipped_bytes += n_bytes
        self._drop(n_bytes)

    def _drop(self, n_bytes: int) -> None:
        del self._buffer[:n_bytes]
        self._follow, self._at = None, 0

    def _follow_segments(self, at: int) -> tuple[bool, int]:
        """From marker to marker of a JPEG: whether it has ended, and where it ends or goes on."""
        data = self._buffer
        while at + 2 <= len(data):
            marker = data[at + 1]
            if data[at] != 0xFF or marker == _SOI or (marker == _EOI and at == 2):
                # The segment that was stepped over last may hold the next picture's beginning.
                # Those before it led on; a start within one of them is a thumbnail's.
                raise _Broken(self._last + 2)
            if marker == _EOI:
                return True, at + 2
            if marker == 0xFF:
                at += 1
            elif marker in MARKERS_WITHOUT_LENGTH:
                at += 2
            elif at + 4 > len(data):
                return False, at
            else:
                length = int.from_bytes(data[at + 2 : at + 4], "big")
                if length < 2:
                    raise _Broken(at + 2)
                self._last, at = at, at + 2 + length
                if marker == _SOS:
                    self._follow = self._follow_scan
                    return self._follow_scan(at)
        return False, at

    def _follow_scan(self, at: int) -> tuple[bool, int]:
        """Over the coded data of a JPEG to the marker behind it."""
        found = _AFTER_SCAN.search(self._buffer, at)
        if found is None:
            return False, max(at, len(self._buffer) - len(PNG_START) + 1)
        if found.group() in (b"\xff\xd8", PNG_START):
            raise _Broken(found.start())
        self._follow = self._follow_segments
        return self._follow_segments(found.start())

    def _follow_chunks(self, at: int) -> tuple[bool, int]:
        """From chunk to chunk of a PNG: length, type, data, checksum."""
        data = self._buffer
        while at + 8 <= len(data):
            kind = data[at + 4 : at + 8]
            end = at + 12 + int.from_bytes(data[at : at + 4], "big")
            if not (kind.isalpha() and kind.isascii()) or end > self._most_bytes:
                raise _Broken(self._last + 2)
            if kind == b"IEND":
                return (True, end) if end <= len(data) else (False, at)
            self._last, at = at, end
        return False, at
