"""The GPU's maps and overlay against plain torch and the CPU path; without a GPU interpreted."""

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

from stream_cam.cam import reference
from stream_cam.cam.colormaps import color_table
from stream_cam.cam.cpu import CpuOverlay
from stream_cam.cam.geometry import plan_fit
from stream_cam.config import AlphaMode, Colormap, Fit, LookConfig, Upsampling
from stream_cam.frame import Region

pytest.importorskip("triton", reason="no Triton for this system")

from stream_cam.cam.class_maps import class_maps, class_maps_reference, scale_maps
from stream_cam.cam.heat_interpolation import SHIFT
from stream_cam.cam.overlay import overlay, overlay_reference
from stream_cam.cam.overlay_plan import OverlayPlan, overlay_table, plan_overlay

COLORMAPS: tuple[Colormap, ...] = ("turbo", "jet", "viridis", "inferno", "magma")


def frames(
    n: int, size_hw: tuple[int, int], pitch: int | None = None, offset: int = 0, seed: int = 0
) -> Tensor:
    """Random frames whose rows begin every `pitch` bytes, in a larger buffer."""
    height, width = size_hw
    pitch = pitch or 3 * width
    rng = np.random.default_rng(seed)
    buffer = torch.from_numpy(rng.integers(0, 256, offset + n * height * pitch + 64, np.uint8))
    return buffer.as_strided((n, height, width, 3), (height * pitch, pitch, 3, 1), offset)


def outputs(like: Tensor, n_targets: int = 1) -> Tensor:
    """Room for the pictures with the frames' row strides, filled with 77."""
    n, height, _, _ = like.shape
    pitch = like.stride(1)
    buffer = torch.full((n * n_targets * height * pitch + 64,), 77, dtype=torch.uint8)
    shape = (n, n_targets, *like.shape[1:])
    plane = height * pitch
    return buffer.as_strided(shape, (n_targets * plane, plane, *like.stride()[1:]))


def maps(n: int, n_targets: int, cam_hw: tuple[int, int], seed: int = 0) -> Tensor:
    rng = np.random.default_rng(seed)
    cam = torch.from_numpy(rng.normal(size=(n, n_targets, *cam_hw)).astype(np.float32))
    return reference.scale_cam(cam)


def ties(scaled: Tensor, plan: OverlayPlan) -> Tensor:
    """(N, n_targets, H, W) bool: pixels whose heat lies between two colours.

    There float32, fixed point and float64 may take neighbouring entries of the colour table.
    """
    heat = torch.stack(
        [
            reference.upsample_heat(cam, plan.frame_hw, plan.region, plan.upsampling)[0]
            for cam in scaled.flatten(0, 1)
        ]
    ).reshape(*scaled.shape[:2], *plan.frame_hw)
    return ((heat * 255.0) % 1.0 - 0.5).abs() < 1e-3


def assert_equal_but_for_ties(got: Tensor, expected: Tensor, tie: Tensor, levels: int) -> None:
    difference = (got.int() - expected.int()).abs().amax(dim=-1)
    assert difference.where(~tie, 0).max() <= levels
    assert difference.max() <= 10
    assert tie.float().mean() < 0.05 or tie.numel() < 1000


@dataclass(frozen=True)
class Case:
    size_hw: tuple[int, int]
    cam_hw: tuple[int, int] = (2, 3)
    fit: Fit = "stretch"
    upsampling: Upsampling = "bilinear"
    alpha: float = 0.4
    alpha_mode: AlphaMode = "constant"
    colormap: Colormap = "turbo"
    pitch: int | None = None
    offset: int = 0


