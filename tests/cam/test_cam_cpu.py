"""The fast CPU path against the plain-torch reference."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms import v2

from stream_cam.cam import reference
from stream_cam.cam.colormaps import color_table
from stream_cam.cam.cpu import CpuOverlay, CpuPreprocessor, scale_cam
from stream_cam.cam.geometry import FitPlan, plan_fit
from stream_cam.config import AlphaMode, Colormap, Fit, LookConfig, Upsampling
from stream_cam.errors import UsageError
from stream_cam.frame import BgrImage, FloatArray, Region

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
FITS: tuple[Fit, ...] = ("stretch", "crop", "letterbox", "native")
COLORMAPS: tuple[Colormap, ...] = ("turbo", "jet", "viridis", "inferno", "magma")
SIZES = [(720, 1280), (241, 333), (1, 1), (3, 500), (500, 3), (224, 224), (33, 47)]


def random_frame(size_hw: tuple[int, int], seed: int = 0) -> BgrImage:
    return np.random.default_rng(seed).integers(0, 256, (*size_hw, 3), dtype=np.uint8)


def random_cam(size_hw: tuple[int, int] = (7, 7), seed: int = 0) -> FloatArray:
    return np.random.default_rng(seed).normal(size=size_hw).astype(np.float32)


def preprocess(frame: BgrImage, plan: FitPlan, interpolation: str = "bilinear") -> FloatArray:
    out = np.full((3, *plan.input_hw), np.nan, np.float32)
    CpuPreprocessor(plan, MEAN, STD, interpolation)(frame, out)
    return out


def reference_overlay(
    frame: BgrImage, cam: FloatArray, region: Region, look: LookConfig
) -> tuple[BgrImage, FloatArray]:
    scaled = reference.scale_cam(torch.from_numpy(cam), relu=look.relu)
    size_hw = (frame.shape[0], frame.shape[1])
    heat, inside = reference.upsample_heat(scaled, size_hw, region, look.upsampling)
    table = torch.from_numpy(color_table(look.colormap).copy())
    mixed = reference.blend(
        torch.from_numpy(frame), heat, inside, table, look.alpha, look.alpha_mode
    )
    return mixed.numpy(), heat.numpy()


def assert_overlay_equal(got: BgrImage, expected: BgrImage, heat: FloatArray) -> None:
    """At most one level apart, but where the heat is a rounding tie between two colours.

    There float32 and float64 sums may round to neighbouring entries of the colour table, which are
    at most 10 levels apart.
    """
    difference = np.abs(got.astype(int) - expected).max(axis=-1)
    tie = np.abs((heat * 255.0) % 1.0 - 0.5) < 1e-3
    assert difference[~tie].max(initial=0) <= 1
    assert difference.max(initial=0) <= 10
    assert tie.mean() < 0.05 or heat.size < 1000


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("size_hw", SIZES)
def test_preprocess_equals_the_reference(
    fit: Fit, size_hw: tuple[int, int], interpolation: str
) -> None:
    frame = random_frame(size_hw)
    plan = plan_fit(fit, size_hw, 224, 256)
    got = preprocess(frame, plan, interpolation)
    image = torch.from_numpy(frame)
    expected = reference.preprocess(image, plan, MEAN, STD, interpolation)[0].numpy()
    assert np.abs(got - expected).max() <= 2e-4


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("fit", "resize_size"), [("stretch", None), ("crop", 256), ("crop", 224)])
@pytest.mark.parametrize("size_hw", [(720, 1280), (241, 333), (500, 300), (37, 61), (256, 256)])
def test_preprocess_equals_torchvision_but_for_its_rounding(
    size_hw: tuple[int, int], fit: Fit, resize_size: int | None, interpolation: str
) -> None:
    # Without black and white: a cubic overshoots them, and torchvision clips between its passes.
    frame = np.asarray(64 + random_frame(size_hw) // 2, np.uint8)
    got = preprocess(frame, plan_fit(fit, size_hw, 224, resize_size), interpolation)
    mode = v2.InterpolationMode(interpolation)
    resize = (
        [v2.Resize((224, 224), mode, antialias=True)]
        if fit == "stretch"
        else [v2.Resize(resize_size, mode, antialias=True), v2.CenterCrop(224)]
    )
    transform = v2.Compose(
        [*resize, v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
    )
    rgb = torch.from_numpy(np.ascontiguousarray(frame[..., ::-1])).permute(2, 0, 1)
    expected = transform(rgb).numpy()
    # Torchvision rounds to uint8 after each of its two passes.
    levels = np.abs(got - expected) * np.array(STD, np.float32)[:, None, None] * 255.0
    assert levels.max() <= 1.25


def test_preprocess_fills_the_letterbox_with_the_mean_colour() -> None:
    plan = plan_fit("letterbox", (90, 160), 224)
    got = preprocess(random_frame((90, 160)), plan)
    assert plan.resized_hw == (126, 224)
    assert np.all(got[:, :49] == 0.0)
    assert np.all(got[:, 175:] == 0.0)
    assert np.abs(got[:, 49:175]).min(axis=0).max() > 0.0


@pytest.mark.parametrize("width", [1, 2])
def test_preprocess_to_one_pixel_of_width_keeps_rows_apart(width: int) -> None:
    frame = np.repeat(np.arange(250, dtype=np.uint8)[:, None, None], 3, axis=2).repeat(width, 1)
    plan = plan_fit("letterbox", (250, width), 50)
    assert plan.resized_hw == (50, 1)
    levels = np.arange(50) * 5.0 + 2.0  # the mean of the rows under each
    expected = (levels / 255.0 - MEAN[0]) / STD[0]
    inner = slice(1, 49)  # a triangle reaches over the frame's edge, where it is not symmetric
    for got in (
        preprocess(frame, plan),
        reference.preprocess(torch.from_numpy(frame), plan, MEAN, STD)[0].numpy(),
    ):
        column = got[0, :, -plan.left]
        assert np.abs(column - expected)[inner].max() * STD[0] * 255.0 <= 1.1


def test_preprocess_takes_views_with_any_stride() -> None:
    frame = random_frame((120, 200))
    plan = plan_fit("stretch", (60, 100), 224)
    for view in (frame[::2, ::2], frame[:60, 100:], frame[59::-1, 99::-1]):
        assert np.array_equal(preprocess(view, plan), preprocess(view.copy(), plan))


@pytest.mark.parametrize("size_hw", [(720, 1280), (1280, 720), (480, 640), (1, 8000), (50, 50)])
def test_native_fit_keeps_the_frames_shape_in_multiples_of_32(size_hw: tuple[int, int]) -> None:
    plan = plan_fit("native", size_hw, 224)
    assert min(plan.input_hw) == 224
    assert all(side % 32 == 0 for side in plan.input_hw)
    assert max(plan.input_hw) <= 4 * 224
    assert (plan.input_hw[0] > plan.input_hw[1]) == (size_hw[0] > size_hw[1])
    assert plan.region == Region.whole(size_hw)


def test_native_fit_of_a_16_to_9_frame_has_a_map_of_7_by_12() -> None:
    assert plan_fit("native", (720, 1280), 224).input_hw == (7 * 32, 12 * 32)


def test_fit_regions_lie_where_the_network_looked() -> None:
    crop = plan_fit("crop", (720, 1280), 224).region
    assert (crop.y0, crop.y1) == (0.0, 720.0)
    # torchvision rounds the long side down to 398 and the offset to 87 pixels.
    assert crop.x0 == pytest.approx(280.0, abs=1.0)
    assert crop.x1 == pytest.approx(1000.0, abs=1.0)
    letterbox = plan_fit("letterbox", (720, 1280), 224).region
    assert (letterbox.x0, letterbox.x1) == (0.0, 1280.0)
    assert letterbox.y0 == pytest.approx(-280.0)
    assert letterbox.y1 == pytest.approx(1000.0)


@pytest.mark.parametrize("upsampling", ["bilinear", "nearest", "bicubic", "smooth"])
@pytest.mark.parametrize("alpha_mode", ["constant", "heat"])
@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("size_hw", [(180, 320), (241, 333), (1, 1), (3, 500), (33, 47)])
def test_overlay_equals_the_reference(
    size_hw: tuple[int, int], fit: Fit, alpha_mode: AlphaMode, upsampling: Upsampling
) -> None:
    frame = random_frame(size_hw)
    plan = plan_fit(fit, size_hw, 224, 256)
    cam = random_cam((plan.input_hw[0] // 32, plan.input_hw[1] // 32))
    look = LookConfig(alpha_mode=alpha_mode, upsampling=upsampling)
    overlay = CpuOverlay(size_hw, cam.shape, plan.region, look)
    expected, heat = reference_overlay(frame, cam, plan.region, look)
    got = overlay.blend(frame, scale_cam(cam))
    assert_overlay_equal(got, expected, heat)


@pytest.mark.parametrize("colormap", COLORMAPS)
@pytest.mark.parametrize("alpha", [0.0, 0.25, 0.4, 1.0])
def test_blend_is_the_formula_for_every_colour_and_value(colormap: Colormap, alpha: float) -> None:
    # Every frame value against every entry of the table: rows of heat k/255, columns of value v.
    heat = np.repeat(np.arange(256, dtype=np.float32)[:, None] / 255.0, 256, axis=1)
    frame = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 256, axis=0).repeat(3, axis=2)
    look = LookConfig(colormap=colormap, alpha=alpha, alpha_mode="constant", upsampling="nearest")
    got = CpuOverlay((256, 256), (256, 256), Region.whole((256, 256)), look).blend(frame, heat)
    table = color_table(colormap).astype(np.float64)
    expected = np.round((1.0 - alpha) * frame + alpha * table[:, None, :])
    assert np.abs(got - expected).max() <= 1


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    rows=st.integers(1, 9),
    columns=st.integers(1, 9),
    seed=st.integers(0, 2**31),
    alpha=st.floats(0.0, 1.0),
    upsampling=st.sampled_from(["bilinear", "nearest", "bicubic", "smooth"]),
    relu=st.booleans(),
)
def test_overlay_equals_the_reference_for_any_size_and_value(
    height: int, width: int, rows: int, columns: int, seed: int, alpha: float,
    upsampling: Upsampling, relu: bool,
) -> None:  # fmt: skip
    rng = np.random.default_rng(seed)
    frame = random_frame((height, width), seed)
    cam = (rng.normal(size=(rows, columns)) * 10.0 ** rng.integers(-6, 6)).astype(np.float32)
    x0, y0 = rng.uniform(-width, width * 0.5), rng.uniform(-height, height * 0.5)
    region = Region(x0, y0, x0 + rng.uniform(1, 2 * width), y0 + rng.uniform(1, 2 * height))
    look = LookConfig(alpha=alpha, upsampling=upsampling, relu=relu)
    expected, heat = reference_overlay(frame, cam, region, look)
    overlay = CpuOverlay((height, width), (rows, columns), region, look)
    assert_overlay_equal(overlay.blend(frame, scale_cam(cam, relu=relu)), expected, heat)


def test_overlay_whole_frame_equals_torch_interpolate() -> None:
    cam = random_cam((7, 12))
    scaled = scale_cam(cam)
    heat, inside = reference.upsample_heat(
        torch.from_numpy(scaled), (100, 170), Region.whole((100, 170))
    )
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(scaled)[None, None], (100, 170), mode="bilinear", align_corners=False
    )[0, 0]
    assert bool(inside.all())
    assert (heat - expected).abs().max() < 1e-6


def test_overlay_writes_in_place_and_to_another_buffer() -> None:
    frame = random_frame((50, 70))
    overlay = CpuOverlay((50, 70), (7, 7), Region(10, 5, 60, 45), LookConfig())
    scaled = scale_cam(random_cam())
    expected = overlay.blend(frame, scaled)
    out = np.empty_like(frame)
    assert overlay.blend(frame, scaled, out) is out
    assert np.array_equal(out, expected)
    overlay.blend(frame, scaled, frame)
    assert np.array_equal(frame, expected)


def test_overlay_leaves_pixels_outside_the_region_alone() -> None:
    frame = random_frame((50, 70))
    got = CpuOverlay((50, 70), (7, 7), Region(10, 5, 60, 45), LookConfig(alpha=1.0)).blend(
        frame, scale_cam(random_cam())
    )
    changed = (got != frame).any(axis=-1)
    assert not changed[:5].any()
    assert not changed[45:].any()
    assert not changed[:, :10].any()
    assert not changed[:, 60:].any()
    assert changed[5:45, 10:60].mean() > 0.95


def test_heatmap_is_the_colour_alone_and_black_outside() -> None:
    overlay = CpuOverlay((40, 40), (7, 7), Region(0, 0, 40, 20), LookConfig(colormap="jet"))
    picture = overlay.heatmap(np.ones((7, 7), np.float32))
    assert np.all(picture[:20] == color_table("jet")[255])
    assert np.all(picture[20:] == 0)


@pytest.mark.parametrize("value", [0.0, 3.5, -2.0, 1e30])
def test_constant_maps_scale_to_zero(value: float) -> None:
    cam = np.full((7, 7), value, np.float32)
    assert np.all(scale_cam(cam) == 0.0)
    assert np.all(scale_cam(cam, relu=True) == 0.0)
    assert bool((reference.scale_cam(torch.from_numpy(cam)) == 0.0).all())


def test_broken_cells_are_cold_and_never_nan() -> None:
    cam = random_cam()
    cam[2, 3], cam[0, 0], cam[6, 6] = np.nan, np.inf, -np.inf
    scaled = scale_cam(cam)
    assert np.isfinite(scaled).all()
    assert scaled[2, 3] == scaled[0, 0] == scaled[6, 6] == scaled.min() == 0.0
    assert np.array_equal(scaled, reference.scale_cam(torch.from_numpy(cam)).numpy())
    assert np.all(scale_cam(np.full((7, 7), np.nan, np.float32)) == 0.0)
    assert bool((reference.scale_cam(torch.full((7, 7), torch.nan)) == 0.0).all())


@given(
    values=st.lists(st.floats(-1e6, 1e6, width=32), min_size=4, max_size=16),
    relu=st.booleans(),
)
def test_scaling_is_min_max_of_each_map(values: list[float], relu: bool) -> None:
    cam = np.array(values, np.float32).reshape(1, -1)
    scaled = scale_cam(cam, relu=relu)
    assert scaled.dtype == np.float32
    assert (
        np.abs(scaled - reference.scale_cam(torch.from_numpy(cam), relu=relu).numpy()).max() <= 1e-6
    )
    if scaled.any():
        assert scaled.min() == 0.0
        assert scaled.max() == 1.0


def test_color_tables_run_from_cold_to_hot_and_cannot_be_changed() -> None:
    for name in COLORMAPS:
        table = color_table(name)
        assert table.shape == (256, 3)
        assert not table.flags.writeable
        assert len(np.unique(table, axis=0)) > 128
    # BGR: turbo begins dark blue-violet and ends dark red.
    assert color_table("turbo")[20][0] > color_table("turbo")[20][2]
    assert color_table("turbo")[250][2] > color_table("turbo")[250][0]
    with pytest.raises(UsageError, match="did you mean turbo"):
        color_table("turbu")  # type: ignore[arg-type, unused-ignore]
