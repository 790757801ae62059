"""What TensorRT says, for Python's logging and for error messages."""

from __future__ import annotations

import logging
from functools import cache
from types import ModuleType
from typing import Any

logger = logging.getLogger(__name__)


@cache
def tensorrt_log(trt: ModuleType) -> Any:
    """TensorRT's logger of this process: all to DEBUG; `last_error` is the last error's first line.

    One for all, because TensorRT wants one.
    """

    class Log(trt.ILogger):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            super().__init__()
            self.forget()

        def forget(self) -> None:
            """Before a call that may fail: what it does not say is not an older call's reason."""
            self.last_error = "no reason given"

        def log(self, severity: Any, message: str) -> None:
            text = message.strip()
            if text and severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.last_error = text.splitlines()[0]
            logger.debug("%s", text)

    return Log()
