"""Errors of a wrong command line: the value, the values that are allowed, and the next step."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass
from difflib import get_close_matches
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import tyro

from stream_cam.cli.options import COMMANDS
from stream_cam.errors import UsageError, unknown_name


def usage_error(text: str, arguments: Sequence[str]) -> UsageError:
    """Rewords tyro's error: the given value, the allowed ones, and the next step.

    Args:
        text: tyro's words.
        arguments: the command line, secrets redacted.
    """
    name = next((name for name in COMMANDS if name in arguments[:1]), "")
    known = options_of(COMMANDS[name]) if name else {}
    behind = arguments[arguments.index("--") + 1 :] if "--" in arguments else []
    if stray := next((each for each in behind if each.startswith("--")), ""):
        text = f"{stray} stands behind --, where options are none: put options before it"
    elif found := re.match(r"Unrecognized (?:or misplaced )?options: (\S+?),?(?= |$)", text):
        return _unrecognized(found[1], name, known)
    elif not name and arguments and arguments[0].startswith("-"):
        return _unrecognized(arguments[0], name, known)
    elif choice := re.match(r"invalid choice '(.*?)' for argument '(.*?)'", text):
        option = choice[2].rpartition("/")[2]
        choices = get_args(without_none(known.get(option)))
        return unknown_name(option, choice[1], choices or re.findall(r"'([^']*)'", text)[2:])
    elif found := re.match(r"(?:Missing value for argument '|Error parsing )([\w/-]+)", text):
        option = found[1].rpartition("/")[2]
        if option not in known:  # --source: tyro names a positional argument like an option
            stray = next((each for each in arguments if each.startswith("--")), option)
            return _unrecognized(stray, name, known)
        several = get_origin(without_none(known[option])) is tuple
        values = _values_of(option, arguments)[: None if several else 1]
        got = " ".join(map(repr, values)) or "nothing"
        text = f"{option} takes {words_for(known[option])}, got {got}"
    elif found := re.match(r"Missing from [\w -]+: (\S+) (.*?)\.? \(required\)", text):
        text = f"`stream-cam {name}` needs {found[1]}: {found[2][0].lower()}{found[2][1:]}"
    return UsageError(f"{text}; see `stream-cam {f'{name} ' * bool(name)}--help`")


def _unrecognized(stray: str, name: str, known: Mapping[str, Any]) -> UsageError:
    """An option that the command does not have, or one argument too many.

    Args:
        name: the command; empty if there is none.
        known: its options.
    """
    option = stray.partition("=")[0]
    if not name and stray.startswith("-"):
        return UsageError(
            f"a command comes before {option}: stream-cam {' | '.join(COMMANDS)}; such as "
            f"`stream-cam run SOURCE {option} …`"
        )
    if not name:
        if "." in stray or "/" in stray:
            return UsageError(f"no command is given; to annotate {stray}: stream-cam run {stray} …")
        return unknown_name("command", stray, COMMANDS)
    see = f"see `stream-cam {name} --help`"
    if not stray.startswith("-"):
        takes = _POSITIONAL.get(name, "options only")
        return UsageError(f"{stray!r} is too much: `stream-cam {name}` takes {takes}; {see}")
    near = get_close_matches(option, known, 3, 0.75)
    if near:
        return UsageError(f"unknown option {option}; did you mean {', '.join(near)}? {see}")
    others = [other for other, kind in COMMANDS.items() if option in options_of(kind)]
    if not others:
        return UsageError(f"unknown option {option} of `stream-cam {name}`; {see}")
    instead = _INSTEAD.get((name, option), see)
    return UsageError(
        f"`stream-cam {name}` has no {option}, which is for {', '.join(others)}; {instead}"
    )


_APPENDED = get_args(tyro.conf.UseAppendAction[str])[1]
_POSITIONAL_MARK = get_args(tyro.conf.Positional[str])[1]
_POSITIONAL = {
    "run": "SOURCE [OUTPUT]; give further outputs with -o",
    "batch": "SOURCE...",
    "recover": "RECORDING...",
    "export": "FILE.onnx or FILE.xml",
}
"""The positional arguments of each command."""
_INSTEAD = {
    ("bench", "--precision"): "give it with the engine: --engines openvino:bf16",
    ("bench", "--input-size"): "give --shape 224x224",
    ("demo", "--weights"): "other weights: `stream-cam run demo://shapes --weights …`",
}
"""The next step after an option that another command has."""


def options_of(command: type, *, one_each: bool = False) -> dict[str, Any]:
    """The types of a command's options, by the names that they have on the command line.

    Args:
        one_each: an option that takes several values is given once for each.
    """
    found: dict[str, Any] = {}
    for name, hint in get_type_hints(command, include_extras=True).items():
        kind, *marks = get_args(hint) if get_origin(hint) is Annotated else (hint,)
        one = one_each or _APPENDED in marks
        option = f"--{name.replace('_', '-')}"
        if is_dataclass(kind) and isinstance(kind, type):
            found |= options_of(kind, one_each=one)
        elif _POSITIONAL_MARK not in marks:
            found[option] = get_args(kind)[0] if one and get_origin(kind) is tuple else kind
            if kind is bool or kind == bool | None:
                found[f"--no-{option[2:]}"] = kind
    return found


def _values_of(option: str, arguments: Sequence[str]) -> list[str]:
    """The values of an option, where it was given for the last time."""
    names = (option, "-o") if option in ("--sink", "--output") else (option,)
    values: list[str] = []
    within = False
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if name in names:
            within, values = True, [value] if equals else []
        elif within and not argument.startswith("--"):
            values.append(argument)
        else:
            within = False
    return values


_KINDS = {int: "a whole number", float: "a number", Path: "a path", str: "a value", bool: "nothing"}
_SEVERAL = {int: "whole numbers", Path: "paths", str: "values"}


def without_none(kind: Any) -> Any:
    rest = [each for each in get_args(kind) if each is not type(None)]
    return rest[0] if get_origin(kind) in (Union, UnionType) and len(rest) == 1 else kind


def words_for(kind: Any) -> str:
    """The values of this type, in words."""
    kind = without_none(kind)
    inner = get_args(kind)
    if get_origin(kind) is Literal:
        return f"one of {', '.join(inner)}"
    if get_origin(kind) is not tuple:
        return _KINDS[kind]
    if inner[-1] is Ellipsis:
        return f"one or more {_SEVERAL[inner[0]]}"
    return f"{len(inner)} {_SEVERAL[inner[0]]}"
