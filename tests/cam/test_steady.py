"""Steady maps: the filter's times, the hold, their robustness, and the picture."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.steady_parts import Steady
from torch import nn

from stream_cam.cam.cpu import scale_cam
from stream_cam.cam.steady import SteadyMaps
from stream_cam.config import (
    CaptureConfig,
    LayoutName,
    LookConfig,
    ModelConfig,
    PipelineConfig,
    RunConfig,
)
from stream_cam.draw.layouts import count_maps
from stream_cam.draw.overlay import draw_heatmap, draw_overlay
from stream_cam.draw.renderer import Renderer
from stream_cam.explain.explainer import Explainer
from stream_cam.frame import BgrImage, Explanation, Features, FloatArray, Frame, Prediction, Region
from stream_cam.pipeline.pipeline import Pipeline
from stream_cam.pipeline.session import run_session
from stream_cam.settings import Settings, SettingsSnapshot
from stream_cam.sinks.base import Picture, Sink
from stream_cam.sources import open_source
from stream_cam.sources.base import Source, SourceInfo
from stream_cam.targets import Target

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
DEADLINE_SECONDS = 20.0
"""Nothing here takes long; the deadline finds hangs."""
LABELS = ("a", "b", "c", "d")
CAM = np.array([[0.0, 1.0], [2.0, 4.0]], np.float32)


def explained(
    cams: Sequence[FloatArray] | FloatArray,
    *,
    classes: Sequence[int] = (0,),
    **changes: object,
) -> Explanation:
    """An explanation with these maps for these classes; the first one leads the predictions."""
    best = classes[0]
    logits = np.where(np.arange(4) == best, 2.0, 0.0).astype(np.float32)
    predictions = [
        Prediction(LABELS[i], i, 0.25) for i in sorted(range(4), key=lambda i: i != best)
    ]
    made = Explanation(
        logits=logits,
        predictions=tuple(predictions),
        targets=tuple(Prediction(LABELS[i], i, 0.25) for i in classes),
        cams=np.stack([np.asarray(cam, np.float32) for cam in cams]),
        region=Region(0, 0, 8, 8),
        frame_size_hw=(8, 8),
        captured_ns=1,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def cam_of(steady: Steady, cam: FloatArray, seconds: float) -> FloatArray:
    return np.asarray(steady.update(explained([cam]), seconds).cams[0])


# The filter.


def after_one_time_constant(before: FloatArray, then: FloatArray) -> FloatArray:
    steady = Steady(smooth_seconds=0.3)
    for tick in range(30):
        cam_of(steady, before, tick / 100)
    for tick in range(30, 60):
        after = cam_of(steady, then, tick / 100)
    # The last frame before the change is 0.29 s, the last of all 0.59 s: one time constant.
    return after


def share_left(change: float) -> float:
    """The share left after one time constant, for a change of `change` times the new map's
    range."""
    return math.exp(-1) / math.sqrt(1 + 4 * change**2 * (1 - math.exp(-2)))


def test_a_small_change_is_there_but_for_one_over_e_after_the_time_constant() -> None:
    after = after_one_time_constant(CAM, np.float32(1.01) * CAM)
    np.testing.assert_allclose((after - CAM) / 0.01, CAM * (1 - 1 / math.e), rtol=1e-3)


def test_a_large_change_is_hurried() -> None:
    after = after_one_time_constant(np.zeros((2, 2), np.float32), CAM)
    np.testing.assert_allclose(after, CAM * (1 - share_left(1.0)), rtol=1e-6)
    assert share_left(1.0) < 0.5 / math.e


@given(
    st.lists(
        st.lists(st.floats(-100, 100, width=32), min_size=4, max_size=4), min_size=2, max_size=12
    ),
    st.floats(0.02, 3.0),
)
def test_smoothing_does_not_depend_on_the_frame_rate(
    tenths: list[list[float]], smooth_seconds: float
) -> None:
    """A scene that changes every tenth of a second, at 10 and at 60 frames a second."""
    scene = [np.array(values, np.float32).reshape(2, 2) for values in tenths]
    slow, fast = (Steady(smooth_seconds=smooth_seconds) for _ in range(2))
    for number, cam in enumerate(scene):
        at_10 = slow.update(explained([cam]), number / 10)
        for sixth in range(1, 7):
            at_60 = fast.update(explained([cam]), (number - 1) / 10 + sixth / 60)
    assert at_10.ranges is not None
    assert at_60.ranges is not None
    np.testing.assert_allclose(at_60.cams, at_10.cams, atol=1e-4)
    np.testing.assert_allclose(at_60.ranges, at_10.ranges, atol=1e-4)


def test_range_is_smoothed_and_used_for_scaling() -> None:
    steady = Steady(smooth_seconds=0.3)
    steady.update(explained([CAM]), 0.0)
    second = steady.update(explained([2 * CAM + 1]), 0.3)
    # The hottest cell went from 4 to 9, and the new map's range is 8.
    k = 1 - share_left(5 / 8)
    assert second.ranges is not None
    np.testing.assert_allclose(second.ranges[0], [k * 1, 4 + k * 5], rtol=1e-6)
    frame = np.zeros((8, 8, 3), np.uint8)
    narrow = replace(second, ranges=np.array([[1.0, 2.0]], np.float32))
    with_range, without = (
        draw_heatmap(frame, one) for one in (narrow, replace(second, ranges=None))
    )
    assert not np.array_equal(with_range, without)


def test_scaling_between_values_clips_and_counts_nan_as_cold() -> None:
    cam = np.array([[-1.0, 0.0], [1.5, 9.0]], np.float32)
    np.testing.assert_array_equal(scale_cam(cam, cold_hot=(1.0, 2.0)), [[0, 0], [0.5, 1]])
    np.testing.assert_array_equal(
        scale_cam(cam, relu=True, cold_hot=(-5.0, 3.0)), [[0, 0], [0.5, 1]]
    )
    cam[0, 1] = np.nan
    np.testing.assert_array_equal(scale_cam(cam, cold_hot=(1.0, 2.0)), [[0, 0], [0.5, 1]])
    assert not scale_cam(cam, cold_hot=(2.0, 2.0)).any()
    assert not scale_cam(cam, cold_hot=(math.nan, math.nan)).any()


@given(st.integers(0, 2**32 - 1), st.booleans())
def test_a_maps_own_range_scales_as_no_range(seed: int, relu: bool) -> None:
    cam = np.random.default_rng(seed).normal(size=(3, 4)).astype(np.float32)
    own = scale_cam(cam, relu=relu)
    given_range = scale_cam(cam, relu=relu, cold_hot=(float(cam.min()), float(cam.max())))
    np.testing.assert_allclose(given_range, own, atol=1e-6)


def test_first_frame_comes_through_as_it_is() -> None:
    answer = Steady(smooth_seconds=0.3).update(explained([CAM]), 5.0)
    np.testing.assert_array_equal(answer.cams[0], CAM)
    np.testing.assert_array_equal(answer.ranges, [[0.0, 4.0]])
    assert answer.cams.dtype == np.float32


def test_everything_off_returns_the_very_same_explanation() -> None:
    steady = Steady()
    for seconds in (0.0, 0.1, 0.2):
        given_one = explained([CAM])
        assert steady.update(given_one, seconds) is given_one


def test_same_explanation_drawn_again_counts_once() -> None:
    steady, once = Steady(smooth_seconds=0.3), Steady(smooth_seconds=0.3)
    first, second, third = (explained([CAM * n], pts_seconds=n / 10) for n in range(3))
    for one in (first, first, second, second, second):
        steady.update(one)
    assert steady.update(second) is steady.update(second)
    for one in (first, second):
        once.update(one)
    np.testing.assert_array_equal(steady.update(third).cams, once.update(third).cams)


@pytest.mark.parametrize("smooth_seconds", [0.3, 4.0])
def test_a_gap_starts_anew_and_a_shorter_one_does_not(smooth_seconds: float) -> None:
    gap = max(1.0, smooth_seconds)
    short, long = (Steady(smooth_seconds=smooth_seconds) for _ in range(2))
    for steady in (short, long):
        cam_of(steady, np.zeros((2, 2), np.float32), 0.0)
    assert cam_of(short, CAM, gap - 0.01)[1, 1] < 4.0
    np.testing.assert_array_equal(cam_of(long, CAM, gap + 0.01), CAM)


def test_time_that_stands_still_or_steps_back_a_little_holds_the_map() -> None:
    steady = Steady(smooth_seconds=0.3)
    cam_of(steady, CAM, 10.0)
    np.testing.assert_array_equal(cam_of(steady, 5 * CAM, 10.0), CAM)
    np.testing.assert_array_equal(cam_of(steady, 5 * CAM, 9.9), CAM)
    assert cam_of(steady, 5 * CAM, 9.95)[1, 1] > 4.0
    # A file that begins again.
    np.testing.assert_array_equal(cam_of(steady, 5 * CAM, 0.0), 5 * CAM)


@pytest.mark.parametrize(
    "changes",
    [{"frame_size_hw": (9, 9)}, {"region": Region(0, 0, 4, 8)}],
    ids=["frame size", "region"],
)
def test_another_size_starts_anew(changes: dict[str, object]) -> None:
    steady = Steady(smooth_seconds=0.3)
    cam_of(steady, CAM, 0.0)
    moved = replace(explained([5 * CAM]), **changes)  # type: ignore[arg-type]
    answer = steady.update(moved, 0.03)
    np.testing.assert_array_equal(answer.cams[0], 5 * CAM)
    wide = np.ones((2, 5), np.float32)
    np.testing.assert_array_equal(cam_of(steady, wide, 0.06), wide)


def test_nan_maps_leave_no_trace() -> None:
    steady = Steady(smooth_seconds=0.3)
    nothing = np.full((2, 2), np.nan, np.float32)
    first = steady.update(explained([nothing]), 0.0)
    assert first.ranges is not None
    assert not scale_cam(first.cams[0], cold_hot=tuple(first.ranges[0])).any()
    np.testing.assert_array_equal(cam_of(steady, CAM, 0.1), CAM)
    np.testing.assert_array_equal(cam_of(steady, nothing, 0.2), CAM)
    hole = 2 * CAM
    hole[0, 1], hole[0, 0] = np.inf, -np.inf
    answer = steady.update(explained([hole]), 0.3)
    assert answer.ranges is not None
    assert np.isfinite(answer.cams).all()
    assert np.isfinite(answer.ranges).all()
    assert answer.cams[0, 0, 1] == CAM[0, 1]
    assert CAM[1, 1] < answer.cams[0, 1, 1] < 2 * CAM[1, 1]


def test_every_class_has_its_own_filter_and_a_new_one_starts_from_itself() -> None:
    steady = Steady(smooth_seconds=0.3)
    steady.update(explained([CAM, 10 * CAM], classes=(0, 1)), 0.0)
    # The order changes and class 2 takes the place of class 0.
    answer = steady.update(explained([10 * CAM, 7 * CAM], classes=(1, 2)), 0.1)
    np.testing.assert_allclose(answer.cams, [10 * CAM, 7 * CAM], rtol=1e-6)
    # Class 0 comes back after 0.2 s and remembers, after 1.3 s it would not.
    back = steady.update(explained([np.zeros_like(CAM)], classes=(0,)), 0.2)
    np.testing.assert_allclose(back.cams[0], CAM * math.exp(-0.2 / 0.3), rtol=1e-6)
    for seconds in (0.7, 1.2, 1.5):
        steady.update(explained([CAM], classes=(0,)), seconds)
    late = steady.update(explained([0 * CAM], classes=(1,)), 1.5)
    np.testing.assert_array_equal(late.cams[0], 0 * CAM)


def test_classes_that_vanish_are_forgotten() -> None:
    steady = Steady(smooth_seconds=0.3)
    for number in range(4):
        steady.update(explained([CAM], classes=(number,)), number * 0.6)
    assert {index for index, _ in steady.maps._maps} == {2, 3}


@pytest.mark.parametrize("bad", [-0.1, math.nan, math.inf])
def test_times_are_checked(bad: float) -> None:
    with pytest.raises(ValueError, match="--smooth"):
        LookConfig(smooth=bad)
    with pytest.raises(ValueError, match="--hold"):
        LookConfig(hold=bad)


# The hold.

VALUES = np.arange(12, dtype=np.float32).reshape(3, 2, 2)
CLASS_WEIGHT = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)


def named(best: int, **changes: object) -> Explanation:
    """An explanation with the best class's map alone and with features."""
    features = Features(VALUES, CLASS_WEIGHT)
    made = explained([features.cam(best)], classes=(best,), features=features)
    return replace(made, **changes)  # type: ignore[arg-type]


