"""The ten shapes: their outlines, masks, boxes, and the pixels that drawing changes."""

import numpy as np
import pytest

from stream_cam.sources.demo.outlines import NOTHING, SHAPE_NAMES, outline, resampled, rotated
from stream_cam.sources.demo.shapes import clip_to_frame, draw, mask_box, render_mask


def test_shape_names_are_the_demo_models_classes_in_order() -> None:
    assert SHAPE_NAMES == (
        "circle",
        "square",
        "triangle",
        "pentagon",
        "star",
        "heart",
        "cross",
        "crescent",
        "arrow",
        "spiral",
    )
    assert NOTHING == "nothing"


@pytest.mark.parametrize("name", SHAPE_NAMES)
def test_outline_of_any_proportions_fits_the_unit_box(name: str) -> None:
    rng = np.random.default_rng(0)
    for _ in range(40):
        shape = outline(name, rng)
        points = np.concatenate(shape.contours + shape.strokes)
        assert np.isfinite(points).all()
        assert np.ptp(points, axis=0).max() == pytest.approx(1.0)
        centre = (points.min(axis=0) + points.max(axis=0)) / 2
        np.testing.assert_allclose(centre, 0, atol=1e-9)


def test_outline_of_an_unknown_shape_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"hexagon.*circle, square"):
        outline("hexagon", np.random.default_rng(0))


def test_outline_is_the_same_for_the_same_seed() -> None:
    first, again = (outline("star", np.random.default_rng(3)) for _ in range(2))
    for a, b in zip(first.contours, again.contours, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", SHAPE_NAMES)
@pytest.mark.parametrize("lined", [False, True])
def test_draw_box_is_tight_around_the_pixels_that_changed(name: str, lined: bool) -> None:
    rng = np.random.default_rng(SHAPE_NAMES.index(name))
    for _ in range(10):
        frame = np.zeros((240, 320, 3), np.uint8)
        shape = rotated(outline(name, rng), rng.uniform(-30, 30))
        width = 0.08 if lined else None
        box = draw(frame, shape, (160.3, 119.6), 110, colour_bgr=(255, 255, 255), line_width=width)
        assert box is not None
        rows, columns = np.nonzero(frame[..., 0] > 127)
        assert box == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        assert 60 < max(box[2] - box[0], box[3] - box[1]) < 180


def test_filled_circle_covers_pi_quarters_of_its_box() -> None:
    rng = np.random.default_rng(1)
    mask, _ = render_mask(outline("circle", rng), 200)
    box = mask_box(mask)
    assert box is not None
    area = (box[2] - box[0]) * (box[3] - box[1])
    # Antialiased coverage: the sum is the area to well under a percent at 200 px.
    assert mask.sum() / 255 / area == pytest.approx(np.pi / 4, rel=0.01)


def test_outlined_square_is_hollow_and_filled_square_is_not() -> None:
    shape = outline("square", np.random.default_rng(2))
    filled, corner = render_mask(shape, 100)
    lined, lined_corner = render_mask(shape, 100, line_width=0.1)
    assert filled[-corner[1], -corner[0]] == 255
    assert lined[-lined_corner[1], -lined_corner[0]] == 0
    assert lined.max() == 255


def test_spiral_crosses_a_ray_from_its_centre_several_times() -> None:
    for seed in range(10):
        mask, corner = render_mask(outline("spiral", np.random.default_rng(seed)), 200)
        ray = (mask[-corner[1], -corner[0] :] > 127).astype(int)
        line_starts = int((np.diff(ray) == 1).sum())
        assert line_starts >= 1
        column = (mask[:, -corner[0]] > 127).astype(int)
        assert int((np.diff(column) == 1).sum()) >= 3


def test_scale_stretches_the_mask_and_its_lines() -> None:
    shape = outline("circle", np.random.default_rng(0))
    plain = mask_box(render_mask(shape, 160, line_width=0.1)[0])
    squeezed = mask_box(render_mask(shape, 160, line_width=0.1, scale_xy=(9 / 16, 1.0))[0])
    assert plain is not None
    assert squeezed is not None
    assert squeezed[2] - squeezed[0] == pytest.approx((plain[2] - plain[0]) * 9 / 16, abs=2)
    assert squeezed[3] - squeezed[1] == pytest.approx(plain[3] - plain[1], abs=1)


def test_draw_cuts_at_the_frames_edge_and_leaves_the_rest_alone() -> None:
    frame = np.full((100, 100, 3), 7, np.uint8)
    shape = outline("square", np.random.default_rng(0))
    box = draw(frame, shape, (0.0, 50.0), 60, colour_bgr=(0, 0, 255))
    assert box is not None
    assert box[0] == 0
    assert box[2] == pytest.approx(30, abs=3)
    assert (frame[:, 40:] == 7).all()
    assert (frame[50, 0] == (0, 0, 255)).all()


def test_draw_outside_the_frame_changes_nothing_and_has_no_box() -> None:
    frame = np.full((50, 60, 3), 9, np.uint8)
    shape = outline("circle", np.random.default_rng(0))
    assert draw(frame, shape, (500.0, 20.0), 30, colour_bgr=(1, 2, 3)) is None
    assert (frame == 9).all()


def test_draw_opacity_mixes_the_colour_with_the_background() -> None:
    frame = np.full((80, 80, 3), 100, np.uint8)
    draw(frame, outline("square", np.random.default_rng(0)), (40, 40), 60,
         colour_bgr=(200, 0, 100), opacity=0.5)  # fmt: skip
    # 0.5·200 + 0.5·100, 0.5·0 + 0.5·100, 100; blendLinear rounds, so to 1 level.
    np.testing.assert_allclose(frame[40, 40], (150, 50, 100), atol=1)


def test_draw_moves_by_fractions_of_a_pixel() -> None:
    shape = outline("square", np.random.default_rng(0))
    frames = []
    for x in (40.0, 40.5):
        frame = np.zeros((80, 80, 3), np.uint8)
        draw(frame, shape, (x, 40.0), 41, colour_bgr=(255, 255, 255))
        frames.append(frame.astype(int))
    moved = (frames[1] - frames[0])[40, :, 0]
    assert moved.any()
    assert abs(moved).max() < 250


def test_rotated_by_ninety_degrees_turns_up_to_the_right() -> None:
    shape = outline("heart", np.random.default_rng(0))
    turned = rotated(shape, 90)
    np.testing.assert_allclose(turned.contours[0][:, 0], -shape.contours[0][:, 1], atol=1e-12)
    np.testing.assert_allclose(turned.contours[0][:, 1], shape.contours[0][:, 0], atol=1e-12)


def test_resampled_points_lie_at_equal_distances() -> None:
    line = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 3.0]])
    points = resampled(line, 9, closed=False)
    np.testing.assert_allclose(np.hypot(*np.diff(points, axis=0).T), 0.5)


def test_mask_box_of_an_empty_mask_is_none() -> None:
    assert mask_box(np.zeros((5, 5), np.uint8)) is None


def test_clip_to_frame_keeps_the_inside() -> None:
    mask = np.arange(12, dtype=np.uint8).reshape(3, 4)
    placed = clip_to_frame(mask, (-1, -2), (10, 10, 3))
    assert placed is not None
    cut, corner = placed
    np.testing.assert_array_equal(cut, mask[2:, 1:])
    assert corner == (0, 0)
    assert clip_to_frame(mask, (10, 0), (10, 10, 3)) is None
