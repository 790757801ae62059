"""Where a TOML file's tables and keys are; `tomllib` does not say."""

from __future__ import annotations

import re

_TABLE = re.compile(r"^\s*\[\s*([^\[\]]+?)\s*\]")
_KEY = re.compile(r"""^\s*("[^"]*"|'[^']*'|[\w-]+(?:\s*\.\s*(?:"[^"]*"|[\w-]+))*)\s*=""")
_QUOTES = ('"""', "'''")


class TomlLines:
    """Line numbers of a file that `tomllib` could read.

    Args:
        text: the file.
    """

    def __init__(self, text: str) -> None:
        self._lines: dict[tuple[str, ...], int] = {}
        table: tuple[str, ...] = ()
        quote: str | None = None
        for number, line in enumerate(text.splitlines(), 1):
            if quote is not None:
                quote = None if line.count(quote) % 2 else quote
                continue
            if found := _TABLE.match(line):
                table = _parts(found[1])
                for length in range(1, len(table) + 1):  # [a.b] is where a is, if [a] is nowhere
                    self._lines.setdefault(table[:length], number)
            elif found := _KEY.match(line):
                self._lines.setdefault((*table, *_parts(found[1])), number)
            quote = next((one for one in _QUOTES if line.count(one) % 2), None)

    def line(self, *path: str) -> int:
        """The line of a key, or else of the nearest table around it; 1 if there is none."""
        for length in range(len(path), 0, -1):
            if (number := self._lines.get(path[:length])) is not None:
                return number
        return 1


def _parts(dotted: str) -> tuple[str, ...]:
    found = re.findall(r"""\s*("[^"]*"|'[^']*'|[^.\s]+)\s*\.?""", dotted)
    return tuple(part.strip("\"'") for part in found)