def shown(steady: Steady, best: int, seconds: float) -> int:
    return steady.update(named(best), seconds).targets[0].index


def test_hold_delays_a_change_by_exactly_its_time() -> None:
    steady = Steady(hold_seconds=0.5)
    got = [shown(steady, 0 if tick < 10 else 1, tick / 30) for tick in range(40)]
    # Class 1 is the best from 10/30 s on, and is shown from 25/30 s on.
    assert got == [0] * 25 + [1] * 15


def test_hold_is_interrupted_by_the_shown_class_and_by_a_third_one() -> None:
    steady = Steady(hold_seconds=0.5)
    bests = [0, 1, 1, 1, 1, 0, 1, 1, 1, 1, 2, 1, 1, 1, 1, 1, 1]
    got = [shown(steady, best, tick / 10) for tick, best in enumerate(bests)]
    assert got == [0] * 16 + [1]


def test_hold_gives_the_held_classes_map_and_the_frames_own_predictions() -> None:
    steady = Steady(hold_seconds=0.5)
    steady.update(named(3), 0.0)
    given_one = named(1)
    answer = steady.update(given_one, 0.1)
    np.testing.assert_allclose(
        answer.cams[0], np.einsum("k,khw->hw", CLASS_WEIGHT[3], VALUES), rtol=1e-5
    )
    assert answer.targets[0].label == "d"
    exponents = np.exp(given_one.logits)
    assert answer.targets[0].probability == pytest.approx(exponents[3] / exponents.sum())
    assert answer.predictions == given_one.predictions
    assert answer.predictions[0].index == 1
    assert answer.logits is given_one.logits


