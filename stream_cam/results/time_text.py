"""Times as people write them."""

from __future__ import annotations


def time_text(seconds: float) -> str:
    """As 1:02.5 or 2:01:02."""
    minutes, rest = divmod(round(seconds * 10) / 10, 60)
    hours, minutes = divmod(int(minutes), 60)
    second = f"{rest:04.1f}".removesuffix(".0")
    return f"{hours}:{minutes:02d}:{second}" if hours else f"{minutes}:{second}"
