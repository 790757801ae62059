"""Class names, read from a file."""

from __future__ import annotations

import ast
import csv
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from stream_cam.errors import WeightsError

_FORMS = (
    'not a list of names, nor {"0": name, …} or {name: 0, …} with the numbers from 0 on without '
    "gaps; save the names one a line"
)


LABEL_KEYS = (
    *("id2label", "idx_to_class", "idx_to_label", "idx2label", "class_to_idx", "label2id"),
    *("class_names", "classes", "names", "labels"),
)
"""The keys under which tools keep class names, those with the classes' numbers first."""


def read_labels(path: Path, n_outputs: int) -> tuple[str, ...]:
    """Class names from a file: one a line, numbered lines, CSV, JSON, YAML or a Python literal.

    Raises:
        WeightsError: the file cannot be read, is in another form, or names other than `n_outputs`
            classes.
    """
    where = f"labels {path}"
    try:
        text = Path(os.path.expanduser(path)).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as exc:
        raise WeightsError(f"{where} is not UTF-8 text; save it as such") from exc
    except OSError as exc:
        raise WeightsError(f"cannot read {where}: {exc.strerror or exc}") from exc
    names = _names_in_data(text, path.suffix.lower(), where)
    if names is None:
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        names = _names_in_lines(lines, path.suffix.lower(), where)
    return labels_of(names, n_outputs, where)


_YAML = re.compile(
    rf"(?m)^(?:{'|'.join(LABEL_KEYS)})[ \t]*:[ \t]*(?:$|[\[{{])"
    r"|\A\s*- \S.*$(?:\s+- \S.*$)*\s*\Z"
)
"""A key of that name with a list or mapping, or nothing but a list."""


def _names_in_data(text: str, suffix: str, where: str) -> Sequence[str] | None:
    """Names from JSON, YAML or a Python literal; None if the text is neither."""
    begins = text.lstrip()[:1]
    if suffix in (".yaml", ".yml") or _YAML.search(text):
        parse: Callable[[str], object] = _parsed_yaml
    elif suffix == ".json" or begins in ("{", "[", "("):
        parse = _parsed
    else:
        return None
    try:
        data = parse(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError) as exc:
        if begins in ("[", "(") and suffix not in (".json", ".yaml", ".yml"):
            return None  # a name may begin with a bracket: [background]
        raise WeightsError(f"{where}: {_FORMS}") from exc
    names = names_of(data)
    if names is None:
        raise WeightsError(f"{where}: {_FORMS}")
    return names


def _parsed(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return ast.literal_eval(text.strip())


def _parsed_yaml(text: str) -> object:
    import yaml

    try:
        # Everything is text: `no` and `1e3` are names here.
        return yaml.load(text, yaml.BaseLoader)
    except yaml.YAMLError as exc:
        raise ValueError(str(exc)) from exc


def names_of(data: object) -> tuple[str, ...] | None:
    """Class names in order, from the data of other tools; None if they are not clear.

    The data is a list of names, {number: name}, {name: number}, or a mapping that has one of
    these under a key of `LABEL_KEYS`. A name may be [id, name], as Keras writes.
    """
    if isinstance(data, Mapping):
        inner = [names_of(data[key]) for key in LABEL_KEYS if isinstance(data.get(key), _HOLDERS)]
        if inner:
            return next((names for names in inner if names is not None), None)
        return _in_order(data)
    if not isinstance(data, list | tuple):
        return None
    names = [each[-1] if isinstance(each, list | tuple) and each else each for each in data]
    return tuple(names) if all(isinstance(name, str) for name in names) else None


_HOLDERS = (Mapping, list, tuple)


def _in_order(data: Mapping[object, object]) -> tuple[str, ...] | None:
    """Names by the numbers 0 to n − 1 that are the keys or the values."""
    for pairs in (data.items(), [(value, key) for key, value in data.items()]):
        numbered = {_number(number): name for number, name in pairs}
        if numbered.keys() == set(range(len(data))):
            return names_of([numbered[index] for index in range(len(data))])
    return None


def _number(value: object) -> int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, str) and re.fullmatch(r"\d{1,6}", value):
        return int(value)
    return value if isinstance(value, int) else None


def parse_labels(text: str, n_outputs: int, where: str) -> tuple[str, ...]:
    """Class names in JSON, in the forms of `names_of`.

    Raises:
        WeightsError: it is not JSON, or names other than `n_outputs` classes.
    """
    names = _names_in_data(text, ".json", where)
    assert names is not None
    return labels_of(names, n_outputs, where)


def labels_of(names: Sequence[str], n_outputs: int, where: str) -> tuple[str, ...]:
    """One label for each class; a single output is a class and its opposite.

    Raises:
        WeightsError: there are more or fewer.
    """
    if n_outputs == 1 and len(names) == 1:
        return f"not {names[0]}", names[0]
    n_classes = max(n_outputs, 2)
    if len(names) != n_classes:
        has = f"has {n_outputs} classes; give one a class, in the classes' order"
        if n_outputs == 1:
            has = "has one output; give the name of its class, or the negative and the positive one"
        raise WeightsError(f"{where}: {len(names)} labels, but the network {has}")
    return tuple(names)


# Lines of text: plain, numbered, or a table of comma-separated values

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


def _names_in_lines(lines: Sequence[str], suffix: str, where: str) -> Sequence[str]:
    """The names in the classes' order.

    Args:
        lines: none empty, without blanks around them.
        suffix: of the file, such as `.csv`.
        where: the file's name in messages.

    Raises:
        WeightsError: the name in a line, or its class, is not clear.
    """
    if any(_OTHER_SYNTAX.match(line) for line in lines):
        raise WeightsError(f"{where}: the form is unknown; {_SAVE}")
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
