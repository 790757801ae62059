"""Options of the command line as keys of a file: the same names, the same checks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from stream_cam.errors import unknown_name

T = TypeVar("T")


def option_types(kind: type[Any]) -> Mapping[str, Any]:
    """The type of each option of a dataclass, by its name as it is written, such as `max-age`."""
    hints = get_type_hints(kind)
    return {one.name.replace("_", "-"): hints[one.name] for one in fields(kind)}


def option_name(key: str) -> str:
    """A key of a file as an option's name: `max_age` is `max-age`."""
    return key.replace("_", "-")


def with_options(config: T, options: Mapping[str, object]) -> T:
    """The dataclass with these options in the place of its own.

    Raises:
        ValueError: a value is wrong; the message names the option.
    """
    types = option_types(type(config))
    values = {
        name.replace("-", "_"): option_value(name, types[name], value)
        for name, value in options.items()
    }
    return replace(config, **values)  # type: ignore[type-var]


def option_value(name: str, kind: Any, value: object) -> object:
    """A value of TOML as the option's type.

    Raises:
        ValueError: it is of another type.
    """
    if get_origin(kind) in (Union, UnionType):
        kind = next(one for one in get_args(kind) if one is not type(None))
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise ValueError(str(unknown_name(name, str(value), get_args(kind))))
        return value
    if get_origin(kind) is tuple:
        values = value if isinstance(value, list) else [value]
        return tuple(option_value(name, str, one) for one in values)
    return _plain_value(name, kind, value)


def _plain_value(name: str, kind: type, value: object) -> object:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind is bool and isinstance(value, bool):
        return value
    if kind is float and is_number:
        return float(value)  # type: ignore[arg-type]
    if kind is int and is_number and isinstance(value, int):
        return value
    if kind is Path and isinstance(value, str):
        return Path(value)
    if kind is str and (isinstance(value, str) or is_number):
        return str(value)  # segment = 600 is meant as on the command line
    wanted = {bool: "true or false", float: "a number", int: "a whole number"}
    raise ValueError(f"{name} is {wanted.get(kind, 'a text in quotes')}, got {value!r}")
