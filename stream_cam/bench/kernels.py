"""The GPU's kernels, verified and timed beside a copy and plain torch.

Each kernel's bytes a second are compared with those of a copy in the device's memory, measured in
the same turns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F

from stream_cam.bench.kernel_timing import (
    CAM_HW,
    KernelTiming,
    check_input,
    check_picture,
    kernel_call,
    noise_frames,
    width_x_height,
)
from stream_cam.bench.map_kernels import MapsAndOverlay, SmallKernels
from stream_cam.bench.result import Row, Subject, size_text
from stream_cam.bench.timing import Measurement, Sampling, measure
from stream_cam.cam.geometry import plan_fit
from stream_cam.cam.nv12 import planes
from stream_cam.cam.overlay import overlay_reference
from stream_cam.cam.overlay_nv12 import overlay_nv12, overlay_nv12_reference
from stream_cam.cam.overlay_plan import (
    OUTSIDE,
    overlay_table,
    overlay_table_nv12,
    plan_overlay,
    plan_overlay_nv12,
)
from stream_cam.cam.preprocess import plan_preprocess, preprocess_reference
from stream_cam.cam.preprocess_nv12 import color_of, preprocess_nv12, preprocess_nv12_reference
from stream_cam.config import Upsampling
from stream_cam.errors import first_line
from stream_cam.explain.graph.device import Gpu
from stream_cam.frame import BgrImage, Region

SIZES_HW = ((720, 1280), (1080, 1920), (2160, 3840))
_INPUT_SIDE = 224
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
KERNEL_NAMES = (
    *("overlay", "overlay bicubic", "overlay smooth", "maps+overlay", "preprocess"),
    *("overlay nv12", "preprocess nv12"),
)
"""Kernels whose work depends on the frame's size."""
_COLD_BYTES = 160 << 20
"""Size of all frames together: three times the largest GPUs' caches."""
_COPIED_BYTES = 512 << 20


