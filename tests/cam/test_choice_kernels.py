"""The choice of classes and the filter on the GPU, against torch and `SteadyMaps`; interpreted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.kernel_runner import RunKernel
from support.steady_parts import Steady
from torch import Tensor

from stream_cam.frame import Explanation, Features, FloatArray, Prediction, Region, softmax

pytest.importorskip("triton", reason="no Triton for this system")

from stream_cam.cam.class_choice import FrameTiming, choose_classes, choose_classes_reference
from stream_cam.cam.smooth_maps import smooth_maps, smooth_maps_reference

NAN = float("nan")


def clock(now: float = 0.0, **times: float) -> Tensor:
    """A frame's timing; `forget=1` clears the state."""
    values = torch.zeros(len(FrameTiming), dtype=torch.float64)
    values[FrameTiming.NOW], values[FrameTiming.GAP] = now, times.get("gap", 1.0)
    values[FrameTiming.HOLD], values[FrameTiming.SMOOTH] = (
        times.get("hold", 0.0),
        times.get("smooth", 0.0),
    )
    values[FrameTiming.FORGET_CLASS] = values[FrameTiming.FORGET_MAPS] = times.get("forget", 0.0)
    return values


@dataclass
class Choice:
    """Room for what `choose_classes` writes, and the state that it keeps."""

    n_shown: int
    n_best: int
    held: Tensor = field(
        default_factory=lambda: torch.tensor([-1.0, -1.0, 0.0, 0.0], dtype=torch.float64)
    )

    def __post_init__(self) -> None:
        self.best = torch.full((self.n_best,), -7)
        self.best_probability = torch.full((self.n_best,), NAN)
        self.classes = torch.full((1, self.n_shown), -7)
        self.probability = torch.full((self.n_shown,), NAN)

    def arguments(self, logits: Tensor, locked: list[int], times: Tensor) -> dict[str, Any]:
        asked = torch.tensor(locked + [-1] * (self.n_shown - len(locked)))
        outputs = {name: getattr(self, name) for name in self.outputs}
        return {"logits": logits, "locked": asked, "clock": times, "held": self.held, **outputs}

    outputs = ("best", "best_probability", "classes", "probability")

    def assert_equal(self, other: Choice) -> None:
        for name in (*self.outputs, "held"):
            # Sums of float32 in another order.
            torch.testing.assert_close(getattr(self, name), getattr(other, name), rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    ("n_classes", "n_shown", "locked"),
    [
        *((1000, 1, []), (7, 5, []), (7, 5, [6, 2]), (13, 2, [3, 0])),
        *((3, 3, [1]), (1, 1, []), (5, 1, [4])),
    ],
)
def test_kernel_chooses_as_the_reference(
    n_classes: int, n_shown: int, locked: list[int], run_kernel: RunKernel
) -> None:
    logits = torch.randn(1, n_classes, generator=torch.Generator().manual_seed(n_classes)) * 4
    got, expected = (Choice(n_shown, min(5, n_classes)) for _ in range(2))
    run_kernel(choose_classes, **got.arguments(logits, locked, clock()))
    choose_classes_reference(**expected.arguments(logits, locked, clock()))
    got.assert_equal(expected)
    order = logits[0].argsort(descending=True).tolist()
    assert expected.best.tolist() == order[:5]
    others = [index for index in order if index not in locked]
    assert expected.classes[0].tolist() == [*locked, *others][:n_shown]
    probabilities = torch.softmax(logits[0], 0)
    torch.testing.assert_close(expected.probability, probabilities[expected.classes[0]])


@pytest.mark.parametrize("broken", [NAN, float("inf"), -float("inf")])
def test_logits_that_are_no_numbers_still_choose_classes_that_exist(
    broken: float, run_kernel: RunKernel
) -> None:
    logits = torch.tensor([[0.5, broken, 2.0, broken, broken, broken]])
    got = Choice(3, 5)
    run_kernel(choose_classes, **got.arguments(logits, [], clock()))
    for classes in (got.best.tolist(), got.classes[0].tolist()):
        assert len(set(classes)) == len(classes)
        assert all(0 <= index < 6 for index in classes)
    if broken != float("inf"):
        assert got.best[0] == 2
        assert got.best_probability[0] == pytest.approx(np.exp(2.0) / (np.exp(2) + np.exp(0.5)))


class Maps(Features):
    """Features that are the maps themselves; a sum over classes would spread NaN."""

    def cam(self, index: int) -> FloatArray:
        return np.asarray(self.values[index])


