"""Reads a command line with tyro."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from contextlib import redirect_stderr, suppress
from functools import reduce
from operator import or_
from typing import Annotated, Any

import tyro

from stream_cam.cli.options import COMMANDS, AnyCommand
from stream_cam.cli.usage_errors import usage_error
from stream_cam.uri import redact_uri

_SUBCOMMANDS: Any = reduce(
    or_, (Annotated[kind, tyro.conf.subcommand(name)] for name, kind in COMMANDS.items())
)


def parse(arguments: Sequence[str]) -> AnyCommand | None:
    """The command with its options; None for a request for help, which is then printed.

    Raises:
        UsageError: a wrong command line, in one line where tyro would draw a box.
    """
    box = io.StringIO()
    try:
        with redirect_stderr(box):
            return _parse_with_tyro(arguments)
    except SystemExit as exit_:
        if not exit_.code:
            return None
    # Once more: tyro breaks a long URL over the box's lines, and its password is not recognised.
    shown = [redact_uri(argument) for argument in arguments]
    box.truncate(box.seek(0))
    with redirect_stderr(box), suppress(SystemExit):
        _parse_with_tyro(shown)
    raise usage_error(_text_of_box(box.getvalue()), shown)


def _text_of_box(box: str) -> str:
    """The sentence in the box that tyro draws for an error.

    The box is tyro's only public report of an error: it ends with SystemExit(2), and its events
    (`tyro._errors`) are private and new in 1.0. All that depends on the box stands here; the words
    in it are matched in usage_errors.py.
    """
    # The first line is a title. Where the terminal has no line drawing, the frame is ASCII.
    lines = [line.strip("│| ") for line in box.splitlines()[1:]]
    text = " ".join(line for line in lines if line.strip("╰╯+-─ "))
    text = re.sub(r"Error parsing [\w.-]*: (?=--)", "", text)  # our own ValueError follows
    return re.sub(r" *(Argument helptext:|For full helptext).*", "", text)


def _parse_with_tyro(arguments: Sequence[str]) -> AnyCommand:
    with _SHOWN_AS_FLAGS:
        command: AnyCommand = tyro.cli(
            _SUBCOMMANDS,
            prog="stream-cam",
            description="Shows, live, which part of a video a convolutional network looks at.",
            args=_with_live_value(arguments),
        )
        return command


_SHOWN_AS_FLAGS = tyro.constructors.ConstructorRegistry()
"""The rule for `--live`. It is not in `Annotated`: config is imported without tyro."""


@_SHOWN_AS_FLAGS.primitive_rule
def _live_rule(
    kind: tyro.constructors.PrimitiveTypeInfo,
) -> tyro.constructors.PrimitiveConstructorSpec[bool | None] | None:
    """Shows `--live | --no-live` in the help, though the option has a third value, None."""
    if kind.type != bool | None:
        return None
    words = {"True": True, "False": False, "None": None}
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="| --no-live",
        instance_from_str=lambda given: words[given[0]],
        is_instance=lambda value: value is None or isinstance(value, bool),
        str_from_instance=lambda value: ["as-the-source" if value is None else str(value)],
        choices=tuple(words),
    )


def _with_live_value(arguments: Sequence[str]) -> list[str]:
    """Writes `--live` and `--no-live` with the value that tyro wants for three-valued options."""
    written: list[str] = []
    for number, argument in enumerate(arguments):
        following = arguments[number + 1] if number + 1 < len(arguments) else ""
        if argument == "--no-live":
            written += ["--live", "False"]
        elif argument == "--live" and following not in ("None", "True", "False"):
            written += ["--live", "True"]
        else:
            written.append(argument)
    return written
