"""Layouts and the HUD, on pictures from tiny to large."""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path
from typing import Any, get_args

import cv2
import numpy as np
import pytest
import torch
from torch import nn

import stream_cam
from stream_cam.config import LayoutName, LookConfig
from stream_cam.draw.hud import HudStatus, away_picture, draw_caption, draw_hud, with_note
from stream_cam.draw.layout import Layout, Scene
from stream_cam.draw.layouts import LAYOUTS, MapStyle, count_maps
from stream_cam.draw.overlay import draw_heatmap, draw_overlay
from stream_cam.draw.renderer import Renderer
from stream_cam.explain.explainer import Explainer
from stream_cam.frame import BgrImage, Explanation, Frame, Prediction, Region
from stream_cam.settings import CHOICES, SettingsSnapshot
from stream_cam.sinks.keys import HELP

STATUS = HudStatus(engine="openvino fp32", fps=29.7, age_seconds=0.0312)


@pytest.fixture(scope="module")
def explainer() -> Explainer:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 9, stride=8, padding=4),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 12),
    )
    labels = [f"class number {number}" for number in range(12)]
    return Explainer.from_module(
        network, labels=labels, input_size=64, engine="eager", device="cpu"
    )


def frame_of(size_hw: tuple[int, int], level: int | None = None) -> Frame:
    rng = np.random.default_rng(0)
    image = (
        rng.integers(0, 256, (*size_hw, 3), dtype=np.uint8)
        if level is None
        else np.full((*size_hw, 3), level, np.uint8)
    )
    return Frame(image, 0, 0, Fraction(1, 30), 0)


def explanation_of(label: str = "American Staffordshire terrier") -> Explanation:
    best = tuple(Prediction(f"{label} {i}", i, 0.9 / (i + 1)) for i in range(5))
    return Explanation(
        logits=np.zeros(5, np.float32),
        predictions=best,
        targets=best[:1],
        cams=np.zeros((1, 7, 7), np.float32),
        region=Region(0, 0, 1, 1),
        frame_size_hw=(1, 1),
    )


def plain(layout: LayoutName) -> SettingsSnapshot:
    """A layout without the HUD."""
    return SettingsSnapshot(LookConfig(layout, hud=False))


SHAPES: dict[LayoutName, tuple[float, float]] = {
    "overlay": (1, 1),
    "side": (1, 2),
    "heatmap": (1, 1),
    "top5": (1, 1.5),
}


@pytest.mark.parametrize("hud", [True, False])
@pytest.mark.parametrize("size_hw", [(720, 1280), (241, 333), (1080, 608), (37, 61), (1, 1)])
@pytest.mark.parametrize("layout", SHAPES)
def test_layouts_have_their_shape_and_leave_the_frame_alone(
    explainer: Explainer, layout: LayoutName, size_hw: tuple[int, int], hud: bool
) -> None:
    frame = frame_of(size_hw)
    before = frame.image_bgr.copy()
    settings = SettingsSnapshot(LookConfig(layout, hud=hud))
    explanation = explainer.explain(frame, n_maps=LAYOUTS[layout].n_maps)
    picture = Renderer().render(frame, explanation, settings, STATUS)
    # Without an explanation the picture keeps its size, so that a video's does not change.
    assert Renderer().render(frame, None, settings).shape == picture.shape
    assert picture.dtype == np.uint8
    assert picture.flags.c_contiguous
    assert np.array_equal(frame.image_bgr, before)
    if layout != "top5" or min(size_hw) >= 320:
        down, across = SHAPES[layout]
        assert picture.shape[0] == pytest.approx(size_hw[0] * down, abs=2)
        assert picture.shape[1] == pytest.approx(size_hw[1] * across, abs=3)


def test_side_is_the_frame_beside_the_overlay(explainer: Explainer) -> None:
    frame = frame_of((120, 200))
    explanation = explainer.explain(frame)
    picture = Renderer().render(frame, explanation, plain("side"))
    assert np.array_equal(picture[:, :200], frame.image_bgr)
    assert np.array_equal(picture[:, 200:], draw_overlay(frame, explanation))


def test_heatmap_alone_does_not_depend_on_the_frame(explainer: Explainer) -> None:
    explanation = explainer.explain(frame_of((120, 200)))
    dark = Renderer().render(frame_of((120, 200), 0), explanation, plain("heatmap"))
    light = Renderer().render(frame_of((120, 200), 255), explanation, plain("heatmap"))
    assert np.array_equal(dark, light)