CASES = [
    Case((1, 1)),
    Case((1, 1), upsampling="nearest", cam_hw=(7, 7)),
    Case((7, 16)),  # vectors of 128 bits
    Case((5, 37), pitch=112, alpha_mode="heat"),  # 32 pixels in vectors, then 5 single ones
    Case((5, 37), pitch=116, colormap="jet"),  # 36 in words, then 1
    Case((9, 20), upsampling="nearest", colormap="viridis"),
    Case((9, 20), pitch=61, alpha=1.0, colormap="inferno"),  # rows not aligned
    Case((6, 12), offset=1, alpha_mode="heat", alpha=1.0, colormap="magma"),
    Case((2, 40), fit="crop", upsampling="nearest", cam_hw=(1, 1)),
    Case((9, 20), upsampling="bicubic", cam_hw=(5, 6)),
    Case((13, 21), fit="letterbox", upsampling="bicubic", colormap="jet"),
    Case((3, 17), upsampling="bicubic", cam_hw=(1, 1)),
    Case((2, 3), upsampling="bicubic", cam_hw=(7, 7)),
    Case((9, 20), upsampling="smooth", cam_hw=(5, 6)),
    Case((13, 21), fit="letterbox", upsampling="smooth", colormap="jet"),
    Case((3, 17), upsampling="smooth", cam_hw=(1, 1)),
    Case((40, 2), fit="crop", cam_hw=(7, 7)),
    Case((11, 16), fit="crop", alpha_mode="heat"),
    Case((8, 28), fit="letterbox", cam_hw=(7, 7)),
    Case((21, 13), fit="letterbox", alpha=0.0),
    Case((4, 44), fit="native", cam_hw=(2, 5), pitch=144),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_overlay_equals_the_references_and_the_cpu_path(case: Case, run_kernel: RunKernel) -> None:
    frame = frames(1, case.size_hw, case.pitch, case.offset)
    region = plan_fit(case.fit, case.size_hw, 224, 256).region
    plan = plan_overlay(case.size_hw, case.cam_hw, region, case.upsampling, device="cpu")
    table = overlay_table(case.colormap, case.alpha, case.alpha_mode, device="cpu")
    scaled = maps(1, 1, case.cam_hw)
    before = frame.clone()
    got, expected = outputs(frame), outputs(frame)
    run_kernel(overlay, frame_bgr=frame, scaled=scaled, plan=plan, table=table, out=got)
    overlay_reference(frame, scaled, plan, table, out=expected)
    tie = ties(scaled, plan)
    # The same table and the same integers: nothing may differ.
    assert_equal_but_for_ties(got, expected, tie, levels=0)
    assert torch.equal(frame, before)
    # Bytes between the rows are not the kernel's.
    margin = torch.ones(got.untyped_storage().nbytes(), dtype=torch.bool)
    margin.as_strided(got.shape, got.stride()).fill_(False)
    assert bool((torch.tensor(got.untyped_storage(), dtype=torch.uint8)[margin] == 77).all())
    look = LookConfig(
        colormap=case.colormap,
        alpha=case.alpha,
        alpha_mode=case.alpha_mode,
        upsampling=case.upsampling,
    )
    cpu = CpuOverlay(case.size_hw, case.cam_hw, region, look)
    on_cpu = torch.from_numpy(cpu.blend(frame[0].numpy(), scaled[0, 0].numpy()))
    assert_equal_but_for_ties(got, on_cpu[None, None], tie, levels=1)
    heat, inside = reference.upsample_heat(scaled[0, 0], case.size_hw, region, case.upsampling)
    colors = torch.from_numpy(color_table(case.colormap).copy())
    exact = reference.blend(frame[0], heat, inside, colors, case.alpha, case.alpha_mode)
    assert_equal_but_for_ties(got, exact[None, None], tie, levels=1)


@settings(
    max_examples=6,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data(), seed=st.integers(0, 2**31))
def test_overlay_equals_the_reference_for_any_size_region_and_stride(
    data: st.DataObject, seed: int, run_kernel: RunKernel
) -> None:
    size_hw = data.draw(st.tuples(st.integers(1, 9), st.integers(1, 40)), "size")
    cam_hw = data.draw(st.tuples(st.integers(1, 4), st.integers(1, 5)), "cam")
    n, n_targets = data.draw(st.integers(1, 2), "n"), data.draw(st.integers(1, 2), "targets")
    alignment = data.draw(st.sampled_from([1, 4, 16]), "alignment")
    pitch = -(-3 * size_hw[1] // alignment) * alignment
    frame = frames(
        n, size_hw, pitch, offset=data.draw(st.sampled_from([0, 0, 3, 4, 16])), seed=seed
    )
    rng = np.random.default_rng(seed)
    x0, y0 = rng.uniform(-size_hw[1], size_hw[1]), rng.uniform(-size_hw[0], size_hw[0])
    region = Region(x0, y0, x0 + rng.uniform(1, 90), y0 + rng.uniform(1, 20))
    upsampling: Upsampling = data.draw(
        st.sampled_from(["bilinear", "nearest", "bicubic", "smooth"]), "upsampling"
    )
    plan = plan_overlay(size_hw, cam_hw, region, upsampling, device="cpu")
    table = overlay_table(alpha=float(rng.uniform(0, 1)), device="cpu")
    scaled = maps(n, n_targets, cam_hw, seed)
    got, expected = outputs(frame, n_targets), outputs(frame, n_targets)
    run_kernel(overlay, frame_bgr=frame, scaled=scaled, plan=plan, table=table, out=got)
    overlay_reference(frame, scaled, plan, table, out=expected)
    assert_equal_but_for_ties(got, expected, ties(scaled, plan), levels=0)


@pytest.mark.parametrize("pitch", [144, 160, 141], ids=["vectors", "vectors-margin", "bytes"])
def test_overlay_in_place_touches_the_region_only(pitch: int, run_kernel: RunKernel) -> None:
    size_hw = (5, 47)
    frame = frames(2, size_hw, pitch)
    plan = plan_overlay(size_hw, (2, 2), Region(18.2, 1.1, 35.9, 4.4), device="cpu")
    table = overlay_table(alpha=0.7, device="cpu")
    scaled = maps(2, 1, (2, 2))
    expected = outputs(frame)
    overlay_reference(frame, scaled, plan, table, out=expected)
    before = frame.clone()
    run_kernel(overlay, frame_bgr=frame, scaled=scaled, plan=plan, table=table, out=frame[:, None])
    assert_equal_but_for_ties(frame[:, None], expected, ties(scaled, plan), levels=0)
    changed = (frame != before).any(dim=-1)
    rows, columns = plan.covered
    assert changed[:, rows, columns].float().mean() > 0.9
    changed[:, rows, columns] = False
    assert not changed.any()


@pytest.mark.parametrize("step", [(1, 2), (2, 1)], ids=["every-second-pixel", "every-second-row"])
def test_overlay_takes_frames_whose_pixels_are_not_packed(
    step: tuple[int, int], run_kernel: RunKernel
) -> None:
    frame = frames(1, (8, 24))[:, :: step[0], :: step[1]]
    size_hw = frame.shape[1], frame.shape[2]
    plan = plan_overlay(size_hw, (2, 2), Region.whole(size_hw), device="cpu")
    table, scaled = overlay_table(device="cpu"), maps(1, 1, (2, 2))
    # Planes instead of pixels.
    got = torch.zeros((1, 1, 3, *size_hw), dtype=torch.uint8).permute(0, 1, 3, 4, 2)
    expected = torch.zeros_like(got)
    run_kernel(overlay, frame_bgr=frame, scaled=scaled, plan=plan, table=table, out=got)
    overlay_reference(frame, scaled, plan, table, out=expected)
    assert_equal_but_for_ties(got, expected, ties(scaled, plan), levels=0)


def test_overlay_writes_several_maps_into_the_cells_of_one_picture(run_kernel: RunKernel) -> None:
    frame = frames(1, (4, 12))
    picture = torch.zeros((8, 36, 3), dtype=torch.uint8)
    # The lower row of the top5 layout: three maps of one frame side by side.
    cells = picture[4:].view(4, 3, 12, 3).permute(1, 0, 2, 3)[None]
    plan = plan_overlay((4, 12), (2, 2), Region.whole((4, 12)), device="cpu")
    table, scaled = overlay_table(device="cpu"), maps(1, 3, (2, 2))
    expected = outputs(frame, 3)
    run_kernel(overlay, frame_bgr=frame, scaled=scaled, plan=plan, table=table, out=cells)
    overlay_reference(frame, scaled, plan, table, out=expected)
    assert_equal_but_for_ties(cells, expected, ties(scaled, plan), levels=0)
    assert not picture[:4].any()


@pytest.mark.parametrize("opacity", [1.0, 0.3])
def test_overlay_draws_the_heatmap_alone_and_fades_it(
    opacity: float, run_kernel: RunKernel
) -> None:
    size_hw, region = (6, 16), Region(2.0, 0.0, 12.0, 6.0)
    frame, scaled = frames(1, size_hw), maps(1, 1, (2, 2))
    plan = plan_overlay(size_hw, (2, 2), region, device="cpu")
    table = overlay_table("jet", opacity, outside_alpha=opacity, device="cpu")
    cpu = CpuOverlay(size_hw, (2, 2), region, LookConfig(colormap="jet", upsampling="bilinear"))
    heat = cpu.heatmap(scaled[0, 0].numpy())
    expected = np.rint(opacity * heat.astype(float) + (1 - opacity) * frame[0].numpy())
    tie = ties(scaled, plan)
    # In place, the pixels outside of the map change too.
    run_kernel(overlay, frame_bgr=frame, scaled=scaled, plan=plan, table=table, out=frame[:, None])
    assert_equal_but_for_ties(frame[:, None], torch.from_numpy(expected)[None, None], tie, 1)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 3e38, -7.0, 1.5])
