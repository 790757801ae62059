"""The GPU's preprocessing against plain torch and torchvision; without a GPU interpreted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.kernel_runner import RunKernel
from torch import Tensor
from torchvision.transforms import v2

from stream_cam.cam.geometry import FitPlan, plan_fit
from stream_cam.config import Fit

pytest.importorskip("triton", reason="no Triton for this system")

from stream_cam.cam.preprocess import (
    Interpolation,
    PreprocessPlan,
    is_aligned,
    launch_of,
    plan_preprocess,
    preprocess,
    preprocess_reference,
)

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
TOLERANCE = {torch.float32: 2e-5, torch.float16: 1e-3}
"""In normalised units. float32: vertical weights have 20 bits behind the point. float16: half a
step of numbers from 2 to 4."""


def frames(
    n: int,
    size_hw: tuple[int, int],
    pitch: int | None = None,
    offset: int = 0,
    margin: int = 0,
    seed: int = 0,
) -> Tensor:
    """Random frames whose rows begin every `pitch` bytes, `margin` bytes before a buffer's end."""
    height, width = size_hw
    pitch = pitch or 3 * width
    rng = np.random.default_rng(seed)
    size = offset + (n * height - 1) * pitch + 3 * width + margin
    buffer = torch.from_numpy(rng.integers(0, 256, size, np.uint8))
    return buffer.as_strided((n, height, width, 3), (height * pitch, pitch, 3, 1), offset)


def planned(fit: FitPlan, interpolation: Interpolation = "bilinear") -> PreprocessPlan:
    return plan_preprocess(fit, MEAN, STD, interpolation, device="cpu")


