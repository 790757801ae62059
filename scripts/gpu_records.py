"""Results as lines of JSON, each written at once: a killed process loses none but the last."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


class Records:
    """Appends records to a file; safe to share among forks."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, **record: Any) -> None:
        """One record, in one write."""
        line = json.dumps(record, default=str, ensure_ascii=False) + "\n"
        file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(file, line.encode("utf-8", "replace"))
        finally:
            os.close(file)


def read_records(path: Path) -> list[dict[str, Any]]:
    """All whole records of a file; none where there is no file."""
    if not path.is_file():
        return []
    found = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            record = json.loads(line)
        except ValueError:  # the process was killed while it wrote
            continue
        if isinstance(record, dict):
            found.append(record)
    return found
