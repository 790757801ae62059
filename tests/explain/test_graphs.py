"""Frames through graphs: on a stand-in for the GPU, whose order and lateness are adversarial."""

from __future__ import annotations

import gc
import logging
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, nullcontext
from dataclasses import replace

import numpy as np
import pytest
from support.graph_parts import (
    SIDE,
    Reads,
    assert_drawn_as_on_the_cpu,
    frame,
    is_tie,
    picture,
    taken,
)
from support.networks import LABELS, small_network
from support.steady_parts import Steady
from torch import Tensor

from stream_cam.cam.cpu import scale_cam
from stream_cam.cam.geometry import plan_fit
from stream_cam.config import Fit, LookConfig, ScaleName, Upsampling
from stream_cam.draw.layouts import MapStyle, count_maps
from stream_cam.draw.overlay import draw_overlay
from stream_cam.draw.renderer import Renderer
from stream_cam.errors import EngineError
from stream_cam.explain.explainer import Explainer
from stream_cam.frame import Explanation, Frame
from stream_cam.queues import OrderedGate, Ticket
from stream_cam.settings import SettingsSnapshot

pytest.importorskip("triton", reason="no Triton for this system")

from support.simulated_gpu import SimulatedGpu

from stream_cam.explain.graph.device import NotCapturedError
from stream_cam.explain.graph.scheduler import FrameGraphs

FIVE = LookConfig(layout="top5")
DEADLINE_SECONDS = 120.0


def explainer(
    gpu: SimulatedGpu | None = None, *, fit: Fit = "stretch", n_slots: int = 3
) -> Explainer:
    """On the CPU; with `gpu` through graphs on it."""
    made = Explainer.from_module(
        small_network(), labels=LABELS, engine="eager", device="cpu", input_size=SIDE, fit=fit
    )
    if gpu is not None:
        made.graphs = FrameGraphs(gpu, made.weights, made._class_weight, n_slots)
    return made


@pytest.mark.parametrize("fit", ["stretch", "crop", "letterbox", "native"])
def test_a_graph_says_and_draws_what_the_cpu_does(fit: Fit) -> None:
    gpu, look = SimulatedGpu(1), LookConfig()
    on_cpu, on_gpu = explainer(fit=fit), explainer(gpu, fit=fit)
    for seed in range(3):
        image = picture(seed, (90, 160))
        expected, got = on_cpu.explain(image), on_gpu.explain_drawn(image)
        # The CPU path's input went through uint8 after resizing: half a level of 255.
        largest = float(np.abs(expected.cams).max())
        assert np.abs(got.cams - expected.cams).max() <= 0.02 * largest
        assert np.abs(got.logits - expected.logits).max() <= 0.02
        assert got.region == expected.region
        assert got.frame_size_hw == expected.frame_size_hw
        assert got.targets[0].index == int(got.logits.argmax())
        assert_drawn_as_on_the_cpu(taken(got, image, look)[0], image, got, look)


@pytest.mark.parametrize(
    "look",
    [
        LookConfig(),
        LookConfig(alpha=0.7, alpha_mode="heat", colormap="magma"),
        LookConfig(layout="heatmap", colormap="jet"),
        LookConfig(relu=True, upsampling="nearest"),
        LookConfig(layout="side", alpha=0.0),
    ],
    ids=lambda look: f"{look.layout}-{look.colormap}-{look.upsampling}",
)
def test_whole_pictures_equal_the_cpus_where_nothing_is_resized(look: LookConfig) -> None:
    """Frames as large as the network's input: both paths see the very same numbers."""
    on_cpu, on_gpu = explainer(), explainer(SimulatedGpu(2))
    for seed in range(2):
        each = frame(seed)
        expected = on_cpu.explain(each)
        got = on_gpu.explain_drawn(each, SettingsSnapshot(look))
        assert [one.index for one in got.predictions] == [one.index for one in expected.predictions]
        assert got.targets == expected.targets or got.targets[0].index == expected.targets[0].index
        shares = [one.probability for one in expected.predictions]
        assert [one.probability for one in got.predictions] == pytest.approx(shares, abs=1e-5)
        np.testing.assert_allclose(got.cams, expected.cams, rtol=1e-4, atol=1e-4)
        assert (got.frame_index, got.pts_seconds) == (each.index, each.pts_seconds)
        renderer, settings = Renderer(), SettingsSnapshot(replace(look, hud=False))
        rendered = renderer.render(each, got, settings)
        assert got.drawn is not None
        again = got.drawn.take(each.image_bgr, MapStyle.of(look, n_maps=1))
        assert again is None, "it was not the graph's picture"
        by_cpu = renderer.render(each, expected, settings)
        difference = np.abs(rendered.astype(int) - by_cpu.astype(int))
        tie = is_tie(scale_cam(expected.cam, relu=look.relu), (SIDE, SIDE), expected.region)
        if look.layout == "side":
            difference = difference[:, SIDE:]
        assert difference.max(axis=2)[~tie].max() <= 1