def results(
    plan: PreprocessPlan, n: int, dtype: torch.dtype, *, channels_last: bool = False
) -> tuple[Tensor, Tensor]:
    """Outputs for the kernel and its reference, filled with NaN."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    got = torch.full((n, 3, *plan.fit.input_hw), torch.nan, dtype=dtype).to(memory_format=layout)
    return got, torch.full_like(got, torch.nan, dtype=torch.float32)


@dataclass(frozen=True)
class Case:
    size_hw: tuple[int, int]
    fit: Fit = "stretch"
    input_size: int = 3
    resize_size: int | None = None
    interpolation: Interpolation = "bilinear"
    dtype: torch.dtype = torch.float32
    channels_last: bool = False
    pitch: int | None = None
    offset: int = 0
    margin: int = 0
    n: int = 1


@pytest.mark.parametrize(
    "case",
    [
        Case((1, 1)),
        Case((1, 1), "letterbox", channels_last=True),
        Case((24, 32)),
        Case((24, 32), dtype=torch.float16, channels_last=True, n=2),
        Case((24, 31), interpolation="bicubic"),
        Case((3, 3)),  # nothing to resize
        Case((3, 2), input_size=5),  # larger
        Case((3, 2), input_size=5, interpolation="bicubic"),
        Case((23, 31), pitch=96),
        Case((23, 31), pitch=96, margin=3),  # rows end in the middle of a word
        Case((23, 31), pitch=97, offset=1),
        Case((23, 32), offset=4, dtype=torch.float16),
        Case((31, 23), "crop", resize_size=7, interpolation="bicubic"),
        Case((20, 41), "crop", 6),
        Case((20, 41), "letterbox", 6, dtype=torch.float16),
        Case((41, 20), "letterbox", 6, pitch=64, channels_last=True),
        Case((2, 90)),
        Case((90, 2), "letterbox"),
    ],
    ids=str,
)
def test_preprocess_equals_the_reference(case: Case, run_kernel: RunKernel) -> None:
    frame = frames(case.n, case.size_hw, case.pitch, case.offset, case.margin)
    fit = plan_fit(case.fit, case.size_hw, case.input_size, case.resize_size)
    plan = planned(fit, case.interpolation)
    got, expected = results(plan, case.n, case.dtype, channels_last=case.channels_last)
    run_kernel(preprocess, frame_bgr=frame, plan=plan, out=got)
    preprocess_reference(frame, plan, out=expected)
    assert (got.float() - expected).abs().max() <= TOLERANCE[case.dtype]


def test_preprocess_for_native_input_keeps_the_shape(run_kernel: RunKernel) -> None:
    frame = frames(1, (40, 52))
    plan = planned(plan_fit("native", (40, 52), 32))
    assert plan.fit.input_hw == (32, 32)
    got, expected = results(plan, 1, torch.float32)
    run_kernel(preprocess, frame_bgr=frame, plan=plan, out=got)
    preprocess_reference(frame, plan, out=expected)
    assert (got - expected).abs().max() <= TOLERANCE[torch.float32]


@settings(
    max_examples=5,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    fit=st.sampled_from(["stretch", "crop", "letterbox"]),
    input_size=st.integers(1, 4),
    interpolation=st.sampled_from(["bilinear", "bicubic"]),
    alignment=st.sampled_from([1, 4]),
    seed=st.integers(0, 2**31),
)
def test_preprocess_equals_the_reference_for_any_size(
    height: int, width: int, fit: Fit, input_size: int, interpolation: Interpolation,
    alignment: int, seed: int, run_kernel: RunKernel,
) -> None:  # fmt: skip
    frame = frames(1, (height, width), -(-3 * width // alignment) * alignment, seed=seed)
    plan = planned(plan_fit(fit, (height, width), input_size, input_size + 1), interpolation)
    got, expected = results(plan, 1, torch.float32)
    run_kernel(preprocess, frame_bgr=frame, plan=plan, out=got)
    preprocess_reference(frame, plan, out=expected)
    assert (got - expected).abs().max() <= TOLERANCE[torch.float32]


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_preprocess_equals_torchvision(interpolation: Interpolation, run_kernel: RunKernel) -> None:
    frame = frames(1, (60, 84))
    plan = planned(plan_fit("crop", (60, 84), 6, 8), interpolation)
    got, _ = results(plan, 1, torch.float32)
    run_kernel(preprocess, frame_bgr=frame, plan=plan, out=got)
    transform = v2.Compose(
        [
            v2.ToDtype(torch.float32, scale=True),
            v2.Resize(8, v2.InterpolationMode(interpolation), antialias=True),
            v2.CenterCrop(6),
            v2.Normalize(MEAN, STD),
        ]
    )
    expected = transform(frame[0].flip(-1).permute(2, 0, 1))
    assert (got[0] - expected).abs().max() <= TOLERANCE[torch.float32]


@pytest.mark.parametrize(
    "view",
    [
        lambda frame: frame[:, ::2, ::2],
        lambda frame: frame[:, 1:, 3:],
        lambda frame: frame.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1),
    ],
    ids=["every-second", "part", "planes"],
)
def test_preprocess_takes_views_with_any_stride(view: Any, run_kernel: RunKernel) -> None:
    frame = view(frames(2, (24, 32)))
    plan = planned(plan_fit("stretch", (frame.shape[1], frame.shape[2]), 4))
    got, expected = results(plan, 2, torch.float32)
    run_kernel(preprocess, frame_bgr=frame, plan=plan, out=got)
    preprocess_reference(frame, plan, out=expected)
    assert (got - expected).abs().max() <= TOLERANCE[torch.float32]


@pytest.mark.parametrize("side", [224, 288])
def test_frames_of_many_sizes_share_few_kernels(side: int) -> None:
    widths = (320, 480, 640, 720, 854, 960, 1024, 1280, 1440, 1600, 1920, 2048, 2560, 3840)
    shapes = set()
    for width in widths:
        plan = planned(plan_fit("stretch", (width * 9 // 16, width), side))
        grid, constants = launch_of(plan, 1, 3, 2)
        assert grid[0] * int(constants["COLUMNS"]) >= side
        assert int(constants["QUADS"]) * int(constants["LANES"]) >= plan.n_quads
        shapes.add(tuple(constants.items()))
    assert len(shapes) <= 4


def test_words_are_not_read_beyond_the_end_of_the_buffer() -> None:
    assert is_aligned(frames(2, (5, 8)))
    assert is_aligned(frames(2, (5, 7), pitch=24, margin=3))
    assert not is_aligned(frames(2, (5, 7), pitch=24, margin=2))
    assert not is_aligned(frames(2, (5, 7)))
    assert not is_aligned(frames(2, (5, 8), offset=2))
    assert not is_aligned(frames(1, (5, 16))[:, :, ::2])
    plane = torch.zeros(6 * 32, dtype=torch.uint8).as_strided((1, 6, 30, 1), (192, 32, 1, 1))
    assert is_aligned(plane)
    assert not is_aligned(plane[:, 1:, 1:])


def test_preprocess_says_what_is_wrong() -> None:
    plan = planned(plan_fit("stretch", (8, 12), 4))
    good: dict[str, Any] = {
        "frame_bgr": frames(1, (8, 12)),
        "plan": plan,
        "out": torch.zeros(1, 3, 4, 4),
    }
    wrong: list[tuple[str, Any, str]] = [
        ("frame_bgr", frames(1, (8, 13)), r"\(1, 8, 12, 3\) uint8 for this plan, got \(1, 8, 13"),
        ("frame_bgr", frames(1, (8, 12)).float(), "uint8 for this plan"),
        ("out", torch.zeros(2, 3, 4, 4), r"out is \(1, 3, 4, 4\)"),
        ("out", torch.zeros(1, 3, 4, 4, dtype=torch.bfloat16), "float16 or float32"),
        ("out", torch.zeros(1, 3, 4, 4, device="meta"), "cpu and meta"),
    ]
    for name, value, message in wrong:
        with pytest.raises(ValueError, match=message):
            preprocess(**{**good, name: value})
    with pytest.raises(ValueError, match="bilinear or bicubic, got 'nearest'"):
        plan_preprocess(plan.fit, MEAN, STD, "nearest")  # type: ignore[arg-type]


@pytest.mark.needs_gpu
def test_a_thousand_replays_of_a_graph_are_equal_bit_for_bit() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA GPU")
    frame = frames(1, (1080, 1920)).cuda()
    plan = plan_preprocess(plan_fit("stretch", (1080, 1920), 224), MEAN, STD)
    out = torch.empty(1, 3, 224, 224, dtype=torch.float16, device="cuda")
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    with torch.cuda.stream(stream):
        for _ in range(3):
            preprocess(frame, plan, out=out)
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        preprocess(frame, plan, out=out)
    first: Tensor | None = None
    for _ in range(1000):
        out.fill_(torch.nan)
        graph.replay()
        first = out.clone() if first is None else first
        assert torch.equal(out, first)
    expected = torch.empty(1, 3, 224, 224)
    preprocess_reference(frame, plan, out=expected)
    assert (out.cpu().float() - expected).abs().max() <= TOLERANCE[torch.float16]
