"""The demo model's training: its pictures tell the truth, and its losses reward the right map."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torchvision.models import resnet18

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

import train_demo
from check_demo import cell_centres, heat_beside, inside, peak_of, within
from demo_backgrounds import folder_photographs, make_pool
from demo_judge import judge_picture
from demo_pictures import ASPECTS, LABELS, Painter
from train_demo import (
    FULL_CELLS,
    PADDING,
    Drawn,
    Phase,
    map_losses,
    phases,
    save,
    settle_nothing,
    shares_of_cells,
    target_cells,
)


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


TOP_LEFT = [20.0, 20.0, 60.0, 60.0]
BOTTOM_RIGHT = [150.0, 150.0, 200.0, 200.0]
NO_BIAS = torch.zeros(len(LABELS))


def two_shapes() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Maps, labels and boxes of a picture with a star and a heart, and of an empty one."""
    maps = torch.zeros(2, len(LABELS), 7, 7)
    maps[0, LABELS.index("star"), 1, 1] = FULL_CELLS * 20.0
    maps[0, LABELS.index("heart"), 5, 5] = FULL_CELLS * 20.0
    labels = torch.tensor([[LABELS.index("star"), LABELS.index("heart")], [PADDING, PADDING]])
    boxes = torch.tensor([[TOP_LEFT, BOTTOM_RIGHT], [[0.0] * 4] * 2])
    return maps, labels, boxes


def test_map_losses_of_maps_that_point_and_name_are_small() -> None:
    bias = NO_BIAS.clone()
    bias[-1] = 10.0
    losses = map_losses(two_shapes()[0], bias, *two_shapes()[1:])
    assert {name: float(loss) < 1e-3 for name, loss in losses.items()} == {
        "alone": True, "behind": True, "pointing": True, "local": True, "beside": True,
    }  # fmt: skip


def test_map_losses_notice_swapped_labels() -> None:
    maps, labels, boxes = two_shapes()
    losses = map_losses(maps, NO_BIAS, labels.flip(1), boxes)
    assert float(losses["alone"]) > 10
    assert float(losses["local"]) > 10
    assert float(losses["pointing"]) > 10


def test_map_losses_notice_heat_beside_the_shapes() -> None:
    maps, labels, boxes = two_shapes()
    clean = map_losses(maps, NO_BIAS, labels, boxes)
    maps[0, LABELS.index("circle"), 1, 5] = FULL_CELLS * 20.0
    spoilt = map_losses(maps, NO_BIAS, labels, boxes)
    assert float(clean["behind"]) == pytest.approx(np.log(len(LABELS)), abs=1e-4)
    assert float(spoilt["behind"]) > float(clean["behind"]) + 5
    assert float(spoilt["alone"]) == pytest.approx(float(clean["alone"]))


def test_map_losses_notice_a_warm_wall() -> None:
    """For the shown shape's own map, even where another shape is; whatever all maps share."""
    maps, labels, boxes = two_shapes()
    maps[0, LABELS.index("star"), 3:, 3:] = FULL_CELLS * 10.0
    losses = map_losses(maps, NO_BIAS, labels, boxes)
    assert float(losses["pointing"]) < 1e-3, "the peak is right all the same"
    whose = shares_of_cells(boxes, labels != PADDING, 7)[0]
    elsewhere = 49 - int(whose[0].sum()), 49 - int(whose[1].sum())
    assert float(losses["beside"]) == pytest.approx(0.5 * 16 / sum(elsewhere))


def test_map_losses_of_pictures_without_shapes_have_gradients() -> None:
    maps = torch.zeros(3, len(LABELS), 7, 7, requires_grad=True)
    losses = map_losses(maps, NO_BIAS, torch.full((3, 1), PADDING), torch.zeros(3, 1, 4))
    assert {name: loss.item() for name, loss in losses.items() if name != "behind"} == {
        "alone": 0.0, "pointing": 0.0, "local": 0.0, "beside": 0.0,
    }  # fmt: skip
    (gradient,) = torch.autograd.grad(torch.stack(list(losses.values())).sum(), maps)
    assert float(gradient[:, -1].max()) < 0  # `nothing` is to rise


def test_cells_belong_to_the_nearest_shape_or_to_nobody() -> None:
    shown = torch.tensor([[True, True, False]])
    boxes = torch.tensor([[TOP_LEFT, BOTTOM_RIGHT, [0.0] * 4]])
    whose = shares_of_cells(boxes, shown, 7)[0]
    assert torch.equal(whose.sum(0), torch.ones(7, 7, dtype=torch.long))
    assert whose[0, 1, 1]
    assert whose[1, 5, 5]
    assert whose[3, 1, 5]
    assert not whose[2].any()


