"""The pipeline where a GPU explains and draws in one pass; on the stand-in."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from support.pipeline_parts import Frames, Kept, TinyExplainer, make_explainer, run, tiny_network

from stream_cam.config import LookConfig
from stream_cam.draw.hud import HudStatus
from stream_cam.draw.renderer import Renderer
from stream_cam.errors import EngineError
from stream_cam.frame import BgrImage, Drawn, Explanation, Frame
from stream_cam.pipeline.captured import CapturedFrame
from stream_cam.pipeline.pipeline import Pipeline
from stream_cam.queues import OrderedGate
from stream_cam.settings import Settings, SettingsSnapshot

pytest.importorskip("triton", reason="no Triton for this system")

from support.simulated_gpu import SimulatedGpu

from stream_cam.explain.graph.scheduler import FrameGraphs

SIZE_HW = (32, 32)
"""The network's input: nothing is resized, so both paths see the same numbers."""
DEADLINE_SECONDS = 20.0


class Varied(Frames):
    """Frames of noise; a flat one has no map worth comparing."""

    def __iter__(self):  # type: ignore[no-untyped-def]
        for frame in super().__iter__():
            noise = np.random.default_rng(frame.index).integers(0, 256, frame.image_bgr.shape)
            yield replace(frame, image_bgr=noise.astype(np.uint8))


def on_gpu(gpu: SimulatedGpu, parallel: int = 1) -> TinyExplainer:
    made = make_explainer(tiny_network(), parallel)
    made.graphs = FrameGraphs(gpu, made.weights, made._class_weight)
    return made


class Counted(Renderer):
    """Counts the pictures whose maps it draws itself."""

    drawn_here = 0

    def _drawn_by_gpu(
        self,
        image: BgrImage,
        explanation: Explanation,
        settings: SettingsSnapshot,
        status: HudStatus,
    ) -> Sequence[BgrImage] | None:
        pictures = super()._drawn_by_gpu(image, explanation, settings, status)
        self.drawn_here += pictures is None
        return pictures


def pictures_of(
    explainer: TinyExplainer,
    look: LookConfig,
    *,
    n_frames: int = 12,
    targets: tuple[int, ...] = (),
    sizes: tuple[tuple[int, int], ...] = (),
) -> tuple[list[BgrImage], list[Explanation | None], Counted]:
    kept = Kept()
    renderer = Counted()
    pipeline = Pipeline(
        Varied(n_frames, size_hw=SIZE_HW, sizes=sizes),
        [kept],
        explainer,
        renderer=renderer,
        settings=Settings(replace(look, hud=False), explainer.labels, targets),
    )
    report = run(pipeline)
    assert report.rendered == n_frames
    assert kept.indices == list(range(n_frames))
    explanations = [picture.explanation for picture in kept.pictures]
    return [picture.image_bgr for picture in kept.pictures], explanations, renderer


@pytest.mark.parametrize(
    ("look", "targets"),
    [
        (LookConfig(), ()),
        (LookConfig(layout="side", colormap="jet"), (2,)),
        (LookConfig(layout="heatmap"), ()),
        (LookConfig(layout="top5"), ()),
        (LookConfig(smooth=0.3, hold=0.1), ()),
        (LookConfig(), (1, 3)),
    ],
    ids=["overlay", "side", "heatmap", "top5", "steady", "targets"],
)
def test_a_file_looks_as_on_the_cpu(look: LookConfig, targets: tuple[int, ...]) -> None:
    expected, by_cpu, _ = pictures_of(make_explainer(tiny_network()), look, targets=targets)
    gpu = SimulatedGpu(11)
    got, by_gpu, renderer = pictures_of(on_gpu(gpu, parallel=3), look, targets=targets)
    assert renderer.drawn_here == 0
    assert gpu.n_replayed == len(got)
    for one, other in zip(by_gpu, by_cpu, strict=True):
        assert one is not None
        assert other is not None
        assert [t.index for t in one.targets] == [t.index for t in other.targets]
        assert one.n_locked == other.n_locked
    for one_bgr, other_bgr in zip(got, expected, strict=True):
        assert one_bgr.shape == other_bgr.shape
        difference = np.abs(one_bgr.astype(int) - other_bgr.astype(int)).max(axis=2)
        # Where a heat lies between two colours, either may be taken.
        assert (difference <= 1).mean() > 0.9
        assert difference.max() <= 12


def test_contrast_maps_take_the_way_through_host_memory(
    caplog: pytest.LogCaptureFixture,
) -> None:
    gpu = SimulatedGpu(13)
    explainer, on_cpu = on_gpu(gpu), make_explainer(tiny_network())
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    image = Frame(noise, 0, 0, Fraction(1, 30), 0)
    settings = Settings(labels=explainer.labels)
    for _ in range(2):
        got = explainer.explain_drawn(image, settings.change(against="next", against_weight=0.6))
        wanted = on_cpu.explain(image, against="next", against_weight=0.6)
        assert got.drawn is None
        assert got.others() == wanted.others() != ()
        np.testing.assert_allclose(got.cam, wanted.cam, rtol=1e-4, atol=1e-5)
    assert gpu.n_replayed == 0
    assert caplog.text.count("computed in host memory") == 1
    assert explainer.explain_drawn(image, settings.change(against=None)).drawn is not None
    assert gpu.n_replayed == 1


