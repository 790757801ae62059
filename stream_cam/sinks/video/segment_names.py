"""The names of a recording's segments, and the files that have such names."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Final, NamedTuple

_TIME_FORMAT: Final = "%Y%m%dT%H%M%S"
_NUMBER: Final = r"(?:_(?P<again>[2-9]|[1-9][0-9]+))?"
"""Numbers a second segment that begins within one second, or in the hour that comes twice in
autumn. An underscore sorts behind the dot of the first one's suffix, a hyphen before it."""
_AT: Final = {
    True: r"(?P<time>[0-9]{8}T[0-9]{6})",
    False: r"(?P<h>[0-9]{2,})h(?P<m>[0-5][0-9])m(?P<s>[0-5][0-9])s",
}
"""Keys: whether the source is live."""


class SegmentName(NamedTuple):
    """The parsed name of a file that may be a segment; they sort by their begin."""

    begin: datetime | int
    """Local time, or whole seconds from the source's begin."""
    again: int
    path: Path


def live_name(recording: Path, begin: datetime, again: int = 1) -> Path:
    """`out-20261122T101500.mp4`: the local time at which the segment begins."""
    return _named(recording, begin.strftime(_TIME_FORMAT), again)


def file_name(recording: Path, begin_seconds: int, again: int = 1) -> Path:
    """`out-00h10m00s.mp4`: the place in the source at which the segment begins."""
    minutes, seconds = divmod(begin_seconds, 60)
    return _named(recording, f"{minutes // 60:02d}h{minutes % 60:02d}m{seconds:02d}s", again)


def _named(recording: Path, at: str, again: int) -> Path:
    number = "" if again == 1 else f"_{again}"
    return recording.with_name(f"{recording.stem}-{at}{number}{recording.suffix}")


def segments_of(recording: Path, *, live: bool, part: bool = False) -> list[SegmentName]:
    """The ordinary files beside a recording that have names of its segments, oldest first.

    Args:
        part: part files of segments instead, left by killed runs.
    """
    return sorted(_segments(recording, live, ".part" if part else ""))


def is_segment_of(path: Path, recording: Path) -> bool:
    """Whether a segment of the recording could have that path."""
    if os.path.realpath(path.parent) != os.path.realpath(recording.parent):
        return False
    return any(_parsed(recording, path.name, live, "") is not None for live in (True, False))


def _segments(recording: Path, live: bool, mark: str) -> Iterator[SegmentName]:
    try:
        with os.scandir(recording.parent) as entries:
            names = [entry.name for entry in entries if entry.is_file(follow_symlinks=False)]
    except OSError:
        return
    for name in names:
        found = _parsed(recording, name, live, mark)
        if found is not None:
            yield SegmentName(*found, recording.with_name(name))


def _parsed(recording: Path, name: str, live: bool, mark: str) -> tuple[datetime | int, int] | None:
    """A segment's begin and number from its name; None for any other name."""
    stem, suffix = re.escape(recording.stem), re.escape(mark + recording.suffix)
    found = re.fullmatch(f"{stem}-{_AT[live]}{_NUMBER}{suffix}", name)
    if found is None:
        return None
    again = int(found["again"] or 1)
    if not live:
        return 3600 * int(found["h"]) + 60 * int(found["m"]) + int(found["s"]), again
    try:
        return datetime.strptime(found["time"], _TIME_FORMAT), again
    except ValueError:
        return None  # a 32nd of the month