def test_overlay_of_broken_maps_stays_in_the_table(value: float, run_kernel: RunKernel) -> None:
    frame = frames(1, (3, 5))
    scaled = maps(1, 1, (2, 2))
    scaled[0, 0, 0, 1] = value
    plan = plan_overlay((3, 5), (2, 2), Region.whole((3, 5)), device="cpu")
    table = overlay_table(alpha=1.0, device="cpu")
    got = outputs(frame)
    run_kernel(overlay, frame_bgr=frame, scaled=scaled, plan=plan, table=table, out=got)
    colors = {tuple(color) for color in color_table("turbo").tolist()}
    assert {tuple(pixel) for pixel in got.reshape(-1, 3).tolist()} <= colors


@pytest.mark.parametrize("alpha_mode", ["constant", "heat"])
@pytest.mark.parametrize("alpha", [0.0, 0.25, 0.4, 0.7, 1.0])
@pytest.mark.parametrize("colormap", COLORMAPS)
def test_table_gives_the_formula_for_every_colour_and_value(
    colormap: Colormap, alpha: float, alpha_mode: AlphaMode
) -> None:
    # Rows of heat k/255, columns of value v.
    heat = torch.arange(256.0)[:, None].expand(256, 256).contiguous() / 255.0
    frame = torch.arange(256, dtype=torch.uint8)[None, :, None].repeat(256, 1, 3)
    plan = plan_overlay((256, 256), (256, 256), Region.whole((256, 256)), "nearest", device="cpu")
    table = overlay_table(colormap, alpha, alpha_mode, device="cpu")
    got = outputs(frame[None])
    overlay_reference(frame[None], heat[None, None], plan, table, out=got)
    colors = torch.from_numpy(color_table(colormap).copy())
    inside = torch.ones_like(heat, dtype=torch.bool)
    expected = reference.blend(frame, heat, inside, colors, alpha, alpha_mode)
    assert (got[0, 0].int() - expected.int()).abs().max() <= 1
    assert bool((table.entries >= 0).all())
    if alpha == 0.0:
        assert torch.equal(got[0, 0], frame)
    if alpha == 1.0 and alpha_mode == "constant":
        assert torch.equal(got[0, 0], colors[:, None].expand(256, 256, 3))