def test_frames_that_change_their_size_keep_their_order() -> None:
    sizes = tuple((32, 32) if number // 3 % 2 else (24, 40) for number in range(12))
    gpu = SimulatedGpu(12)
    got, explanations, renderer = pictures_of(
        on_gpu(gpu, parallel=3), LookConfig(smooth=0.2), sizes=sizes
    )
    assert [image.shape[:2] for image in got] == list(sizes)
    assert [e.frame_index for e in explanations if e is not None] == list(range(12))
    assert renderer.drawn_here == 0
    assert gpu.n_captured == 2 * 3


def test_pictures_of_a_folder_cost_no_capture() -> None:
    gpu = SimulatedGpu(13)
    source = Varied(3, size_hw=SIZE_HW)
    source._info = replace(source.info, still=True)
    explainer, kept = on_gpu(gpu), Kept()
    run(Pipeline(source, [kept], explainer))
    assert kept.indices == [0, 1, 2]
    assert gpu.n_captured == 0


def test_a_gpu_that_fails_ends_the_run_with_its_reason_and_closes_the_sinks() -> None:
    explainer, kept = on_gpu(SimulatedGpu(14, fail_replay=5), parallel=3), Kept()
    pipeline = Pipeline(Varied(40, size_hw=SIZE_HW), [kept], explainer)
    with pytest.raises(EngineError, match="illegal memory access in replay 5"):
        run(pipeline)
    assert len(kept.exits) == 1
    assert kept.indices == list(range(len(kept.indices)))
    assert len(kept.indices) <= 5


def test_a_change_of_the_look_while_it_runs_is_drawn_by_the_gpu_again() -> None:
    gpu = SimulatedGpu(15)
    explainer = on_gpu(gpu)
    renderer, settings = Counted(), Settings(LookConfig(hud=False))

    def change(picture: object) -> None:
        if len(kept.pictures) == 3:
            settings.change(alpha=1.0, layout="heatmap")

    kept = Kept(on_write=change)
    run(
        Pipeline(
            Varied(60, size_hw=SIZE_HW),
            [kept],
            explainer,
            settings=settings,
            renderer=renderer,
            queue_frames=1,
        )
    )
    last = kept.pictures[-1]
    assert last.explanation is not None
    explanation = replace(last.explanation, drawn=None)
    expected = Renderer().render(last.frame, explanation, settings.now)
    assert np.abs(last.image_bgr.astype(int) - expected.astype(int)).mean() < 1.0
    # Frames that were on their way at the change are shown by the settings at their capture.
    assert renderer.drawn_here == 0
    assert gpu.n_captured == 3


def test_live_frames_get_their_own_explanation_where_it_comes_soon() -> None:
    """Each frame is captured when the one before was shown; the second, when one is explained."""
    shown, explained = threading.Semaphore(1), threading.Event()
    explainer = on_gpu(SimulatedGpu(16))
    renderer = Counted()

    def before(index: int) -> None:
        assert shown.acquire(timeout=DEADLINE_SECONDS)
        if index == 1:
            assert explained.wait(DEADLINE_SECONDS)

    kept = Kept(on_write=lambda picture: shown.release())
    source = Varied(30, live=True, size_hw=SIZE_HW, before=before)
    pipeline = Pipeline(source, [kept], explainer, renderer=renderer)
    quick = explainer.explain_drawn

    def timeless(frame: Frame, *arguments: object, **options: object) -> Explanation:
        # The stand-in is slow; a GPU is not.
        explanation = quick(frame, *arguments, **options)  # type: ignore[arg-type]
        explained.set()
        return replace(explanation, explained_ns=frame.captured_ns)

    explainer.explain_drawn = timeless  # type: ignore[method-assign, assignment]
    with pytest.MonkeyPatch.context() as patches:
        patches.setattr("stream_cam.pipeline.pipeline._OWN_MAP_SECONDS", DEADLINE_SECONDS)
        report = run(pipeline)
    assert report.captured == report.rendered == report.explained == 30
    own = [
        picture.explanation is not None and picture.explanation.frame_index == picture.frame.index
        for picture in kept.pictures
    ]
    assert all(own[2:])  # until the first explanation is handed on nobody waits for one
    assert renderer.drawn_here <= 2


def test_live_frames_do_not_wait_for_a_slow_network() -> None:
    explainer = on_gpu(SimulatedGpu(17))
    pipeline = Pipeline(Varied(1, live=True), [Kept()], explainer)
    frame = next(iter(Varied(1)))
    late = explainer.explain_drawn(frame)
    captured = CapturedFrame(replace(frame, captured_ns=10**18), SettingsSnapshot())
    pipeline._newest = replace(late, captured_ns=1, explained_ns=2_000_000_000)
    pipeline._wait_for_own_map(captured)  # returns at once, or the test hangs
    with pytest.MonkeyPatch.context() as patches:
        patches.setattr("stream_cam.pipeline.pipeline._OWN_MAP_SECONDS", 1.9)
        patches.setattr(pipeline._explained, "wait_for", None)
        pipeline._wait_for_own_map(captured)


def test_those_in_a_line_pass_in_their_order() -> None:
    line, passed = OrderedGate(), list[int]()
    turns = [line.join() for _ in range(6)]

    def work(number: int) -> None:
        if number == 2:
            turns[2].pass_on()  # without entering
            return
        with turns[number]:
            passed.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in reversed(range(6))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_SECONDS)
    assert passed == [0, 1, 3, 4, 5]


def test_an_explanation_keeps_no_picture_once_it_was_drawn() -> None:
    explainer = on_gpu(SimulatedGpu(18))
    _, explanations, _ = pictures_of(explainer, LookConfig(), n_frames=3)
    for explanation in explanations:
        assert explanation is not None
        assert isinstance(explanation.drawn, Drawn)
        assert explanation.drawn._pictures is None
        assert explanation.drawn._image is None
