"""Sizes, amounts and times as they are written in options."""

from __future__ import annotations

import re
from fractions import Fraction

MOST_PIXELS = 16_384
"""Most pixels of one side; no encoder takes more."""


def size_hw(
    text: str, option: str = "a size", least: int = 1, most: int = MOST_PIXELS
) -> tuple[int, int]:
    """Height and width in pixels, from a size as every option takes it: width x height.

    Raises:
        ValueError: the text is no size, or a side is out of its bounds.
    """
    found = re.fullmatch(r"(\d{1,6})[xX×](\d{1,6})", text)
    if found is None:
        raise ValueError(f"{option} is WIDTHxHEIGHT in pixels, such as 1280x720, got {text!r}")
    width, height = int(found[1]), int(found[2])
    if not least <= min(width, height) <= max(width, height) <= most:
        raise ValueError(f"{option} has sides of {least} to {most} pixels, got {text!r}")
    return height, width


def numbers(option: str, text: str) -> tuple[float, ...]:
    """One number, or several with commas between them, such as 0.5,0.4,0.3.

    Raises:
        ValueError: the text is something else.
    """
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ValueError(
            f"{option} is a number, or several with commas such as 0.5,0.4,0.3, got {text!r}"
        ) from None


def byte_count(option: str, text: str) -> int:
    """Bytes or bits, from a number such as 500M, 2G or 800k."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([kKMGT]?)B?", text)
    if found is None:
        raise ValueError(f"{option} is a number with k, M or G behind it, got {text!r}")
    factor = 1000 ** ("", "K", "M", "G", "T").index(found[2].upper())
    return int(float(found[1]) * factor)


def duration_seconds(text: str) -> Fraction | None:
    """Seconds, from 90, 90s, 1.5h, 2d, or h:m:s; None for any other text."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", text)
    if found is not None:
        return Fraction(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}[found[2]]
    try:
        return moment_seconds("", text)
    except ValueError:
        return None


def moment_seconds(option: str, text: str | None) -> Fraction | None:
    """Seconds, from a number of seconds or h:m:s."""
    if text is None:
        return None
    if not re.fullmatch(r"(?:(?:\d+:)?\d+:)?\d+(?:\.\d+)?", text):
        raise ValueError(f"{option} is a time in seconds or h:m:s, got {text!r}")
    seconds = Fraction(0)
    for part in text.split(":"):
        seconds = 60 * seconds + Fraction(part)
    return seconds
