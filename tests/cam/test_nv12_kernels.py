"""Overlay and preprocessing of NV12 frames against plain torch and OpenCV; interpreted on a CPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.kernel_runner import RunKernel
from torch import Tensor

from stream_cam.cam import reference
from stream_cam.cam.colormaps import color_table
from stream_cam.cam.geometry import plan_fit
from stream_cam.cam.nv12 import ColorMatrix, planes, rgb_from_yuv, yuv_from_rgb
from stream_cam.cam.overlay_plan import (
    OverlayPlan,
    OverlayPlanNv12,
    overlay_table_nv12,
    plan_overlay_nv12,
)
from stream_cam.config import AlphaMode, Fit, LookConfig, Upsampling
from stream_cam.frame import Region

pytest.importorskip("triton", reason="no Triton for this system")

from stream_cam.cam.overlay_nv12 import overlay_nv12, overlay_nv12_reference
from stream_cam.cam.preprocess import Interpolation, plan_preprocess
from stream_cam.cam.preprocess_nv12 import (
    color_of,
    preprocess_nv12,
    preprocess_nv12_reference,
)

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
TOLERANCE = {torch.float32: 1e-4, torch.float16: 2e-3}
"""In normalised units. float32: 20 bits behind the point of the vertical weights, and sums of
levels up to 255 in another order. float16: a step of numbers from 2 to 4."""

Planes = tuple[Tensor, Tensor]


def frames(
    n: int, size_hw: tuple[int, int], pitch: int | None = None, offset: int = 0, seed: int = 0
) -> Planes:
    """Random frames whose rows begin every `pitch` bytes, chroma below luma, in one buffer."""
    height, width = size_hw
    pitch = pitch or width
    rows = height // 2 * 3
    rng = np.random.default_rng(seed)
    buffer = torch.from_numpy(rng.integers(0, 256, offset + n * rows * pitch + 64, np.uint8))
    return planes(buffer.as_strided((n, rows, width), (rows * pitch, pitch, 1), offset))


def outputs(like: Planes, n_targets: int = 1) -> Planes:
    """Room for the pictures with the frames' row strides, filled with 77."""
    made = []
    for plane in like:
        n, height = plane.shape[:2]
        pitch = plane.stride(1)
        size = height * pitch
        buffer = torch.full((n * n_targets * size + 64,), 77, dtype=torch.uint8)
        strides = (n_targets * size, size, *plane.stride()[1:])
        made.append(buffer.as_strided((n, n_targets, *plane.shape[1:]), strides))
    return made[0], made[1]


def maps(n: int, n_targets: int, cam_hw: tuple[int, int], seed: int = 0) -> Tensor:
    rng = np.random.default_rng(seed)
    return reference.scale_cam(torch.from_numpy(rng.normal(size=(n, n_targets, *cam_hw))))


def assert_equal_but_for_ties(
    got: Planes, expected: Planes, scaled: Tensor, plan: OverlayPlanNv12
) -> None:
    """Where a heat lies between two colours, fixed point and float64 may take different ones."""
    parts: list[OverlayPlan] = [plan.luma, plan.chroma]
    for ours, theirs, part in zip(got, expected, parts, strict=True):
        heats = [
            reference.upsample_heat(cam, part.frame_hw, part.region, part.upsampling)[0]
            for cam in scaled.flatten(0, 1)
        ]
        heat = torch.stack(heats).reshape(*scaled.shape[:2], *part.frame_hw)
        tie = ((heat * 255.0) % 1.0 - 0.5).abs() < 1e-3
        difference = (ours.int() - theirs.int()).abs()
        if difference.ndim == 5:
            difference = difference.amax(dim=-1)
        assert not difference[~tie].any(), "the same table and the same integers"
        assert difference.max() <= 10
        assert tie.float().mean() < 0.05 or tie.numel() < 1000


def drawn(
    run_kernel: RunKernel, frame: Planes, scaled: Tensor, plan: OverlayPlanNv12, **look: Any
) -> tuple[Planes, Planes]:
    """The picture of the kernel, and the one of its reference."""
    table = overlay_table_nv12(**look, device="cpu")
    got, expected = outputs(frame, scaled.shape[1]), outputs(frame, scaled.shape[1])
    arguments: dict[str, Any] = {
        "luma": frame[0], "chroma": frame[1], "scaled": scaled, "plan": plan, "table": table,
    }  # fmt: skip
    run_kernel(overlay_nv12, **arguments, out_luma=got[0], out_chroma=got[1])
    overlay_nv12_reference(**arguments, out_luma=expected[0], out_chroma=expected[1])
    return got, expected


