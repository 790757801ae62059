"""How recordings and results are written."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal

from stream_cam.config.values import (
    MOST_PIXELS,
    byte_count,
    duration_seconds,
    moment_seconds,
    size_hw,
)

CodecName = Literal["h264", "hevc", "av1", "vp9"]
OnGap = Literal["gap", "hold"]
StreamFormat = Literal["mpegts", "matroska", "nut", "webm", "mp4"]


RESULT_SUFFIXES = {
    "predictions": (".jsonl", ".csv", ".parquet"),
    "cams": (".npz",),
    "timeline": (".svg", ".html"),
    "sheet": (".png", ".jpg"),
}
"""The file types of results, by option."""


@dataclass(frozen=True)
class RecordConfig:
    """How recordings and results are written, and from which part of a file."""

    format: StreamFormat | None = None
    """The format of a pipe, - (stdout), /dev/stdout or a FIFO, which another program reads."""
    codec: CodecName | None = None
    """The codec of video files; default: h264, in .webm vp9."""
    crf: int | None = None
    """Constant quality, from 0 (best); default: one without visible loss, by codec."""
    bitrate: str | None = None
    """Bits per second instead of a constant quality, such as 4M or 800k."""
    preset: str | None = None
    """The encoder's speed, in its own terms, such as veryfast; default: fast."""
    size: str | None = None
    """Width x height of the recording in pixels, such as 1280x720; default: the picture's."""
    start: str | None = None
    """Start at this time in a file: seconds, or h:m:s."""
    end: str | None = None
    """End at this time in a file: seconds, or h:m:s."""
    every: int = 1
    """Explain and write only every n-th frame of a file."""
    audio: bool = True
    """Keep a file's audio in the recording."""
    min_free: str = "500M"
    """Stop recording when the disk has less free space than this, in bytes, such as 2G."""
    segment: str | None = None
    """Start a new file after this time: seconds, 90s, 10m, 1h, or h:m:s.
    The name of each file gets the time at which its segment starts."""
    keep: str | None = None
    """Keep only the newest segments of a live recording, and remove older ones:
    a time such as 24h or 7d, or a size such as 20GB."""
    on_gap: OnGap = "gap"
    """While a live source is away: gap (nothing is recorded, its time is left free) or
    hold (the last picture is recorded again, and marked)."""
    predictions: Path | None = None
    """Write the predictions of each frame as a row of this .jsonl, .csv or .parquet file."""
    cams: Path | None = None
    """Write the raw maps of all frames to this .npz file."""
    timeline: Path | None = None
    """Draw the leading classes' probabilities over time into this .svg or .html file."""
    sheet: Path | None = None
    """Draw a contact sheet of the moments worth seeing into this .png or .jpg file."""

    def __post_init__(self) -> None:
        if self.crf is not None and not 0 <= self.crf <= 63:
            raise ValueError(f"--crf is a number from 0 to 63, got {self.crf}")
        if self.crf is not None and self.bitrate is not None:
            raise ValueError("--crf and --bitrate are two ways to say the same: give one")
        if self.every < 1:
            raise ValueError(f"--every is a number of frames from 1, got {self.every}")
        if self.size is not None:
            size_hw(self.size, "--size", 1, MOST_PIXELS)
        byte_count("--min-free", self.min_free)
        if self.bits_a_second is not None and self.bits_a_second < 1000:
            raise ValueError(f"--bitrate is bits a second from 1k on, got {self.bitrate!r}")
        for name, suffixes in RESULT_SUFFIXES.items():
            path = getattr(self, name)
            if path is not None and path.suffix.lower() not in suffixes:
                raise ValueError(f"--{name} is a file in {' or '.join(suffixes)}, got {path}")
        self._check_segments()
        start, end = self.start_seconds, self.end_seconds
        if end is not None and end <= (start or 0):
            raise ValueError(f"--end {self.end} is not after --start {self.start or 0}")

    def _check_segments(self) -> None:
        segment, keep = self.segment_seconds, self.keep_seconds
        if segment is not None and segment < 1:
            raise ValueError(f"--segment is a time from 1 second on, got {self.segment!r}")
        if self.keep is not None and self.keep_bytes is None and keep is None:
            raise ValueError(
                f"--keep is a time such as 24h or 7d, or a size such as 20GB, got {self.keep!r}"
            )
        if 0 in (keep, self.keep_bytes):
            raise ValueError(f"--keep is a time or a size above 0, got {self.keep!r}")
        if self.keep is not None and segment is None:
            raise ValueError("--keep removes old segments: give --segment as well, such as 10m")
        if segment is not None and keep is not None and keep < segment:
            raise ValueError(f"--keep {self.keep} is less than one --segment of {self.segment}")

    @property
    def segment_seconds(self) -> Fraction | None:
        if self.segment is None:
            return None
        seconds = duration_seconds(self.segment)
        if seconds is None:
            raise ValueError(
                f"--segment is a time such as 90, 90s, 10m, 1h or h:m:s, got {self.segment!r}"
            )
        return seconds

    @property
    def keep_seconds(self) -> Fraction | None:
        # A bare number could be meant as a size; an option that removes files does not guess.
        if self.keep is None or (self.keep[-1:].isdigit() and ":" not in self.keep):
            return None
        return duration_seconds(self.keep)

    @property
    def keep_bytes(self) -> int | None:
        text = self.keep or ""
        found = re.fullmatch(r"\d+(?:\.\d+)?[kKMGT]?B", text)
        return None if found is None else byte_count("--keep", text)

    @property
    def bits_a_second(self) -> int | None:
        return None if self.bitrate is None else byte_count("--bitrate", self.bitrate)

    @property
    def min_free_bytes(self) -> int:
        return byte_count("--min-free", self.min_free)

    @property
    def size_hw(self) -> tuple[int, int] | None:
        return None if self.size is None else size_hw(self.size)

    @property
    def start_seconds(self) -> Fraction | None:
        return moment_seconds("--start", self.start)

    @property
    def end_seconds(self) -> Fraction | None:
        return moment_seconds("--end", self.end)
