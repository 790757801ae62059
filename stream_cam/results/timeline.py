"""A timeline: the leading classes' probabilities over time, as a picture or a page."""

from __future__ import annotations

import math
import os
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from fractions import Fraction
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from stream_cam.atomic_files import write_atomic
from stream_cam.errors import SinkError
from stream_cam.frame import Frame
from stream_cam.results.time_text import time_text
from stream_cam.sinks.base import Picture, Sink
from stream_cam.uri import printable

if TYPE_CHECKING:
    from stream_cam.sinks.video.segments import Segment

N_CLASSES: Final = 6
_COLOURS: Final = ("#3b7ddd", "#e4572e", "#2a9d6f", "#b5179e", "#c98a00", "#5b6770")
_OTHER: Final = "#c9ced6"
_N_POINTS: Final = 1000
"""Most points of a line; each is the mean of the same number of frames. Beyond these, memory grows
only with the moments at which the class changed."""
_WIDTH, _HEIGHT = 1200, 360
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 16, 56, 64
_RIBBON = 14
_STEPS: Final = (0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200)
_MOST_MOMENTS: Final = 200


@dataclass(slots=True)
class _Point:
    """Some frames in a row, added up."""

    count: int
    seconds: float
    probabilities: Counter[str]
    """By label, of the five best of each frame."""

    def add(self, other: _Point) -> None:
        self.count += other.count
        self.seconds += other.seconds
        self.probabilities.update(other.probabilities)


@dataclass(slots=True)
class Span:
    """A span of time with one shown class."""

    label: str
    start_seconds: float
    end_seconds: float
    peak_probability: float
    start: str
    """Its time in a video, or the picture's name; so are the other two."""
    end: str
    peak: str