def test_more_maps_than_there_are_are_as_many_as_on_the_cpu() -> None:
    on_cpu, on_gpu = explainer(), explainer(SimulatedGpu())
    for targets, look in (((), FIVE), ((1, 2, 3, 4, 5, 6), LookConfig()), ((6,), FIVE)):
        settings = SettingsSnapshot(look, targets)
        n_maps = count_maps(settings, len(on_cpu.labels))
        expected = on_cpu.explain(frame(1), targets or None, n_maps=n_maps)
        got = on_gpu.explain_drawn(frame(1), settings)
        assert [t.index for t in got.targets] == [t.index for t in expected.targets]


def test_frames_of_another_size_are_planned_once_and_it_is_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    gpu, look = SimulatedGpu(5), LookConfig()
    on_gpu = explainer(gpu)
    with caplog.at_level(logging.INFO, "stream_cam"):
        for seed in range(6):
            image = picture(seed, (30 + 10 * (seed % 2), 50))
            got = on_gpu.explain_drawn(image)
            assert_drawn_as_on_the_cpu(taken(got, image, look)[0], image, got, look)
    assert [record.message for record in caplog.records] == [
        "planning graphs for frames of 50×30 on cpu",
        "planning graphs for frames of 50×40 on cpu",
    ]
    assert gpu.n_captured == 6


def test_older_sizes_are_forgotten() -> None:
    gpu = SimulatedGpu(6)
    on_gpu = explainer(gpu, n_slots=1)
    for height in (20, 21, 22, 23, 20):
        on_gpu.explain_drawn(picture(1, (height, 32)))
    assert gpu.n_captured == 5
    on_gpu.explain_drawn(picture(1, (23, 32)))
    assert gpu.n_captured == 5


@pytest.mark.parametrize("seed", range(2))
def test_many_threads_get_each_its_own_frame(seed: int) -> None:
    look = LookConfig()
    gpu = SimulatedGpu(seed)
    on_gpu = explainer(gpu)
    images = [picture(number, (40, 64) if number % 5 else (24, 32)) for number in range(24)]
    alone = explainer()
    with ThreadPoolExecutor(5) as pool:
        together = list(pool.map(on_gpu.explain_drawn, images, timeout=DEADLINE_SECONDS))
    for image, got in zip(images, together, strict=True):
        expected = alone.explain(image)
        assert np.abs(got.logits - expected.logits).max() <= 0.05
        assert_drawn_as_on_the_cpu(taken(got, image, look)[0], image, got, look)
    assert gpu.n_replayed == len(images)


def test_steady_frames_of_many_threads_follow_one_another() -> None:
    on_cpu, on_gpu = explainer(), explainer(SimulatedGpu(7))
    steady = Steady(smooth_seconds=0.3, hold_seconds=0.1)
    frames = [frame(number) for number in range(18)]
    expected = [steady.update(on_cpu.explain(each, keep_features=True)) for each in frames]
    line = OrderedGate()

    def explained(each: Frame, ticket: Ticket) -> Explanation:
        return on_gpu.explain_drawn(each, SettingsSnapshot(steady.look), ticket=ticket)

    with ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(explained, each, line.join()) for each in frames]
        got = [one.result(DEADLINE_SECONDS) for one in waiting]
    look = LookConfig()
    for each, one, wanted in zip(frames, got, expected, strict=True):
        assert [t.index for t in one.targets] == [t.index for t in wanted.targets]
        np.testing.assert_allclose(one.cams, wanted.cams, rtol=1e-3, atol=1e-3)
        assert one.ranges is not None
        assert wanted.ranges is not None
        np.testing.assert_allclose(one.ranges, wanted.ranges, rtol=1e-3, atol=1e-3)
        assert_drawn_as_on_the_cpu(taken(one, each.image_bgr, look)[0], each.image_bgr, one, look)


