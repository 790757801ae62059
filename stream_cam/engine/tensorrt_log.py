"""TensorRT's messages, for Python's logging and for our error messages."""

from __future__ import annotations

import logging
from functools import cache
from types import ModuleType
from typing import Any

logger = logging.getLogger(__name__)


@cache
def tensorrt_log(trt: ModuleType) -> Any:
    """The logger of this process: all to DEBUG; `last_error` is the last error's first line.

    TensorRT asks for a single one.
    """

    class Log(trt.ILogger):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            super().__init__()
            self.forget()

        def forget(self) -> None:
            """Before a call that may fail: an older error is not its reason."""
            self.last_error = "no reason given"

        def log(self, severity: Any, message: str) -> None:
            text = message.strip()
            if text and severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.last_error = text.splitlines()[0]
            logger.debug("%s", text)

    return Log()
