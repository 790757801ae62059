"""Tests that STREAM_CAM_REQUIRE names may not skip.

`STREAM_CAM_REQUIRE=ffmpeg,rtsp_server` turns the skip of a test that is marked `needs_ffmpeg` or
`needs_rtsp_server` into a failure, so that CI notices when an installed dependency does not work.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest


def pytest_configure(config: pytest.Config) -> None:
    known = {line.split(":")[0].strip() for line in config.getini("markers")}
    for name in _required():
        if f"needs_{name}" not in known:
            raise pytest.UsageError(
                f"STREAM_CAM_REQUIRE names {name!r}, but no marker needs_{name}"
            )


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Turn the skip of a test that STREAM_CAM_REQUIRE says must run into a failure."""
    outcome: Any = yield  # a pluggy result; pytest does not export its type
    report = outcome.get_result()
    if not report.skipped or hasattr(report, "wasxfail"):
        return
    missing = [name for name in _required() if item.get_closest_marker(f"needs_{name}")]
    if missing:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"STREAM_CAM_REQUIRE={','.join(missing)}, but the test skips: {reason}"


def _required() -> list[str]:
    names = os.environ.get("STREAM_CAM_REQUIRE", "").split(",")
    return [name.strip() for name in names if name.strip()]
