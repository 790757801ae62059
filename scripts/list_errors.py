"""Lists every error message of the package with its next step, as tables of Markdown.

python scripts/list_errors.py --write     # into docs/troubleshooting.md, below its mark
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "troubleshooting.md"
MARK = "<!-- From here on: python scripts/list_errors.py --write -->\n"

GROUPS = {
    "Webcams": ("sources/camera",),
    "Network sources": (
        "sources/network", "sources/connection", "sources/ffmpeg_errors", "sources/reconnecting",
        "sources/poll", "sources/mjpeg", "sources/playout", "sources/url",
    ),
    "Files, pictures and pipes": ("sources/",),
    "Recordings": ("sinks/video/", "sinks/pipe", "cli/recover", "cli/batch/"),
    "The browser page": ("web/",),
    "Outputs and results": ("sinks/", "results/", "pipeline/"),
    "Networks, weights and labels": ("model/", "targets"),
    "Engines and GPUs": ("engine/", "explain/"),
    "Benchmarks": ("bench/",),
    "Options": ("cli/", "config/", "cam/", "settings", "errors"),
}  # fmt: skip
"""By symptom: modules whose messages belong there; the first group that fits has them."""

NO_STEP = {
    r"\bgot …|^(--|demo://)": "give a value as the message says",
    r"\b(give|pipe|such as|recover|begins with|export)\b": "as the message says",
    r"cannot be (written( to …)?|made|copied): …$": (
        "the text after the colon is the system's; check space and rights"
    ),
    r"cannot (be )?read( weights)?( …)?: …$|^… cannot be opened: …$": (
        "the text after the colon is the system's; check the file and its rights"
    ),
    r"^camera … cannot be opened": "close other programs that use the camera",
    r"^there is no camera": "give one that is there, such as 0 or /dev/video0",
    r"^… cannot be …: …$|gives no picture for|is not there whole|was cut off after": (
        "check host, port, path and server"
    ),
    r"that FFmpeg can read|no frame can be decoded|has no frame": (
        "check the file in a player or viewer"
    ),
    r"^(the page's server did not start|…: the server ended|web://… cannot be served)": (
        "check address, port and certificate"
    ),
    r"^… does not fit|labels, but the network": "compare the file with `--model` and `--labels`",
    r"^(OpenVINO|TensorRT) (does not accept|cannot build)|^the GPU does not run it"
    r"|^the … engine (cannot be captured|is not built)|^this version has no"
    r"|^no CUDA GPU|needs Triton": ("see `stream-cam doctor`, or give another `--engine`"),
    r"^nothing could be measured|^it cannot be captured": "run it again with `--verbose`",
}
"""The next step of messages that have none in words of their own; the first pattern that fits."""

_STEP = re.compile(
    r"; (?P<a>.+)$"
    r"|: (?P<b>(?:give|put|use|leave|import|pip|write|make|it needs|see|choose|start)\b.+)$"
)
_ERRORS = re.compile(r"[A-Z]\w*Error$")
_INTERNAL = {"RuntimeError", "TypeError", "AttributeError", "OSError", "KeyError"}
_WITH_TABLES = ("sources/ffmpeg_errors", "sinks/window")
"""Modules with messages outside of calls."""


def messages(path: Path) -> Iterator[str]:
    """The messages of a module; values are `…`."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    module = _module(path)
    constants = {
        target.id: node.value
        for node in tree.body
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and node.args and _is_error(node.func, module):
            yield _text(node.args[0], constants)
        elif module in _WITH_TABLES and isinstance(node, (ast.Tuple, ast.Return)):
            parts = node.elts if isinstance(node, ast.Tuple) else [node.value]
            yield from (_text(part, constants) for part in parts if part is not None)


def _is_error(function: ast.expr, module: str) -> bool:
    name = function.id if isinstance(function, ast.Name) else getattr(function, "attr", "")
    if name == "ValueError":
        return module.startswith(("config/", "cli/"))
    return bool(_ERRORS.match(name)) and name not in _INTERNAL


def _text(node: ast.expr, constants: dict[str, ast.expr]) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value) if isinstance(node.value, str) else "…"
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(value, constants) for value in node.values)
    if isinstance(node, ast.FormattedValue):
        return _text(node.value, constants)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _text(node.left, constants) + _text(node.right, constants)
    if isinstance(node, ast.Name) and node.id in constants:
        return _text(constants[node.id], {})
    return "…"


def _module(path: Path) -> str:
    return path.relative_to(ROOT / "stream_cam").with_suffix("").as_posix()


def _rows(found: list[str]) -> list[str]:
    rows: dict[str, None] = {}
    for message in found:
        message = re.sub(r"\{\w+\}", "…", " ".join(message.split()))
        step = _STEP.search(message)
        said = message[: step.start()] if step else message
        todo = (step["a"] or step["b"]) if step else ""
        if len(re.findall(r"[A-Za-z]{2,}", said)) < 2:
            continue
        if said.count("(") > said.count(")") and todo.endswith(")"):
            said, todo = f"{said})", todo[:-1]
        if not re.search(r"[A-Za-z]{2}", todo):
            todo = "as the message says" if todo else _usual_step(said)
        rows[f"| {_cell(said)} | {_cell(todo)} |"] = None
    return sorted(rows, key=lambda row: row.lstrip("| …:"))


def _usual_step(said: str) -> str:
    return next((step for pattern, step in NO_STEP.items() if re.search(pattern, said)), "–")


def _cell(text: str) -> str:
    quoted = re.split(r"(`[^`|]*`)", text)
    quoted[::2] = [re.sub(r"([*<|\\`])", r"\\\1", part) for part in quoted[::2]]
    return "".join(quoted).strip()


def tables() -> str:
    """Every message, by symptom."""
    found: dict[str, list[str]] = {group: [] for group in GROUPS}
    for path in sorted((ROOT / "stream_cam").rglob("*.py")):
        places = (g for g, parts in GROUPS.items() if _module(path).startswith(parts))
        group = next(places, None)
        if group is not None:
            found[group] += messages(path)
    parts = []
    for group, said in found.items():
        head = f"### {group}\n\n| message | next step |\n| --- | --- |\n"
        parts.append(head + "\n".join(_rows(said)) + "\n")
    return "\n".join(parts)


def page() -> str:
    """The page as it should be."""
    return PAGE.read_text(encoding="utf-8").partition(MARK)[0] + MARK + "\n" + tables()


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        PAGE.write_text(page(), encoding="utf-8")
    else:
        print(tables())