def test_a_batch_lists_the_shapes_of_each_picture() -> None:
    pool = make_pool(np.random.default_rng(0), 12, 288, [])
    batch = next(iter(Drawn(pool, 3, Phase(224, 48, 48, 4))))
    n_shapes = (batch.labels != PADDING).sum(1)
    assert set(n_shapes.tolist()) == {0, 1, 2, 3, 4}
    for labels, boxes in zip(batch.labels.tolist(), batch.boxes.tolist(), strict=True):
        there = [label for label in labels if label != PADDING]
        assert len(set(there)) == len(there)
        for label, (x0, y0, x1, y1) in zip(labels, boxes, strict=True):
            assert (x0 < x1 and y0 < y1) == (label != PADDING)


def test_shapes_of_one_picture_are_apart(painter: Painter) -> None:
    rng = np.random.default_rng(4)
    for _ in range(40):
        picture = painter.paint(rng, 224, 3, most=4)
        boxes = [picture.box_xyxy, *(box for _, box in picture.others)]
        for index, first in enumerate(boxes):
            for second in boxes[index + 1 :]:
                apart_x = max(first[0], second[0]) - min(first[2], second[2])
                apart_y = max(first[1], second[1]) - min(first[3], second[3])
                assert max(apart_x, apart_y) >= 6


def test_peak_of_a_map_lies_at_its_cells_centre() -> None:
    cam = np.zeros((7, 7), np.float32)
    cam[2, 5] = 1
    x, y = peak_of(cam, 700, 350)
    assert x == pytest.approx(550, abs=1)
    assert y == pytest.approx(125, abs=1)
    assert inside((x, y), (500, 100, 600, 150))
    cells_xy = cell_centres((7, 7), 700, 350)
    assert within(cells_xy, (500, 100, 600, 150)).sum() == 1
    assert not within(cells_xy, (560, 100, 640, 150)).any()


def test_heat_beside_a_shape_leaves_out_the_cells_around_it() -> None:
    cells_xy, box = cell_centres((7, 7), 700, 350), (510.0, 110.0, 590.0, 140.0)
    cam = np.zeros((7, 7), np.float32)
    cam[1:4, 4:7] = 2
    cam[2, 5] = 4
    assert heat_beside(cam, cells_xy, box) == 0
    cam[6, 0] = 2
    assert heat_beside(cam, cells_xy, box) == pytest.approx(0.5 / 40)
    assert heat_beside(cam + 9, cells_xy, box) == pytest.approx(0.5 / 40)
    assert np.isnan(heat_beside(cam, cells_xy, (0, 0, 700, 350)))


def test_nothing_is_settled_where_most_are_named_right(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = torch.arange(len(LABELS)).repeat(20)
    # One channel for each class, as strong as two; `nothing` wins wherever it is ahead by its bias.
    features = 2.0 * torch.nn.functional.one_hot(labels).float()[:, :, None, None]
    monkeypatch.setattr(train_demo, "seen", lambda *_: (features, labels))
    state = {"fc.weight": torch.eye(len(LABELS)), "fc.bias": torch.zeros(len(LABELS))}
    state["fc.bias"][-1] = 2.5
    move, before, after = settle_nothing(state, [], torch.device("cpu"))
    assert before == pytest.approx(1 / len(LABELS))
    assert after == 1.0
    # Right from -0.5 to -3, as far as is tried: there the middle, between two of the steps.
    assert move == pytest.approx(-1.8, abs=0.06)
    assert float(state["fc.bias"][-1]) == pytest.approx(2.5 + move)


def test_save_writes_half_precision_with_labels_and_no_partial_file(tmp_path: Path) -> None:
    path = tmp_path / "demo.safetensors"
    save(resnet18(num_classes=len(LABELS)).state_dict(), path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["demo.safetensors"]
    with safe_open(path, "pt") as file:
        assert file.metadata()["arch"] == "resnet18"
        assert "spiral" in file.metadata()["labels"]
        assert file.get_tensor("fc.weight").dtype == torch.float16


def test_phases_are_read() -> None:
    assert phases("96:64:1000:1:0.7,224:40:500:4") == [
        Phase(96, 64, 1000, 1, 0.7),
        Phase(224, 40, 500, 4),
    ]


def test_easy_pictures_show_shapes_before_hardly_anything(painter: Painter) -> None:
    """Outside the shape's box an easy picture is nearly of one colour, a hard one is not."""
    spreads: dict[float, list[float]] = {0.0: [], 1.0: []}
    for ease, found in spreads.items():
        rng = np.random.default_rng(8)
        for _ in range(20):
            picture = painter.paint(rng, 224, label=0, ease=ease)
            outside = np.ones((224, 224), bool)
            x0, y0, x1, y1 = (int(side) for side in picture.box_xyxy)
            outside[max(0, y0 - 6) : y1 + 7, max(0, x0 - 6) : x1 + 7] = False
            found.append(float(picture.image_bgr[outside].std(axis=0).max()))
    assert max(spreads[1.0]) < 0.5 * float(np.median(spreads[0.0]))


def test_folder_photographs_of_an_empty_folder_is_empty(tmp_path: Path) -> None:
    assert folder_photographs(tmp_path) == []
