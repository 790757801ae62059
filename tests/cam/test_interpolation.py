"""Maps between two explained frames."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from stream_cam.cam.interpolation import interpolate
from stream_cam.frame import Explanation, FloatArray, Frame, Prediction, Region


def blob(x: float, y: float, size_hw: tuple[int, int] = (9, 16), height: float = 1.0) -> FloatArray:
    rows, columns = np.mgrid[: size_hw[0], : size_hw[1]]
    values = height * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 3.0)
    return np.asarray(values, np.float32)


def explained(cam: FloatArray, index: int, label: int = 0) -> Explanation:
    target = Prediction(f"class {label}", label, 0.9)
    return Explanation(
        logits=np.zeros(2, np.float32),
        predictions=(target,),
        targets=(target,),
        cams=cam[None],
        region=Region.whole((90, 160)),
        frame_size_hw=(90, 160),
        frame_index=index,
        captured_ns=index * 1000,
        explained_ns=index * 1000 + 500,
    )


def frame_between(index: float) -> Frame:
    image = np.zeros((90, 160, 3), np.uint8)
    return Frame(image, round(index), round(index), Fraction(1, 30), round(index * 1000))


@pytest.mark.parametrize("share", [0.25, 0.5, 0.75])
def test_the_heat_is_where_the_object_is_between_two_places(share: float) -> None:
    before, after = explained(blob(3, 4), 0), explained(blob(11, 4), 8)
    got = interpolate(before, after, frame_between(8 * share))
    peak = np.unravel_index(int(got.cams[0].argmax()), (9, 16))
    assert tuple(map(int, peak)) == (4, 3 + round(8 * share))
    assert got.between_frames == (0, 8)
    assert got.captured_ns == round(8000 * share)
    assert got.frame_index == (0 if share < 0.5 else 8)


def test_a_map_that_only_fades_is_mixed_and_its_range_too() -> None:
    before, after = explained(blob(5, 5), 0), explained(blob(5, 5, height=3.0), 4)
    got = interpolate(before, after, frame_between(1))
    np.testing.assert_allclose(got.cams[0], 1.5 * blob(5, 5), rtol=1e-5)
    assert got.ranges is not None
    np.testing.assert_allclose(got.ranges[0], [1.5 * blob(5, 5).min(), 1.5], rtol=1e-5)


def test_one_class_has_one_probability() -> None:
    before, after = explained(blob(5, 5), 0), explained(blob(5, 5), 4)
    sure = (replace(after.targets[0], probability=0.5),)
    after = replace(after, targets=sure, predictions=(*sure, Prediction("class 1", 1, 0.3)))
    got = interpolate(before, after, frame_between(3))
    assert [round(one.probability, 6) for one in got.targets] == [0.6]
    assert [round(one.probability, 6) for one in got.predictions] == [0.6, 0.3]


def test_maps_of_two_places_at_once_are_not_moved() -> None:
    """One object goes, another comes: nothing has moved from one place to the other."""
    both = blob(3, 4) + blob(13, 4)
    before, after = explained(both, 0), explained(both + 0.2 * blob(13, 4), 2)
    got = interpolate(before, after, frame_between(1))
    np.testing.assert_allclose(got.cams[0], both + 0.1 * blob(13, 4), rtol=1e-5)


def test_another_class_takes_over_half_way() -> None:
    before, after = explained(blob(3, 4), 0), explained(blob(11, 4), 8, label=1)
    assert interpolate(before, after, frame_between(3)).targets[0].index == 0
    assert interpolate(before, after, frame_between(5)).targets[0].index == 1
    assert interpolate(before, after, frame_between(5)).between_frames is None


def test_an_explained_frame_keeps_its_own_map() -> None:
    before, after = explained(blob(3, 4), 0), explained(blob(11, 4), 8)
    assert interpolate(before, after, frame_between(0)) is before
    assert interpolate(before, after, frame_between(8)) is after
    assert interpolate(before, before, frame_between(0)) is before


def test_constant_and_damaged_maps_are_mixed_or_left() -> None:
    flat = np.ones((9, 16), np.float32)
    got = interpolate(explained(flat, 0), explained(blob(3, 4), 2), frame_between(1))
    np.testing.assert_allclose(got.cams[0], (flat + blob(3, 4)) / 2)
    broken = replace(explained(flat, 2), cams=np.full((1, 9, 16), np.nan, np.float32))
    assert interpolate(explained(flat, 0), broken, frame_between(0.5)).frame_index == 0