@dataclass
class TimelineSink(Sink):
    """Draws on closing: a line for each of the six leading classes, and a ribbon of the shown ones.

    A class outside of a frame's five best counts as 0 there.

    Args:
        path: `.svg`, or `.html` with a list of the moments at which the class changed.
        title: the source's name.
        recording: a video of the same run, or its segments once they are known; moments are links
            into them.
        audio_lead_seconds: how much earlier than the first picture the recording begins.
    """

    path: Path
    title: str = ""
    recording: Path | Future[list[Segment]] | None = None
    audio_lead_seconds: Fraction = Fraction(0)
    _begin_seconds: float | None = None
    _films: list[tuple[float, str]] = field(default_factory=list)
    """When each video begins, and its address as seen from the page."""
    _points: list[_Point] = field(default_factory=list)
    _frames_a_point: int = 1
    _totals: Counter[str] = field(default_factory=Counter)
    _spans: list[Span] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.name = str(self.path)

    def write(self, picture: Picture) -> bool:
        if self._begin_seconds is None:
            lead = self.audio_lead_seconds if picture.frame.index == 0 else 0
            self._begin_seconds = picture.frame.pts_seconds - float(lead)
        explanation = picture.explanation
        if explanation is not None:
            best = {one.label: one.probability for one in explanation.predictions}
            shown = explanation.targets[0]
            best.setdefault(shown.label, shown.probability)
            self._add_to_lines(picture.frame.pts_seconds, best)
            self._add_to_spans(picture.frame, shown.label, best[shown.label])
        return True

    def _add_to_lines(self, seconds: float, best: dict[str, float]) -> None:
        self._totals.update(best)
        frame = _Point(1, seconds, Counter(best))
        if self._points and self._points[-1].count < self._frames_a_point:
            self._points[-1].add(frame)
            return
        if len(self._points) == _N_POINTS:
            for first, second in zip(self._points[::2], self._points[1::2], strict=True):
                first.add(second)
            del self._points[1::2]
            self._frames_a_point *= 2
        self._points.append(frame)

    def _add_to_spans(self, frame: Frame, label: str, probability: float) -> None:
        seconds = frame.pts_seconds
        when = frame.name or time_text(seconds)
        if self._spans:
            last = self._spans[-1]
            last.end_seconds, last.end = seconds, when
            if last.label == label:
                if probability > last.peak_probability:
                    last.peak_probability, last.peak = probability, when
                return
        self._spans.append(Span(label, seconds, seconds, probability, when, when, when))

    def close(self) -> None:
        if not self._spans:
            return
        self._films = [
            (begin, quote(os.fsencode(os.path.relpath(path, self.path.parent))))
            for begin, path in self._videos()
        ]
        drawing = "\n".join(self._svg())
        text = drawing if self.path.suffix.lower() == ".svg" else "\n".join(self._page(drawing))
        try:
            write_atomic(self.path, f"{printable(text)}\n".encode())
        except OSError as error:
            raise SinkError(f"{self.path} cannot be written: {error.strerror}") from error

    def _videos(self) -> list[tuple[float, Path]]:
        if self.recording is None:
            return []
        if isinstance(self.recording, Path):
            return [(self._begin_seconds or 0.0, self.recording)]
        # The recording is closed by a thread of its own, however the run ends.
        return [(float(each.begin_seconds), each.path) for each in self.recording.result()]

    def _link(self, seconds: float) -> str | None:
        """To a moment; None: it is in no video, or in a segment that has been removed."""
        place = bisect_right(self._films, seconds, key=lambda film: film[0]) - 1
        if place < 0:
            return None
        begin, href = self._films[place]
        # Rounded down it would be the previous picture.
        return f"{href}#t={math.ceil(round(1000 * (seconds - begin), 3)) / 1000:.3f}"

    def spans(self) -> list[Span]:
        """One after the other, without gaps."""
        return self._spans

    def _leading(self) -> list[str]:
        return [label for label, _ in self._totals.most_common(N_CLASSES)]

    def _svg(self) -> Iterator[str]:
        leading = self._leading()
        colour = dict(zip(leading, _COLOURS, strict=False))
        first, last = self._spans[0].start_seconds, self._spans[-1].end_seconds
        span = max(last - first, 1e-3)
        wide, high = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM

        def x(seconds: float) -> float:
            return _LEFT + (seconds - first) / span * wide

        def y(probability: float) -> float:
            return _TOP + (1 - probability) * high

        yield (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
            'font-family="system-ui, sans-serif" font-size="13" fill="#27313d">'
        )
        yield f"<title>{escape(self.title or 'Probabilities over time')}</title>"
        yield f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#ffffff"/>'
        yield f'<text x="{_LEFT}" y="20" font-weight="600">{escape(self.title)}</text>'
        at = float(_LEFT)
        others = any(shown.label not in colour for shown in self._spans)
        for label, fill in [*colour.items(), *([("others", _OTHER)] if others else [])]:
            yield f'<rect x="{at:.0f}" y="31" width="11" height="11" fill="{fill}"/>'
            yield f'<text x="{at + 16:.0f}" y="41">{escape(label)}</text>'
            at += 34 + 7.2 * len(label)
        for tenth in (0, 25, 50, 75, 100):
            level = y(tenth / 100)
            yield f'<path d="M{_LEFT} {level:.1f}h{wide}" stroke="#e4e7ec" fill="none"/>'
            yield f'<text x="{_LEFT - 8}" y="{level + 4:.1f}" text-anchor="end">{tenth} %</text>'
        for seconds in _ticks(first, last):
            yield (
                f'<text x="{x(seconds):.1f}" y="{_HEIGHT - 14}" text-anchor="middle">'
                f"{time_text(seconds)}</text>"
            )
        ribbon = _TOP + high + 14
        for shown in self.spans():
            width = max(1.0, x(shown.end_seconds) - x(shown.start_seconds))
            rect = (
                f'<rect x="{x(shown.start_seconds):.1f}" y="{ribbon}" width="{width:.1f}" '
                f'height="{_RIBBON}" fill="{colour.get(shown.label, _OTHER)}"><title>'
                f"{escape(f'{shown.label}: {shown.start} to {shown.end}')}</title></rect>"
            )
            link = self._link(shown.start_seconds)
            yield rect if link is None else f'<a href="{link}">{rect}</a>'
        for label in leading:
            points = " ".join(f"{x(s):.1f},{y(p):.1f}" for s, p in self._line(label))
            yield (
                f'<polyline points="{points}" fill="none" stroke="{colour[label]}" '
                f'stroke-width="1.8" stroke-linejoin="round"><title>{escape(label)}</title>'
                "</polyline>"
            )
        yield "</svg>"

    def _line(self, label: str) -> Iterator[tuple[float, float]]:
        for point in self._points:
            yield point.seconds / point.count, point.probabilities[label] / point.count

    def _page(self, drawing: str) -> Iterator[str]:
        title = escape(self.title or "stream-cam")
        yield "<!doctype html>"
        yield f'<html lang="en"><meta charset="utf-8"><title>{title}</title>'
        yield (
            "<style>body{font:15px/1.5 system-ui,sans-serif;max-width:76rem;margin:2rem auto;"
            "padding:0 1rem;color:#27313d}svg{width:100%;height:auto}td{padding:.1rem 1rem .1rem 0}"
            "td:nth-child(3){text-align:right;font-variant-numeric:tabular-nums}"
            "video{max-width:100%}</style>"
        )
        yield drawing
        if isinstance(self.recording, Path):
            src = self._films[0][1]
            yield f'<p><video src="{src}" controls preload="metadata"></video></p>'
        spans = self.spans()
        yield f"<h2>Moments at which the class changed: {len(spans)}</h2><table>"
        for shown in spans[:_MOST_MOMENTS]:
            when = escape(shown.start)
            link = self._link(shown.start_seconds)
            if link is not None:
                when = f'<a href="{link}">{when}</a>'
            yield (
                f"<tr><td>{when}<td>{escape(shown.label)}<td>up to "
                f"{shown.peak_probability:.0%} at {escape(shown.peak)}"
            )
        yield "</table>"
        if self._films and self._link(spans[0].start_seconds) is None:
            yield "<p>Those without a link are in segments that have been removed."
        if len(spans) > _MOST_MOMENTS:
            yield f"<p>and {len(spans) - _MOST_MOMENTS} more"
        yield "</html>"


def _ticks(first: float, last: float) -> Sequence[float]:
    step = next((step for step in _STEPS if (last - first) / step <= 10), _STEPS[-1])
    begin = int(first // step)
    times = [number * step for number in range(begin, begin + 200)]
    return [seconds for seconds in times if first - 1e-9 <= seconds <= last + 1e-9]