def test_hold_keeps_the_number_of_maps_and_puts_the_held_class_first() -> None:
    features = Features(VALUES, CLASS_WEIGHT)

    def three(*classes: int) -> Explanation:
        return explained([features.cam(i) for i in classes], classes=classes, features=features)

    steady = Steady(hold_seconds=0.5)
    steady.update(three(0, 1, 2), 0.0)
    for number, (classes, expected) in enumerate(
        [((1, 0, 2), [0, 1, 2]), ((1, 2, 3), [0, 1, 2]), ((0, 3, 1), [0, 3, 1])]
    ):
        answer = steady.update(three(*classes), 0.1 * (number + 1))
        assert [target.index for target in answer.targets] == expected
        for target, cam in zip(answer.targets, answer.cams, strict=True):
            np.testing.assert_array_equal(cam, features.cam(target.index))


def test_locked_target_is_not_held() -> None:
    steady = Steady(hold_seconds=0.5)
    assert shown(steady, 0, 0.0) == 0
    locked = named(2, n_locked=1)
    assert steady.update(locked, 0.1) is locked
    # Unlocked, the best class is shown at once: nothing was shown that could be held.
    assert shown(steady, 1, 0.2) == 1


def test_hold_begins_anew_after_a_gap() -> None:
    steady = Steady(hold_seconds=0.5)
    assert shown(steady, 0, 0.0) == 0
    assert shown(steady, 1, 0.9) == 0
    assert shown(steady, 2, 2.0) == 2