@pytest.mark.parametrize("seed", range(3))
def test_three_steady_frames_on_their_way_at_once_keep_their_order(seed: int) -> None:
    """All are given to the GPU before anybody waits, and the last one is waited for first."""
    on_cpu, made = explainer(), explainer()
    graphs = FrameGraphs(SimulatedGpu(seed), made.weights, made._class_weight)
    settings = SettingsSnapshot(LookConfig(smooth=0.3, hold=0.1))
    steady = Steady(smooth_seconds=0.3, hold_seconds=0.1)
    fit = plan_fit("stretch", (SIDE, SIDE), SIDE)
    assert made.engine is not None
    for first in (0, 3, 6):
        with ExitStack() as on_their_way:
            frames = [frame(number) for number in range(first, first + 3)]
            slots = [
                on_their_way.enter_context(
                    graphs.begun(
                        made.engine, fit, each.image_bgr, settings, now_seconds=each.pts_seconds
                    )
                )
                for each in frames
            ]
            found = [slot.finish() for slot in reversed(slots)][::-1]
        for each, got in zip(frames, found, strict=True):
            expected = steady.update(on_cpu.explain(each, keep_features=True))
            assert got.classes == [expected.targets[0].index]
            np.testing.assert_allclose(got.cams, expected.cams, rtol=1e-3, atol=1e-3)
            np.testing.assert_allclose(got.ranges, expected.ranges, rtol=1e-3, atol=1e-3)  # type: ignore[arg-type]


def test_maps_start_anew_on_frames_of_another_size() -> None:
    on_gpu, look = explainer(SimulatedGpu(8)), LookConfig(smooth=5.0)
    first = on_gpu.explain_drawn(frame(0), SettingsSnapshot(look))
    same = SettingsSnapshot(look, (first.targets[0].index,))
    again = on_gpu.explain_drawn(frame(1), same)
    alone = explainer().explain(frame(1), first.targets[0].index)
    assert np.abs(again.cams - alone.cams).max() > 0.05 * np.abs(alone.cams).max()
    other = on_gpu.explain_drawn(frame(2, (48, 80)), SettingsSnapshot(look, (3,)))
    back = on_gpu.explain_drawn(frame(3), SettingsSnapshot(look, (3,)))
    for seed, got, size_hw in ((2, other, (48, 80)), (3, back, (SIDE, SIDE))):
        alone = explainer().explain(frame(seed, size_hw), 3)
        assert np.abs(got.cams - alone.cams).max() <= 0.02 * np.abs(alone.cams).max()


def test_a_gpu_that_fails_loses_the_frames_after_and_says_why() -> None:
    on_gpu = explainer(SimulatedGpu(9, fail_replay=4))
    look = LookConfig()
    for seed in range(4):
        each = frame(seed)
        got = on_gpu.explain_drawn(each)
        assert_drawn_as_on_the_cpu(taken(got, each.image_bgr, look)[0], each.image_bgr, got, look)
    for seed in range(4, 7):
        with pytest.raises(EngineError, match=r"GPU failed .*illegal memory access in replay 4"):
            on_gpu.explain_drawn(frame(seed))


def test_a_failure_in_flight_reaches_all_who_wait() -> None:
    on_gpu = explainer(SimulatedGpu(10, fail_replay=5))

    def outcome(seed: int) -> str:
        try:
            on_gpu.explain_drawn(frame(seed))
        except EngineError as error:
            return str(error)
        return "fine"

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(outcome, range(16), timeout=DEADLINE_SECONDS))
    assert all(one == "fine" or "illegal memory access in replay 5" in one for one in found)
    assert sum(one != "fine" for one in found) >= 16 - 5


def test_a_failure_in_flight_is_no_fault_of_the_frame_that_is_planned(
    caplog: pytest.LogCaptureFixture,
) -> None:
    made = explainer(SimulatedGpu(12, fail_replay=0))
    assert made.graphs is not None
    assert made.engine is not None
    fit = plan_fit("stretch", (SIDE, SIDE), SIDE)
    with made.graphs.begun(made.engine, fit, picture(0), SettingsSnapshot()):
        for size_hw in ((48, 80), (SIDE, SIDE)):
            with pytest.raises(
                EngineError, match=r"GPU failed .*illegal memory access in replay 0"
            ):
                made.explain_drawn(picture(1, size_hw))
    assert not caplog.records, "they could have been captured"


def test_a_frame_that_is_given_up_on_a_lost_gpu_keeps_its_own_reason() -> None:
    made = explainer(SimulatedGpu(fail_replay=0))
    assert made.graphs is not None
    assert made.engine is not None
    fit = plan_fit("stretch", (SIDE, SIDE), SIDE)
    with (
        pytest.raises(KeyboardInterrupt),
        made.graphs.begun(made.engine, fit, picture(0), SettingsSnapshot()),
    ):
        raise KeyboardInterrupt
    with pytest.raises(EngineError, match=r"GPU failed .*illegal memory access in replay 0"):
        made.explain_drawn(frame(1))


