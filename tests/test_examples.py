"""The examples, and the README's example, run as they stand."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import cv2
import pytest
from support.photographs import require_photos

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

from readme_example import readme_example  # noqa: E402

EXAMPLES = ROOT / "examples"


@pytest.fixture(autouse=True)
def _in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run_script(name: str, *arguments: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")


def code_cells(notebook: Path) -> list[str]:
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def test_explain_picture_names_the_shape(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_script("explain_picture.py", monkeypatch=monkeypatch)
    assert "star " in capsys.readouterr().out
    picture = cv2.imread("explained.png")
    assert picture is not None
    assert picture.shape == (720, 1280, 3)


@pytest.mark.needs_photos
def test_galleries_show_espresso_on_the_coffee_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    require_photos()
    run_script("galleries.py", monkeypatch=monkeypatch)
    top_five, one_class = capsys.readouterr().out.split("espresso:\n")
    assert top_five.index("Egyptian cat") < top_five.index("tiger cat") < top_five.index("lynx")
    probabilities = [float(line.split("%")[0].split()[-1]) for line in one_class.splitlines()[:5]]
    assert [probability > 50 for probability in probabilities] == [False, True, False, False, False]
    for name, size_hw in (("top_five.jpg", (568, 960)), ("one_class.jpg", (568, 1600))):
        picture = cv2.imread(name)
        assert picture is not None
        assert picture.shape[:2] == size_hw


def test_annotate_video_writes_every_frame(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_script("annotate_video.py", monkeypatch=monkeypatch)
    assert " frames" in capsys.readouterr().out
    video = cv2.VideoCapture("annotated.mp4")
    assert sum(1 for _ in iter(lambda: video.read()[0], False)) == 20


def test_serve_page_says_where_the_page_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_script("serve_page.py", "--seconds", "2", monkeypatch=monkeypatch)
    out = capsys.readouterr().out
    assert "open http://127.0.0.1:" in out
    assert "frames/s" in out
    assert "stopped" in out


def test_notebook_runs(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, object] = {}
    for cell in code_cells(EXAMPLES / "maps.ipynb"):
        exec(compile(cell, "maps.ipynb", "exec"), names)
    assert "pentagon" in capsys.readouterr().out


def test_notebook_holds_no_output() -> None:
    cells = json.loads((EXAMPLES / "maps.ipynb").read_text(encoding="utf-8"))["cells"]
    assert not any(cell.get("outputs") for cell in cells)


def test_readme_example_prints_what_the_readme_says(capsys: pytest.CaptureFixture[str]) -> None:
    code, output = readme_example()
    exec(compile(code, "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert printed.split() == output.split()
    assert Path("explained.png").stat().st_size > 0