def kernel_rows(
    gpu: Gpu,
    sampling: Sampling,
    size_hw: tuple[int, int],
    leave_out: Callable[[str, str], None],
    *,
    cold_bytes: int = _COLD_BYTES,
    copied_bytes: int = _COPIED_BYTES,
    names: Sequence[str] = KERNEL_NAMES,
) -> list[Row]:
    """The kernels at one frame size, beside a copy and plain torch.

    Args:
        names: these kernels only.
        leave_out: gets the name of each kernel that fails or differs from its reference, and the
            reason. The others are timed.
    """
    timings = {"copy": _copy(gpu, copied_bytes)}
    n_frames = max(2, -(-cold_bytes // (6 * size_hw[0] * size_hw[1])))
    builders = _timing_builders(gpu, size_hw, n_frames)
    for name, make in ((name, builders[name]) for name in names):
        timings |= _build_timings(make, f"kernel {name} {size_text(size_hw)}", leave_out)
    return _rows(gpu, timings, sampling)


def kernel_parts(
    gpu: Gpu, sampling: Sampling, leave_out: Callable[[str, str], None]
) -> dict[str, Callable[[], list[Row]]]:
    """Groups of rows that are timed together, by name; the copy is timed at each size."""
    parts: dict[str, Callable[[], list[Row]]] = {
        "kernels": partial(small_kernel_rows, gpu, sampling, leave_out)
    }
    for size_hw in SIZES_HW:
        name = f"kernels at {size_text(size_hw)}"
        parts[name] = partial(kernel_rows, gpu, sampling, size_hw, leave_out)
    return parts


def small_kernel_rows(
    gpu: Gpu, sampling: Sampling, leave_out: Callable[[str, str], None]
) -> list[Row]:
    """The kernels whose work does not depend on the frame's size, beside plain torch."""
    small = SmallKernels(gpu)
    timings: dict[str, KernelTiming] = {}
    for name, make in (("choice", small.choice), ("maps", small.maps), ("filter", small.filter)):
        timings |= _build_timings(make, f"kernel {name}", leave_out)
    return _rows(gpu, timings, sampling)


def _rows(gpu: Gpu, timings: Mapping[str, KernelTiming], sampling: Sampling) -> list[Row]:
    timed = measure({name: one.timed_call for name, one in timings.items()}, sampling)
    return [
        Row.of(_subject(gpu, name, one), _region(name, timings, timed), timed[name])
        for name, one in timings.items()
    ]


def _build_timings(
    make: Callable[[], dict[str, KernelTiming]], what: str, leave_out: Callable[[str, str], None]
) -> dict[str, KernelTiming]:
    try:
        return make()
    except Exception as error:  # a compiler of kernels may raise anything
        leave_out(what, first_line(error))
        return {}


def _timing_builders(
    gpu: Gpu, size_hw: tuple[int, int], n_frames: int
) -> dict[str, Callable[[], dict[str, KernelTiming]]]:
    """By name, the functions that verify and capture each kernel."""
    return {
        "overlay": lambda: _OverlayKernel(gpu, size_hw, n_frames).timings(),
        "overlay bicubic": lambda: _OverlayKernel(gpu, size_hw, n_frames, "bicubic").timings(),
        "overlay smooth": lambda: _OverlayKernel(gpu, size_hw, n_frames, "smooth").timings(),
        "maps+overlay": lambda: MapsAndOverlay(gpu, size_hw, n_frames).timings(),
        "preprocess": lambda: _PreprocessKernel(gpu, size_hw, n_frames).timings(),
        "overlay nv12": lambda: _Nv12Kernels(gpu, size_hw, 2 * n_frames).drawn(),
        "preprocess nv12": lambda: _Nv12Kernels(gpu, size_hw, 2 * n_frames).prepared(),
    }


def _subject(gpu: Gpu, name: str, timing: KernelTiming) -> Subject:
    mode = "launch" if gpu.device == "cpu" else "graph"
    return Subject("kernel", name, "", gpu.device, "", 1, None, timing.frame_hw, mode)


def _region(
    name: str, timings: Mapping[str, KernelTiming], timed: Mapping[str, Measurement]
) -> str:
    """The timed region, with the bandwidth and the speed-up over plain torch."""
    one = timings[name]
    said = one.region
    if one.n_bytes:
        own, copy = (
            timings[each].n_bytes / float(np.median(timed[each].samples_ms)) / 1e6
            for each in (name, "copy")
        )
        said += f"; {one.n_bytes / 1e6:.1f} MB at {own:.0f} GB/s"
        if name != "copy":
            said += f", {own / copy:.0%} of the copy's"
    if one.baseline:
        ratio = np.median(timed[one.baseline].samples_ms) / np.median(timed[name].samples_ms)
        said += f", {ratio:.1f} times as fast as plain torch"
    return f"{said}; {one.timed_call.timer.name}"


def _copy(gpu: Gpu, n_bytes: int) -> KernelTiming:
    source, target = gpu.memory(n_bytes), gpu.memory(n_bytes)

    def copy() -> None:
        target.copy_(source)

    timed_call = kernel_call(gpu, copy, 1)
    return KernelTiming(timed_call, 2 * n_bytes, None, "device → device, read and written")


class _OverlayKernel:
    """One map on each of several frames."""

    def __init__(
        self,
        gpu: Gpu,
        size_hw: tuple[int, int],
        n_frames: int,
        upsampling: Upsampling = "bilinear",
    ) -> None:
        self._gpu, self._size_hw, self._n_frames = gpu, size_hw, n_frames
        self._upsampling: Upsampling = upsampling
        self._frames = noise_frames(gpu, size_hw, n_frames)
        self._out = torch.zeros_like(self._frames)[:, None]
        random = torch.Generator().manual_seed(1)
        self._scaled = torch.rand(1, 1, *CAM_HW, generator=random).to(gpu.device)
        device = gpu.device
        whole = Region.whole(size_hw)
        self._plan = plan_overlay(size_hw, CAM_HW, whole, upsampling, device=device)
        self._table = overlay_table(device=device)
        entries = self._table.entries
        colours = torch.stack([entries, entries >> 32, entries >> 16], dim=-1) & 0xFFFF
        self._colours = (colours[:OUTSIDE] - 128).float() / 256.0
        self._keep = float(entries[0] >> 48) / 256.0

    def timings(self) -> dict[str, KernelTiming]:
        """By name: the kernel, and plain torch.

        Raises:
            BenchError: the kernel's picture is wrong.
        """
        in_torch = self._upsampling != "smooth"  # which torch does not have
        works = [(self._kernel, "overlay"), (self._torch, "plain torch's overlay")]
        expected = self._expected()
        for work, what in works if in_torch else works[:1]:
            self._out.zero_()
            work()
            for place, picture in expected.items():
                check_picture(self._out[place].cpu().numpy(), picture, what)
        size, n_bytes = width_x_height(self._size_hw), 6 * self._size_hw[0] * self._size_hw[1]
        name = "overlay" if self._upsampling == "bilinear" else f"overlay {self._upsampling}"
        own, other = f"{name} {size}", f"{name} {size}, torch"
        region = "frame, scaled map → picture"
        found = {
            own: KernelTiming(
                kernel_call(self._gpu, self._kernel, self._n_frames),
                *(n_bytes, self._size_hw, region, other if in_torch else ""),
            )
        }
        if in_torch:
            found[other] = KernelTiming(
                kernel_call(self._gpu, self._torch, self._n_frames),
                *(n_bytes, self._size_hw, f"{region}: interpolate, gather, lerp"),
            )
        return found

    def _kernel(self) -> None:
        for frame, out in zip(self._frames, self._out, strict=True):
            self._gpu.kernels.overlay(
                frame[None], self._scaled, self._plan, self._table, out=out[None]
            )

    def _torch(self) -> None:
        for frame, out in zip(self._frames, self._out, strict=True):
            heat = F.interpolate(self._scaled, self._size_hw, mode=self._upsampling)[0, 0]
            coloured = self._colours[(heat.clamp(0.0, 1.0) * 255.0).round().long()]
            out[0] = (frame.float() * self._keep + coloured).round().clamp(0, 255).byte()

    def _expected(self) -> dict[int, BgrImage]:
        """The first and the last frame's pictures, by their places."""
        whole = Region.whole(self._size_hw)
        plan = plan_overlay(self._size_hw, CAM_HW, whole, self._upsampling, device="cpu")
        pictures: dict[int, BgrImage] = {}
        for place in {0, self._n_frames - 1}:
            frame = self._frames[place, None].cpu()
            made = torch.zeros_like(frame)[:, None]
            table = overlay_table(device="cpu")
            overlay_reference(frame, self._scaled.cpu(), plan, table, out=made)
            pictures[place] = made[0].numpy()
        return pictures


class _PreprocessKernel:
    """The network's input from each of several frames."""

    def __init__(self, gpu: Gpu, size_hw: tuple[int, int], n_frames: int) -> None:
        self._gpu, self._size_hw, self._n_frames = gpu, size_hw, n_frames
        self._frames = noise_frames(gpu, size_hw, n_frames)
        fit = plan_fit("stretch", size_hw, _INPUT_SIDE)
        self._plan = plan_preprocess(fit, _MEAN, _STD, device=gpu.device)
        self._out = torch.zeros(n_frames, 3, _INPUT_SIDE, _INPUT_SIDE, device=gpu.device)
        self._mean, self._std = (
            torch.tensor(values, device=gpu.device)[:, None, None] for values in (_MEAN, _STD)
        )

    def timings(self) -> dict[str, KernelTiming]:
        """By name: the kernel, and plain torch.

        Raises:
            BenchError: the kernel's input is wrong.
        """
        size, n_bytes = width_x_height(self._size_hw), 3 * self._size_hw[0] * self._size_hw[1]
        n_bytes += 12 * _INPUT_SIDE**2
        own, other = f"preprocess {size}", f"preprocess {size}, torch"
        for work, what in ((self._torch, "plain torch's input"), (self._kernel, "preprocess")):
            self._out.fill_(torch.nan)
            work()
            self._check(what)
        region = f"frame → {_INPUT_SIDE}×{_INPUT_SIDE} float32, normalised"
        return {
            own: KernelTiming(
                kernel_call(self._gpu, self._kernel, self._n_frames),
                *(n_bytes, self._size_hw, region, other),
            ),
            other: KernelTiming(
                kernel_call(self._gpu, self._torch, self._n_frames),
                *(n_bytes, self._size_hw, f"{region}: flip, interpolate, subtract, divide"),
            ),
        }

    def _kernel(self) -> None:
        for frame, out in zip(self._frames, self._out, strict=True):
            self._gpu.kernels.preprocess(frame[None], self._plan, out=out[None])

    def _torch(self) -> None:
        side = (_INPUT_SIDE, _INPUT_SIDE)
        for frame, out in zip(self._frames, self._out, strict=True):
            rgb = frame.flip(-1).permute(2, 0, 1)[None].float() / 255.0
            small = F.interpolate(rgb, side, mode="bilinear", antialias=True)[0]
            out.copy_((small - self._mean) / self._std)

    def _check(self, what: str) -> None:
        for place in (0, self._n_frames - 1):
            expected = torch.zeros(1, 3, _INPUT_SIDE, _INPUT_SIDE)
            frame = self._frames[place, None].cpu()
            preprocess_reference(frame, self._plan, out=expected)
            check_input(self._out[place].cpu(), expected[0], what)


class _Nv12Kernels:
    """One map on each of several NV12 frames, and the network's input from each."""

    def __init__(self, gpu: Gpu, size_hw: tuple[int, int], n_frames: int) -> None:
        self._gpu, self._size_hw, self._n_frames = gpu, size_hw, n_frames
        height, width = size_hw
        both = noise_frames(gpu, (height // 2, width), n_frames).view(
            n_frames, height // 2 * 3, width
        )
        self._luma, self._chroma = planes(both)
        self._out = planes(torch.zeros_like(both))
        random = torch.Generator().manual_seed(1)
        self._scaled = torch.rand(1, 1, *CAM_HW, generator=random).to(gpu.device)
        whole, device = Region.whole(size_hw), gpu.device
        self._plan = plan_overlay_nv12(size_hw, CAM_HW, whole, device=device)
        self._table = overlay_table_nv12(device=device)
        fit = plan_fit("stretch", size_hw, _INPUT_SIDE)
        self._taps = plan_preprocess(fit, _MEAN, _STD, device=device)
        self._color = color_of("bt709", full_range=False, device=device)
        self._input = torch.full((n_frames, 3, _INPUT_SIDE, _INPUT_SIDE), torch.nan, device=device)
        self._n_bytes = height * width * 3 // 2

    def drawn(self) -> dict[str, KernelTiming]:
        """By name: the overlay.

        Raises:
            BenchError: a picture is wrong.
        """
        self._draw()
        for place in (0, self._n_frames - 1):
            self._check_picture(slice(place, place + 1))
        return {
            f"overlay nv12 {width_x_height(self._size_hw)}": KernelTiming(
                kernel_call(self._gpu, self._draw, self._n_frames),
                *(2 * self._n_bytes, self._size_hw, "NV12 frame, scaled map → NV12 picture"),
            )
        }

    def prepared(self) -> dict[str, KernelTiming]:
        """By name: preprocess.

        Raises:
            BenchError: an input is wrong.
        """
        self._prepare()
        for place in (0, self._n_frames - 1):
            self._check_input(slice(place, place + 1))
        return {
            f"preprocess nv12 {width_x_height(self._size_hw)}": KernelTiming(
                kernel_call(self._gpu, self._prepare, self._n_frames),
                *(self._n_bytes + 12 * _INPUT_SIDE**2, self._size_hw),
                f"NV12 frame → {_INPUT_SIDE}×{_INPUT_SIDE} float32, normalised",
            )
        }

    def _draw(self) -> None:
        draw = overlay_nv12_reference if self._gpu.device == "cpu" else overlay_nv12
        for place in range(self._n_frames):
            one = slice(place, place + 1)
            draw(
                *(self._luma[one], self._chroma[one], self._scaled, self._plan, self._table),
                out_luma=self._out[0][one, None],
                out_chroma=self._out[1][one, None],
            )

    def _prepare(self) -> None:
        prepare = preprocess_nv12_reference if self._gpu.device == "cpu" else preprocess_nv12
        for place in range(self._n_frames):
            one = slice(place, place + 1)
            prepare(
                *(self._luma[one], self._chroma[one], self._taps, self._color), out=self._input[one]
            )

    def _check_picture(self, one: slice) -> None:
        luma, chroma = self._luma[one].cpu(), self._chroma[one].cpu()
        expected = torch.zeros_like(luma)[:, None], torch.zeros_like(chroma)[:, None]
        plan = plan_overlay_nv12(self._size_hw, CAM_HW, Region.whole(self._size_hw), device="cpu")
        table = overlay_table_nv12(device="cpu")
        overlay_nv12_reference(
            *(luma, chroma, self._scaled.cpu(), plan, table),
            out_luma=expected[0],
            out_chroma=expected[1],
        )
        for got, wanted, name in zip(self._out, expected, ("luma", "chroma"), strict=True):
            picture = got[one].cpu().reshape(*got.shape[1:3], -1)
            check_picture(picture.numpy(), wanted[0, 0].view(picture.shape).numpy(), name)

    def _check_input(self, one: slice) -> None:
        luma, chroma = self._luma[one].cpu(), self._chroma[one].cpu()
        wanted = torch.zeros(1, 3, _INPUT_SIDE, _INPUT_SIDE)
        preprocess_nv12_reference(luma, chroma, self._taps, self._color, out=wanted)
        check_input(self._input[one].cpu(), wanted, "preprocess nv12")
