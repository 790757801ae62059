"""Class names: read from a file, and found again by name or number."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np

from stream_cam.errors import UsageError, WeightsError, unknown_name

Target: TypeAlias = int | str
"""A class, by its index or its label."""


def resolve_target(labels: Sequence[str], target: Target) -> int:
    """The class index that a number or a label means.

    Raises:
        UsageError: there is no such class, or the label is that of several.
    """
    if isinstance(target, str):
        text = target.strip()
        for fold in (str, str.casefold):
            indices = [i for i, label in enumerate(labels) if fold(label) == fold(text)]
            if len(indices) > 1:
                numbers = ", ".join(str(index) for index in indices)
                raise UsageError(f"class {text!r} is several ({numbers}); give the number")
            if indices:
                return indices[0]
        if not re.fullmatch(r"[+-]?\d+", text):
            raise unknown_name("class", text, labels)
        target = int(text)
    if isinstance(target, bool | np.bool_) or not isinstance(target, int | np.integer):
        raise UsageError(f"a class is an index or a label, got {target!r}")
    target = int(target)
    if not 0 <= target < len(labels):
        raise UsageError(f"class {target} does not exist; classes are 0 to {len(labels) - 1}")
    return target


def read_labels(path: Path, n_classes: int) -> tuple[str, ...]:
    """Class names from a text file, one a line, or from JSON as `parse_labels` takes it.

    Raises:
        WeightsError: the file cannot be read or does not name `n_classes` classes.
    """
    where = f"labels {path}"
    try:
        text = Path(os.path.expanduser(path)).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as exc:
        raise WeightsError(f"{where} is not UTF-8 text; save it as such") from exc
    except OSError as exc:
        raise WeightsError(f"cannot read {where}: {exc.strerror or exc}") from exc
    if path.suffix.lower() == ".json" or _is_json(text):
        return parse_labels(text, n_classes, where)
    lines = tuple(line.strip() for line in text.splitlines() if line.strip())
    return _counted(lines, n_classes, where)


def _is_json(text: str) -> bool:
    """Whether a file is JSON whatever it is called; a name may begin with a bracket as well."""
    if text.lstrip()[:1] not in ("[", "{"):
        return False
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def parse_labels(text: str, n_classes: int, where: str) -> tuple[str, ...]:
    """A JSON list of names, or {"0": name, …}; a name may be [id, name], as Keras writes."""
    try:
        parsed = json.loads(text)
        if isinstance(parsed, dict):
            parsed = [parsed[str(index)] for index in range(len(parsed))]
        if not isinstance(parsed, list):
            raise TypeError
        names = [entry[-1] if isinstance(entry, list) else entry for entry in parsed]
        if not all(isinstance(name, str) for name in names):
            raise TypeError
    except (ValueError, TypeError, KeyError, IndexError, RecursionError) as exc:
        raise WeightsError(
            f'{where}: not a JSON list of names, nor {{"0": name, "1": name, …}} without gaps'
        ) from exc
    return _counted(tuple(names), n_classes, where)


def _counted(labels: tuple[str, ...], n_classes: int, where: str) -> tuple[str, ...]:
    if len(labels) != n_classes:
        raise WeightsError(
            f"{where}: {len(labels)} labels, but the network has {n_classes} classes; give one a "
            "class, in the classes' order"
        )
    return labels