@dataclass(frozen=True)
class Case:
    size_hw: tuple[int, int]
    cam_hw: tuple[int, int] = (2, 3)
    fit: Fit = "stretch"
    upsampling: Upsampling = "bilinear"
    alpha: float = 0.4
    alpha_mode: AlphaMode = "constant"
    pitch: int | None = None
    offset: int = 0
    n_targets: int = 1


@pytest.mark.parametrize(
    "case",
    [
        Case((2, 2)),
        Case((6, 32)),  # vectors of 128 bits
        Case((6, 38), pitch=48, alpha_mode="heat"),  # 32 pixels in vectors, then 6 single ones
        Case((6, 38), pitch=52, n_targets=2),  # words
        Case((8, 20), upsampling="nearest", cam_hw=(7, 7)),
        Case((8, 20), upsampling="bicubic", cam_hw=(4, 5)),
        Case((8, 20), pitch=27, alpha=1.0),  # rows not aligned
        Case((6, 12), offset=1, alpha_mode="heat", alpha=1.0),
        Case((2, 40), fit="crop"),
        Case((40, 2), fit="letterbox", alpha=0.0),
    ],
    ids=str,
)
def test_overlay_equals_the_reference(case: Case, run_kernel: RunKernel) -> None:
    frame = frames(2, case.size_hw, case.pitch, case.offset)
    before = [plane.clone() for plane in frame]
    region = plan_fit(case.fit, case.size_hw, 224, 256).region
    plan = plan_overlay_nv12(case.size_hw, case.cam_hw, region, case.upsampling, device="cpu")
    scaled = maps(2, case.n_targets, case.cam_hw)
    got, expected = drawn(
        run_kernel, frame, scaled, plan, alpha=case.alpha, alpha_mode=case.alpha_mode
    )
    assert_equal_but_for_ties(got, expected, scaled, plan)
    for plane, as_before, picture in zip(frame, before, got, strict=True):
        assert torch.equal(plane, as_before)
        # Bytes between the rows are not the kernel's.
        margin = torch.ones(picture.untyped_storage().nbytes(), dtype=torch.bool)
        margin.as_strided(picture.shape, picture.stride()).fill_(False)
        stored = torch.tensor(picture.untyped_storage(), dtype=torch.uint8)
        assert bool((stored[margin] == 77).all())


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
    height, width = data.draw(st.tuples(st.integers(1, 5), st.integers(1, 20)), "half a size")
    cam_hw = data.draw(st.tuples(st.integers(1, 4), st.integers(1, 5)), "cam")
    alignment = data.draw(st.sampled_from([1, 4, 16]), "alignment")
    pitch = -(-2 * width // alignment) * alignment
    offset = data.draw(st.sampled_from([0, 0, 3, 4, 16]), "offset")
    frame = frames(1, (2 * height, 2 * width), pitch, offset, seed)
    rng = np.random.default_rng(seed)
    x0, y0 = rng.uniform(-2 * width, 2 * width), rng.uniform(-2 * height, 2 * height)
    region = Region(x0, y0, x0 + rng.uniform(1, 90), y0 + rng.uniform(1, 20))
    plan = plan_overlay_nv12((2 * height, 2 * width), cam_hw, region, device="cpu")
    scaled = maps(1, 1, cam_hw, seed)
    got, expected = drawn(run_kernel, frame, scaled, plan, alpha=float(rng.uniform(0, 1)))
    assert_equal_but_for_ties(got, expected, scaled, plan)


@pytest.mark.parametrize("pitch", [48, 50], ids=["vectors", "bytes"])
def test_overlay_in_place_touches_the_region_only(pitch: int, run_kernel: RunKernel) -> None:
    # Not of one buffer, of which the worker's copy of luma would undo the chroma.
    (luma, _), (_, chroma) = frames(2, (6, 46), pitch), frames(2, (6, 46), pitch, seed=1)
    plan = plan_overlay_nv12((6, 46), (2, 2), Region(18.2, 1.1, 35.9, 4.4), device="cpu")
    table, scaled = overlay_table_nv12(alpha=0.7, device="cpu"), maps(2, 1, (2, 2))
    expected = outputs((luma, chroma))
    overlay_nv12_reference(
        luma, chroma, scaled, plan, table, out_luma=expected[0], out_chroma=expected[1]
    )
    before = luma.clone(), chroma.clone()
    run_kernel(
        overlay_nv12, luma=luma, chroma=chroma, scaled=scaled, plan=plan, table=table,
        out_luma=luma[:, None], out_chroma=chroma[:, None],
    )  # fmt: skip
    assert_equal_but_for_ties((luma[:, None], chroma[:, None]), expected, scaled, plan)
    for plane, as_before, part in zip(
        (luma, chroma), before, (plan.luma, plan.chroma), strict=True
    ):
        changed = (plane != as_before).reshape(*plane.shape[:3], -1).any(dim=-1)
        rows, columns = part.covered
        assert changed[:, rows, columns].float().mean() > 0.8
        changed[:, rows, columns] = False
        assert not changed.any()


def smooth_picture(size_hw: tuple[int, int]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """BGR without edges, so that colour at half the size loses nothing."""
    y, x = np.mgrid[0 : size_hw[0], 0 : size_hw[1]] / max(size_hw)
    waves = [128 + 60 * np.sin(3 * x + phase) * np.cos(2 * y + phase) for phase in (0, 1, 2)]
    return np.stack(waves, axis=-1).round().astype(np.uint8)


def in_nv12(
    picture_bgr: np.ndarray[Any, np.dtype[np.uint8]], matrix: ColorMatrix, *, full_range: bool
) -> Planes:
    to_yuv, offset = yuv_from_rgb(matrix, full_range=full_range)
    yuv = picture_bgr[..., ::-1] @ to_yuv.T + offset
    height, width = yuv.shape[:2]
    chroma = yuv[..., 1:].reshape(height // 2, 2, width // 2, 2, 2).mean(axis=(1, 3))
    made = [torch.from_numpy(part.round().astype(np.uint8)) for part in (yuv[..., 0], chroma)]
    return made[0][None], made[1][None]


def in_bgr(luma: Tensor, chroma: Tensor) -> Tensor:
    """OpenCV's idea of a (1, 1, ...) picture, which is BT.601 in limited range."""
    both = np.vstack([luma[0, 0].numpy(), chroma[0, 0].flatten(1).numpy()])
    return torch.from_numpy(cv2.cvtColor(both, cv2.COLOR_YUV2BGR_NV12))


def test_opencv_sees_the_colours_that_were_meant(run_kernel: RunKernel) -> None:
    size_hw = (48, 64)
    picture = smooth_picture(size_hw)
    frame = in_nv12(picture, "bt601", full_range=False)
    plan = plan_overlay_nv12(size_hw, (2, 3), Region.whole(size_hw), device="cpu")
    scaled = maps(1, 1, (2, 3))
    got, _ = drawn(run_kernel, frame, scaled, plan, matrix="bt601", colormap="viridis")
    heat, inside = reference.upsample_heat(scaled[0, 0], size_hw, Region.whole(size_hw))
    colors = torch.from_numpy(color_table("viridis").copy())
    expected = reference.blend(torch.from_numpy(picture), heat, inside, colors, 0.4)
    difference = (in_bgr(*got).float() - expected.float()).abs()
    # Levels are rounded three times, in limited range, and four pixels have one chroma.
    assert difference.max() <= 10
    assert difference.mean() <= 1.5


@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("matrix", ["bt601", "bt709"])
def test_preprocess_sees_the_colours_that_were_meant(
    matrix: ColorMatrix, full_range: bool, run_kernel: RunKernel
) -> None:
    size_hw = (24, 32)
    picture = smooth_picture(size_hw)
    luma, chroma = in_nv12(picture, matrix, full_range=full_range)
    plan = plan_preprocess(plan_fit("stretch", size_hw, 5), MEAN, STD, device="cpu")
    color = color_of(matrix, full_range=full_range, device="cpu")
    got = torch.full((1, 3, 5, 5), torch.nan)
    run_kernel(preprocess_nv12, luma=luma, chroma=chroma, plan=plan, color=color, out=got)
    expected = reference.preprocess(torch.from_numpy(picture), plan.fit, MEAN, STD)
    assert (got - expected).abs().max() <= 0.02, "levels were rounded once: 1 / 255 / 0.224"


@dataclass(frozen=True)
class InputCase:
    size_hw: tuple[int, int]
    fit: Fit = "stretch"
    input_size: int = 3
    interpolation: Interpolation = "bilinear"
    dtype: torch.dtype = torch.float32
    channels_last: bool = False
    pitch: int | None = None
    offset: int = 0


@pytest.mark.parametrize(
    "case",
    [
        InputCase((2, 2)),
        InputCase((24, 32)),
        InputCase((24, 32), dtype=torch.float16, channels_last=True),
        InputCase((24, 30), interpolation="bicubic"),
        InputCase((4, 2), input_size=5),  # larger
        InputCase((22, 30), pitch=32),
        InputCase((22, 30), pitch=33, offset=1),
        InputCase((20, 42), "crop", 6),
        InputCase((20, 42), "letterbox", 6, dtype=torch.float16),
        InputCase((2, 90)),
        InputCase((90, 2), "letterbox"),
    ],
    ids=str,
)
def test_preprocess_equals_the_reference(case: InputCase, run_kernel: RunKernel) -> None:
    luma, chroma = frames(2, case.size_hw, case.pitch, case.offset)
    fit = plan_fit(case.fit, case.size_hw, case.input_size, case.input_size + 1)
    plan = plan_preprocess(fit, MEAN, STD, case.interpolation, device="cpu")
    color = color_of("bt709", full_range=False, device="cpu")
    layout = torch.channels_last if case.channels_last else torch.contiguous_format
    got = torch.full((2, 3, *fit.input_hw), torch.nan, dtype=case.dtype).to(memory_format=layout)
    expected = torch.full_like(got, torch.nan, dtype=torch.float32)
    run_kernel(preprocess_nv12, luma=luma, chroma=chroma, plan=plan, color=color, out=got)
    preprocess_nv12_reference(luma, chroma, plan, color, out=expected)
    assert (got.float() - expected).abs().max() <= TOLERANCE[case.dtype]


@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("matrix", ["bt601", "bt709"])
def test_matrices_are_inverse_and_white_is_white(matrix: ColorMatrix, full_range: bool) -> None:
    there, there_offset = yuv_from_rgb(matrix, full_range=full_range)
    back, back_offset = rgb_from_yuv(matrix, full_range=full_range)
    assert np.allclose(back @ there, np.eye(3))
    white = there @ np.full(3, 255.0) + there_offset
    assert np.allclose(white, [255 if full_range else 235, 128, 128])
    assert np.allclose(back @ white + back_offset, 255)


def test_a_blend_never_carries_into_the_next_plane() -> None:
    for full_range in (False, True):
        for alpha in np.linspace(0.0, 1.0, 257):
            entries = overlay_table_nv12(
                "jet", float(alpha), matrix="bt601", full_range=full_range, device="cpu"
            ).entries
            keep = entries >> 48
            for shift in (0, 16, 32):
                assert int((((entries >> shift) & 0xFFFF) + 255 * keep).max()) <= 0xFFFF


def test_outside_is_black_where_the_heatmap_is_alone(run_kernel: RunKernel) -> None:
    size_hw = (6, 16)
    plan = plan_overlay_nv12(size_hw, (2, 2), Region(4.0, 0.0, 12.0, 6.0), device="cpu")
    frame, scaled = frames(1, size_hw), maps(1, 1, (2, 2))
    (luma, chroma), expected = drawn(run_kernel, frame, scaled, plan, alpha=1.0, outside_alpha=1.0)
    assert_equal_but_for_ties((luma, chroma), expected, scaled, plan)
    assert (luma[..., :4] == 16).all()
    assert (chroma[..., 6:, :] == 128).all()


@pytest.mark.parametrize("value", [0.0, 0.6, float("nan"), 3.0, -7.0])
def test_overlay_of_constant_and_broken_maps_is_one_colour(
    value: float, run_kernel: RunKernel
) -> None:
    plan = plan_overlay_nv12((4, 10), (2, 2), Region.whole((4, 10)), device="cpu")
    scaled = torch.full((1, 1, 2, 2), value)
    table, frame = overlay_table_nv12(alpha=1.0, device="cpu"), frames(1, (4, 10))
    got = outputs(frame)
    run_kernel(
        overlay_nv12, luma=frame[0], chroma=frame[1], scaled=scaled, plan=plan, table=table,
        out_luma=got[0], out_chroma=got[1],
    )  # fmt: skip
    heat = min(value, 1.0) if value > 0.0 else 0.0
    entry = int(table.entries[round(255 * heat)])
    u, v, y = ((entry >> shift & 0xFFFF) >> 8 for shift in (0, 16, 32))
    assert (got[0] == y).all()
    assert (got[1] == torch.tensor([u, v])).all()


def test_planes_and_launchers_name_the_wrong_argument() -> None:
    for shape in ((1, 7, 8), (1, 9, 7), (6, 8)):
        with pytest.raises(ValueError, match="even H and W"):
            planes(torch.zeros(shape, dtype=torch.uint8))
    with pytest.raises(ValueError, match="even height and width, got 5×8"):
        plan_overlay_nv12((5, 8), (2, 2), Region.whole((5, 8)), device="cpu")
    with pytest.raises(ValueError, match="bt601 or bt709, got 'bt2020'"):
        yuv_from_rgb("bt2020", full_range=False)  # type: ignore[arg-type]
    luma, chroma = frames(1, (4, 8))
    good: dict[str, Any] = {
        "luma": luma,
        "chroma": chroma,
        "scaled": maps(1, 2, (2, 2)),
        "plan": plan_overlay_nv12((4, 8), (2, 2), Region.whole((4, 8)), device="cpu"),
        "table": overlay_table_nv12(device="cpu"),
        "out_luma": torch.zeros((1, 2, 4, 8), dtype=torch.uint8),
        "out_chroma": torch.zeros((1, 2, 2, 4, 2), dtype=torch.uint8),
    }
    wrong: list[tuple[str, Any, str]] = [
        ("luma", frames(1, (4, 10))[0], r"luma: \(1, 4, 8, 1\) uint8 for this plan"),
        ("luma", luma.float(), "luma: .* uint8"),
        ("chroma", chroma[..., :1], r"chroma: \(1, 2, 4, 2\)"),
        ("scaled", maps(1, 2, (2, 3)), r"maps are \(1, n_targets, 2, 2\)"),
        ("scaled", maps(1, 2, (2, 2)).double(), "float32"),
        (
            "out_luma",
            torch.zeros((1, 1, 4, 8), dtype=torch.uint8),
            r"out of luma: \(1, 2, 4, 8, 1\)",
        ),
        ("out_luma", luma[:, None].expand(1, 2, 4, 8), "in place there is one map"),
        ("out_chroma", torch.zeros((1, 2, 2, 4, 2), dtype=torch.uint8, device="meta"), "meta"),
    ]
    for name, value, message in wrong:
        with pytest.raises(ValueError, match=message):
            overlay_nv12(**{**good, name: value})


def test_preprocess_says_what_is_wrong() -> None:
    luma, chroma = frames(1, (4, 8))
    good: dict[str, Any] = {
        "luma": luma,
        "chroma": chroma,
        "plan": plan_preprocess(plan_fit("stretch", (4, 8), 4), MEAN, STD, device="cpu"),
        "color": color_of("bt709", full_range=False, device="cpu"),
        "out": torch.zeros(1, 3, 4, 4),
    }
    odd = plan_preprocess(plan_fit("stretch", (5, 8), 4), MEAN, STD, device="cpu")
    wrong: list[tuple[str, Any, str]] = [
        ("plan", odd, "even height and width"),
        ("luma", luma.float(), r"luma is \(1, 4, 8\) uint8"),
        ("chroma", chroma[..., :1], r"chroma is \(1, 2, 4, 2\)"),
        ("color", torch.zeros(3, 3), r"color is \(3, 4\) float32"),
        ("color", good["color"].T.contiguous().T, "contiguous"),
        ("out", torch.zeros(1, 3, 4, 4, dtype=torch.bfloat16), "float16 or float32"),
        ("out", torch.zeros(1, 3, 4, 4, device="meta"), "cpu and meta"),
    ]
    for name, value, message in wrong:
        with pytest.raises(ValueError, match=message):
            preprocess_nv12(**{**good, name: value})


def test_the_look_of_nv12_is_the_look_of_bgr() -> None:
    """Every colour of the table, at full strength, is the colour map's."""
    look = LookConfig(colormap="turbo", alpha=1.0)
    entries = overlay_table_nv12(look.colormap, look.alpha, matrix="bt601", device="cpu").entries
    levels = torch.stack([(entries >> shift) & 0xFFFF for shift in (32, 0, 16)], dim=-1) >> 8
    to_rgb, offset = rgb_from_yuv("bt601", full_range=False)
    rgb = levels[:256].numpy() @ to_rgb.T + offset
    assert np.abs(rgb[:, ::-1] - color_table("turbo")).max() <= 2.5