def explanation(logits: Tensor, cams: Tensor, locked: list[int], n_shown: int) -> Explanation:
    """As `Explainer.explain` makes it of a network whose features are its maps."""
    values = logits[0].numpy()
    order = np.argsort(-values, kind="stable").tolist()
    chosen = [*locked, *(index for index in order if index not in locked)][:n_shown]
    shares = softmax(values)

    def predicted(index: int) -> Prediction:
        return Prediction(str(index), index, float(shares[index]))

    return Explanation(
        logits=values,
        predictions=tuple(predicted(index) for index in order[:5]),
        targets=tuple(predicted(index) for index in chosen),
        cams=cams[chosen].numpy(),
        region=Region(0, 0, 8, 8),
        frame_size_hw=(8, 8),
        captured_ns=1,
        n_locked=len(locked),
        features=Maps(cams.numpy(), np.zeros((0, 0), np.float32)),
    )


def frames(n_frames: int, seed: int = 0) -> Iterator[tuple[float, Tensor, Tensor, list[int]]]:
    """Seconds, logits, all classes' maps and the classes asked for, of a scene with jumps."""
    generator = torch.Generator().manual_seed(seed)
    seconds, scene = 0.0, torch.randn(6, 2, 3, generator=generator)
    for number in range(n_frames):
        if number % 9 == 8:
            scene = torch.randn(6, 2, 3, generator=generator) * 3
        cams = scene + 0.1 * torch.randn(6, 2, 3, generator=generator)
        if number % 7 == 3:
            cams[number % 6, 0, 1] = NAN
        if number % 11 == 5:
            cams[:] = NAN
        logits = torch.randn(1, 6, generator=generator)
        yield seconds, logits, cams, [4] if 20 <= number < 24 else []
        seconds += [0.04, 0.04, 0.3, 0.04, 2.5][number % 5]


@dataclass
class OnGpu:
    """The graph's steps between the network and the overlay."""

    choose: Callable[..., None]
    smooth: Callable[..., None]
    n_shown: int = 2

    def __post_init__(self) -> None:
        self.choice = Choice(self.n_shown, 5)
        self.seconds = torch.full((6,), NAN, dtype=torch.float64)
        self.values = torch.full((6, 2 + 6), 123.0, dtype=torch.float64)

    def update(
        self, logits: Tensor, cams: Tensor, locked: list[int], times: Tensor
    ) -> tuple[list[int], Tensor, Tensor]:
        self.choose(**self.choice.arguments(logits, locked, times))
        classes = self.choice.classes
        own, ranges = cams[classes[0]][None].contiguous(), torch.full((1, self.n_shown, 2), NAN)
        self.smooth(
            cams=own,
            classes=classes,
            clock=times,
            seconds=self.seconds,
            values=self.values,
            ranges=ranges,
        )
        return classes[0].tolist(), own[0], ranges[0]


@pytest.mark.parametrize("hold", [0.0, 0.3])
@pytest.mark.parametrize("smooth", [0.0, 0.2])
def test_references_equal_steady_maps(smooth: float, hold: float) -> None:
    steady = Steady(smooth_seconds=smooth, hold_seconds=hold)
    gpu = OnGpu(choose_classes_reference, smooth_maps_reference)
    for seconds, logits, cams, locked in frames(60):
        expected = steady.update(explanation(logits, cams, locked, 2), seconds)
        times = clock(seconds, hold=hold, smooth=smooth)
        classes, got, ranges = gpu.update(logits, cams, locked, times)
        assert classes == [target.index for target in expected.targets]
        finite = np.isfinite(expected.cams)
        assert np.array_equal(np.isfinite(got.numpy()), finite)
        # The same float64 arithmetic.
        assert np.abs(got.numpy() - expected.cams)[finite].max(initial=0.0) <= 1e-6
        if smooth:
            assert expected.ranges is not None
            np.testing.assert_allclose(ranges.numpy(), expected.ranges, rtol=1e-6, atol=1e-6)
        probabilities = [target.probability for target in expected.targets]
        assert gpu.choice.probability.tolist() == pytest.approx(probabilities, abs=1e-6)


