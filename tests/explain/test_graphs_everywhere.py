"""Promises of graphs on the simulated GPU, and in the very same tests on a GPU."""

from __future__ import annotations

import gc
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from support.graph_parts import SIDE, Reads, assert_drawn_as_on_the_cpu, frame, picture, taken
from support.networks import LABELS, small_network
from support.steady_parts import Steady
from support.waiting import wait_until
from torch import Tensor

from stream_cam.config import EngineName, Fit, LookConfig
from stream_cam.draw.renderer import Renderer
from stream_cam.explain.explainer import Explainer
from stream_cam.frame import FloatArray
from stream_cam.settings import SettingsSnapshot

pytest.importorskip("triton", reason="no Triton for this system")

from support.simulated_gpu import SimulatedGpu

from stream_cam.explain.graph.cuda_device import CudaGpu, CudaStream
from stream_cam.explain.graph.device import Graph, Stream, Work
from stream_cam.explain.graph.scheduler import FrameGraphs

DEADLINE_SECONDS = 300.0
BIG = (400, 420)
"""Larger than the panels of `top5`."""
SHARE = 0.02
"""Share of the largest value: the CPU path's input went through uint8 after resizing."""


class CountedCuda(CudaGpu):
    """Counts as the stand-in does."""

    def __init__(self) -> None:
        super().__init__("cuda:0")
        self.n_captured = self.n_allocated = 0

    def host(self, n_bytes: int) -> Tensor:
        self.n_allocated += 1
        return super().host(n_bytes)

    def memory(self, n_bytes: int) -> Tensor:
        self.n_allocated += 1
        return super().memory(n_bytes)

    def stream(self) -> Stream:
        return CountedStream(self)


class CountedStream(CudaStream):
    def __init__(self, gpu: CountedCuda) -> None:
        super().__init__(gpu.device)
        self._gpu = gpu

    def capture(self, work: Work) -> Graph:
        graph = super().capture(work)
        self._gpu.n_captured += 1
        return graph


@dataclass
class Ground:
    """Where frames go through graphs."""

    gpu: SimulatedGpu | CountedCuda
    engine: EngineName = "eager"

    def explainer(self, *, fit: Fit = "stretch", n_slots: int = 3) -> Explainer:
        made = Explainer.from_module(
            small_network(),
            labels=LABELS,
            engine=self.engine,
            device="cpu" if self.gpu.device == "cpu" else "auto",
            precision="fp32",
            input_size=SIDE,
            fit=fit,
        )
        made.graphs = FrameGraphs(self.gpu, made.weights, made._class_weight, n_slots)
        return made


ON_GPU = pytest.param("eager", marks=pytest.mark.needs_gpu, id="cuda-eager")
BOTH = ["stand-in", ON_GPU]
ALL = [*BOTH, pytest.param("inductor", marks=pytest.mark.needs_gpu, id="cuda-inductor")]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """For this module's engines."""
    folder = tmp_path_factory.mktemp("engines")
    with pytest.MonkeyPatch.context() as patches:
        patches.setenv("STREAM_CAM_ENGINES", str(folder))
        yield folder


@pytest.fixture(params=BOTH)
def ground(request: pytest.FixtureRequest, store: Path) -> Ground:
    if request.param == "stand-in":
        return Ground(SimulatedGpu(1))
    require_gpu(request.param)
    return Ground(CountedCuda(), request.param)


def require_gpu(engine: EngineName) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA GPU")
    if engine in ("auto", "inductor") and not (shutil.which("gcc") or shutil.which("cc")):
        pytest.skip("no C compiler, which Triton needs (apt-get install gcc)")


def on_cpu(fit: Fit = "stretch") -> Explainer:
    return Explainer.from_module(
        small_network(), labels=LABELS, engine="eager", device="cpu", input_size=SIDE, fit=fit
    )


def assert_near(got: FloatArray, expected: FloatArray) -> None:
    assert np.abs(got - expected).max() <= SHARE * np.abs(expected).max()


