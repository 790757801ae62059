"""Distributions as an SVG: samples as dots and quartiles as a box for each row, on a log scale."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np

from stream_cam.bench.machine import machine_lines
from stream_cam.bench.result import GROUP_TITLES, GROUPS, BenchResult, Row, write_text
from stream_cam.bench.table import milliseconds

_WIDTH = 1000
_LEFT, _RIGHT = 300, 110
_ROW, _TITLE, _AXIS, _GAP = 30, 34, 34, 14
_TICKS = 10
"""Most ticks of one axis."""
_DOTS = 250
"""Most dots of one row, spread evenly over the time."""
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#7f7f7f")
"""Okabe and Ito's colours, for colour-blind readers; one for each engine and precision."""
_FONT = "font-family='DejaVu Sans, Verdana, sans-serif'"


def write_plot(result: BenchResult, path: Path) -> None:
    """Writes the SVG.

    Raises:
        BenchError: it cannot be written.
    """
    write_text(path, svg(result))


def svg(result: BenchResult) -> str:
    """The picture: a panel for each group of rows, all times in ms."""
    panels = [
        (GROUP_TITLES[group], rows)
        for group in GROUPS
        if (rows := [row for row in result.rows if row.subject.group == group])
    ]
    engines = dict.fromkeys(_engine(row) for _, rows in panels for row in rows)
    colours = {name: _COLOURS[number % len(_COLOURS)] for number, name in enumerate(engines)}
    parts: list[str] = []
    top = 56
    for title, rows in panels:
        panel = _Panel(title, rows, top)
        parts += panel.drawn(colours)
        top = panel.bottom + _GAP
    machine = machine_lines(result.machine)
    caption = "One dot a call; box: quartiles, line: median, whiskers: p10 to p90. Log scale."
    return "\n".join(
        [
            f"<svg xmlns='http://www.w3.org/2000/svg' width='{_WIDTH}' height='{top + 24}' "
            f"viewBox='0 0 {_WIDTH} {top + 24}' {_FONT} font-size='12' fill='#222'>",
            f"<title>{escape(result.command)}</title>",
            f"<rect width='{_WIDTH}' height='{top + 24}' fill='#fff'/>",
            _text(16, 26, f"stream-cam bench: {result.network.get('model', '')}", "15", bold=True),
            _text(16, 44, _cut(" · ".join(machine[:2]), 150), "11", fill="#666"),
            *parts,
            _text(16, top + 8, caption, "11", fill="#666"),
            "</svg>",
            "",
        ]
    )


@dataclass(frozen=True)
class _Panel:
    title: str
    rows: Sequence[Row]
    top: int

    @property
    def bottom(self) -> int:
        return self.top + _TITLE + _ROW * len(self.rows) + _AXIS

    @property
    def range_ms(self) -> tuple[float, float]:
        low = min(min(row.samples_ms) for row in self.rows)
        high = max(max(row.samples_ms) for row in self.rows)
        return low / 1.15, high * 1.15

    def x(self, value_ms: float) -> float:
        low, high = (math.log(value) for value in self.range_ms)
        share = (math.log(value_ms) - low) / (high - low)
        return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)

    def drawn(self, colours: dict[str, str]) -> Iterator[str]:
        first, last = self.top + _TITLE - 6, self.bottom - _AXIS + 4
        yield _text(16, self.top + 14, self.title, "13", bold=True)
        yield _text(_WIDTH - 12, self.top + 14, "median", "11", "end", fill="#666")
        for value_ms in ticks_ms(*self.range_ms):
            x = self.x(value_ms)
            yield (f"<line x1='{x:.1f}' x2='{x:.1f}' y1='{first}' y2='{last}' stroke='#e2e2e2'/>")
            yield _text(x, last + 16, f"{value_ms:g} ms", "11", "middle", fill="#666")
        for number, row in enumerate(self.rows):
            y = self.top + _TITLE + _ROW * number + _ROW / 2
            yield from self._row(row, y, colours[_engine(row)])

    def _row(self, row: Row, y: float, colour: str) -> Iterator[str]:
        label = str(row.subject)
        samples = np.array(row.samples_ms)
        yield "<g>"
        yield f"<title>{escape(f'{label}: {row.region}, {row.n} calls')}</title>"
        yield _text(_LEFT - 10, y + 4, _cut(label, 44), "12", "end")
        shown = samples[:: max(1, -(-len(samples) // _DOTS))]
        yield f"<g fill='{colour}' fill-opacity='0.35'>"
        for number, value in enumerate(shown):
            # The golden ratio spreads neighbours in time evenly over the row's height.
            dy = ((number * 0.6180339887) % 1 - 0.5) * (_ROW - 10)
            yield f"<circle cx='{self.x(float(value)):.1f}' cy='{y + dy:.1f}' r='1.7'/>"
        yield "</g>"
        yield from self._box(row, y, colour)
        yield _text(_WIDTH - 12, y + 4, f"{milliseconds(row.p50_ms)} ms", "12", "end", bold=True)
        yield "</g>"

    def _box(self, row: Row, y: float, colour: str) -> Iterator[str]:
        """Draws the percentiles for which there are enough samples."""
        p10, p25, p50, p75, p90 = (
            self.x(float(value)) for value in np.percentile(row.samples_ms, [10, 25, 50, 75, 90])
        )
        if row.p90_ms is not None:
            yield f"<path d='M{p10:.1f} {y}H{p25:.1f}M{p75:.1f} {y}H{p90:.1f}' stroke='#222'/>"
        if row.p50_ms is None:
            return
        yield (
            f"<rect x='{p25:.1f}' y='{y - 7}' width='{max(p75 - p25, 0.5):.1f}' height='14' "
            f"fill='{colour}' fill-opacity='0.25' stroke='{colour}'/>"
        )
        yield (
            f"<line x1='{p50:.1f}' x2='{p50:.1f}' y1='{y - 9}' y2='{y + 9}' stroke='#222' "
            "stroke-width='2'/>"
        )


def ticks_ms(low_ms: float, high_ms: float) -> list[float]:
    """1, 2 and 5 of each decade between the two; decades alone where those are many."""
    decades = range(math.floor(math.log10(low_ms)), math.ceil(math.log10(high_ms)) + 1)
    found = [step * 10.0**decade for decade in decades for step in (1, 2, 5)]
    inside = [value for value in found if low_ms <= value <= high_ms]
    if len(inside) > _TICKS:
        return [value for value in inside if math.log10(value).is_integer()]
    return inside or [math.sqrt(low_ms * high_ms)]


def _engine(row: Row) -> str:
    return f"{row.subject.engine}:{row.subject.precision}:{row.subject.device}"


def _cut(text: str, n_letters: int) -> str:
    return text if len(text) <= n_letters else f"{text[: n_letters - 1]}…"


def _text(
    x: float,
    y: float,
    text: str,
    size: str,
    anchor: str = "start",
    *,
    bold: bool = False,
    fill: str = "#222",
) -> str:
    weight = " font-weight='bold'" if bold else ""
    return (
        f"<text x='{x:.1f}' y='{y:.1f}' font-size='{size}' text-anchor='{anchor}'{weight} "
        f"fill='{fill}'>{escape(text)}</text>"
    )