def test_kernels_equal_their_references(run_kernel: RunKernel) -> None:
    by_kernel = OnGpu(
        lambda **arguments: run_kernel(choose_classes, **arguments),
        lambda **arguments: run_kernel(smooth_maps, **arguments),
    )
    by_torch = OnGpu(choose_classes_reference, smooth_maps_reference)
    for number, (seconds, logits, cams, locked) in enumerate(frames(26, seed=1)):
        times = clock(seconds, hold=0.3, smooth=0.2, forget=float(number == 15))
        got = by_kernel.update(logits, cams, locked, times)
        expected = by_torch.update(logits, cams, locked, times)
        assert got[0] == expected[0]
        torch.testing.assert_close(got[1], expected[1], rtol=1e-6, atol=1e-6, equal_nan=True)
        torch.testing.assert_close(got[2], expected[2], rtol=1e-6, atol=1e-6, equal_nan=True)
        by_kernel.choice.assert_equal(by_torch.choice)
    torch.testing.assert_close(by_kernel.values, by_torch.values, rtol=1e-6, atol=1e-6)
    assert torch.equal(by_kernel.seconds.nan_to_num(-1.0), by_torch.seconds.nan_to_num(-1.0))


Step = tuple[float, int, int, bool]
"""Seconds, the class asked for, the place where frames are, and whether the map has numbers."""


def assert_as_steady_maps(gpu: OnGpu, steps: list[Step]) -> None:
    steady, place = Steady(smooth_seconds=0.5), steps[0][2]
    generator = torch.Generator().manual_seed(len(steps))
    for seconds, index, now_at, has_numbers in steps:
        logits = torch.randn(1, 6, generator=generator)
        cams = torch.randn(6, 2, 3, generator=generator)
        if not has_numbers:
            cams[:] = NAN
        told = explanation(logits, cams, [index], 1)
        expected = steady.update(replace(told, frame_size_hw=(8 + now_at, 8)), seconds)
        times = clock(seconds, smooth=0.5, forget=float(now_at != place))
        _, got, _ = gpu.update(logits, cams, [index], times)
        np.testing.assert_allclose(got.numpy(), expected.cams, rtol=1e-6, atol=1e-6)
        place = now_at


SCENES: dict[str, list[Step]] = {
    "another place": [(0.0, 3, 0, True), (0.04, 5, 1, True), (0.08, 3, 1, True)],
    "there and back": [(0.0, 3, 0, True), (0.04, 5, 1, True), (0.08, 3, 0, True)],
    "a loop": [(0.0, 3, 0, True), (2.5, 5, 0, True), (0.1, 5, 0, True), (0.2, 3, 0, True)],
    "a step back": [(5.0, 3, 0, True), (3.9, 5, 0, True), (4.1, 3, 0, True)],
    "no numbers there": [(0.0, 3, 0, True), (0.04, 3, 1, False), (0.08, 3, 1, True)],
    "no numbers": [(0.0, 3, 0, True), (0.04, 3, 0, False), (0.08, 3, 0, True)],
}


@pytest.mark.parametrize("steps", SCENES.values(), ids=SCENES)
def test_classes_that_are_not_shown_are_forgotten_too(
    steps: list[Step], run_kernel: RunKernel
) -> None:
    assert_as_steady_maps(OnGpu(choose_classes_reference, smooth_maps_reference, 1), steps)
    by_kernel = OnGpu(
        choose_classes_reference, lambda **arguments: run_kernel(smooth_maps, **arguments), 1
    )
    assert_as_steady_maps(by_kernel, steps)


@given(
    st.lists(
        st.tuples(
            st.integers(0, 12).map(lambda number: number * 0.3),
            st.integers(0, 2),
            st.integers(0, 1),
            st.booleans(),
        ),
        min_size=1,
        max_size=12,
    )
)
def test_at_any_times_and_places_maps_are_those_of_steady_maps(steps: list[Step]) -> None:
    assert_as_steady_maps(OnGpu(choose_classes_reference, smooth_maps_reference, 1), steps)