@pytest.mark.parametrize("ground", ALL, indirect=True)
@pytest.mark.parametrize("fit", ["stretch", "native"])
def test_whole_frames_are_explained_and_drawn_as_on_the_cpu(ground: Ground, fit: Fit) -> None:
    made, alone, look = ground.explainer(fit=fit), on_cpu(fit), LookConfig()
    for seed in range(3):
        image = picture(seed, (90, 160))
        got = made.explain_drawn(image)
        expected = alone.explain(image, got.targets[0].index)
        assert_near(got.cams, expected.cams)
        assert_near(got.logits, expected.logits)
        assert (got.region, got.cam.shape) == (expected.region, expected.cam.shape)
        assert_drawn_as_on_the_cpu(taken(got, image, look)[0], image, got, look)
    assert ground.gpu.n_captured == 3


@pytest.mark.needs_gpu
def test_where_there_is_a_gpu_auto_takes_it(store: Path) -> None:
    require_gpu("auto")
    made = Explainer.from_module(
        small_network(), labels=LABELS, engine="auto", device="auto", input_size=SIDE
    )
    each, look = frame(0), LookConfig()
    got = made.explain_drawn(each)
    assert made.engine_info is not None
    assert made.engine_info.device.startswith("cuda")
    assert_drawn_as_on_the_cpu(taken(got, each.image_bgr, look)[0], each.image_bgr, got, look)


@pytest.mark.parametrize("targets", [[], [2], [4, 1]])
def test_panels_are_drawn_on_the_smaller_frame(ground: Ground, targets: list[int]) -> None:
    look = LookConfig(layout="top5", hud=False)
    made, big = ground.explainer(), frame(5, BIG)
    got = made.explain_drawn(big, SettingsSnapshot(look, tuple(targets)))
    classes = [one.index for one in got.targets]
    assert classes[: len(targets)] == targets
    assert len(set(classes)) == len(classes) == 5
    assert_near(got.cams, on_cpu().explain(big, classes).cams)
    renderer, settings = Renderer(), SettingsSnapshot(look)
    expected = renderer.render(big, replace(got, drawn=None), settings).astype(int)
    rendered = renderer.render(big, got, settings).astype(int)
    difference = np.abs(rendered - expected).max(axis=2)
    assert (difference <= 1).mean() > 0.95  # ties aside
    assert difference.max() <= 10


def test_several_targets_are_each_drawn(ground: Ground) -> None:
    made, image, look = ground.explainer(), picture(6), LookConfig()
    got = made.explain_drawn(image, SettingsSnapshot(look, (4, 1, 6)))
    assert [one.index for one in got.targets] == [4, 1, 6]
    assert_near(got.cams, on_cpu().explain(image, [4, 1, 6]).cams)
    for place, drawn in enumerate(taken(got, image, look)):
        assert_drawn_as_on_the_cpu(drawn, image, got, look, place)


def test_live_changes_of_the_look_and_the_targets_capture_nothing_anew(ground: Ground) -> None:
    gpu, made = ground.gpu, ground.explainer()
    made.explain_drawn(frame(0))
    captured, allocated = gpu.n_captured, gpu.n_allocated
    looks = [
        LookConfig(alpha=0.9),
        LookConfig(colormap="viridis"),
        LookConfig(alpha_mode="heat"),
        LookConfig(layout="heatmap"),
        LookConfig(layout="side"),
    ]
    for number, look in enumerate(looks):
        each = frame(number)
        got = made.explain_drawn(each, SettingsSnapshot(look, (number,)))
        assert got.targets[0].index == number
        assert_drawn_as_on_the_cpu(taken(got, each.image_bgr, look)[0], each.image_bgr, got, look)
    held = SettingsSnapshot(LookConfig(hold=1.0))
    assert made.explain_drawn(frame(7), held).drawn is not None
    assert (gpu.n_captured, gpu.n_allocated) == (captured, allocated)