def test_hold_without_features_says_what_to_do() -> None:
    steady = Steady(hold_seconds=0.5)
    with pytest.raises(ValueError, match="keep_features=True"):
        steady.update(explained([CAM]), 0.0)


def test_hold_and_smoothing_together_filter_the_held_classes_map() -> None:
    steady, only_smooth = (
        Steady(smooth_seconds=0.3, hold_seconds=0.5),
        Steady(smooth_seconds=0.3),
    )
    other = Features(2 * VALUES, CLASS_WEIGHT)
    steady.update(named(0), 0.0)
    held = steady.update(explained([other.cam(1)], classes=(1,), features=other), 0.1)
    only_smooth.update(named(0), 0.0)
    expected = only_smooth.update(explained([other.cam(0)]), 0.1)
    np.testing.assert_array_equal(held.cams, expected.cams)
    np.testing.assert_array_equal(held.ranges, expected.ranges)


# With a real explainer.


def tiny_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 4),
    ).eval()


def tiny_explainer(parallel: int = 1) -> Explainer:
    return Explainer.from_module(
        tiny_network(), labels=LABELS, engine="eager", input_size=32, parallel=parallel
    )


def noise(number: int) -> BgrImage:
    return np.random.default_rng(number).integers(0, 256, (48, 64, 3), np.uint8)


