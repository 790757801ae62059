"""Targets: the classes that a user asks for, by index or by label."""

from __future__ import annotations

import operator
import re
from collections.abc import Iterable, Sequence
from typing import TypeAlias

from stream_cam.errors import UsageError, unknown_name
from stream_cam.frame import NEXT

Target: TypeAlias = int | str
"""A class, by its index or its label."""

MOST_NEXT = 10
"""Next classes at once."""


def resolve_target(labels: Sequence[str], target: Target) -> int:
    """The index of the class with a number or a label.

    Raises:
        UsageError: there is no such class, or several classes have the label.
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
    index = _as_index(target)
    if not 0 <= index < len(labels):
        raise UsageError(f"class {index} does not exist; classes are 0 to {len(labels) - 1}")
    return index


_NEXT = re.compile(r"next(?::(\d+))?")


def resolve_against(labels: Sequence[str], against: Sequence[Target]) -> tuple[int, ...]:
    """The classes that maps are against, by index; `next` is `NEXT`, `next:3` is three of them.

    Raises:
        UsageError: there is no such class.
    """
    found = list[int]()
    for one in against:
        text = one.strip() if isinstance(one, str) else ""
        match = None if text in labels else _NEXT.fullmatch(text)
        if match is not None:
            count = int(match[1] or 1)
            if not 1 <= count <= MOST_NEXT:
                raise UsageError(f"next:N is 1 to {MOST_NEXT} next classes, got {text}")
            found += [NEXT] * count
        elif one == NEXT and not isinstance(one, bool):
            found.append(NEXT)
        else:
            found.append(resolve_target(labels, one))
    named = dict.fromkeys(index for index in found if index != NEXT)
    return (*named, *(index for index in found if index == NEXT))


def _as_index(target: object) -> int:
    """The integer; NumPy's and PyTorch's integers are indices too, truth values are none."""
    if not str(getattr(target, "dtype", type(target).__name__)).endswith("bool"):
        try:
            return operator.index(target)  # type: ignore[arg-type]
        except TypeError:
            pass
    raise UsageError(f"a class is an index or a label, got {target!r}")


def listed_targets(target: Target | Sequence[Target] | None) -> list[Target]:
    """One target, several or none as a list."""
    if target is None:
        return []
    return [target] if is_single(target) else list(target)  # type: ignore[arg-type, list-item]


def is_single(target: Target | Sequence[Target] | None) -> bool:
    """Whether it is one target; single values of NumPy and PyTorch look iterable."""
    single = isinstance(target, str | bytes) or getattr(target, "ndim", 1) == 0
    return single or not isinstance(target, Iterable)