@pytest.mark.parametrize(
    "frames",
    [
        [((64, 64), 3, 0.0), ((48, 80), 5, 0.04), ((48, 80), 3, 0.08)],
        [((64, 64), 3, 0.0), ((64, 64), 5, 2.5), ((64, 64), 5, 0.1), ((64, 64), 3, 0.2)],
    ],
    ids=["another size", "a looped file"],
)
def test_maps_of_classes_that_were_not_shown_start_anew_too(
    ground: Ground, frames: list[tuple[tuple[int, int], int, float]]
) -> None:
    """The kept map of the last frame's class has another size, or is from the round before."""
    alone, made = on_cpu(), ground.explainer()
    steady = Steady(smooth_seconds=0.5)
    for seed, (size_hw, index, seconds) in enumerate(frames):
        each = replace(frame(seed, size_hw), pts=round(seconds * 100), time_base=Fraction(1, 100))
        expected = steady.update(alone.explain(each, index))
        got = made.explain_drawn(each, SettingsSnapshot(steady.look, (index,)))
        assert_near(got.cams, expected.cams)


def test_a_size_is_not_forgotten_while_a_frame_of_it_is_on_its_way(ground: Ground) -> None:
    """The fourth size has the first one's buffers freed, but not under a frame."""
    gpu, made, alone = ground.gpu, ground.explainer(n_slots=2), on_cpu()
    assert made.graphs is not None
    assert made.engine is not None
    images = [picture(number, (40 + 8 * number, 64)) for number in range(4)]
    with ThreadPoolExecutor(1) as pool:
        fit = made.plan((40, 64))
        with made.graphs.begun(made.engine, fit, images[0], SettingsSnapshot(targets=(2,))) as slot:
            for image in images[1:3]:
                made.explain_drawn(image)
            fourth = pool.submit(made.explain_drawn, images[3], SettingsSnapshot(targets=(2,)))
            wait_until(lambda: gpu.n_captured == 8, DEADLINE_SECONDS)
            gc.collect()
            got = slot.finish()
        assert_near(got.cams, alone.explain(images[0], 2).cams)
        assert_near(fourth.result(DEADLINE_SECONDS).cams, alone.explain(images[3], 2).cams)
    assert_near(
        made.explain_drawn(images[0], SettingsSnapshot(targets=(2,))).cams,
        alone.explain(images[0], 2).cams,
    )
    assert gpu.n_captured == 10


def test_a_frame_that_is_given_up_is_done_before_its_slot_is_the_next_ones(ground: Ground) -> None:
    """The next frame would change its pixels and its time under way."""
    alone, made = on_cpu(), ground.explainer(n_slots=1)
    assert made.graphs is not None
    assert made.engine is not None
    fit = made.plan((SIDE, SIDE))
    steady = Steady(smooth_seconds=0.5)
    settings = SettingsSnapshot(steady.look, (3,))
    with (
        pytest.raises(KeyboardInterrupt),
        made.graphs.begun(made.engine, fit, picture(0), settings, now_seconds=0.0),
    ):
        raise KeyboardInterrupt
    steady.update(alone.explain(frame(0), 3), 0.0)
    got = made.graphs.explain(made.engine, fit, picture(1), settings, now_seconds=0.1)
    assert_near(got.cams, steady.update(alone.explain(frame(1), 3), 0.1).cams)


def test_what_no_graph_can_hold_is_explained_without_and_said_once(
    ground: Ground, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, other = ground.explainer(), ground.explainer()
    monkeypatch.setattr(made._engines.sessions((SIDE, SIDE)), "engine", Reads(made))
    for seed in range(2):
        got = made.explain_drawn(frame(seed))
        assert got.drawn is None
        assert_near(got.cams, on_cpu().explain(frame(seed), got.targets[0].index).cams)
    said = [one.message for one in caplog.records if one.name.startswith("stream_cam")]
    assert len(said) == 1
    assert "cannot be captured in a graph" in said[0]
    assert "slower way through host memory" in said[0]
    assert other.explain_drawn(frame(3)).drawn is not None, "the GPU is as it was"