class Watched(SimulatedGpu):
    """Tracks which of its memory blocks are still there."""

    def __init__(self, *, fail_replay: int | None) -> None:
        super().__init__(13, fail_replay=fail_replay)
        self._given: list[weakref.ref[Tensor]] = []

    def host(self, n_bytes: int) -> Tensor:
        memory = super().host(n_bytes)
        self._given.append(weakref.ref(memory))
        return memory

    @property
    def kept(self) -> list[bool]:
        gc.collect()
        return [memory() is not None for memory in self._given]


@pytest.mark.parametrize("is_lost", [False, True])
def test_memory_of_a_lost_gpu_is_never_freed(is_lost: bool) -> None:
    """Freeing it may end the process; the memory of a working GPU is freed."""
    gpu = Watched(fail_replay=1 if is_lost else None)
    on_gpu = explainer(gpu)
    on_gpu.explain_drawn(frame(0))
    with pytest.raises(EngineError) if is_lost else nullcontext():
        on_gpu.explain_drawn(frame(1))
    assert gpu.kept == [True] * 6
    del on_gpu
    assert gpu.kept == [is_lost] * 6


def test_an_engine_that_reads_on_the_host_is_not_captured() -> None:
    made = explainer()
    graphs = FrameGraphs(SimulatedGpu(), made.weights, made._class_weight)
    fit = plan_fit("stretch", (SIDE, SIDE), SIDE)
    with pytest.raises(NotCapturedError, match=r"cannot be captured .*not permitted when stream"):
        graphs.explain(Reads(made), fit, picture(0), SettingsSnapshot())


@pytest.mark.parametrize("upsampling", ["nearest", "bicubic"])
def test_other_ways_to_upsample_are_drawn_too(upsampling: Upsampling) -> None:
    look = LookConfig(upsampling=upsampling)
    on_gpu = explainer(SimulatedGpu())
    image = picture(3, (90, 160))
    got = on_gpu.explain_drawn(image, SettingsSnapshot(look))
    assert_drawn_as_on_the_cpu(taken(got, image, look)[0], image, got, look)


def test_pictures_are_given_away_once_and_only_for_their_frame_and_look() -> None:
    on_gpu, look = explainer(SimulatedGpu()), LookConfig()
    own = MapStyle.of(look, n_maps=1)
    for wrong in (
        (frame(0).image_bgr, own),  # equal, but another frame
        (None, MapStyle.of(replace(look, alpha=0.41), n_maps=1)),
        (None, MapStyle.of(replace(look, layout="heatmap"), n_maps=1)),
        (None, MapStyle.of(look, n_maps=2)),
    ):
        each = frame(0)
        drawn = on_gpu.explain_drawn(each, SettingsSnapshot(look)).drawn
        assert drawn is not None
        image = each.image_bgr if wrong[0] is None else wrong[0]
        assert drawn.take(image, wrong[1]) is None
        assert drawn.take(each.image_bgr, own) is None
    each = frame(0)
    side = replace(look, hold=3.0, layout="side")
    explanation = on_gpu.explain_drawn(each, SettingsSnapshot(side))
    taken(explanation, each.image_bgr, look)  # neither is of the drawn map


def test_draw_is_explain_and_overlay() -> None:
    on_cpu, on_gpu = explainer(), explainer(SimulatedGpu())
    image = picture(3)
    for target in (None, "dog", 5, ["cat", "rat"]):
        expected, by_cpu = on_cpu.draw(image, target)
        assert np.array_equal(by_cpu, draw_overlay(image, on_cpu.explain(image, target)))
        got, by_gpu = on_gpu.draw(image, target)
        assert got.targets[0].index == expected.targets[0].index
        assert got.cam.shape == expected.cam.shape
        tie = is_tie(scale_cam(expected.cams[0]), (SIDE, SIDE), expected.region)
        difference = np.abs(by_gpu.astype(int) - by_cpu.astype(int)).max(axis=2)
        assert difference[~tie].max() <= 1


@pytest.mark.parametrize("scale", ["own", "common", "fixed"])
@pytest.mark.parametrize("smooth", [0.0, 0.3])
def test_every_scale_is_drawn_as_on_the_cpu(scale: ScaleName, smooth: float) -> None:
    look = LookConfig(hud=False, scale=scale, scale_low=-0.1, scale_high=0.3, smooth=smooth)
    settings, made = SettingsSnapshot(look), explainer(SimulatedGpu(2))
    for seed in range(3):
        one = frame(seed)
        got = made.explain_drawn(one, settings)
        (drawn,) = taken(got, one.image_bgr, look)
        assert_drawn_as_on_the_cpu(drawn, one.image_bgr, got, look)
