"""The demo model's training: its pictures tell the truth, and its losses reward the right map."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torchvision.models import resnet18

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scripts"))

from check_demo import inside, peak_of, reachable
from demo_backgrounds import folder_photographs, make_pool
from demo_judge import judge_picture
from demo_pictures import ASPECTS, LABELS, Painter
from train_demo import map_losses, phases, save, target_cells


@pytest.fixture(scope="module")
def painter() -> Painter:
    return Painter(make_pool(np.random.default_rng(0), 12, 288, []), 0)


@pytest.mark.parametrize("side_px", [96, 224])
def test_picture_of_every_class_has_its_box_inside(painter: Painter, side_px: int) -> None:
    rng = np.random.default_rng(1)
    for label, name in enumerate(LABELS):
        picture = painter.paint(rng, side_px, label)
        assert picture.image_bgr.shape == (side_px, side_px, 3)
        assert picture.label == label
        assert picture.aspect in ASPECTS
        x0, y0, x1, y1 = picture.box_xyxy
        if name == "nothing":
            assert picture.box_xyxy == (0, 0, 0, 0)
        else:
            assert 0 <= x0 < x1 <= side_px
            assert 0 <= y0 < y1 <= side_px


def test_picture_is_the_same_for_the_same_generator(painter: Painter) -> None:
    first, again = (painter.paint(np.random.default_rng(5)) for _ in range(2))
    np.testing.assert_array_equal(first.image_bgr, again.image_bgr)
    assert first.box_xyxy == again.box_xyxy


@pytest.mark.parametrize("label", LABELS)
def test_judge_draws_every_class_with_its_box_inside(label: str) -> None:
    rng = np.random.default_rng(2)
    for _ in range(3):
        judged = judge_picture(rng, label, [])
        height, width = judged.image_bgr.shape[:2]
        x0, y0, x1, y1 = judged.box_xyxy
        assert 0 <= x0 <= x1 <= width
        assert 0 <= y0 <= y1 <= height
        assert (x1 > x0) == (label != "nothing")


def test_target_cells_are_those_with_their_centre_in_the_box() -> None:
    cells = target_cells(torch.tensor([[40.0, 70.0, 120.0, 90.0]]), 7)[0]
    assert torch.nonzero(cells).tolist() == [[2, 1], [2, 2], [2, 3]]


def test_target_cells_of_a_box_between_centres_is_the_nearest() -> None:
    cells = target_cells(torch.tensor([[100.0, 100.0, 110.0, 110.0]]), 7)[0]
    assert torch.nonzero(cells).tolist() == [[3, 3]]


def test_target_cells_avoid_the_first_column_when_they_can() -> None:
    both = target_cells(torch.tensor([[5.0, 40.0, 60.0, 60.0]]), 7)[0]
    only = target_cells(torch.tensor([[5.0, 40.0, 30.0, 60.0]]), 7)[0]
    assert torch.nonzero(both).tolist() == [[1, 1]]
    assert torch.nonzero(only).tolist() == [[1, 0]]


def test_map_losses_are_small_for_a_map_that_points_and_names() -> None:
    maps = torch.zeros(1, 11, 7, 7)
    maps[0, 4, 2, 3] = 30.0
    labels, inside_box = torch.tensor([4]), torch.tensor([[100.0, 70.0, 125.0, 90.0]])
    outside_box = torch.tensor([[10.0, 180.0, 40.0, 210.0]])
    good, wrong = (map_losses(maps, labels, box) for box in (inside_box, outside_box))
    assert float(good[0]) < 1e-3
    assert float(good[1]) < 1e-3
    assert float(wrong[0]) > 10
    assert float(wrong[1]) == pytest.approx(np.log(11), abs=1e-4)


def test_map_losses_of_no_shapes_are_zero() -> None:
    losses = map_losses(
        torch.zeros(0, 11, 7, 7), torch.zeros(0, dtype=torch.long), torch.ones(0, 4)
    )
    assert [float(loss) for loss in losses] == [0.0, 0.0]


def test_peak_of_a_map_lies_at_its_cells_centre() -> None:
    cam = np.zeros((7, 7), np.float32)
    cam[2, 5] = 1
    x, y = peak_of(cam, 700, 350)
    assert x == pytest.approx(550, abs=1)
    assert y == pytest.approx(125, abs=1)
    assert inside((x, y), (500, 100, 600, 150))
    assert reachable((7, 7), (500, 100, 600, 150), 700, 350)
    assert not reachable((7, 7), (560, 100, 640, 150), 700, 350)


def test_save_writes_half_precision_with_labels_and_no_partial_file(tmp_path: Path) -> None:
    path = tmp_path / "demo.safetensors"
    save(resnet18(num_classes=len(LABELS)).state_dict(), path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["demo.safetensors"]
    with safe_open(path, "pt") as file:
        assert file.metadata()["arch"] == "resnet18"
        assert "spiral" in file.metadata()["labels"]
        assert file.get_tensor("fc.weight").dtype == torch.float16


def test_phases_are_read() -> None:
    first, last = phases("96:64:0.25,224:40:1")
    assert (first.side_px, first.batch, first.until) == (96, 64, 0.25)
    assert last.until == 1


def test_folder_photographs_of_an_empty_folder_is_empty(tmp_path: Path) -> None:
    assert folder_photographs(tmp_path) == []