def test_top5_shows_each_of_the_five_best_classes_own_map(explainer: Explainer) -> None:
    frame = frame_of((360, 640))
    explanation = explainer.explain(frame, n_maps=5)
    assert len({target.index for target in explanation.targets}) == 5
    picture = Renderer().render(frame, explanation, plain("top5"))
    assert picture.shape == (360, 960, 3)
    small = np.asarray(
        cv2.resize(frame.image_bgr, (320, 180), interpolation=cv2.INTER_AREA), np.uint8
    )
    assert np.array_equal(picture[:180, :320], small)
    for number in range(5):
        row, column = divmod(number + 1, 3)
        panel = picture[row * 180 :, column * 320 :][:180, :320]
        assert np.array_equal(panel, draw_overlay(small, explanation, target=number))


def test_several_targets_are_shown_side_by_side(explainer: Explainer) -> None:
    frame = frame_of((360, 640))
    explanation = explainer.explain(frame, [3, 4])
    settings = SettingsSnapshot(targets=(3, 4))
    assert count_maps(settings, len(explainer.labels)) == 2
    assert Renderer().render(frame, explanation, settings).shape == (180, 960, 3)
    assert Renderer().render(frame, None, settings).shape == (180, 960, 3)


@pytest.mark.parametrize("size_hw", [(240, 320), (720, 1280), (2160, 3840), (1280, 720)])
@pytest.mark.parametrize("level", [0, 128, 255])
def test_hud_text_stands_out_on_any_background(size_hw: tuple[int, int], level: int) -> None:
    picture = frame_of(size_hw, level).image_bgr
    draw_hud(picture, explanation_of("cat"), STATUS)
    changed = np.argwhere((picture != level).any(axis=-1))
    if level == 0:  # the shade of black is black: only text and bars differ
        assert len(changed)
    top, left = changed.min(axis=0)
    panel = picture[top:, left : changed[:, 1].max() + 1].astype(np.float64)
    luminance = panel @ np.array([0.0722, 0.7152, 0.2126])
    text, ground = np.percentile(luminance, 99.5), np.percentile(luminance, 30)
    # WCAG's contrast of (text + 5 %) : (ground + 5 %), gamma of 2.2; 4.5 is its AA.
    contrast = ((text / 255) ** 2.2 + 0.05) / ((ground / 255) ** 2.2 + 0.05)
    assert contrast >= 4.5
    rows = np.flatnonzero((luminance > 200).any(axis=1))
    assert rows.size >= 9  # letters at least nine pixels high


@pytest.mark.parametrize("size_hw", [(1, 1), (8, 8), (20, 600), (600, 20), (47, 47), (60, 100)])
def test_hud_and_caption_fit_or_stay_away_on_tiny_pictures(size_hw: tuple[int, int]) -> None:
    picture = frame_of(size_hw).image_bgr
    draw_hud(picture, explanation_of(), STATUS)
    draw_caption(picture, Prediction("a very long name of a class " * 4, 0, 0.5), STATUS)
    assert picture.shape == (*size_hw, 3)


def test_long_labels_do_not_run_into_the_figures() -> None:
    short = frame_of((720, 1280), 100).image_bgr
    long = short.copy()
    draw_hud(short, explanation_of("x"), STATUS)
    draw_hud(long, explanation_of("a very long name of a class " * 5), STATUS)

    def extent(picture: BgrImage) -> tuple[int, ...]:
        changed = np.argwhere((picture != 100).any(axis=-1))
        return (*changed.min(axis=0), *changed.max(axis=0))

    assert extent(short) == extent(long)


def test_hud_shows_what_it_is_told() -> None:
    plain = frame_of((720, 1280), 60).image_bgr
    certain, doubtful, other = plain.copy(), plain.copy(), plain.copy()
    draw_hud(certain, explanation_of("cat"), STATUS)
    draw_hud(doubtful, explanation_of("dog"), STATUS)
    draw_hud(other, explanation_of("cat"), HudStatus(engine="eager fp32", fps=3.0))
    assert not np.array_equal(certain, doubtful)
    assert not np.array_equal(certain, other)


