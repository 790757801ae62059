"""No frame is lost uncounted, and a stop ends a run in time, whatever it is doing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import av
import pytest
from support.pipeline_parts import (
    DEADLINE_SECONDS,
    STREAM,
    WITHOUT_END,
    Failing,
    Frames,
    Kept,
    TinyExplainer,
    Watched,
    assert_adds_up,
    boom,
    make_explainer,
    make_pipeline,
    run,
    tiny_network,
    wait,
)

from stream_cam.errors import SinkError, SourceError
from stream_cam.frame import Frame
from stream_cam.pipeline.pipeline import Pipeline
from stream_cam.sinks.base import Picture
from stream_cam.sinks.video.sink import VideoSink

STOP_SECONDS = 2.0
"""Longest time from a stop to the end of the run, with the work in progress."""
BUSY_SECONDS = 1.5
"""Longest time to finalise files on a busy machine."""


@pytest.fixture
def explainer() -> TinyExplainer:
    return make_explainer(tiny_network())


class Ending(Frames):
    """Tells when all of its frames have been handed on."""

    def __init__(self, count: int, **options: object) -> None:
        super().__init__(count, **options)  # type: ignore[arg-type]
        self.ended = threading.Event()

    def __iter__(self) -> Iterator[Frame]:
        yield from super().__iter__()
        self.ended.set()


def run_counted(pipeline: Pipeline, renderer: Watched, *sinks: Kept) -> None:
    """Runs, whatever comes of it; the report's figures are those that were seen from outside."""
    with suppress(SinkError, SourceError, ValueError, RuntimeError):
        run(pipeline)
    assert pipeline.report.rendered == len(renderer.drawn) == len(set(renderer.drawn))
    for kept, count in zip(sinks, pipeline.report.sinks, strict=True):
        assert count.written == len([each for each in kept.pictures if not each.repeated])


def test_fast_source_and_slow_renderer(explainer: TinyExplainer) -> None:
    source, kept, renderer = Ending(50, live=True), Kept(), Watched()
    renderer.before = lambda frame: None if frame.index else wait(source.ended)
    pipeline = make_pipeline(source, [kept], explainer, renderer=renderer)
    run_counted(pipeline, renderer, kept)
    # The first one that was taken held up the renderer until only the last was there.
    assert renderer.drawn[-1] == 49
    assert len(renderer.drawn) == 2 or renderer.drawn[0] > 0
    assert pipeline.report.skipped == 50 - len(renderer.drawn)
    assert_adds_up(pipeline.report, source, explainer)


@pytest.mark.parametrize("live", [False, True])
def test_fast_source_and_slow_sink(explainer: TinyExplainer, live: bool) -> None:
    held = threading.Event()
    source, renderer = Ending(50, live=live), Watched()

    def slow(picture: Picture) -> None:
        if live:
            wait(source.ended)
        elif picture.frame.index == 0:
            held.wait(0.05)

    stuck, free = Kept(on_write=slow), Kept()
    pipeline = make_pipeline(source, [stuck, free], explainer, renderer=renderer)
    run_counted(pipeline, renderer, stuck, free)
    assert stuck.indices[-1] == 49
    if not live:
        assert stuck.indices == free.indices == list(range(50))
    assert_adds_up(pipeline.report, source, explainer)


def test_slow_explainer(explainer: TinyExplainer) -> None:
    source, kept, renderer = Ending(50, live=True), Kept(), Watched()
    explainer.before = lambda frame: wait(source.ended)
    pipeline = make_pipeline(source, [kept], explainer, renderer=renderer)
    run_counted(pipeline, renderer, kept)
    assert 1 <= pipeline.report.explained <= 2
    assert pipeline.report.superseded == 50 - pipeline.report.explained
    assert_adds_up(pipeline.report, source, explainer)


@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize("way", ["stop", "closed", "sink", "strict", "source", "render", "explain"])
def test_ends_of_all_kinds(explainer: TinyExplainer, way: str, live: bool) -> None:
    def before(index: int) -> None:
        if way == "source" and index == 40:
            raise SourceError("gone")

    def on_write(picture: Picture) -> bool:
        if picture.frame.index >= 20:
            if way == "stop":
                pipeline.stop()
            if way in ("sink", "strict"):
                boom()
            return way != "closed"
        return True

    def explaining(frame: Frame) -> None:
        if way == "explain" and frame.index >= 20:
            raise RuntimeError("the network broke")

    explainer.before = explaining
    source = Frames(50 if way == "sink" else WITHOUT_END, live=live, before=before)
    first, second = Kept(on_write=on_write), Kept()
    renderer = Failing() if way == "render" else Watched()
    pipeline = make_pipeline(
        source, [first, second], explainer, renderer=renderer, strict=way == "strict"
    )
    run_counted(pipeline, renderer, first, second)
    assert pipeline.report.captured < WITHOUT_END
    assert_adds_up(pipeline.report, source, explainer)