def test_features_give_every_classes_map_and_are_a_copy() -> None:
    explainer = tiny_explainer()
    every = explainer.explain(noise(0), LABELS, keep_features=True)
    explainer.explain(noise(1))
    assert every.features is not None
    for index in range(4):
        np.testing.assert_allclose(every.features.cam(index), every.cams[index], atol=1e-6)
    assert explainer.explain(noise(0)).features is None


def test_locked_targets_are_counted_by_the_explainer() -> None:
    explainer = tiny_explainer()
    assert explainer.explain(noise(0), n_maps=3).n_locked == 0
    assert explainer.explain(noise(0), "b", n_maps=3).n_locked == 1
    assert explainer.explain(noise(0), ["b", 2]).n_locked == 2


@pytest.fixture
def flicker(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The benchmark script, so that the tests check its figures."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import bench_flicker

    return bench_flicker


@pytest.fixture(scope="module")
def demo_explainer() -> Explainer:
    return Explainer.load("resnet18", weights="demo", engine="eager", device="cpu")


@pytest.fixture(scope="module")
def still_explanations(demo_explainer: Explainer) -> list[Explanation]:
    """A still scene with noise, which depends on the frame's number alone."""
    uri = "demo://shapes?size=320x180&fps=30&seconds=2.8&seed=1&still=1"
    with open_source(uri, CaptureConfig()) as source:
        return [demo_explainer.explain(frame) for frame in source]


@pytest.mark.parametrize("fps", [10, 30, 60])
def test_a_still_scene_flickers_four_times_less(
    flicker: ModuleType, still_explanations: list[Explanation], fps: int
) -> None:
    seen = [
        flicker.Seen(number / fps, None, replace(one, pts_seconds=number / fps))
        for number, one in enumerate(still_explanations)
    ]
    before = flicker.flicker(seen)
    after = flicker.flicker(flicker.steadied(seen, 0.3))
    assert before > 1e-4
    assert before >= 4 * after


def test_the_map_follows_a_shape_that_moves_within_the_time_constant(
    flicker: ModuleType, demo_explainer: Explainer
) -> None:
    moving = flicker.moving(demo_explainer, "320x180", 0.3, n_shapes=2)
    assert 0.0 < moving["smooth_delay_seconds"] <= 0.3
    assert moving["smooth_on_shape"] >= 0.85


def test_the_peak_is_on_a_shape_within_the_time_constant_of_its_jump(
    flicker: ModuleType, demo_explainer: Explainer
) -> None:
    scene = flicker.Scene(320, 180, 0)
    turns = [turn for turn in range(4) if flicker.is_clear(scene, turn)]
    assert len(turns) >= 3
    for turn in turns[:3]:
        seen = flicker.explained(demo_explainer, flicker.jump_frames(scene, turn))
        assert flicker.caught_seconds(seen) <= 0.1
        assert flicker.caught_seconds(flicker.steadied(seen, 0.3)) <= 0.3 + 1e-9


# In the pipeline.


class Noise(Source):
    """A source of different pictures, 20 a second; live, it waits for `ready` before each."""

    def __init__(
        self,
        count: int,
        live: bool,
        ready: threading.Semaphore | None = None,
        at_end: threading.Semaphore | None = None,
    ) -> None:
        self._count, self._ready, self._at_end = count, ready, at_end
        self._info = SourceInfo("noise", (48, 64), Fraction(20), count, live)

    def __iter__(self) -> Iterator[Frame]:
        for index in range(self._count):
            if self._ready is not None:
                assert self._ready.acquire(timeout=DEADLINE_SECONDS)
            # A hundred frames a second by the clock that decides when a frame is too old.
            yield Frame(noise(index), index, index, Fraction(1, 20), 1 + index * 10_000_000)
        if self._at_end is not None:
            self._at_end.release(2)


class Keeper(Sink):
    """A sink that keeps its pictures."""

    name = "keeper"

    def __init__(self) -> None:
        self.pictures: list[Picture] = []

    def write(self, picture: Picture) -> bool:
        self.pictures.append(picture)
        return True


def expected_pictures(
    explainer: Explainer, count: int, look: LookConfig, targets: tuple[int, ...] = ()
) -> list[BgrImage]:
    """The loop that somebody would write by hand."""
    steady, renderer = SteadyMaps(), Renderer(len(LABELS))
    settings, pictures = SettingsSnapshot(look, targets), []
    n_maps = count_maps(settings, len(LABELS))
    for frame in Noise(count, live=False):
        explanation = explainer.explain(
            frame, targets or None, n_maps=n_maps, keep_features=look.hold > 0
        )
        pictures.append(renderer.render(frame, steady.update(explanation, look), settings))
    return pictures


@pytest.mark.parametrize("layout", ["overlay", "top5"])
def test_a_pipeline_filters_by_its_settings_in_the_frames_order(layout: LayoutName) -> None:
    explainer, keeper = tiny_explainer(parallel=3), Keeper()
    look = LookConfig(layout, smooth=0.3, hold=0.2, hud=False)
    pipeline = Pipeline(Noise(30, live=False), [keeper], explainer, settings=Settings(look, LABELS))
    pipeline.run()
    expected = expected_pictures(explainer, 30, look)
    raw = expected_pictures(explainer, 30, LookConfig(layout, hud=False))
    assert len(keeper.pictures) == 30
    for got, wanted in zip(keeper.pictures, expected, strict=True):
        np.testing.assert_array_equal(got.image_bgr, wanted)
    assert any(not np.array_equal(a, b) for a, b in zip(expected, raw, strict=True))


def test_pictures_have_nothing_to_do_with_each_other() -> None:
    explainer, keeper = tiny_explainer(), Keeper()
    source = Noise(10, live=False)
    source._info = replace(source.info, still=True)
    settings = Settings(LookConfig(smooth=1.0, hold=1.0))
    Pipeline(source, [keeper], explainer, settings=settings).run()
    assert len(keeper.pictures) == 10
    for picture in keeper.pictures:
        assert picture.explanation is not None
        alone = explainer.explain(picture.frame)
        assert picture.explanation.targets == alone.targets
        np.testing.assert_array_equal(picture.explanation.cams, alone.cams)


def test_pipeline_without_steady_draws_as_before() -> None:
    explainer, keeper = tiny_explainer(), Keeper()
    settings = Settings(LookConfig(hud=False))
    Pipeline(Noise(10, live=False), [keeper], explainer, settings=settings).run()
    for picture in keeper.pictures:
        assert picture.explanation is not None
        assert picture.explanation.ranges is None
        assert picture.explanation.features is None
        alone = explainer.explain(picture.frame)
        np.testing.assert_array_equal(picture.explanation.cams, alone.cams)
        np.testing.assert_array_equal(picture.image_bgr, draw_overlay(picture.frame, alone))


class Gated(Explainer):
    """Explains one frame each time that it is let."""

    let: threading.Semaphore
    explained: threading.Semaphore

    def explain(
        self,
        frame: BgrImage | Frame,
        target: Target | Sequence[Target] | None = None,
        *,
        n_maps: int | None = None,
        keep_features: bool = False,
        against: Target | Sequence[Target] | None = None,
        against_weight: float = 1.0,
    ) -> Explanation:
        assert self.let.acquire(timeout=DEADLINE_SECONDS)
        try:
            return super().explain(
                frame,
                target,
                n_maps=n_maps,
                keep_features=keep_features,
                against=against,
                against_weight=against_weight,
            )
        finally:
            self.explained.release()


class Counting(SteadyMaps):
    """Keeps its pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.given: list[Explanation] = []

    def update(
        self, explanation: Explanation, look: LookConfig, seconds: float | None = None
    ) -> Explanation:
        self.given.append(explanation)
        return super().update(explanation, look, seconds)


class Pacing(Keeper):
    """Asks for the next frame when it has one, and at every tenth for the next explanation."""

    def __init__(self, explainer: Gated) -> None:
        super().__init__()
        self.ready = threading.Semaphore(1)
        self._explainer = explainer

    def write(self, picture: Picture) -> bool:
        super().write(picture)
        if len(self.pictures) % 10 == 0:
            self._explainer.let.release()
            assert self._explainer.explained.acquire(timeout=DEADLINE_SECONDS)
        self.ready.release()
        return True


def test_live_pipeline_filters_each_explanation_once() -> None:
    """Each of a few explanations is drawn on about ten frames, and filtered once."""
    explainer = Gated.from_module(tiny_network(), labels=LABELS, engine="eager", input_size=32)
    assert isinstance(explainer, Gated)
    explainer.let, explainer.explained = threading.Semaphore(0), threading.Semaphore(0)
    keeper, steady = Pacing(explainer), Counting()
    source = Noise(40, live=True, ready=keeper.ready, at_end=explainer.let)
    settings = Settings(LookConfig(hud=False, smooth=0.3, sync="newest"))
    pipeline = Pipeline(source, [keeper], explainer, settings=settings)
    pipeline._steady = steady
    pipeline.run()
    unique = steady.given
    assert 3 <= len(unique) <= 5
    assert all(one is not before for before, one in pairwise(unique))
    by_hand = Steady(smooth_seconds=0.3)
    answers = {one.frame_index: by_hand.update(one) for one in unique}
    drawn = [picture for picture in keeper.pictures if picture.explanation is not None]
    assert len(drawn) >= 25
    for picture in drawn:
        assert picture.explanation is not None
        answer = answers[picture.explanation.frame_index]
        np.testing.assert_array_equal(picture.explanation.cams, answer.cams)
        np.testing.assert_array_equal(picture.image_bgr, draw_overlay(picture.frame, answer))
    assert not np.array_equal(answers[unique[1].frame_index].cams, unique[1].cams)


def test_smooth_and_hold_reach_a_run_from_its_options(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(look: LookConfig, target: tuple[str, ...] = ()) -> list[Explanation]:
        keeper = Keeper()
        config = PipelineConfig(
            ModelConfig(weights="demo", engine="eager", target=target), look, RunConfig(quiet=True)
        )
        uri = "demo://shapes?size=128x72&fps=10&seconds=2.5"
        run_session(uri, ["null"], config, extra_sinks=[keeper])
        return [p.explanation for p in keeper.pictures if p.explanation is not None]

    raw = run(LookConfig(hud=False))
    smooth = run(LookConfig(hud=False, smooth=0.3))
    held = run(LookConfig(hud=False, hold=0.5))
    locked = run(LookConfig(hud=False, hold=0.5), ("star",))
    by_hand = Steady(smooth_seconds=0.3)
    for one, other in zip(raw, smooth, strict=True):
        np.testing.assert_allclose(other.cams, by_hand.update(one).cams, atol=1e-4)
        assert one.ranges is None
    raw_shown = [one.targets[0].index for one in raw]
    held_shown = [one.targets[0].index for one in held]
    assert [one.predictions[0].index for one in held] == raw_shown
    assert _changes(held_shown) < _changes(raw_shown)
    assert {one.targets[0].label for one in locked} == {"star"}


def _changes(shown_classes: Sequence[int]) -> int:
    return sum(a != b for a, b in pairwise(shown_classes))