def test_a_blend_never_carries_from_one_colour_into_the_next() -> None:
    for alpha in np.linspace(0.0, 1.0, 1025):
        entries = overlay_table(alpha=float(alpha), device="cpu").entries
        # The table's own colours are not white: the worst that a colour could be.
        most = round(256 * float(alpha) * 255) + 128 + 255 * int(entries[0] >> 48)
        assert most <= 0xFFFF


def test_any_32_bits_are_a_place_in_the_table() -> None:
    """The kernel reads it without a mask, also beyond the last row."""
    assert overlay_table(device="cpu").entries.numel() == 1 << (32 - SHIFT.value)


def test_plans_and_launchers_name_the_wrong_argument() -> None:
    whole = Region.whole((4, 8))
    with pytest.raises(ValueError, match=r"upsampling is one of .*bicubic.*, got 'lanczos'"):
        plan_overlay((4, 8), (2, 2), whole, "lanczos", device="cpu")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="alpha is a weight from 0 to 1, got 2"):
        overlay_table(alpha=2.0, device="cpu")
    plan = plan_overlay((4, 8), (2, 2), whole, device="cpu")
    good: dict[str, Any] = {
        "frame_bgr": frames(1, (4, 8)),
        "scaled": maps(1, 2, (2, 2)),
        "plan": plan,
        "table": overlay_table(device="cpu"),
        "out": torch.zeros((1, 2, 4, 8, 3), dtype=torch.uint8),
    }
    wrong: list[tuple[str, Any, str]] = [
        ("frame_bgr", frames(1, (4, 9)), r"\(1, 4, 8, 3\) uint8 for this plan, got \(1, 4, 9, 3\)"),
        ("frame_bgr", frames(1, (4, 8))[0], "uint8 for this plan"),
        ("frame_bgr", frames(1, (4, 8)).float(), "uint8 for this plan"),
        ("scaled", maps(1, 2, (2, 3)), r"maps are \(1, n_targets, 2, 2\)"),
        ("scaled", maps(1, 2, (2, 2)).double(), "float32"),
        ("scaled", maps(1, 2, (2, 2)).mT, "contiguous"),
        (
            "out",
            torch.zeros((1, 1, 4, 8, 3), dtype=torch.uint8),
            r"out of frames: \(1, 2, 4, 8, 3\)",
        ),
        ("out", torch.zeros((1, 2, 4, 8, 3), device="meta", dtype=torch.uint8), "cpu and meta"),
        ("out", good["frame_bgr"][:, None].expand(1, 2, 4, 8, 3), "in place there is one map"),
    ]
    for name, value, message in wrong:
        with pytest.raises(ValueError, match=message):
            overlay(**{**good, name: value})
    two = frames(2, (4, 8))
    repeated = two[:1].expand(2, 4, 8, 3)[:, None]
    with pytest.raises(ValueError, match="in place there is one map a frame"):
        overlay(**{**good, "frame_bgr": two, "scaled": maps(2, 1, (2, 2)), "out": repeated})