def takes(seconds: float) -> Callable[[Frame], None]:
    """Makes a network so slow."""

    def before(frame: Frame) -> None:
        threading.Event().wait(seconds)

    return before


def stop_when(pipeline: Pipeline, ready: threading.Event) -> list[float]:
    """Stops in a thread of its own; the list gets the time."""
    stopped: list[float] = []

    def stop() -> None:
        wait(ready)
        stopped.append(time.monotonic())
        pipeline.stop()

    threading.Thread(target=stop, daemon=True).start()
    return stopped


@pytest.mark.parametrize("source_failed", [False, True])
def test_stop_does_not_wait_for_all_that_a_slow_network_has_before_it(
    explainer: TinyExplainer, tmp_path: Path, source_failed: bool
) -> None:
    """Nine frames wait, half a second each; a source that has failed before does not matter."""
    path, drawn = tmp_path / "out.mp4", threading.Event()

    def before(index: int) -> None:
        if source_failed and index == 9:
            raise SourceError("gone")

    explainer.before = takes(0.5)
    source, kept = Frames(1000, before=before), Kept(on_write=lambda picture: drawn.set())
    video = VideoSink(str(path), STREAM)
    pipeline = make_pipeline(source, [kept, video], explainer, queue_frames=8)
    stopped = stop_when(pipeline, drawn)
    if source_failed:
        with pytest.raises(SourceError, match="gone"):
            run(pipeline)
    else:
        run(pipeline)
    assert time.monotonic() - stopped[0] < STOP_SECONDS + 0.5 + BUSY_SECONDS
    assert pipeline.report.discarded > 0
    assert pipeline.report.skipped > 0
    assert_adds_up(pipeline.report, source, explainer)
    with av.open(str(path)) as container:
        assert sum(1 for _ in container.decode(video=0)) == video.written > 0


def test_limit_is_no_stop_and_all_of_its_frames_are_finished(explainer: TinyExplainer) -> None:
    explainer.before = takes(0.3)
    source, kept = Frames(1000), Kept()
    report = run(make_pipeline(source, [kept], explainer, limit=9, queue_frames=20))
    assert report.seconds > STOP_SECONDS
    assert kept.indices == list(range(9))
    assert report.ended_by == "limit"
    assert_adds_up(report, source, explainer)


@pytest.mark.parametrize("live", [False, True])
def test_stop_does_not_wait_for_all_that_a_slow_sink_has_before_it(
    explainer: TinyExplainer, live: bool
) -> None:
    pause, begun = threading.Event(), threading.Event()

    def on_write(picture: Picture) -> None:
        begun.set()
        pause.wait(0.5)

    source, kept = Frames(WITHOUT_END, live=live), Kept(on_write=on_write)
    pipeline = make_pipeline(source, [kept], explainer, queue_frames=10)
    stopped = stop_when(pipeline, begun)
    report = run(pipeline)
    assert time.monotonic() - stopped[0] < STOP_SECONDS + 0.5 + BUSY_SECONDS
    assert kept.exits == [None]
    if not live:
        assert report.sinks[0].dropped > 0
    assert_adds_up(report, source, explainer)


def test_hanging_source_stopped_by_a_closed_window(explainer: TinyExplainer) -> None:
    hangs, forever = threading.Event(), threading.Event()
    closed: list[float] = []

    def before(index: int) -> None:
        if index == 3:
            hangs.set()
            forever.wait(DEADLINE_SECONDS * 3)

    def on_poll() -> bool:
        if hangs.is_set() and not closed:
            closed.append(time.monotonic())
        return not closed

    source, window = Frames(10, live=True, before=before), Kept(on_poll=on_poll, main_thread=True)
    pipeline = make_pipeline(source, [window], explainer)
    report = run(pipeline)
    assert time.monotonic() - closed[0] < 2 * STOP_SECONDS + BUSY_SECONDS
    assert pipeline.source_hangs
    assert report.ended_by == "kept was closed"
    assert_adds_up(report, source, explainer)
    forever.set()
