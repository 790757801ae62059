"""The exceptions of stream-cam, as one tree.

    StreamCamError
    ├── UsageError (also a ValueError)   a wrong name, option or combination: exit code 2
    ├── SourceError                      a source cannot be opened or read
    │   └── SourceNotFoundError          there is nothing at that place
    ├── SinkError                        a sink cannot be opened or written
    │   └── OutputExistsError            the output is already there and --overwrite was not given
    ├── ModelError                       a network cannot be used
    │   └── NoCamError                   a head that sees more than the mean of the features
    ├── WeightsError                     parameters or labels cannot be had or do not fit
    ├── EngineError                      a network cannot be compiled or run on this machine
    │   ├── GateError                    an engine is not the network it was made from
    │   └── UnsuitableEngineError        an engine is not made for networks of this kind
    ├── ClusterError                     a cluster cannot be reached or cannot do the work
    └── BenchError                       a benchmark has no figures, or its file is not one

Every message names the problem and the value that was given, in one line; and the next step, where
there is one.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from typing import Literal

SourceErrorKind = Literal[
    "not found",
    "refused",
    "authentication",
    "codec",
    "timeout",
    "tls",
    "unreachable",
    "lost",
    "permission",
    "busy",
    "other",
]
"""Why a source fails; it decides whether another attempt makes sense."""


class StreamCamError(Exception):
    """A failure in the world; the command line ends with its `exit_code`."""

    exit_code = 1


class UsageError(StreamCamError, ValueError):
    """A wrong name, option or combination of options."""

    exit_code = 2


class SourceError(StreamCamError):
    """A source cannot be opened or read; `kind` says why in one word or two."""

    def __init__(self, message: str, *, kind: SourceErrorKind = "other") -> None:
        super().__init__(message)
        self.kind: SourceErrorKind = kind


class SourceNotFoundError(SourceError):
    """There is nothing where the source should be."""

    def __init__(self, message: str, *, kind: SourceErrorKind = "not found") -> None:
        super().__init__(message, kind=kind)


class SinkError(StreamCamError):
    """A sink cannot be opened or written."""


class OutputExistsError(SinkError):
    """The output is already there and may not be replaced."""

    def __init__(self, message: str, *, names: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.names = tuple(names)
        """All that --overwrite would replace; empty where there is more to say than that."""

    @classmethod
    def of(cls, *names: str) -> OutputExistsError:
        verb, them = ("exists", "it") if len(names) == 1 else ("exist", "them")
        said = f"{' and '.join(names)} {verb}; give --overwrite to replace {them}"
        return cls(said, names=names)


class ModelError(StreamCamError):
    """A network cannot be used."""


class NoCamError(ModelError):
    """The network's head sees more than the mean of its last features, so it has no CAM."""


class WeightsError(StreamCamError):
    """Parameters or labels cannot be had, or do not fit the network."""


class EngineError(StreamCamError):
    """A network cannot be compiled or run on this machine."""


class GateError(EngineError):
    """An engine differs from the network it was made from by more than its precision explains."""


class UnsuitableEngineError(EngineError):
    """An engine is not made for networks of this kind, and another one serves them better."""


class ClusterError(StreamCamError):
    """A cluster cannot be reached, or its nodes cannot do the work."""


class BenchError(StreamCamError):
    """A benchmark has no figures to show, or a file of figures cannot be read or written."""


_OTHER_SPELLINGS = {
    "h265": "hevc",
    "h.265": "hevc",
    "x265": "hevc",
    "h.264": "h264",
    "x264": "h264",
    "avc": "h264",
    "trt": "tensorrt",
    "half": "fp16",
    "float16": "fp16",
    "bfloat16": "bf16",
    "float32": "fp32",
    "gpu": "cuda",
}
"""Other spellings that people type, and the names that are meant."""


_LISTED = 12
"""Up to this many names are listed as a whole."""
_NEAREST = 5


def unknown_name(kind: str, got: str, known: Iterable[str]) -> UsageError:
    """The error for a name that is not one of `known`: with all of them, or the nearest of many."""
    names = sorted(dict.fromkeys(known))
    meant = _OTHER_SPELLINGS.get(got.lower(), "")
    near = [meant] if meant in names else _nearest(got, names, cutoff=0.6)
    hint = f"; did you mean {', '.join(near)}?" if near else ";"
    if len(names) <= _LISTED:
        hint += f" known {'is' if len(names) == 1 else 'are'} {', '.join(names)}"
    elif not near:
        nearest = _nearest(got, names, cutoff=0.0)
        hint += f" there are {len(names)}, the nearest are {', '.join(nearest)}"
    return UsageError(f"unknown {kind} {got!r}{hint}")


def _nearest(got: str, names: Sequence[str], cutoff: float) -> list[str]:
    """Names that have the word, such as `tiger cat` for `cat`; else those spelt alike."""
    word = re.compile(rf"\b{re.escape(got)}\b", re.IGNORECASE)
    having = [name for name in names if got and word.search(name)]
    if having:
        return having[:_NEAREST]
    by_lower = {name.lower(): name for name in names}
    count = 3 if cutoff else _NEAREST
    return [
        by_lower[near] for near in difflib.get_close_matches(got.lower(), by_lower, count, cutoff)
    ]


def first_line(error: BaseException) -> str:
    """An error's message, in one line.

    OpenVINO's messages begin with places in its own source, a line each.
    """
    said = (str(error).strip() or type(error).__name__).splitlines()
    reasons = [line for line in said if not line.startswith(("Exception from ", "Check '"))]
    return (reasons or said)[0]


def why_not_captured(error: BaseException) -> str:
    """The reason why a CUDA graph could not be captured, in one line.

    A failure during the capture ends it, and the end of a failed capture raises another error.
    That one alone explains nothing: the first one is the reason.
    """
    said = first_line(error)
    while error.__context__ is not None and not error.__suppress_context__:
        error = error.__context__
    reason = first_line(error)
    return said if reason == said else f"{reason}; then: {said}"
