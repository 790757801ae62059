"""One explainer behind several real pipelines."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from support.pipeline_parts import (
    DEADLINE_SECONDS,
    Frames,
    Kept,
    TinyExplainer,
    make_explainer,
    tiny_network,
)

from stream_cam.config import LookConfig
from stream_cam.explain.scheduler import BatchCosts
from stream_cam.explain.shared import SharedExplainer, measure_costs
from stream_cam.frame import Frame
from stream_cam.pipeline.pipeline import Pipeline
from stream_cam.queues import EndOfStream
from stream_cam.settings import Settings

PAIRS = BatchCosts({1: 0.002, 2: 0.002})


@pytest.fixture
def explainer() -> TinyExplainer:
    return make_explainer(tiny_network(), parallel=2)


def run_all(pipelines: list[Pipeline]) -> list[BaseException]:
    """Runs them at once; gives their failures."""
    failures: list[BaseException] = []

    def run(pipeline: Pipeline) -> None:
        try:
            pipeline.run()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(one,), daemon=True) for one in pipelines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(3 * DEADLINE_SECONDS)
        assert not thread.is_alive()
    return failures


def test_cameras_get_the_maps_of_their_own_frames(explainer: TinyExplainer) -> None:
    """Every frame is explained: the frame's grey value tells which one it was."""
    sinks = [Kept() for _ in range(3)]
    sizes = [(48, 64), (64, 64), (96, 48)]
    with SharedExplainer(explainer, costs=PAIRS) as shared:
        pipelines = [
            Pipeline(Frames(12, size_hw=size), [sink], shared.join(f"camera {number}"))
            for number, (sink, size) in enumerate(zip(sinks, sizes, strict=True))
        ]
        assert not run_all(pipelines)
        assert shared.explained == 36
        assert sum(size * count for size, count in shared.batches.items()) == 36
    for sink in sinks:
        assert sink.indices == list(range(12))
        for picture in sink.pictures:
            assert picture.explanation is not None
            alone = explainer.explain(picture.frame)
            np.testing.assert_array_equal(picture.explanation.logits, alone.logits)


def test_live_counts_add_up_per_camera_and_in_sum(explainer: TinyExplainer) -> None:
    def pause(index: int) -> None:
        time.sleep(0.001)  # the pace of a camera; nothing waits for it

    with SharedExplainer(explainer, costs=PAIRS) as shared:
        pipelines = [
            Pipeline(
                Frames(200, live=True, before=pause),
                [Kept()],
                shared.join(f"camera {number}"),
            )
            for number in range(4)
        ]
        assert not run_all(pipelines)
        reports = [pipeline.report for pipeline in pipelines]
        assert shared.explained == sum(report.explained for report in reports)
    for report in reports:
        assert report.captured == 200
        assert report.explained + report.superseded + report.discarded == 200
        assert report.explained > 0


def test_the_newest_frame_is_taken_when_the_turn_comes(explainer: TinyExplainer) -> None:
    """While another camera keeps the network, newer frames replace the one that waits."""
    busy, newest_here = threading.Event(), threading.Event()

    def hold(frame: Frame) -> None:
        if frame.image_bgr.shape[0] == 96:
            busy.set()
            assert newest_here.wait(DEADLINE_SECONDS)

    def before(index: int) -> None:
        assert busy.wait(DEADLINE_SECONDS)
        if index == 9:
            newest_here.set()

    explainer.before = hold
    with SharedExplainer(explainer, costs=BatchCosts({1: 0.01})) as shared:
        slow = Pipeline(Frames(1, live=True, size_hw=(96, 96)), [Kept()], shared.join("slow"))
        fast = Pipeline(Frames(10, live=True, before=before), [Kept()], shared.join("fast"))
        assert not run_all([slow, fast])
    assert {8, 9} & set(explainer.explained)
    assert not {1, 2, 3, 4, 5, 6, 7} & set(explainer.explained)
    assert fast.report.superseded >= 8


def test_a_frame_that_fails_ends_its_own_camera_only(explainer: TinyExplainer) -> None:
    def fail(frame: Frame) -> None:
        if frame.image_bgr.shape[0] == 96 and frame.index == 5:
            raise ValueError("this frame is broken")

    explainer.before = fail
    kept = Kept()
    with SharedExplainer(explainer, costs=PAIRS) as shared:
        broken = Pipeline(Frames(12, size_hw=(96, 96)), [Kept()], shared.join("broken"))
        sound = Pipeline(Frames(12), [kept], shared.join("sound"))
        failures = run_all([broken, sound])
        assert [str(one) for one in failures] == ["this frame is broken"]
        assert kept.indices == list(range(12))
        assert shared.explained == broken.report.explained + 12


def test_a_steady_map_is_made_of_one_cameras_frames(explainer: TinyExplainer) -> None:
    kept = Kept()
    settings = Settings(LookConfig(smooth=0.3, hold=0.5), explainer.labels)
    with SharedExplainer(explainer, costs=PAIRS) as shared:
        pipeline = Pipeline(Frames(6), [kept], shared.join("a"), settings=settings)
        assert not run_all([pipeline])
    assert kept.indices == list(range(6))


def test_who_leaves_or_is_late_is_told_the_end(explainer: TinyExplainer) -> None:
    shared = SharedExplainer(explainer, costs=PAIRS)
    camera = shared.join("a")
    camera.close()
    shared.join("a").close()  # the name is free again
    other = shared.join("b")
    shared.close()
    frame = np.zeros((48, 64, 3), np.uint8)
    for late in (other.explain, other.explain_drawn):
        with pytest.raises(EndOfStream):
            late(frame)


def test_costs_are_measured_for_every_size(explainer: TinyExplainer) -> None:
    costs = measure_costs(explainer, (1, 2))
    assert costs.sizes == (1, 2)
    assert all(costs.seconds(size) > 0.0 for size in costs.sizes)
