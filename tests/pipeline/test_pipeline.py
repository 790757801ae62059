"""The way of a frame, and its fate when a stage breaks."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from support.pipeline_parts import (
    DEADLINE_SECONDS,
    STREAM,
    WITHOUT_END,
    Failing,
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
from torch import nn

from stream_cam.config import CaptureConfig, LookConfig
from stream_cam.errors import SinkError, SourceError
from stream_cam.frame import Frame
from stream_cam.pipeline.counters import Progress
from stream_cam.settings import Settings
from stream_cam.sinks.base import Picture, Sink
from stream_cam.sinks.images import FolderSink
from stream_cam.sinks.null import NullSink
from stream_cam.sinks.video.sink import VideoSink
from stream_cam.sources import open_source
from stream_cam.sources.base import Health, Outage
from stream_cam.sources.reconnecting import ReconnectingSource


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return tiny_network()


@pytest.fixture
def explainer(network: nn.Module) -> TinyExplainer:
    return make_explainer(network)


# Lossless.


def test_lossless_explains_and_writes_every_frame_once(explainer: TinyExplainer) -> None:
    source, kept, null = Frames(40), Kept(), NullSink()
    report = run(make_pipeline(source, [kept, null], explainer))
    assert kept.indices == list(range(40))
    assert explainer.explained == list(range(40))
    for picture in kept.pictures:
        assert picture.explanation is not None
        assert picture.explanation.frame_index == picture.frame.index
    assert (report.captured, report.explained, report.rendered) == (40, 40, 40)
    assert (report.superseded, report.discarded, report.stale) == (0, 0, 0)
    assert [count.written for count in report.sinks] == [40, 40] == [40, null.written]
    assert report.ended_by == "end of source"
    assert not report.live
    assert kept.exits == [None]


def test_report_times_every_stage(explainer: TinyExplainer) -> None:
    report = run(make_pipeline(Frames(12), [NullSink()], explainer))
    assert {name: found.count for name, found in report.latency.items()} == {
        "read": 12,
        "explain": 12,
        "render": 12,
        "capture_to_explanation": 12,
        "write 0": 12,
        "capture_to_sink 0": 12,
    }
    for found in report.latency.values():
        assert 0 <= found.p50_ms <= found.p95_ms <= found.p99_ms
    assert report.engine["name"] == "eager"
    assert report.seconds > 0
    assert report.fps == pytest.approx(12 / report.seconds)


def test_report_times_live_runs_as_well(explainer: TinyExplainer) -> None:
    explained = threading.Event()

    def tick(progress: Progress) -> None:
        if progress.last is not None:
            explained.set()

    def before(index: int) -> None:
        if index == 3:
            wait(explained)

    source, null = Frames(12, live=True, before=before), NullSink()
    report = make_pipeline(source, [null], explainer).run(tick)
    counts = {name: found.count for name, found in report.latency.items()}
    assert counts["read"] == 12
    assert counts["explain"] == counts["capture_to_explanation"] == report.explained
    assert counts["render"] == report.rendered
    assert counts["write 0"] == counts["capture_to_sink 0"] == null.written
    assert 1 <= counts["map_age"] <= report.rendered
    for found in report.latency.values():
        assert 0 <= found.p50_ms <= found.p95_ms <= found.p99_ms


def test_order_is_kept_when_a_later_explanation_is_ready_first(network: nn.Module) -> None:
    explainer, overtaken = make_explainer(network, parallel=2), threading.Event()

    def before(frame: Frame) -> None:
        if frame.index == 0:
            wait(overtaken)
        elif frame.index == 2:
            overtaken.set()

    explainer.before = before
    kept = Kept()
    run(make_pipeline(Frames(20), [kept], explainer))
    assert explainer.explained.index(0) > 0
    assert kept.indices == list(range(20))
    assert sorted(explainer.explained) == list(range(20))


def test_demo_source_to_a_video_that_plays(explainer: TinyExplainer, tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    uri = "demo://shapes?size=128x96&fps=25&seconds=0.8"
    with open_source(uri, CaptureConfig()) as source:
        report = run(make_pipeline(source, [VideoSink(str(path), STREAM)], explainer))
    with av.open(str(path)) as container:
        times = [frame.time for frame in container.decode(video=0)]
    assert times == pytest.approx([index / 25 for index in range(20)])
    assert report.sinks[0].written == 20


@pytest.mark.parametrize("live", [False, True])
def test_source_without_frames_ends_quietly(explainer: TinyExplainer, live: bool) -> None:
    kept = Kept()
    report = run(make_pipeline(Frames(0, live=live), [kept], explainer))
    assert (report.captured, report.rendered, report.fps) == (0, 0, 0.0)
    assert kept.exits == [None]


@pytest.mark.parametrize("live", [False, True])
def test_limit_is_exact(explainer: TinyExplainer, live: bool) -> None:
    source, kept = Frames(1000), Kept()
    report = run(make_pipeline(source, [kept], explainer, limit=7, live=live))
    assert report.captured == 7 == source.yielded
    assert report.ended_by == "limit"
    if not live:
        assert kept.indices == list(range(7))
    assert_adds_up(report, source, explainer)


def test_sinks_are_told_of_the_sources_own_end_and_of_no_other(explainer: TinyExplainer) -> None:
    whole = Kept()
    run(make_pipeline(Frames(10), [whole], explainer))
    assert whole.ended
    limited = Kept()
    run(make_pipeline(Frames(10), [limited], explainer, limit=5))
    assert not limited.ended
    stopped = Kept()
    pipeline = make_pipeline(Frames(WITHOUT_END), [stopped], explainer)
    stopped._on_write = lambda picture: pipeline.stop() if picture.frame.index == 5 else None
    run(pipeline)
    assert not stopped.ended
    # All was read by then, but not all was drawn.
    failed, last = Kept(), Frames(4)
    explainer.before = lambda frame: _fail_at(frame, 3)
    with pytest.raises(ValueError, match="the last one"):
        run(make_pipeline(last, [failed], explainer))
    assert last.yielded == 4
    assert not failed.ended


def _fail_at(frame: Frame, index: int) -> None:
    if frame.index == index:
        raise ValueError("the last one")


def test_frame_size_may_change_midway(explainer: TinyExplainer, tmp_path: Path) -> None:
    sizes = [(48, 64)] * 3 + [(64, 48)] * 2 + [(1, 1), (31, 97)]
    folder, video = tmp_path / "frames", tmp_path / "out.mp4"
    sinks: list[Sink] = [FolderSink(str(folder)), VideoSink(str(video), STREAM)]
    report = run(make_pipeline(Frames(7, sizes=sizes), sinks, explainer))
    assert report.rendered == 7
    assert len(list(folder.iterdir())) == 7
    with av.open(str(video)) as container:
        frames = list(container.decode(video=0))
    assert [(frame.height, frame.width) for frame in frames] == [(48, 64)] * 7


def test_slow_sink_bounds_the_frames_in_flight(network: nn.Module) -> None:
    explainer, go_on = make_explainer(network, parallel=2), threading.Event()
    source = Frames(100)
    stalled = threading.Event()

    def on_write(picture: Picture) -> None:
        if picture.frame.index == 0:
            stalled.set()
            wait(go_on)

    pipeline = make_pipeline(source, [Kept(on_write=on_write)], explainer, queue_frames=3)
    thread = threading.Thread(target=pipeline.run, daemon=True)
    thread.start()
    wait(stalled)
    # Being written 1, waiting for the sink 3, rendered 1, waiting to be rendered 3 + 2, read 1.
    most = 1 + 3 + 1 + (3 + 2) + 1
    until = time.monotonic() + DEADLINE_SECONDS
    while source.yielded < most and time.monotonic() < until:
        time.sleep(0.005)
    time.sleep(0.1)
    assert source.yielded == most
    go_on.set()
    thread.join(DEADLINE_SECONDS)
    assert not thread.is_alive()
    assert pipeline.report.sinks[0].written == 100
    assert pipeline.report.sinks[0].dropped == 0


# Something breaks.


@pytest.mark.parametrize("fail_at", [0, 1, 9])
def test_source_that_dies_keeps_what_came_before(
    explainer: TinyExplainer, tmp_path: Path, fail_at: int
) -> None:
    def before(index: int) -> None:
        if index == fail_at:
            raise SourceError("the camera fell off the table")

    path, kept = tmp_path / "out.mp4", Kept()
    sinks: list[Sink] = [kept, VideoSink(str(path), STREAM)]
    pipeline = make_pipeline(Frames(20, before=before), sinks, explainer)
    with pytest.raises(SourceError, match="fell off the table"):
        run(pipeline)
    assert kept.indices == list(range(fail_at))
    assert pipeline.report.captured == pipeline.report.explained == fail_at
    assert "fell off the table" in pipeline.report.ended_by
    if not fail_at:
        assert not list(tmp_path.iterdir())
        return
    with av.open(str(path)) as container:
        assert sum(1 for _ in container.decode(video=0)) == fail_at
    assert [entry.name for entry in tmp_path.iterdir()] == ["out.mp4"]


@pytest.mark.parametrize("live", [False, True])
def test_live_or_not_a_dead_source_is_the_error(explainer: TinyExplainer, live: bool) -> None:
    def before(index: int) -> None:
        if index == 5:
            raise SourceError("gone")

    source = Frames(20, before=before)
    pipeline = make_pipeline(source, [NullSink()], explainer, live=live)
    with pytest.raises(SourceError, match="gone"):
        run(pipeline)
    assert_adds_up(pipeline.report, source, explainer)


def dying_sink(where: str, main_thread: bool) -> Kept:
    def on_write(picture: Picture) -> None:
        if where == "write" and picture.frame.index >= 3:
            boom()

    return Kept(
        on_enter=boom if where == "enter" else None,
        on_write=on_write,
        on_exit=boom if where == "exit" else None,
        main_thread=main_thread,
    )


@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize("main_thread", [False, True])
@pytest.mark.parametrize("where", ["enter", "write", "exit"])
def test_sink_that_dies_ends_a_strict_run(
    explainer: TinyExplainer, tmp_path: Path, where: str, main_thread: bool, live: bool
) -> None:
    dying, other = dying_sink(where, main_thread), Kept()
    video = VideoSink(str(tmp_path / "out.mp4"), STREAM)
    source = Frames(60, live=live)
    pipeline = make_pipeline(source, [dying, other, video], explainer, strict=True)
    with pytest.raises(SinkError, match="the disk is full"):
        run(pipeline)
    assert other.indices == sorted(other.indices)
    assert other.exits == [None]
    if video.written:
        with av.open(str(tmp_path / "out.mp4")) as container:
            assert sum(1 for _ in container.decode(video=0)) == video.written
    assert len(dying.exits) == (where != "enter")
    if where == "write":
        assert isinstance(dying.exits[0], SinkError)
    assert "the disk is full" in pipeline.report.ended_by
    assert pipeline.report.sinks[0].failed == "the disk is full"
    assert_adds_up(pipeline.report, source, explainer)


@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize("main_thread", [False, True])
@pytest.mark.parametrize("where", ["enter", "write", "exit"])
def test_others_go_on_without_a_sink_that_dies(
    explainer: TinyExplainer, tmp_path: Path, where: str, main_thread: bool, live: bool
) -> None:
    dying, other = dying_sink(where, main_thread), Kept()
    video = VideoSink(str(tmp_path / "out.mp4"), STREAM)
    source = Frames(60, live=live)
    pipeline = make_pipeline(source, [dying, other, video], explainer)
    with pytest.raises(SinkError, match="the disk is full"):
        run(pipeline)
    report = pipeline.report
    assert report.ended_by == "end of source"
    assert report.captured == source.yielded == 60
    assert report.discarded == 0
    assert [bool(sink.failed) for sink in report.sinks] == [True, False, False]
    assert other.indices[-1] == 59
    assert other.exits == [None]
    if not live:
        assert other.indices == list(range(60))
        assert report.sinks[0].dropped == {"enter": 60, "write": 57, "exit": 0}[where]
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == video.written > 0
    assert_adds_up(report, source, explainer)


@pytest.mark.parametrize("main_thread", [False, True])
def test_sink_that_dies_is_told_at_once(
    explainer: TinyExplainer, main_thread: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """The source gives its second half only when the line is there."""
    told = threading.Event()

    class Telling(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "the other outputs go on" in record.getMessage():
                told.set()

    def before(index: int) -> None:
        if index == 10:
            wait(told)

    handler = Telling()
    logging.getLogger("stream_cam").addHandler(handler)
    try:
        pipeline = make_pipeline(
            Frames(20, before=before), [dying_sink("write", main_thread), NullSink()], explainer
        )
        with pytest.raises(SinkError, match="the disk is full"):
            run(pipeline)
    finally:
        logging.getLogger("stream_cam").removeHandler(handler)
    assert [record.getMessage() for record in caplog.records] == [
        "the disk is full; the other outputs go on"
    ]
    assert [sink.written for sink in pipeline.report.sinks] == [3, 20]


def test_run_ends_when_its_last_sink_dies(explainer: TinyExplainer) -> None:
    source = Frames(WITHOUT_END)
    pipeline = make_pipeline(
        source, [dying_sink("write", False), dying_sink("enter", False)], explainer
    )
    with pytest.raises(SinkError, match="the disk is full"):
        run(pipeline)
    assert source.yielded < 100
    assert pipeline.report.ended_by == "SinkError: the disk is full"
    assert len(pipeline.report.failed_sinks) == 2
    assert_adds_up(pipeline.report, source, explainer)


def test_what_ended_the_run_is_told_rather_than_a_sink_that_died_before(
    explainer: TinyExplainer,
) -> None:
    def before(index: int) -> None:
        if index == 30:
            raise SourceError("the camera fell off the table")

    pipeline = make_pipeline(
        Frames(40, before=before), [dying_sink("write", False), NullSink()], explainer
    )
    with pytest.raises(SourceError, match="fell off the table"):
        run(pipeline)
    assert pipeline.report.sinks[0].failed == "the disk is full"
    assert "fell off the table" in pipeline.report.ended_by


def test_timeout_of_a_sink_is_its_failure(explainer: TinyExplainer) -> None:
    def on_write(picture: Picture) -> None:
        raise TimeoutError("the server does not answer")

    kept = Kept(on_write=on_write, main_thread=True)
    with pytest.raises(TimeoutError, match="does not answer"):
        run(make_pipeline(Frames(10), [kept], explainer))
    assert len(kept.exits) == 1


@pytest.mark.parametrize("main_thread", [False, True])
def test_first_failure_is_the_one_that_is_told(explainer: TinyExplainer, main_thread: bool) -> None:
    def on_write(picture: Picture) -> None:
        raise SinkError("the true cause")

    kept = Kept(on_write=on_write, on_exit=boom, main_thread=main_thread)
    with pytest.raises(SinkError, match="the true cause"):
        run(make_pipeline(Frames(10), [kept], explainer))


@pytest.mark.parametrize("live", [False, True])
def test_explainer_that_breaks_ends_the_run(explainer: TinyExplainer, live: bool) -> None:
    def before(frame: Frame) -> None:
        if frame.index >= 3:
            raise RuntimeError("the network broke")

    explainer.before = before
    kept = Kept()
    source = Frames(50, live=live)
    pipeline = make_pipeline(source, [kept], explainer)
    with pytest.raises(RuntimeError, match="the network broke"):
        run(pipeline)
    if not live:
        assert kept.indices == [0, 1, 2]
    assert kept.exits == [None]
    assert_adds_up(pipeline.report, source, explainer)


def test_renderer_that_breaks_ends_the_run(explainer: TinyExplainer) -> None:
    kept = Kept()
    pipeline = make_pipeline(Frames(50), [kept], explainer, renderer=Failing())
    with pytest.raises(ValueError, match="the renderer broke"):
        run(pipeline)
    assert kept.indices == [0, 1, 2]
    assert kept.exits == [None]


def test_progress_that_breaks_ends_the_run(explainer: TinyExplainer) -> None:
    def on_tick(progress: Progress) -> None:
        raise RuntimeError("the bar broke")

    kept = Kept()
    pipeline = make_pipeline(Frames(10_000), [kept], explainer)
    with pytest.raises(RuntimeError, match="the bar broke"):
        pipeline.run(on_tick)
    assert kept.exits == [None]


# Live.


def test_live_takes_the_newest_frame_and_accounts_for_all(explainer: TinyExplainer) -> None:
    explaining, all_read = threading.Event(), threading.Event()

    def before(frame: Frame) -> None:
        if frame.index == 0:
            explaining.set()
            wait(all_read)

    def reading(index: int) -> None:
        if index == 1:
            wait(explaining)
        elif index == 9:
            all_read.set()

    # Frame 9 is not read before the network is free again: it is the one after 8 or after 0.
    explainer.before = before
    source, kept = Frames(10, live=True, before=reading), Kept()
    report = run(make_pipeline(source, [kept], explainer))
    assert explainer.explained[0] == 0
    assert explainer.explained[-1] == 9
    assert explainer.explained in ([0, 9], [0, 8, 9])
    assert report.captured == 10
    assert report.superseded == 10 - len(explainer.explained)
    assert report.discarded == 0
    assert_adds_up(report, source, explainer)
    assert kept.indices == sorted(set(kept.indices))
    assert kept.indices[-1] == 9


def test_live_snapshot_has_its_map(explainer: TinyExplainer) -> None:
    """The only frame is not drawn before the network has seen it."""
    captured = threading.Event()
    explainer.before = lambda frame: wait(captured)

    def reading(index: int) -> None:
        threading.Timer(0.05, captured.set).start()  # long after the renderer could have drawn it

    source, kept = Frames(WITHOUT_END, live=True, before=reading), Kept()
    report = run(make_pipeline(source, [kept], explainer, limit=1))
    (picture,) = kept.pictures
    assert picture.explanation is not None
    assert (report.captured, report.explained, report.rendered) == (1, 1, 1)
    assert_adds_up(report, source, explainer)


def test_live_snapshot_whose_network_breaks_ends(explainer: TinyExplainer) -> None:
    explainer.before = lambda frame: boom()
    source = Frames(WITHOUT_END, live=True)
    with pytest.raises(SinkError, match="the disk is full"):
        run(make_pipeline(source, [Kept()], explainer, limit=1))


def test_live_slow_sink_drops_and_others_do_not_wait(explainer: TinyExplainer) -> None:
    go_on, seen = threading.Event(), [threading.Event() for _ in range(30)]

    def slow(picture: Picture) -> None:
        wait(go_on)

    def fast(picture: Picture) -> None:
        seen[picture.frame.index].set()

    def reading(index: int) -> None:
        if index:
            wait(seen[index - 1])  # the fast sink has the frame before this one

    stuck, free = Kept(on_write=slow), Kept(on_write=fast)
    source = Frames(30, live=True, before=reading)
    pipeline = make_pipeline(source, [stuck, free], explainer)

    def let_go() -> None:
        wait(seen[29])
        go_on.set()

    threading.Thread(target=let_go, daemon=True).start()
    report = run(pipeline)
    assert free.indices == list(range(30))
    assert stuck.indices[-1] == 29
    counts = dict(zip(("stuck", "free"), report.sinks, strict=True))
    assert counts["free"].dropped == 0
    assert counts["stuck"].written == len(stuck.pictures) <= 3
    assert counts["stuck"].written + counts["stuck"].dropped == report.rendered == 30
    assert_adds_up(report, source, explainer)


def test_live_counts_and_fades_what_is_too_old(explainer: TinyExplainer) -> None:
    """The network hangs after frame 0; the greatest age is 0.5 s."""
    ages_ms = (0, 400, 600, 1400)
    old, release = threading.Event(), threading.Event()
    shown = [threading.Event() for _ in ages_ms]

    class Aged(Frames):
        def __iter__(self) -> Iterator[Frame]:
            image = np.full((48, 64, 3), 128, np.uint8)
            for index, age_ms in enumerate(ages_ms):
                if index:
                    wait(shown[index - 1])
                    wait(old)
                self.yielded += 1
                yield Frame(image, index, index, Fraction(1), 10**9 + age_ms * 10**6)

    def before(frame: Frame) -> None:
        if frame.index:
            wait(release)

    def tick(progress: Progress) -> None:
        if progress.last is not None:
            old.set()

    def on_write(picture: Picture) -> None:
        shown[picture.frame.index].set()
        if picture.frame.index == len(ages_ms) - 1:
            release.set()

    explainer.before = before
    source, kept = Aged(len(ages_ms), live=True), Kept(on_write=on_write)
    look = LookConfig(hud=False, sync="newest", scale="own", alpha=0.4, alpha_mode="constant")
    settings = Settings(look)
    report = make_pipeline(source, [kept], explainer, settings=settings).run(tick)
    drawn = {picture.frame.index: picture for picture in kept.pictures}
    shift = {
        index: np.abs(picture.image_bgr.astype(int) - 128).mean()
        for index, picture in drawn.items()
    }
    for index in (1, 2):
        explanation = drawn[index].explanation
        assert explanation is not None
        assert explanation.frame_index == 0
    assert shift[1] > 1.0
    assert shift[2] == pytest.approx(0.8 * shift[1], abs=1.0)  # rounding to whole levels
    assert drawn[3].explanation is None
    assert shift[3] == 0.0
    assert report.stale == 2
    assert_adds_up(report, source, explainer)


def test_pictures_of_a_slow_camera_wait_for_their_own_maps(explainer: TinyExplainer) -> None:
    """A frame every 2.5 s: the map of the last one is always too old to be shown."""

    class Slow(Frames):
        def __iter__(self) -> Iterator[Frame]:
            for frame in super().__iter__():
                yield replace(frame, captured_ns=10**9 + frame.index * 2_500_000_000)

    shown = [threading.Event() for _ in range(5)]

    def before(index: int) -> None:
        if index:
            wait(shown[index - 1])

    source = Slow(5, live=True, before=before)
    kept = Kept(on_write=lambda picture: shown[picture.frame.index].set())
    report = make_pipeline(source, [kept], explainer).run()
    assert report.stale == 0
    for picture in kept.pictures[1:]:
        assert picture.explanation is not None
        assert picture.explanation.frame_index == picture.frame.index


# Stopping.


@pytest.mark.parametrize("live", [False, True])
def test_stop_from_another_thread_finishes_what_was_read(
    explainer: TinyExplainer, tmp_path: Path, live: bool
) -> None:
    path, kept = tmp_path / "out.mp4", Kept()
    source = Frames(WITHOUT_END, live=live)
    video = VideoSink(str(path), STREAM)
    pipeline = make_pipeline(source, [kept, video], explainer)
    kept._on_write = lambda picture: pipeline.stop("enough") if len(kept.pictures) == 10 else None
    report = run(pipeline)
    assert report.ended_by == "enough"
    assert_adds_up(report, source, explainer)
    assert report.discarded == 0
    if not live:
        assert kept.indices == list(range(report.captured))
    with av.open(str(path)) as container:
        assert sum(1 for _ in container.decode(video=0)) == video.written


def test_stop_before_the_run_reads_nothing(explainer: TinyExplainer) -> None:
    source, kept = Frames(10), Kept()
    pipeline = make_pipeline(source, [kept], explainer)
    pipeline.stop()
    report = run(pipeline)
    assert report.captured == 0
    assert not kept.pictures


@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize("main_thread", [False, True])
def test_sink_that_wants_no_more_ends_the_run(
    explainer: TinyExplainer, main_thread: bool, live: bool
) -> None:
    closing = Kept(on_write=lambda picture: picture.frame.index < 5, main_thread=main_thread)
    other = Kept()
    source = Frames(WITHOUT_END, live=live)
    report = run(make_pipeline(source, [closing, other], explainer, queue_frames=1))
    assert "was closed" in report.ended_by
    assert closing.pictures[-1].frame.index >= 5
    assert closing.exits == [None]
    assert_adds_up(report, source, explainer)
    if not live:
        assert other.indices == list(range(report.captured))


def test_window_is_written_by_the_thread_that_runs(explainer: TinyExplainer) -> None:
    window, other = Kept(main_thread=True), Kept()
    make_pipeline(Frames(5), [window, other], explainer).run()
    assert window.threads == {threading.get_ident()}
    assert other.threads.isdisjoint(window.threads)
    assert window.indices == other.indices == list(range(5))


@pytest.mark.parametrize("live", [False, True])
def test_source_that_never_returns_is_left_behind(
    explainer: TinyExplainer, tmp_path: Path, live: bool, caplog: pytest.LogCaptureFixture
) -> None:
    hangs, forever = threading.Event(), threading.Event()

    def before(index: int) -> None:
        if index == 3:
            hangs.set()
            forever.wait(DEADLINE_SECONDS * 3)

    path = tmp_path / "out.mp4"
    source = Frames(10, live=live, before=before)
    video = VideoSink(str(path), STREAM)
    pipeline = make_pipeline(source, [video], explainer)
    stopped = []

    def stop() -> None:
        wait(hangs)
        stopped.append(time.monotonic())
        pipeline.stop()

    stopper = threading.Thread(target=stop, daemon=True)
    stopper.start()
    report = run(pipeline)
    assert time.monotonic() - stopped[0] < 3.0  # 2 s, and finishing the file on a busy machine
    assert pipeline.source_hangs
    assert report.captured == 3
    assert len([r for r in caplog.records if "left behind" in r.message]) == 1
    with av.open(str(path)) as container:
        assert sum(1 for _ in container.decode(video=0)) == video.written > 0
    forever.set()
    for thread in threading.enumerate():
        if thread.name == "capture":
            thread.join(DEADLINE_SECONDS)
    assert report.captured == 3


def test_source_that_hangs_does_not_hide_a_dying_sink(explainer: TinyExplainer) -> None:
    hangs, forever = threading.Event(), threading.Event()

    def before(index: int) -> None:
        if index == 3:
            hangs.set()
            forever.wait(DEADLINE_SECONDS * 3)

    def on_write(picture: Picture) -> None:
        wait(hangs)
        boom()

    pipeline = make_pipeline(Frames(10, before=before), [Kept(on_write=on_write)], explainer)
    with pytest.raises(SinkError, match="the disk is full"):
        run(pipeline)
    assert pipeline.source_hangs
    forever.set()


class Camera(Frames):
    """Gives three frames, and is away once one of them was seen, until it is stopped."""

    def __init__(self) -> None:
        super().__init__(3, live=True)
        self.stopped, self.seen = threading.Event(), threading.Event()

    def __iter__(self) -> Iterator[Frame]:
        yield from super().__iter__()
        wait(self.stopped)

    @property
    def health(self) -> Health:
        return Health(connections=1)

    def outage(self) -> Outage | None:
        if not self.seen.is_set():
            return None
        return Outage(True, 3.2, 1, 0.5, "lost", "the connection was cut")

    def stop(self) -> None:
        self.stopped.set()


def test_picture_of_a_source_that_is_away_says_so_to_those_who_watch(
    explainer: TinyExplainer,
) -> None:
    source, told = Camera(), threading.Event()

    def on_write(picture: Picture) -> None:
        (told if picture.repeated else source.seen).set()

    screen, recording = Kept(on_write=on_write), Kept()
    screen.takes_repeats = True
    pipeline = make_pipeline(source, [screen, recording], explainer)

    def stop() -> None:
        wait(told)
        pipeline.stop()

    threading.Thread(target=stop, daemon=True).start()
    report = run(pipeline)
    away = [picture for picture in screen.pictures if picture.repeated]
    live = [picture for picture in screen.pictures if not picture.repeated]
    assert away
    assert live
    assert away[0].explanation is None
    assert away[0].image_bgr.shape == live[-1].image_bgr.shape
    assert not any(picture.repeated for picture in recording.pictures)
    counts = {id(screen): report.sinks[0], id(recording): report.sinks[1]}
    assert counts[id(screen)].repeated == len(away)
    assert counts[id(screen)].written == len(live)
    assert report.captured == 3
    assert report.connection["connections"] == 1
    assert_adds_up(report, source, explainer)


@pytest.mark.parametrize("ended", ["poll", "stop"])
def test_window_is_heard_while_its_source_is_away(explainer: TinyExplainer, ended: str) -> None:
    """No frame comes any more; a key (poll) ends the run, and so does a stop."""
    source, polled = Camera(), threading.Event()
    last = threading.Event()

    def on_write(picture: Picture) -> None:
        source.seen.set()
        if picture.frame.index == 2:
            last.set()

    def on_poll() -> bool:
        if not last.is_set():
            return True
        polled.set()
        return ended != "poll"

    window = Kept(on_write=on_write, on_poll=on_poll, main_thread=True)
    pipeline = make_pipeline(source, [window, NullSink()], explainer)

    def stop() -> None:
        wait(polled)
        pipeline.stop("enough")

    if ended == "stop":
        threading.Thread(target=stop, daemon=True).start()
    report = run(pipeline)
    assert polled.is_set()
    assert report.ended_by == ("kept was closed" if ended == "poll" else "enough")
    assert window.exits == [None]
    assert_adds_up(report, source, explainer)


def test_camera_that_hangs_does_not_hold_up_the_end(explainer: TinyExplainer) -> None:
    """Its read never returns; the run ends at once all the same, and nothing is left behind."""
    hangs, forever = threading.Event(), threading.Event()

    def before(index: int) -> None:
        if index == 3:
            hangs.set()
            forever.wait(DEADLINE_SECONDS * 3)

    source = ReconnectingSource("0", lambda: Frames(10, live=True, before=before))
    stopped = []

    def stop() -> None:
        wait(hangs)
        stopped.append(time.monotonic())
        pipeline.stop()

    stopper = threading.Thread(target=stop, daemon=True)
    with source:
        pipeline = make_pipeline(source, [Kept()], explainer)
        stopper.start()
        run(pipeline)
        assert not pipeline.source_hangs
    assert time.monotonic() - stopped[0] < 2.0
    forever.set()


def test_source_is_not_read_any_more_once_the_run_is_over(explainer: TinyExplainer) -> None:
    """The next owner of the source may not close it while it is being read."""
    reading, entered = threading.Event(), threading.Event()

    def before(index: int) -> None:
        if index == 2:
            reading.set()
            entered.wait(0.3)
            reading.clear()

    def on_write(picture: Picture) -> None:
        wait(reading)
        boom()

    pipeline = make_pipeline(Frames(10, before=before), [Kept(on_write=on_write)], explainer)
    with pytest.raises(SinkError):
        run(pipeline)
    assert not reading.is_set()
    assert not pipeline.source_hangs
    assert not [thread for thread in threading.enumerate() if thread.name == "capture"]
