"""Steps of `gpu_check.py`: each kernel against its reference, timed, and in other shapes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from gpu_steps import FOUR_K, FULL_HD, Ground, renamed
from torch import Tensor

from stream_cam.bench import kernels as bench_kernels
from stream_cam.bench.kernels import kernel_rows, small_kernel_rows
from stream_cam.bench.map_kernels import SmallKernels
from stream_cam.cam import overlay as overlay_module
from stream_cam.cam.geometry import plan_fit
from stream_cam.cam.overlay import overlay_reference
from stream_cam.cam.overlay_plan import overlay_table, plan_overlay
from stream_cam.cam.preprocess import plan_preprocess, preprocess_reference
from stream_cam.config import AlphaMode, Upsampling
from stream_cam.frame import Region

STEPS = ("correct", "kernels", "kernels4k", "sweeps")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CAM_HW = (7, 7)
_MAX_INPUT_DIFFERENCE = {torch.float32: 1e-4, torch.float16: 4e-3}
_MAX_TIES = 0.02
_COPIED_BYTES = 512 << 20

OVERLAY_SHAPES = (
    *((32, 2, 2, 1), (32, 8, 2, 1), (32, 4, 1, 1), (32, 4, 4, 1)),
    *((64, 4, 2, 2), (128, 4, 2, 4), (64, 8, 2, 2)),
)
"""Groups and rows a program, rows ahead, warps: beside the kernel's own shape for vectors."""


def correct(ground: Ground) -> None:
    """Each kernel once, against its reference."""
    for name, check in _checks(ground).items():
        started = time.monotonic()
        problem = None
        try:
            check()
        except Exception as error:  # a compiler of kernels may raise anything
            problem = f"{type(error).__name__}: {error}"
        ground.records.add(
            check=name,
            good=problem is None,
            why=problem,
            seconds=round(time.monotonic() - started, 2),
        )
    from gpu_frame_steps import check_frame

    check_frame(ground)


def _checks(ground: Ground) -> dict[str, Callable[[], object]]:
    small = SmallKernels(ground.gpu)
    found: dict[str, Callable[[], object]] = {
        "overlay, vectors": partial(_check_overlay, ground),
        "overlay, words": partial(_check_overlay, ground, shift=4),
        "overlay, bytes": partial(_check_overlay, ground, shift=1),
        "overlay, smooth, alpha by heat": partial(
            _check_overlay, ground, upsampling="smooth", alpha_mode="heat"
        ),
        "overlay, bicubic": partial(_check_overlay, ground, upsampling="bicubic"),
    }
    for dtype in (torch.float32, torch.float16):
        for side in (224, 288):
            for is_last in (False, True):
                layout = "channels-last" if is_last else "NCHW"
                name = f"preprocess, {side}, {str(dtype).removeprefix('torch.')}, {layout}"
                found[name] = partial(_check_preprocess, ground, side, dtype, is_last)
    return found | {"choice": small.choice, "maps": small.maps, "filter": small.filter}


