"""The lines that `run` and `demo` print: links to pages, the mode of a run, and its summary."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from stream_cam.cli.messages import print_line
from stream_cam.config import LookConfig

if TYPE_CHECKING:
    from stream_cam.pipeline.report import Percentiles, Report, SinkCount
    from stream_cam.settings import Settings

_SYNC = {
    "auto": "pictures wait for their own map, or for those around them, at most "
    "{look.max_delay:g} s",
    "matched": "only frames that were explained are drawn",
    "newest": "every frame is drawn at once, with the newest map, which fades when it is more than "
    "{look.max_age:g} s older",
}
_MOST_NAMES = 4
"""Segments that are listed by name; of more, the first and the last."""
_LEAST_SAMPLES = 5
"""Below this number of samples, percentiles are left out."""


def print_links(urls: Sequence[str], _: Settings) -> None:
    """Prints the links of pages, also with --quiet: the token is in them."""
    for url in urls:
        print_line(f"watch at {url}   (Ctrl-C ends it)")


def mode_line(report: Report, look: LookConfig) -> str:
    """Says in one line whether the run is live, and which frames it explains."""
    if not report.live:
        return "lossless: every frame is explained and written"
    return f"live: newest frame wins; {_SYNC[look.sync].format(look=look)}"


def print_summary(report: Report, *, sheet: bool = False) -> None:
    """Prints the speed of a run, its losses, and each file that it wrote.

    Args:
        sheet: a picture file is a contact sheet, which shows several moments.
    """
    frames = "frame" if report.rendered == 1 else "frames"
    parts = [f"{report.rendered} {frames} in {report.seconds:.1f} s ({report.fps:.1f} fps)"]
    if "explain" in report.latency:
        parts.append(_latency(report.latency["explain"], report.parallel))
    if report.engine:
        parts.append(f"{report.engine['name']} on {report.engine['device']}")
    if report.method != "cam":
        parts.append(report.method)
    counts = {"superseded": report.superseded, "stale": report.stale, "corrupt": report.corrupt}
    parts += [f"{count} {name}" for name, count in counts.items() if count]
    print_line(" · ".join(parts))
    for sink in report.sinks:
        _print_sink(sink, sheet=sheet)


def _latency(explain: Percentiles, parallel: int) -> str:
    at_once = f" a frame, {parallel} at once" if parallel > 1 else ""
    if explain.count < _LEAST_SAMPLES:
        return f"explain mean {explain.mean_ms:.1f} ms{at_once}"
    return f"explain p50 {explain.p50_ms:.1f} ms, p95 {explain.p95_ms:.1f} ms{at_once}"


def _print_sink(sink: SinkCount, *, sheet: bool) -> None:
    path = Path(sink.name)
    if sink.failed:
        print_line(f"failed after {sink.written} pictures: {sink.failed}")
    if sink.segments or sink.removed:
        print_line(_segments(sink))
    elif sink.failed:
        return
    elif sink.written and path.is_file():
        print_line(f"wrote {sink.name} ({_size(path)}{'' if sheet else _replaced(sink)})")
    elif sink.written and path.is_dir():
        print_line(f"wrote {sink.name}")


def _size(path: Path) -> str:
    size = path.stat().st_size
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"


def _replaced(sink: SinkCount) -> str:
    """Names the pictures that a single picture file could not keep."""
    from stream_cam.sinks.images import PICTURE_SUFFIXES

    if sink.written < 2 or Path(sink.name).suffix.lower() not in PICTURE_SUFFIXES:
        return ""
    return f", the last of {sink.written} pictures; a folder keeps all: {Path(sink.name).stem}/"


def _segments(sink: SinkCount) -> str:
    """The files of a recording in segments, in one line."""
    total = sum(path.stat().st_size for path in map(Path, sink.segments) if path.is_file())
    names = sink.segments
    listed = ", ".join(names) if len(names) <= _MOST_NAMES else f"{names[0]} … {names[-1]}"
    removed = f"; {sink.removed} older ones were removed (--keep)" if sink.removed else ""
    noun = "segment" if len(names) == 1 else "segments"
    return f"wrote {len(names)} {noun} ({total / 1e6:.1f} MB): {listed}{removed}"
