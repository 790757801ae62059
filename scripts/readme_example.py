"""Runs the README's Python example as it stands there, and prints its output."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def readme_example() -> tuple[str, str]:
    """The README's example, and the output that stands below it."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.search(r"```python\n(.*?)```\n\n```text\n(.*?)```", readme, re.DOTALL)
    if found is None:
        raise SystemExit("README.md has no example of Python with its output below it")
    return found[1], found[2]


if __name__ == "__main__":
    exec(compile(readme_example()[0], "README.md", "exec"))
