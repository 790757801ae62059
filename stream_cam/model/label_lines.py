"""Class names in lines of text: plain, numbered, or a table of comma-separated values."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence

from stream_cam.errors import WeightsError

_SIGN = r"\s*(?P<sign>[,:;=|\t]|\s)\s*"
_NUMBERED = (
    re.compile(rf"(?P<number>\d{{1,6}}){_SIGN}(?P<name>\S.*)"),
    re.compile(rf"(?P<name>.*?\S){_SIGN}(?P<number>\d{{1,6}})"),
)
_WORDNET = re.compile(r"n\d{8}[\s,:]+(?P<name>\S.*)")
_QUOTED = re.compile(r"(?P<quote>['\"])(?P<name>.*)(?P=quote),?")
_NAME_HEADING = re.compile(r"(?i)(?:(?:class|label|display|category)[ _-]?)?name|class|label")
_OTHER_SYNTAX = re.compile(r"[<{}\]]|[\[(](?:$|['\"])|.*\{$|\w+\s*=\s*[\[({]")
_SAVE = "save the names one a line, in the classes' order"


def names_in(lines: Sequence[str], suffix: str, where: str) -> Sequence[str]:
    """The names in the classes' order.

    Args:
        lines: none empty, without blanks around them.
        suffix: of the file, such as `.csv`.
        where: what messages call the file.

    Raises:
        WeightsError: which part of a line is the name, or which class it is of, is not clear.
    """
    if any(_OTHER_SYNTAX.match(line) for line in lines):
        raise WeightsError(f"{where}: in no form that is known; {_SAVE}")
    numbered = _numbered(lines, where)
    if numbered is not None:
        return numbered
    table = _from_table(lines, suffix, where)
    if table is not None:
        return table
    for pattern in (_WORDNET, _QUOTED):
        found = [pattern.fullmatch(line) for line in lines]
        if all(found):
            return [each["name"] for each in found if each]
    return lines


def _numbered(lines: Sequence[str], where: str) -> list[str] | None:
    """The names of `0,ant`, `0 ant`, `1: ant` or `ant 0`; None if the lines have no numbers."""
    for pattern in _NUMBERED:
        found = [each for each in map(pattern.fullmatch, lines) if each]
        if not lines or len(found) < len(lines):
            continue
        numbers = [int(each["number"]) for each in found]
        names = [_unquoted(each["name"]) for each in found]
        if any(each["sign"] not in " \u00a0" for each in found):
            if not _is_sequence(numbers):
                raise WeightsError(f"{where}: its numbers have gaps or repetitions; {_SAVE}")
            return _by_number(numbers, names)
        # After a blank a number may be a part of the names, as in `10 euro` or `0 fingers`.
        last = pattern is _NUMBERED[1]
        if not last and numbers[0] == 0 and not _is_sequence(numbers):
            raise WeightsError(f"{where}: its numbers have gaps or repetitions; {_SAVE}")
        if not _is_sequence(numbers) or (min(numbers) and (last or len(lines) == 1)):
            continue
        if len(set(names)) == len(names):
            return _by_number(numbers, names)
        if numbers != sorted(numbers):
            raise WeightsError(f"{where}: its numbers are not in order; {_SAVE}")
    return None


def _from_table(lines: Sequence[str], suffix: str, where: str) -> list[str] | None:
    """The names of a table that has a heading, or of one column; None if the lines are neither."""
    for separator in ",;\t":
        rows = list(csv.reader(lines, delimiter=separator, skipinitialspace=True))
        width = {len(row) for row in rows}
        if len(width) != 1 or len(rows) < 2 or width == {1}:
            continue
        heading, *body = rows
        words, numbers = dict[str, list[str]](), list[list[int]]()
        for title, column in zip(heading, zip(*body, strict=True), strict=True):
            if not all(value.strip().isdecimal() for value in column):
                words[title.strip()] = [value.strip() for value in column]
            elif _is_sequence([int(value) for value in column]):
                numbers.append([int(value) for value in column])
        named = [column for title, column in words.items() if _NAME_HEADING.fullmatch(title)]
        if not named and len(heading) == 2 and numbers:
            named = list(words.values())
        if len(named) == 1 and len(numbers) <= 1:
            return _by_number(numbers[0], named[0]) if numbers else named[0]
        if named or suffix in (".csv", ".tsv"):
            raise WeightsError(f"{where}: which of its columns has the names is not clear; {_SAVE}")
    return None


def _is_sequence(numbers: Sequence[int]) -> bool:
    """Whether these are all numbers from 0 or 1 on, in whatever order."""
    return sorted(numbers) in ([*range(len(numbers))], [*range(1, len(numbers) + 1)])


def _by_number(numbers: Sequence[int], names: Sequence[str]) -> list[str]:
    return [name for _, name in sorted(zip(numbers, names, strict=True))]


def _unquoted(name: str) -> str:
    found = _QUOTED.fullmatch(name)
    return found["name"].replace('""', '"') if found else name
