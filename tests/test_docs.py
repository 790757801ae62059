"""Documentation: links outside of the site, the API page, the list of messages."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest

import stream_cam

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

from list_errors import PAGE, page  # noqa: E402
from test_layers import LEVEL  # noqa: E402

SITE = sorted((ROOT / "docs").glob("**/*.md"))
OTHERS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    ROOT / "engines" / "README.md",
    ROOT / "examples" / "README.md",
    ROOT / "stream_cam" / "assets" / "DEMO_MODEL_CARD.md",
]
"""`make docs` checks the links of docs/; these pages are outside of the site."""


def page_name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def anchors(page_: Path) -> set[str]:
    """The headings of a page, as GitHub and the site make anchors of them."""
    headings = re.findall(r"^#+ (.+)$", page_.read_text(encoding="utf-8"), re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {re.sub(r"[\s]+", "-", heading.strip()) for heading in plain}


@pytest.mark.parametrize("path", OTHERS, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    for link in links:
        target, _, anchor = link.partition("#")
        if target.startswith("http"):
            continue
        found = (path.parent / target).resolve() if target else path
        assert found.exists(), f"{path.name}: {link}"
        assert not anchor or anchor in anchors(found), f"{path.name}: {link}"


def test_python_page_has_every_public_name() -> None:
    text = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    documented = re.findall(r"^::: stream_cam\.(\w+)$", text, re.MULTILINE)
    assert sorted(documented) == sorted(set(stream_cam.__all__) - {"__version__"})


def test_troubleshooting_lists_the_messages_of_the_code() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "python scripts/list_errors.py --write"


@pytest.mark.parametrize("path", SITE, ids=page_name)
def test_page_begins_with_its_readers(path: Path) -> None:
    first = path.read_text(encoding="utf-8").split("\n\n")[1]
    assert re.match(r"(For |This page is for )", first)
    assert re.search(r"\bAfter (this page|it)\b", first)


@pytest.mark.parametrize("path", [*SITE, *OTHERS], ids=page_name)
def test_named_files_are_there(path: Path) -> None:
    """Folders too; those of the package are named from stream_cam/ on."""
    if path.name == "CHANGELOG.md":
        return
    named = re.findall(r"`([\w/]+(?:\.py|/))`", path.read_text(encoding="utf-8"))
    for name in set(named) - {"frames/", "photos/", "annotated/", "site/"}:
        places = (ROOT, ROOT / "stream_cam", ROOT / "stream_cam" / "cam", ROOT / "scripts")
        assert any((place / name).exists() for place in places), f"{path.name}: {name}"


def test_architecture_lists_the_packages_from_the_top_down() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = text[text.index("## The packages") : text.index("## Where to add")]
    rows = re.findall(r"^\| (`.*?`) \|", table, re.MULTILINE)
    parts = [
        [name.rstrip("/").removesuffix(".py") for name in re.findall(r"`(.*?)`", row)]
        for row in rows
    ]
    levels = [max(LEVEL[name] for name in names) for names in parts]
    assert levels == sorted(levels, reverse=True)
    listed = {name for names in parts for name in names}
    assert set(LEVEL) - listed == {"__main__"}


def members_by_class() -> dict[str, set[str]]:
    """The names in the bodies of the package's classes; those of base classes are not theirs."""
    found: dict[str, set[str]] = {}
    for path in sorted((ROOT / "stream_cam").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                members = found.setdefault(node.name, set())
                members |= {part.name for part in node.body if isinstance(part, ast.FunctionDef)}
                members |= {
                    name.id
                    for part in node.body
                    if isinstance(part, ast.AnnAssign | ast.Assign)
                    for name in ast.walk(part)
                    if isinstance(name, ast.Name)
                }
    return found


def test_named_members_are_there() -> None:
    """`Explainer.load`, say: a class of the package, and a name in its body."""
    members = members_by_class()
    for path in [*SITE, *OTHERS]:
        if path.name == "CHANGELOG.md":
            continue
        named = re.findall(r"`([A-Z]\w+)\.(\w+)", path.read_text(encoding="utf-8"))
        for owner, name in set(named) - {("README", "md"), ("CHANGELOG", "md")}:
            assert name in members.get(owner, ()), f"{path.name}: {owner}.{name}"


@pytest.mark.parametrize("path", SITE, ids=page_name)
def test_page_is_in_the_navigation(path: Path) -> None:
    name = path.relative_to(ROOT / "docs").as_posix()
    assert f'"{name}"' in (ROOT / "zensical.toml").read_text(encoding="utf-8")