@pytest.mark.parametrize("n_classes", [1, 255, 256, 1000])
def test_of_many_classes_every_one_is_forgotten(n_classes: int, run_kernel: RunKernel) -> None:
    seconds = torch.full((n_classes,), 1.0, dtype=torch.float64)
    seconds[n_classes // 2 :] = 5.0
    run_kernel(
        smooth_maps,
        cams=torch.ones(1, 1, 2, 3),
        classes=torch.tensor([[n_classes - 1]]),
        clock=clock(5.5, smooth=0.2),
        seconds=seconds,
        values=torch.zeros((n_classes, 8), dtype=torch.float64),
        ranges=torch.zeros(1, 1, 2),
    )
    assert seconds[: n_classes // 2].isnan().all()
    assert (seconds[n_classes // 2 : -1] == 5.0).all()
    assert seconds[-1] == 5.5


def test_without_times_no_state_is_touched(run_kernel: RunKernel) -> None:
    gpu = OnGpu(
        lambda **arguments: run_kernel(choose_classes, **arguments),
        lambda **arguments: run_kernel(smooth_maps, **arguments),
    )
    _, logits, cams, _ = next(frames(1))
    before = gpu.choice.held.clone()
    _, got, ranges = gpu.update(logits, cams, [], clock(5.0))
    assert torch.equal(gpu.choice.held, before)
    assert (gpu.values == 123.0).all()
    assert gpu.seconds.isnan().all()
    assert torch.equal(ranges, torch.stack([got.amin((1, 2)), got.amax((1, 2))], dim=1))


def test_launchers_name_the_wrong_argument() -> None:
    good = Choice(2, 5).arguments(torch.zeros(1, 6), [], clock())
    wrong: list[tuple[str, Any, str]] = [
        ("logits", torch.zeros(1, 4), "5 best and 2 shown classes are asked for of 4"),
        ("logits", torch.zeros(2, 6), r"logits: \(1, 6\) torch.float32"),
        ("clock", torch.zeros(6), r"clock: \(6,\) torch.float64"),
        ("classes", torch.zeros((1, 2), dtype=torch.int32), r"classes: \(1, 2\) torch.int64"),
        ("held", torch.zeros(4, dtype=torch.float64, device="meta"), "cpu and meta"),
    ]
    for name, value, message in wrong:
        with pytest.raises(ValueError, match=message):
            choose_classes(**{**good, name: value})
    maps: dict[str, Any] = {
        "cams": torch.zeros(1, 2, 2, 3),
        "classes": torch.zeros((1, 2), dtype=torch.int64),
        "clock": clock(),
        "seconds": torch.zeros(6, dtype=torch.float64),
        "values": torch.zeros((6, 8), dtype=torch.float64),
        "ranges": torch.zeros(1, 2, 2),
    }
    for name, value, message in [
        ("values", torch.zeros((6, 6), dtype=torch.float64), r"values: \(6, 8\) torch.float64"),
        ("ranges", torch.zeros(1, 2, 2, device="meta"), "cpu and meta"),
    ]:
        with pytest.raises(ValueError, match=message):
            smooth_maps(**{**maps, name: value})


# --- on a GPU only


def replayed(n_frames: int) -> Tensor:
    """Frames through a graph of both kernels, each held to the references; the state after them."""
    on_gpu, steady = (OnGpu(choose_classes, smooth_maps) for _ in range(2))
    steady.choose, steady.smooth = choose_classes_reference, smooth_maps_reference
    outputs = {name: getattr(on_gpu.choice, name).cuda() for name in Choice.outputs}
    held, seconds, values = (
        state.cuda() for state in (on_gpu.choice.held, on_gpu.seconds, on_gpu.values)
    )
    locked, ranges = torch.tensor([-1, -1]).cuda(), torch.zeros(1, 2, 2).cuda()
    logits, times = torch.zeros(1, 6).cuda(), clock().cuda()
    own, all_maps = torch.zeros(1, 2, 2, 3).cuda(), torch.zeros(6, 2, 3).cuda()

    def work() -> None:
        choose_classes(logits, locked, times, held, **outputs)
        own.copy_(all_maps[outputs["classes"][0]][None])
        smooth_maps(own, outputs["classes"], times, seconds, values, ranges=ranges)

    stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()  # type: ignore[no-untyped-call]
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        for _ in range(3):
            work()
    torch.cuda.synchronize()
    with torch.cuda.graph(graph, stream=stream):
        work()
    for now, new_logits, cams, _ in frames(n_frames, seed=2):
        told = clock(now, hold=0.3, smooth=0.2)
        logits.copy_(new_logits)
        all_maps.copy_(cams)
        times.copy_(told)
        graph.replay()
        torch.cuda.synchronize()
        classes, maps, _ = steady.update(new_logits, cams, [], told)
        assert outputs["classes"][0].tolist() == classes
        torch.testing.assert_close(own[0].cpu(), maps, rtol=1e-5, atol=1e-5, equal_nan=True)
    return values.cpu()


@pytest.mark.needs_gpu
def test_state_after_a_thousand_replays_is_the_same_bit_for_bit() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA GPU")
    assert torch.equal(replayed(1000).nan_to_num(), replayed(1000).nan_to_num())