# --- maps


@dataclass(frozen=True)
class MapsCase:
    shape: tuple[int, int, int, int] = (2, 20, 3, 4)
    dtype: torch.dtype = torch.float32
    relu: bool = False
    ranges: bool = False
    channels_last: bool = False


@pytest.mark.parametrize(
    "case",
    [
        MapsCase((1, 512, 7, 7), torch.float16),
        MapsCase((2, 700, 5, 7), relu=True),
        MapsCase(dtype=torch.bfloat16, ranges=True),
        MapsCase(relu=True, ranges=True, channels_last=True),
        MapsCase((1, 1, 1, 1)),
        MapsCase((1, 3, 1, 33), channels_last=True),
    ],
    ids=str,
)
def test_maps_equal_the_reference(case: MapsCase, run_kernel: RunKernel) -> None:
    rng = np.random.default_rng(3)
    n, n_channels, height, width = case.shape
    features = torch.from_numpy(rng.normal(size=case.shape)).to(case.dtype)
    if case.channels_last:
        features = features.to(memory_format=torch.channels_last)
    weight = torch.from_numpy(rng.normal(size=(10, n_channels))).to(case.dtype)
    classes = torch.from_numpy(rng.integers(0, 10, (n, 3)))
    ranges = None
    if case.ranges:
        ranges = torch.from_numpy(rng.normal(size=(n, 3, 2)).astype(np.float32)).sort().values
        ranges[0, 0] = ranges[0, 0].flip(0)  # no range
        ranges[0, 1, 0] = torch.nan
    cams = torch.full((n, 3, height, width), torch.nan)
    scaled = torch.full_like(cams, torch.nan)
    expected_cams, expected = torch.empty_like(cams), torch.empty_like(cams)
    arguments: dict[str, Any] = {
        "features": features,
        "weight": weight,
        "classes": classes,
        "relu": case.relu,
    }
    if ranges is not None:
        arguments["ranges"] = ranges
    run_kernel(class_maps, **arguments, scaled=scaled, cams=cams)
    class_maps_reference(**arguments, scaled=expected, cams=expected_cams)
    # The same float32 products in another order.
    torch.testing.assert_close(cams, expected_cams, rtol=1e-5, atol=1e-5 * n_channels**0.5)
    torch.testing.assert_close(scaled, expected, rtol=0, atol=2e-5)
    if ranges is None:
        assert n_channels == 1 or (scaled.amax(dim=(2, 3)) == 1.0).all()


def test_a_class_that_does_not_exist_has_a_map_of_zeros(run_kernel: RunKernel) -> None:
    features, weight = torch.rand(1, 4, 2, 2), torch.rand(3, 4)
    classes = torch.tensor([[-1, 3, 2, 2**31 - 1]], dtype=torch.int32)
    scaled = torch.full((1, 4, 2, 2), torch.nan)
    run_kernel(class_maps, features=features, weight=weight, classes=classes, scaled=scaled)
    assert not scaled[0, [0, 1, 3]].any()
    assert scaled[0, 2].max() == 1.0


