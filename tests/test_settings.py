"""Settings that change while a run goes on: checked as a whole, seen by the next frame, by all."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.pipeline_parts import (
    STREAM,
    WITHOUT_END,
    Frames,
    Kept,
    TinyExplainer,
    assert_adds_up,
    boom,
    make_explainer,
    make_pipeline,
    run,
    tiny_network,
    wait,
)
from support.videos import numbered_picture, picture_at, write_video

from stream_cam.cam.steady import SteadyMaps
from stream_cam.config import LookConfig, RecordConfig
from stream_cam.draw.overlay import draw_overlay
from stream_cam.draw.renderer import Renderer
from stream_cam.errors import SinkError, UsageError
from stream_cam.frame import BgrImage
from stream_cam.pipeline.pipeline import Pipeline
from stream_cam.settings import NAMES, Settings, SettingsSnapshot
from stream_cam.sinks.base import Picture
from stream_cam.sinks.keys import HELP, Keys
from stream_cam.sinks.recorder import RecorderSink
from stream_cam.sources.video import VideoSource

LABELS = ("cat", "dog", "bird", "dog")


@pytest.fixture
def explainer() -> TinyExplainer:
    return make_explainer(tiny_network())


def test_settings_are_attributes_of_one_value() -> None:
    settings = Settings(LookConfig(alpha=0.3), LABELS, ["cat"])
    assert (settings.alpha, settings.target, settings.cam) == (0.3, ("cat",), True)
    before = settings.now
    settings.alpha = 1
    settings.target = [2, "CAT"]
    assert (settings.alpha, settings.target) == (1.0, ("bird", "cat"))
    assert (before.look.alpha, before.targets) == (0.3, (0,)), "what was read does not change"
    settings.target = None
    assert settings.now == SettingsSnapshot(LookConfig(alpha=1.0))
    readable = {name: getattr(settings, name) for name in NAMES}
    assert readable["colormap"] == "inferno"
    assert readable["paused"] is False


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("colour", "unknown setting 'colour'; did you mean colormap"),
        ("alfa", "unknown setting 'alfa'; did you mean alpha"),
        ("targets", "unknown setting 'targets'; did you mean target"),
        ("look", "unknown setting 'look'"),
        ("now", "unknown setting 'now'"),
    ],
)
def test_a_setting_that_does_not_exist_cannot_be_set(name: str, said: str) -> None:
    settings = Settings(LookConfig(), LABELS)
    before = settings.now
    with pytest.raises(UsageError, match=said):
        setattr(settings, name, "x")
    assert settings.now is before


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"alpha": 1.5}, "alpha is a weight from 0 to 1, got 1.5"),
        ({"alpha": "much"}, "alpha is a number, got 'much'"),
        ({"alpha": True}, "alpha is a number, got True"),
        ({"smooth": float("nan")}, "smooth is a number"),
        ({"smooth": float("inf")}, "smooth is a number below 1e.09, got inf"),
        ({"max_age": 0}, "max_age|max-age"),
        ({"layout": "sides"}, "unknown layout 'sides'; did you mean side"),
        ({"colormap": 3}, "unknown colormap '3'"),
        ({"hud": 1}, "hud is true or false, got 1"),
        ({"target": "cow"}, "unknown class 'cow'"),
        ({"target": "dog"}, r"class 'dog' is several \(1, 3\)"),
        ({"target": 4}, "class 4 does not exist"),
        ({"target": 1.0}, "target is a label or a class index, got 1.0"),
        ({"target": True}, "target is a label or a class index, got True"),
        ({"alphas": 1}, "unknown setting 'alphas'; did you mean alpha"),
        ({"look": None}, "unknown setting 'look'"),
    ],
)
def test_a_wrong_change_changes_nothing_of_what_came_with_it(
    change: dict[str, Any], said: str
) -> None:
    settings = Settings(LookConfig(), LABELS)
    before = settings.now
    with pytest.raises(UsageError, match=said):
        settings.change(**{"hud": False, "layout": "side", **change})
    assert settings.now is before


def test_listeners_hear_of_each_change_and_of_nothing_else() -> None:
    settings, heard = Settings(LookConfig(), LABELS), list[SettingsSnapshot]()
    leave = settings.subscribe(heard.append)
    settings.change(alpha=0.9, layout="side")
    settings.alpha = 0.9
    assert [shown.look.alpha for shown in heard] == [0.9]
    leave()
    settings.alpha = 0.1
    assert len(heard) == 1


def test_changes_from_many_threads_are_all_there() -> None:
    settings = Settings(LookConfig(), LABELS)
    fields: list[dict[str, Any]] = [
        {"alpha": 0.9},
        {"layout": "side"},
        {"hold": 2.0},
        {"hud": False},
    ]
    threads = [
        threading.Thread(target=lambda change=change: settings.change(**change))
        for change in fields
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    look = settings.now.look
    assert (look.alpha, look.layout, look.hold, look.hud) == (0.9, "side", 2.0, False)


def changed_at(at: int, change: Callable[[], object]) -> Callable[[Picture], None]:
    def on_write(picture: Picture) -> None:
        if picture.frame.index == at:
            change()

    return on_write


def drawn(explainer: TinyExplainer, picture: Picture, **look: Any) -> BgrImage:
    """The picture as another renderer draws it."""
    settings = SettingsSnapshot(LookConfig(hud=False, **look))
    return Renderer(len(explainer.labels)).render(picture.frame, picture.explanation, settings)


def test_changes_show_in_the_next_pictures(explainer: TinyExplainer) -> None:
    kept = Kept()
    settings = Settings(LookConfig(hud=False))
    pipeline = make_pipeline(Frames(60), [kept], explainer, queue_frames=1, settings=settings)
    kept._on_write = changed_at(
        10, lambda: pipeline.settings.change(alpha=0.9, colormap="jet", layout="side")
    )
    run(pipeline)
    before, after = kept.pictures[5], kept.pictures[-1]
    assert (before.image_bgr == drawn(explainer, before)).all()
    wanted = drawn(explainer, after, alpha=0.9, colormap="jet", layout="side")
    assert (after.image_bgr == wanted).all()
    # Captured before the change: one read, two that wait for the renderer, one with it, two that
    # wait for the sink.
    widths = [picture.image_bgr.shape[1] for picture in kept.pictures]
    assert widths.index(128) <= 10 + 6


def test_a_run_is_drawn_by_the_settings_that_it_shows(explainer: TinyExplainer) -> None:
    """The explainer, the renderer and the filter have no settings of their own that may differ."""
    look = LookConfig("side", alpha=0.7, smooth=0.3, hold=0.5, hud=False)
    kept, settings = Kept(), Settings(look, explainer.labels, targets=[2])
    pipeline = make_pipeline(Frames(12), [kept], explainer, settings=settings)
    run(pipeline)
    assert pipeline.settings.now == SettingsSnapshot(look, (2,))
    steady = SteadyMaps()
    for picture, frame in zip(kept.pictures, Frames(12), strict=True):
        own = explainer.explain(frame, 2, keep_features=True)
        filtered = steady.update(own, look)
        half = draw_overlay(frame, filtered, look)
        assert (picture.image_bgr == np.hstack([frame.image_bgr, half])).all()
        assert picture.explanation is not None
        assert picture.explanation.ranges is not None


def test_another_class_and_more_maps_are_explained_from_the_change_on(
    explainer: TinyExplainer,
) -> None:
    kept = Kept()
    pipeline = make_pipeline(Frames(60), [kept], explainer, queue_frames=1)

    def change(picture: Picture) -> None:
        if picture.frame.index == 10:
            pipeline.settings.target = [3, 1]
        if picture.frame.index == 30:
            pipeline.settings.change(target=None, layout="top5")

    kept._on_write = change
    run(pipeline)
    shown = [
        tuple(target.index for target in picture.explanation.targets)
        for picture in kept.pictures
        if picture.explanation is not None
    ]
    assert shown[25] == (3, 1)
    assert len(shown[-1]) == 4, "the network has four classes"
    assert kept.pictures[-1].image_bgr.shape != kept.pictures[0].image_bgr.shape


def test_without_its_map_the_frame_stands_there(explainer: TinyExplainer) -> None:
    kept = Kept()
    settings = Settings(LookConfig(hud=False))
    pipeline = make_pipeline(Frames(30), [kept], explainer, queue_frames=1, settings=settings)
    kept._on_write = changed_at(5, lambda: pipeline.settings.change(cam=False))
    run(pipeline)
    last = kept.pictures[-1]
    assert (last.image_bgr == last.frame.image_bgr).all()
    assert last.explanation is not None


def test_smoothing_and_hold_can_be_turned_on_and_off_again(explainer: TinyExplainer) -> None:
    kept = Kept()
    pipeline = make_pipeline(Frames(90), [kept], explainer, queue_frames=1)

    def change(picture: Picture) -> None:
        if picture.frame.index == 20:
            pipeline.settings.change(smooth=0.5, hold=0.5)
        if picture.frame.index == 60:
            pipeline.settings.change(smooth=0.0, hold=0.0)

    kept._on_write = change
    run(pipeline)
    smoothed = [
        p.frame.index for p in kept.pictures if p.explanation and p.explanation.ranges is not None
    ]
    assert smoothed
    assert smoothed == list(range(smoothed[0], smoothed[-1] + 1))
    assert 20 < smoothed[0] <= 25
    assert 60 <= smoothed[-1] < 65


def test_times_that_are_changed_keep_the_maps(explainer: TinyExplainer) -> None:
    steady, before = SteadyMaps(), LookConfig(smooth=0.1)
    first, second, third = (explainer.explain(frame) for frame in Frames(3))
    steady.update(first, before)
    last = steady.update(second, before)
    after = steady.update(third, LookConfig(smooth=1e8))
    assert np.abs(after.cams - last.cams).max() < 0.01 * np.abs(third.cams - last.cams).max()


@pytest.mark.parametrize("live", [False, True])
def test_a_pause_stops_pictures_and_nothing_is_lost_uncounted(
    explainer: TinyExplainer, live: bool
) -> None:
    resumed, came_while_paused = threading.Event(), list[int]()
    went_on = list[int]()

    def before(index: int) -> None:
        if pipeline.settings.paused:
            went_on.append(index)
        if len(went_on) == 1_000:  # a live source goes on; enough of it was not captured
            resumed.set()
            pipeline.settings.paused = False

    def on_write(picture: Picture) -> None:
        if pipeline.settings.paused:
            came_while_paused.append(picture.frame.index)
        elif len(kept.pictures) == 5:
            pipeline.settings.paused = True
            if not live:
                threading.Timer(0.3, setattr, (pipeline.settings, "paused", False)).start()
        elif len(kept.pictures) == 40:
            pipeline.stop()

    source, kept = (
        Frames(WITHOUT_END, live=live, before=before if live else None),
        Kept(on_write=on_write),
    )
    pipeline: Pipeline = make_pipeline(source, [kept], explainer, queue_frames=1)
    report = run(pipeline)
    assert len(came_while_paused) <= 4, "only what was on its way"
    if live:
        wait(resumed)
        assert report.paused > 0
        assert report.captured + report.paused in (source.yielded, source.yielded - 1)
    else:
        assert report.paused == 0
        assert kept.indices == list(range(report.captured))
        assert_adds_up(report, source, explainer)
    assert len(kept.pictures) >= 40


def test_a_paused_run_ends_when_it_is_stopped(explainer: TinyExplainer) -> None:
    kept = Kept()
    pipeline = make_pipeline(Frames(WITHOUT_END), [kept], explainer)

    def on_write(picture: Picture) -> None:
        pipeline.settings.paused = True
        pipeline.stop("enough")

    kept._on_write = on_write
    assert run(pipeline).ended_by == "enough"


class Watching(Kept):
    watched = True
    takes_repeats = True
    repeat_seconds = 0.02


def test_a_paused_picture_follows_the_settings(explainer: TinyExplainer) -> None:
    settings = Settings(LookConfig(hud=False))
    watching, recorded = Watching(), Kept()

    def on_write(picture: Picture) -> None:
        if picture.repeated and pipeline.settings.alpha == 0.4:
            pipeline.settings.alpha = 1.0
        elif picture.repeated and (picture.image_bgr[-1] == solid[-1]).all():
            pipeline.stop()
        elif not picture.repeated:
            solid[:] = drawn(explainer, picture, alpha=1.0)
            pipeline.settings.paused = True

    solid = np.zeros((48, 64, 3), np.uint8)
    watching._on_write = on_write
    pipeline = make_pipeline(
        Frames(WITHOUT_END), [watching, recorded], explainer, settings=settings
    )
    report = run(pipeline)
    assert any(picture.repeated for picture in watching.pictures)
    assert not any(picture.repeated for picture in recorded.pictures)
    assert report.sinks[0].repeated > 0


@pytest.mark.parametrize("live", [False, True])
def test_a_paused_picture_gets_other_maps(explainer: TinyExplainer, live: bool) -> None:
    watching = Watching()
    seen: list[list[int]] = []

    def on_write(picture: Picture) -> None:
        if not picture.repeated:
            if picture.explanation is not None:
                pipeline.settings.paused = True
            return
        assert picture.explanation is not None
        seen.append([target.index for target in picture.explanation.targets])
        if pipeline.settings.now.targets == ():
            pipeline.settings.change(target=[2, 1])
        elif seen[-1] == [2, 1]:
            pipeline.settings.change(target=0, layout="top5")
        elif seen[-1][0] == 0 and len(seen[-1]) > 2:
            pipeline.stop()

    watching._on_write = on_write
    source = Frames(WITHOUT_END, live=live)
    pipeline = make_pipeline(source, [watching], explainer)
    run(pipeline)
    assert [2, 1] in seen
    assert len(seen[-1]) == 4


def test_stats_are_plain_values(explainer: TinyExplainer) -> None:
    found = list[dict[str, object]]()
    kept = Kept(on_write=lambda picture: found.append(pipeline.stats()))
    pipeline = make_pipeline(Frames(5), [kept], explainer)
    run(pipeline)
    assert found[-1]["source"] == "frames"
    assert found[-1]["rendered"] == 5
    assert isinstance(found[-1]["predictions"], list)
    assert {"label", "index", "probability"} <= set(found[-1]["predictions"][0])


# Keys.


def test_keys_change_the_settings_and_say_so(explainer: TinyExplainer, tmp_path: Path) -> None:
    settings, clock = Settings(LookConfig(), explainer.labels), [0.0]
    keys = Keys(settings, tmp_path, now=lambda: clock[0])
    frame = next(iter(Frames(1)))
    explanation = explainer.explain(frame)
    picture = Picture(frame.image_bgr, frame, explanation)

    def pressed(key: str) -> tuple[str, ...]:
        assert keys.press(key, picture)
        return tuple(keys.lines)

    pressed(" ")
    assert settings.paused
    pressed("c")
    assert not settings.cam
    assert pressed("]") == ("alpha 0.9",)
    assert [pressed("[")[0] for _ in range(11)][-1] == "alpha 0.0"
    assert pressed("m") == ("magma",)
    assert [pressed("l")[0] for _ in range(4)] == ["side", "heatmap", "top5", "overlay"]
    third = explanation.predictions[2]
    assert pressed("3") == (f"the map of {third.label}",)
    assert settings.now.targets == (third.index,)
    assert pressed("5") == ("no such class at the moment",)
    pressed("0")
    assert settings.target == ()
    assert pressed("n") == ("against the next best class",)
    assert settings.against == ("next",)
    assert pressed("n") == ("against no class",)
    assert not settings.now.against
    pressed("h")
    assert not settings.hud
    assert pressed("r") == ("it records when the pause is over",)
    assert settings.recording
    settings.announce("recording one.mp4\nin a folder")  # as the recorder does
    assert tuple(keys.lines) == ("recording one.mp4", "in a folder")
    pressed("r")
    assert not settings.recording
    saved = pressed("s")
    (path,) = tmp_path.iterdir()
    assert saved == (f"saved {path.name}", f"in {tmp_path}")
    pressed("s")
    assert len(list(tmp_path.iterdir())) == 2, "one picture never replaces another"
    clock[0] = 10.0
    assert keys.lines == ()
    assert pressed("?") == HELP
    assert pressed("?") == ()
    assert pressed("x") == ()
    assert not keys.press("q", picture)
    assert not keys.press("\x1b", None)


def test_failing_key_is_reported_and_ends_nothing(tmp_path: Path) -> None:
    keys = Keys(Settings(), tmp_path / "absent")
    assert keys.press("s", picture_at(numbered_picture(1, (48, 64))))
    assert "No such file" in keys.lines[0]
    assert keys.press("s", None)
    assert keys.press("1", None)


# Recording on demand.


def test_each_recording_is_a_file_of_its_own(tmp_path: Path) -> None:
    settings = Settings()
    with RecorderSink(settings, tmp_path, STREAM) as sink:
        for number in range(60):
            settings.recording = 10 <= number < 20 or number >= 40
            sink.write(picture_at(numbered_picture(number, (48, 64)), number))
        assert sink.unwanted == 30
    paths = sorted(tmp_path.iterdir())
    counts = []
    for path in paths:
        with VideoSource(str(path)) as source:
            counts.append(sum(1 for _ in source))
    assert sorted(counts) == [10, 20]
    assert all(path.name.startswith("stream-cam-") for path in paths)


def test_a_recording_that_cannot_be_written_is_told_and_switched_off(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = Settings()
    settings.recording = True
    place = tmp_path / "file"
    place.write_text("no folder")
    with RecorderSink(settings, place, STREAM, RecordConfig()) as sink:
        assert sink.write(picture_at(numbered_picture(0, (48, 64))))
        assert sink.write(picture_at(numbered_picture(1, (48, 64))))
        assert sink.unwanted == 2
    assert not settings.recording
    assert "cannot be written" in caplog.text


def test_a_run_does_not_go_on_for_its_recorder_alone(
    tmp_path: Path, explainer: TinyExplainer
) -> None:
    settings = Settings(LookConfig(), explainer.labels)
    recorder = RecorderSink(settings, tmp_path, STREAM)
    window = Kept(on_write=lambda picture: boom())
    pipeline = make_pipeline(Frames(WITHOUT_END), [window, recorder], explainer, settings=settings)
    with pytest.raises(SinkError, match="the disk is full"):
        run(pipeline)
    assert not list(tmp_path.iterdir())


def test_a_video_that_somebody_watches_can_be_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, explainer: TinyExplainer
) -> None:
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "in.mp4", n_frames=30)
    with VideoSource("in.mp4") as source:
        settings = Settings(LookConfig(), explainer.labels)
        recorder = RecorderSink(settings, tmp_path, STREAM)
        kept = Kept(on_write=changed_at(10, lambda: settings.change(recording=True)))
        report = run(make_pipeline(source, [kept, recorder], explainer, settings=settings))
    (path,) = tmp_path.glob("stream-cam-*.mp4")
    assert report.sinks[1].name == str(path)
    with VideoSource(str(path)) as source:
        n_recorded = sum(1 for _ in source)
    assert 0 < n_recorded < 30
    count = report.sinks[1]
    assert (count.written, count.unwanted, count.dropped) == (n_recorded, 30 - n_recorded, 0)