@pytest.mark.parametrize("size_hw", [(720, 1280), (48, 64), (8, 8)])
def test_away_picture_is_the_last_one_dimmed_with_words(size_hw: tuple[int, int]) -> None:
    last = np.full((*size_hw, 3), 200, np.uint8)
    kept = last.copy()
    picture = away_picture(last, "RECONNECTING, last frame 3.2 s ago")
    assert np.array_equal(last, kept)
    assert picture.shape == last.shape
    assert picture[0, 0].max() < 100
    if size_hw[0] > 100:
        middle = picture[size_hw[0] // 2 - 20 : size_hw[0] // 2 + 20]
        assert middle.max() > 240


@pytest.mark.parametrize("layout", SHAPES)
def test_map_fades_into_the_frame(explainer: Explainer, layout: LayoutName) -> None:
    frame = frame_of((480, 640))
    renderer = Renderer()
    explanation = explainer.explain(frame, n_maps=LAYOUTS[layout].n_maps)

    def shown(opacity: float) -> BgrImage:
        status = HudStatus(map_opacity=opacity)
        return renderer.render(frame, explanation, plain(layout), status)

    full, half, gone = shown(1.0).astype(int), shown(0.5).astype(int), shown(0.0).astype(int)
    assert np.array_equal(full, renderer.render(frame, explanation, plain(layout)))
    assert np.abs(full - gone).mean() > 5.0
    assert np.abs(2 * half - full - gone).max() <= 3  # each of the three is rounded
    if layout != "top5":
        assert np.array_equal(gone, renderer.render(frame, None, plain(layout)))


@pytest.mark.parametrize("size_hw", [(720, 1280), (90, 160)])
def test_label_of_an_old_explanation_does_not_look_new(size_hw: tuple[int, int]) -> None:
    def hud(age_seconds: float, opacity: float) -> BgrImage:
        picture = frame_of(size_hw, 0).image_bgr
        draw_hud(picture, explanation_of("cat"), HudStatus("eager", 30.0, age_seconds, opacity))
        return picture

    fresh, stale, older = hud(0.1, 1.0), hud(0.8, 0.4), hud(7.3, 0.0)
    assert fresh.max() == 255
    assert 150 < stale.max() <= 190
    assert not np.array_equal(stale, older)


def test_age_is_on_the_hud_in_steps_that_can_be_read() -> None:
    def hud(age_seconds: float | None) -> BgrImage:
        picture = frame_of((720, 1280), 60).image_bgr
        draw_hud(picture, explanation_of("cat"), HudStatus("eager", 30.0, age_seconds))
        return picture

    assert not np.array_equal(hud(None), hud(0.08))
    assert not np.array_equal(hud(0.08), hud(0.12))
    assert np.array_equal(hud(0.081), hud(0.079))


# The table.

PAGE = Path(stream_cam.__file__).parent / "assets/page"


def test_every_layout_name_is_in_the_table_and_on_the_page() -> None:
    names = list(get_args(LayoutName))
    assert [layout.name for layout in LAYOUTS.values()] == list(LAYOUTS) == names
    assert CHOICES["layout"] == tuple(names)
    found = re.search(r"LAYOUT_NAMES = \{(.*?)\}", (PAGE / "controls.js").read_text("utf-8"))
    assert found is not None
    assert re.findall(r"(\w+):", found[1]) == names


def test_the_page_has_a_divider_for_the_layouts_that_have_one() -> None:
    (line,) = re.findall(r"stage\.divide\(.*", (PAGE / "main.js").read_text("utf-8"))
    names = set(re.findall(r'now\.layout === "(\w+)"', line))
    assert names == {name for name, layout in LAYOUTS.items() if layout.has_divider}


def test_a_layout_is_added_by_its_line_in_the_table(
    explainer: Explainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def draw(scene: Scene) -> BgrImage:
        return np.vstack([scene.image_bgr, scene.draw_map(0, scene.image_bgr)])

    name: Any = "stacked"
    monkeypatch.setitem(LAYOUTS, name, Layout(name, draw, map_only=True))
    frame = frame_of((60, 80))
    explanation = explainer.explain(frame)
    picture = Renderer().render(frame, explanation, plain(name))
    assert np.array_equal(picture[:60], frame.image_bgr)
    assert np.array_equal(picture[60:], draw_heatmap(frame, explanation))
    assert Renderer().render(frame, None, plain(name)).shape == picture.shape
    assert MapStyle.of(LookConfig(name), n_maps=1).map_only


def test_keys_of_window_and_page_are_told_in_the_same_words() -> None:
    html = (PAGE / "index.html").read_text("utf-8")
    page = re.findall(r"<dt>(<kbd>.*?)</dt><dd>(.*?)</dd>", html)
    told = {re.sub("<.*?>", "", keys): effect for keys, effect in page}
    window = dict(line.split("\t") for line in HELP)
    window.pop("q Esc")  # a page has no end of its own
    told.pop("/")  # a window has no field to type in
    told["0"] = told.pop("0 Esc")
    assert told == window


def test_columns_of_a_note_stand_below_each_other() -> None:
    picture = frame_of((720, 1280), 0).image_bgr
    noted = with_note(picture, ["space\tI", "s\tI", "a long line without columns"])
    unit = 26
    rows = [noted[8 + n * (unit + 8) :][: unit + 8].max(axis=(0, 2)) for n in range(2)]
    ends = [int(np.flatnonzero(row > 128).max()) for row in rows]
    assert ends[0] == ends[1]
