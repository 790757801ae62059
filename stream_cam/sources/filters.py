"""Decoded pictures through FFmpeg's filters: interlaced ones made whole, HDR ones made SDR."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Any, Final

import av
import av.error
import numpy as np
from av.filter import Graph

from stream_cam.config import Deinterlace
from stream_cam.frame import Colour
from stream_cam.sources.convert import colour_of
from stream_cam.sources.timestamps import TimedPicture
from stream_cam.sources.tone_map import HLG, PQ, SIDE, sdr_table

_TICK: Final = Fraction(1, 1000)
_UNSPECIFIED: Final = 2
_BT709: Final = Colour(matrix=1, primaries=1, transfer=1, full_range=False)
_SMALLEST_HW: Final = (4, 3)
"""That bwdif takes."""
_NOT_YET: Final = (av.error.BlockingIOError, av.error.EOFError)

_Kind = tuple[str, int, int, bool, int, int, int]
"""Format, width, height, whether to deinterlace, transfer, primaries, matrix."""


class Filters:
    """Gives one picture for each that it takes, in the same order, with the same time.

    Pictures that need nothing pass as they are. A graph is made for each kind of picture in a row.

    Args:
        deinterlace: auto for pictures that are flagged as interlaced; bwdif then holds one back.
    """

    def __init__(self, deinterlace: Deinterlace) -> None:
        self._deinterlace = deinterlace
        self._interlaced = deinterlace == "on"
        self._kind: _Kind | None = None
        self._chain: _Chain | None = None
        self.colour: Colour | None = None
        """How the first picture is tagged, after the filters."""

    def __call__(self, pictures: Iterable[TimedPicture]) -> Iterator[TimedPicture]:
        """Filter decoded pictures."""
        for index, (picture, pts) in enumerate(pictures):
            if index == 0:
                self.colour = _BT709 if _is_hdr(picture) else colour_of(picture)
            if self._deinterlace == "auto" and picture.interlaced_frame:
                self._interlaced = True
            kind = self._kind_of(picture)
            if kind != self._kind:
                yield from self._ended()
                self._kind = kind
                self._chain = None if kind is None else _Chain(kind, self._deinterlace)
            if self._chain is None:
                yield picture, pts
            else:
                yield from self._chain.push(picture, pts)
        yield from self._ended()

    def _ended(self) -> Iterator[TimedPicture]:
        chain, self._chain, self._kind = self._chain, None, None
        if chain is not None:
            yield from chain.end()

    def _kind_of(self, picture: av.VideoFrame) -> _Kind | None:
        height, width = picture.height, picture.width
        interlaced = self._interlaced and height >= _SMALLEST_HW[0] and width >= _SMALLEST_HW[1]
        hdr = _is_hdr(picture)
        if not interlaced and not hdr:
            return None
        transfer = int(picture.color_trc) if hdr else 0
        primaries, matrix = int(picture.color_primaries), int(picture.colorspace)
        return picture.format.name, width, height, interlaced, transfer, primaries, matrix


class _Chain:
    """One graph, for pictures of one kind."""

    def __init__(self, kind: _Kind, deinterlace: str) -> None:
        name, width, height, interlaced, transfer, primaries, matrix = kind
        graph = Graph()
        self._graph = graph
        self._source = graph.add_buffer(
            width=width, height=height, format=av.VideoFormat(name), time_base=_TICK
        )
        last: Any = self._source
        if interlaced:
            which = "all" if deinterlace == "on" else "interlaced"
            last = _linked(last, graph.add("bwdif", f"mode=send_frame:deint={which}"))
        table = None
        if transfer:
            guess = "in_color_matrix=bt2020" if matrix == _UNSPECIFIED else ""
            last = _linked(last, graph.add("scale", guess))
            last = _linked(last, graph.add("format", "gbrpf32le"))
            last = _linked(last, graph.add("haldclut"))
            table = _table_picture(transfer, primaries)
            side = table.width
            clut = graph.add_buffer(
                width=side, height=side, format=table.format, time_base=_TICK, name="table"
            )
            clut.link_to(last, 0, 1)
        self._sink = _linked(last, graph.add("buffersink"))
        graph.configure()
        if table is not None:
            clut.push(table)
            clut.push(None)
        self._count = 0
        self._waiting: deque[tuple[int | None, int | None, Fraction | None, int]] = deque()

    def push(self, picture: av.VideoFrame, pts: int | None) -> Iterator[TimedPicture]:
        """Take a picture; gives those that are ready."""
        self._waiting.append((pts, picture.pts, picture.time_base, picture.duration or 0))
        # Filters need times, and some pictures have none.
        picture.pts, picture.time_base = self._count, _TICK
        self._count += 1
        self._source.push(picture)
        yield from self._ready()

    def end(self) -> Iterator[TimedPicture]:
        """Gives the pictures that are still held back."""
        self._source.push(None)
        yield from self._ready()

    def _ready(self) -> Iterator[TimedPicture]:
        while self._waiting:
            try:
                picture: Any = self._sink.pull()
            except _NOT_YET:
                return
            pts, picture.pts, picture.time_base, picture.duration = self._waiting.popleft()
            yield picture, pts


def _is_hdr(picture: av.VideoFrame) -> bool:
    return int(picture.color_trc) in (PQ, HLG)


def _linked(last: Any, node: Any) -> Any:
    last.link_to(node)
    return node


def _table_picture(transfer: int, primaries: int) -> av.VideoFrame:
    side = round(SIDE**1.5)
    table = sdr_table(transfer, primaries).reshape(side, side, 3)
    picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(table), "gbrpf32le")
    picture.pts, picture.time_base = 0, _TICK
    return picture
