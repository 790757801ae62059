"""Loads the libraries that stream-cam stands on in an order, and in a state, that works.

`import stream_cam` calls `install`, so this holds for the command line, notebooks and workers
alike, whichever module asks for a library first. Nothing is loaded before it is asked for.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

_TELEMETRY = "openvino_telemetry"
_TELEMETRY_METHODS = (
    "__init__", "init", "start_session", "end_session", "send_event", "send_error",
    "send_stack_trace", "send_opt_in_event", "force_shutdown",
)  # fmt: skip


def install() -> None:
    """Have OpenCV loaded before PyAV, and OpenVINO and NNCF without their telemetry.

    A library that is here already is silenced at once.
    """
    if any(isinstance(finder, _Prepare) for finder in sys.meta_path):
        return
    sys.meta_path.insert(0, _Prepare())
    if "openvino" in sys.modules or "nncf" in sys.modules:
        silence_telemetry()


def pyav_came_first() -> bool:
    """Whether OpenCV's windows would hang, because PyAV was loaded before OpenCV (Linux only)."""
    try:
        mapped = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return "/av.libs/libxcb-shm-" in mapped


def silence_telemetry() -> None:
    """Keep OpenVINO and NNCF from reporting how they are used.

    Both send reports to www.google-analytics.com, from processes forked off this threaded one, and
    write an identifier into the user's home. Without the package `openvino_telemetry` they do
    neither. Where that package is loaded already, its class is emptied.
    """
    telemetry = sys.modules.setdefault(_TELEMETRY, None)  # type: ignore[arg-type]
    if telemetry is not None:
        for method in _TELEMETRY_METHODS:
            setattr(telemetry.Telemetry, method, lambda *args, **options: None)


def _load_opencv() -> None:
    """Both wheels bring libxcb-shm, -shape and -xfixes under the same names, and the first wins.

    PyAV's are bound to a libxcb of its own, OpenCV's to the system's. Qt opens its connection with
    the system's; it waits for ever when PyAV's extensions ask another libxcb about it. (av 18.1.0,
    opencv-python 5.0.0.93)
    """
    with suppress(ImportError):  # PyAV works without; OpenCV's users raise their own error
        importlib.import_module("cv2")


_BEFORE: dict[str, Callable[[], None]] = {
    "av": _load_opencv,
    "openvino": silence_telemetry,
    "nncf": silence_telemetry,
}


class _Prepare:
    """A finder that finds nothing; Python asks it about every import before other finders."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        prepare = _BEFORE.get(fullname)
        if prepare is not None:
            prepare()
        return None
