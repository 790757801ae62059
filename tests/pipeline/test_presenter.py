from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from support.pipeline_parts import TinyExplainer, Watched, make_explainer, tiny_network

from stream_cam.draw.renderer import Renderer
from stream_cam.frame import BgrImage, Frame
from stream_cam.pipeline.presenter import Presenter, map_opacity
from stream_cam.settings import SettingsSnapshot
from stream_cam.sources.base import Outage

SETTINGS = SettingsSnapshot()
AWAY = Outage(True, 3.2, 1, 0.5, "lost", "the connection was cut")


@pytest.fixture(scope="module")
def explainer() -> TinyExplainer:
    return make_explainer(tiny_network())


def frame_at(seconds: float) -> Frame:
    image = np.full((48, 64, 3), 128, np.uint8)
    return Frame(image, 0, 0, Fraction(1), round((100 + seconds) * 1e9))


@pytest.mark.parametrize(
    ("age", "max_age", "opacity"),
    [
        *((0.0, 0.5, 1.0), (0.5, 0.5, 1.0), (0.75, 0.5, 0.5), (1.0, 0.5, 0.0), (99.0, 0.5, 0.0)),
        *((2.5, 2.0, 0.75), (1e9, float("inf"), 1.0)),
    ],
)
def test_map_fades_between_the_greatest_age_and_twice_that(
    age: float, max_age: float, opacity: float
) -> None:
    assert map_opacity(age, max_age) == pytest.approx(opacity)


def test_map_never_jumps() -> None:
    opacities = [map_opacity(ms / 1000, 0.5) for ms in range(1500)]
    steps = -np.diff(opacities)
    assert steps.min() >= 0.0
    assert steps.max() < 0.01


def test_presenter_keeps_count_of_ages_in_live_runs_only(explainer: TinyExplainer) -> None:
    explanation = explainer.explain(frame_at(0.0))
    presenter = Presenter(explainer, Watched(), live=True)
    assert presenter.present(frame_at(0.0), None, SETTINGS).explanation is None
    assert presenter.age_seconds is None
    seconds = (-0.1, 0.2, 0.6, 5.0)
    pictures = [presenter.present(frame_at(after), explanation, SETTINGS) for after in seconds]
    assert [picture.explanation is None for picture in pictures] == [False, False, False, True]
    assert presenter.age_seconds == 5.0
    assert presenter.stale == 2
    found = presenter.ages.percentiles()
    assert found is not None
    assert found.count == 4
    assert found.mean_ms == pytest.approx((0 + 200 + 600 + 5000) / 4)

    lossless = Presenter(explainer, Watched(), live=False)
    assert lossless.present(frame_at(5.0), explanation, SETTINGS).explanation is explanation
    assert (lossless.stale, lossless.age_seconds) == (0, None)


def test_away_picture_repeats_the_last_one(explainer: TinyExplainer) -> None:
    presenter = Presenter(explainer, Watched(), live=True)
    assert presenter.present_outage(AWAY) is None
    last = presenter.present(frame_at(0.0), None, SETTINGS)
    away = presenter.present_outage(AWAY)
    silent = presenter.present_outage(replace(AWAY, reconnecting=False))
    assert away is not None
    assert silent is not None
    assert away.repeated
    assert away.frame.index == last.frame.index
    assert away.frame.pts_seconds == pytest.approx(last.frame.pts_seconds + 3)  # ticks of 1 s
    assert not np.array_equal(away.image_bgr, last.image_bgr)
    assert not np.array_equal(away.image_bgr, silent.image_bgr)


@pytest.mark.parametrize("live", [False, True])
def test_pictures_of_files_do_not_depend_on_the_speed_of_the_machine(
    explainer: TinyExplainer, live: bool
) -> None:
    frame = replace(frame_at(0.0), image_bgr=np.full((480, 640, 3), 128, np.uint8))
    explanation = explainer.explain(frame)

    def pictures(fps: float) -> list[BgrImage]:
        presenter = Presenter(explainer, Renderer(), live=live)
        presenter.fps = fps
        drawn = presenter.present(frame, explanation, SETTINGS)
        presenter.fps = fps
        paused = presenter.present_paused(SETTINGS, explanation)
        assert paused is not None
        return [drawn.image_bgr, paused.image_bgr]

    slow, fast = pictures(3.0), pictures(120.0)
    # The sign of a pause tells no rate at all.
    same = [np.array_equal(*pair) for pair in zip(slow, fast, strict=True)]
    assert same == [not live, True]