@pytest.mark.parametrize("relu", [False, True])
def test_given_maps_are_scaled_as_on_the_cpu(relu: bool, run_kernel: RunKernel) -> None:
    raw = torch.randn(2, 7, 3, 3, generator=torch.Generator().manual_seed(5))
    raw[0, 0, 1, 1], raw[0, 0, 0, 0], raw[0, 0, 2, 2] = torch.nan, torch.inf, -torch.inf
    raw[0, 1], raw[0, 2], raw[0, 3], raw[0, 4], raw[0, 5] = torch.nan, 3.5, -2.0, 0.0, 1e30
    scaled = torch.full((2, 7, 3, 3), torch.nan)
    run_kernel(scale_maps, maps=raw, scaled=scaled, relu=relu)
    assert torch.equal(scaled, reference.scale_cam(raw, relu=relu))
    assert not scaled[0, 1:6].any()
    classes = torch.tensor([[6, 0], [2, 2]])
    chosen = torch.full((2, 2, 3, 3), torch.nan)
    run_kernel(scale_maps, maps=raw, scaled=chosen, classes=classes, relu=relu)
    assert torch.equal(chosen, torch.stack([scaled[0, [6, 0]], scaled[1, [2, 2]]]))


def test_map_launchers_name_the_wrong_argument() -> None:
    good: dict[str, Any] = {
        "features": torch.zeros(1, 4, 2, 2),
        "weight": torch.zeros(3, 4),
        "classes": torch.zeros((1, 2), dtype=torch.int64),
        "scaled": torch.zeros(1, 2, 2, 2),
    }
    wrong: list[tuple[str, Any, str]] = [
        ("features", torch.zeros(4, 2, 2), r"features are \(N, C, h, w\)"),
        ("features", torch.zeros(1, 5, 2, 2), "weight is for 4 channels, not 5"),
        ("weight", torch.zeros(4, 3).mT, "contiguous rows"),
        ("classes", torch.zeros((2, 2), dtype=torch.int64), r"classes are \(1, n_targets\)"),
        ("classes", torch.zeros(1, 2), "int32 or int64"),
        ("scaled", torch.zeros(1, 3, 2, 2), r"scaled: \(1, 2, 2, 2\) float32"),
        ("cams", torch.zeros(1, 2, 2, 2, dtype=torch.float16), "cams: "),
        ("ranges", torch.zeros(1, 2, 2, device="meta"), "cpu and meta"),
    ]
    for name, value, message in wrong:
        with pytest.raises(ValueError, match=message):
            class_maps(**{**good, name: value})
    with pytest.raises(ValueError, match=r"maps are \(N, n_maps, h, w\)"):
        scale_maps(torch.zeros(2, 2), scaled=torch.zeros(1, 1, 2, 2))


# --- on a GPU only


@pytest.mark.needs_gpu
def test_a_thousand_replays_of_a_graph_are_equal_bit_for_bit() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA GPU")
    rng = torch.Generator("cuda").manual_seed(1)
    features = torch.randn(1, 512, 7, 7, device="cuda", generator=rng).half()
    weight = torch.randn(1000, 512, device="cuda", generator=rng).half()
    classes = torch.randint(1000, (1, 1), device="cuda", generator=rng)
    frame = frames(1, (1080, 1920)).cuda()
    plan = plan_overlay((1080, 1920), (7, 7), Region.whole((1080, 1920)))
    table = overlay_table()
    scaled = torch.empty(1, 1, 7, 7, device="cuda")
    out = torch.zeros_like(frame)[:, None]

    def draw() -> None:
        class_maps(features, weight, classes, scaled=scaled)
        overlay(frame, scaled, plan, table, out=out)

    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    with torch.cuda.stream(stream):
        for _ in range(3):
            draw()
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        draw()
    expected: Tensor | None = None
    for _ in range(1000):
        out.fill_(77)
        scaled.fill_(torch.nan)
        graph.replay()
        if expected is None:
            expected = out.clone()
        assert torch.equal(out, expected)
    cpu = CpuOverlay((1080, 1920), (7, 7), plan.region, LookConfig())
    picture = cpu.blend(frame[0].cpu().numpy(), scaled[0, 0].cpu().numpy())
    tie = ties(scaled.cpu(), plan)
    assert_equal_but_for_ties(out.cpu(), torch.from_numpy(picture)[None, None], tie, levels=1)
    # In place, of the same frame.
    overlay(frame, scaled, plan, table, out=frame[:, None])
    assert torch.equal(frame[:, None], out)
