"""A pytest plugin for the main process and each worker: `-p gpu_pytest`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

PASSED = "STREAM_CAM_PASSED_TESTS"
"""Environment variable: a file with the tests that need not run again, one a line."""


def pytest_configure() -> None:
    import gpu_cache

    gpu_cache.install()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In each worker: leaves out the tests that passed before."""
    path = os.environ.get(PASSED)
    if not path or not Path(path).is_file():
        return
    passed = set(Path(path).read_text(encoding="utf-8").splitlines())
    left_out = [item for item in items if item.nodeid in passed]
    items[:] = [item for item in items if item.nodeid not in passed]
    config.hook.pytest_deselected(items=left_out)