def _check_overlay(
    ground: Ground,
    *,
    shift: int = 0,
    upsampling: Upsampling = "bilinear",
    alpha_mode: AlphaMode = "constant",
) -> None:
    """One picture; rows are `shift` bytes longer than their pixels."""
    size_hw, device = ground.size(FULL_HD), ground.gpu.device
    height, pitch = size_hw[0], -(-3 * size_hw[1] // 16) * 16 + shift
    strides = (height * pitch, pitch, 3, 1)
    shape = (1, *size_hw, 3)
    random = torch.Generator().manual_seed(0)
    room = torch.randint(0, 256, (height * pitch,), dtype=torch.uint8, generator=random)
    frame = room.as_strided(shape, strides)
    scaled = torch.rand(1, 1, *CAM_HW, generator=random)
    whole = Region.whole(size_hw)
    out = torch.zeros(height * pitch, dtype=torch.uint8, device=device)
    picture = out.as_strided((1, *shape), (0, *strides))
    ground.gpu.kernels.overlay(
        room.to(device).as_strided(shape, strides),
        scaled.to(device),
        plan_overlay(size_hw, CAM_HW, whole, upsampling, device=device),
        overlay_table("inferno", 0.8, alpha_mode, device=device),
        out=picture,
    )
    expected = torch.zeros(1, *shape, dtype=torch.uint8)
    plan = plan_overlay(size_hw, CAM_HW, whole, upsampling, device="cpu")
    table = overlay_table("inferno", 0.8, alpha_mode, device="cpu")
    overlay_reference(frame, scaled, plan, table, out=expected)
    difference = (picture.cpu().short() - expected.short()).abs()
    share, most = float((difference > 1).float().mean()), int(difference.max())
    if share > _MAX_TIES or most > 12:
        raise ValueError(f"{share:.1%} of the bytes differ, by {most} levels at most")


def _check_preprocess(ground: Ground, side: int, dtype: torch.dtype, is_last: bool) -> None:
    size_hw, device, side = ground.size(FULL_HD), ground.gpu.device, ground.side(side)
    random = torch.Generator().manual_seed(0)
    frame = torch.randint(0, 256, (1, *size_hw, 3), dtype=torch.uint8, generator=random)
    fit = plan_fit("stretch", size_hw, side)
    layout = torch.channels_last if is_last else torch.contiguous_format
    out = torch.full((1, 3, side, side), torch.nan, dtype=dtype, device=device)
    out = out.to(memory_format=layout)
    plan = plan_preprocess(fit, MEAN, STD, device=device)
    ground.gpu.kernels.preprocess(frame.to(device), plan, out=out)
    expected = torch.zeros(1, 3, side, side)
    preprocess_reference(frame, plan_preprocess(fit, MEAN, STD, device="cpu"), out=expected)
    difference: Tensor = (out.cpu().float() - expected).abs().max()
    if not difference <= _MAX_INPUT_DIFFERENCE[dtype]:
        raise ValueError(f"differs by {float(difference):.2g} of its reference")


def kernels(ground: Ground) -> None:
    """Each kernel at 1920×1080, beside a copy and plain torch."""
    _time_kernels(ground, FULL_HD)
    ground.attempt(
        "small kernels",
        lambda: ground.rows(small_kernel_rows(ground.gpu, ground.sampling, ground.leave_out)),
    )


def kernels4k(ground: Ground) -> None:
    """Each kernel at 3840×2160."""
    _time_kernels(ground, FOUR_K)


def _time_kernels(ground: Ground, size_hw: tuple[int, int]) -> None:
    for name in bench_kernels.KERNEL_NAMES:
        ground.attempt(f"kernel {name}", partial(_time_kernel, ground, size_hw, name))


def _time_kernel(ground: Ground, size_hw: tuple[int, int], name: str) -> None:
    rows = kernel_rows(
        *(ground.gpu, ground.sampling, ground.size(size_hw), ground.leave_out),
        cold_bytes=ground.cold_bytes,
        copied_bytes=_COPIED_BYTES if ground.is_cuda else 1 << 16,
        names=(name,),
    )
    is_first = name == bench_kernels.KERNEL_NAMES[0]
    ground.rows(row for row in rows if is_first or row.subject.name != "copy")


def sweeps(ground: Ground) -> None:
    """The overlay in other shapes, and cuDNN's benchmark mode off."""
    from gpu_frame_steps import benchmark_off, stem

    ground.attempt("cuDNN's benchmark mode", lambda: benchmark_off(ground))
    ground.attempt("the stem", lambda: stem(ground))
    for shape in OVERLAY_SHAPES:
        ground.attempt(f"overlay {shape}", partial(_time_shape, ground, shape))


def _time_shape(ground: Ground, shape: tuple[int, int, int, int]) -> None:
    with overlay_shape(shape):
        rows = kernel_rows(
            *(ground.gpu, ground.sampling, ground.size(FULL_HD), ground.leave_out),
            cold_bytes=ground.cold_bytes,
            copied_bytes=1 << 16,
            names=("overlay",),
        )
    groups, n_rows, ahead, warps = shape
    name = f"overlay, {groups} groups, {n_rows} rows, {ahead} ahead, {warps} warps"
    own = [row for row in rows if row.subject.name.startswith("overlay")][:1]
    ground.rows(renamed(own, name))


@contextmanager
def overlay_shape(shape: tuple[int, int, int, int]) -> Iterator[None]:
    """The kernel for vectors in another shape."""
    before = overlay_module._SHAPES
    overlay_module._SHAPES = {**before, 16: shape}
    try:
        yield
    finally:
        overlay_module._SHAPES = before
