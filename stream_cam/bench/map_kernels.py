"""The GPU's choice, map and filter kernels, alone and up to the picture, beside plain torch."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from stream_cam.bench.kernel_timing import (
    CAM_HW,
    KernelTiming,
    check_picture,
    kernel_call,
    noise_frames,
    width_x_height,
)
from stream_cam.cam.class_choice import N_HELD, FrameTiming, choose_classes_reference
from stream_cam.cam.class_maps import class_maps_reference
from stream_cam.cam.colormaps import color_table
from stream_cam.cam.overlay import overlay_reference
from stream_cam.cam.overlay_plan import overlay_table, plan_overlay
from stream_cam.cam.reference import scale_cam
from stream_cam.cam.smooth_maps import smooth_maps_reference
from stream_cam.errors import BenchError
from stream_cam.explain.graph.device import Gpu
from stream_cam.frame import Region

_N_CLASSES, _N_CHANNELS = 1000, 512
"""ResNet18's."""
_ALPHA = 0.4
_N_INPUTS = 16
"""Inputs of the small kernels in one call."""
_MAX_DIFFERENCE = 1e-4
"""Due to two orders of adding up 512 float32; relative to the largest value where that is above
1."""


class MapsAndOverlay:
    """From features to the picture, one map on each of several frames."""

    def __init__(self, gpu: Gpu, size_hw: tuple[int, int], n_frames: int) -> None:
        self._gpu, self._size_hw, self._n_frames = gpu, size_hw, n_frames
        device = gpu.device
        self._frames = noise_frames(gpu, size_hw, n_frames)
        self._out = torch.zeros_like(self._frames)[:, None]
        self._features = _noise(n_frames, _N_CHANNELS, *CAM_HW).relu().to(device)
        self._weight = _noise(_N_CLASSES, _N_CHANNELS).to(device)
        self._classes = torch.arange(n_frames)[:, None].to(device)
        self._cams, self._scaled = (torch.zeros(1, 1, *CAM_HW, device=device) for _ in range(2))
        whole = Region.whole(size_hw)
        self._plan = plan_overlay(size_hw, CAM_HW, whole, device=device)
        self._table = overlay_table("turbo", _ALPHA, device=device)
        colours = torch.tensor(color_table("turbo")).reshape(256, 3)
        self._colours = colours.float().to(device)

    def timings(self) -> dict[str, KernelTiming]:
        """By name: the kernels, and plain torch.

        Raises:
            BenchError: a picture is wrong.
        """
        for work, what in ((self._kernels, "maps+overlay"), (self._torch, "plain torch's picture")):
            self._out.zero_()
            work()
            for place in {0, self._n_frames - 1}:
                picture = self._out[place, 0].cpu().numpy()
                check_picture(picture, self._expected(place).numpy(), what)
        size, n_bytes = width_x_height(self._size_hw), 6 * self._size_hw[0] * self._size_hw[1]
        own, other = f"maps+overlay {size}", f"maps+overlay {size}, torch"
        region = "frame, features → picture"
        chain = "einsum, min-max, interpolate, gather, lerp"
        return {
            own: KernelTiming(
                kernel_call(self._gpu, self._kernels, self._n_frames),
                *(n_bytes, self._size_hw, region, other),
            ),
            other: KernelTiming(
                kernel_call(self._gpu, self._torch, self._n_frames),
                *(n_bytes, self._size_hw, f"{region}: {chain}"),
            ),
        }

    def _kernels(self) -> None:
        kernels = self._gpu.kernels
        for place in range(self._n_frames):
            one = slice(place, place + 1)
            kernels.class_maps(
                *(self._features[one], self._weight, self._classes[one]),
                scaled=self._scaled,
                cams=self._cams,
                relu=False,
            )
            kernels.overlay(
                self._frames[one], self._scaled, self._plan, self._table, out=self._out[one]
            )

    def _torch(self) -> None:
        for place in range(self._n_frames):
            one = slice(place, place + 1)
            scaled = _maps_in_torch(self._features[one], self._weight, self._classes[one])[1]
            heat = F.interpolate(scaled, self._size_hw, mode="bilinear")[0, 0]
            colour = self._colours[(heat * 255.0).round().long()]
            blended = torch.lerp(self._frames[place].float(), colour, _ALPHA)
            self._out[place, 0] = blended.round().byte()

    def _expected(self, place: int) -> Tensor:
        one = slice(place, place + 1)
        scaled = torch.zeros(1, 1, *CAM_HW)
        class_maps_reference(
            *(self._features[one].cpu(), self._weight.cpu(), self._classes[one].cpu()),
            scaled=scaled,
        )
        frame = self._frames[one].cpu()
        made = torch.zeros_like(frame)[:, None]
        plan = plan_overlay(self._size_hw, CAM_HW, Region.whole(self._size_hw), device="cpu")
        table = overlay_table("turbo", _ALPHA, device="cpu")
        overlay_reference(frame, scaled, plan, table, out=made)
        return made[0, 0]


class SmallKernels:
    """Kernels whose work does not depend on the frame's size, on several inputs."""

    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu
        device = gpu.device
        self._logits = (_noise(_N_INPUTS, _N_CLASSES) * 4).to(device)
        self._features = _noise(_N_INPUTS, _N_CHANNELS, *CAM_HW).relu().to(device)
        self._weight = _noise(_N_CLASSES, _N_CHANNELS).to(device)
        self._chosen = torch.arange(_N_INPUTS)[:, None].to(device)
        self._clock = torch.zeros(len(FrameTiming), dtype=torch.float64)
        self._clock[FrameTiming.HOLD] = self._clock[FrameTiming.SMOOTH] = 0.3
        self._clock[FrameTiming.GAP] = 1.0
        self._clock = self._clock.to(device)
        self._locked = torch.full((1,), -1, device=device)

    def choice(self) -> dict[str, KernelTiming]:
        """Timings by name: the choice, and plain torch, which holds no class."""
        got, expected = self._output_buffers(), self._output_buffers()

        def chosen(choose: Callable[..., None], room: dict[str, Tensor]) -> None:
            outputs = {name: room[name] for name in room if name != "held"}
            for place in range(_N_INPUTS):
                logits = self._logits[place : place + 1]
                choose(logits, self._locked, self._clock, room["held"], **outputs)

        def by_kernel() -> None:
            chosen(self._gpu.kernels.choose_classes, got)

        def in_torch() -> None:
            for place in range(_N_INPUTS):
                probability = self._logits[place].softmax(0)
                torch.topk(probability, 5, out=(got["best_probability"], got["best"]))
                got["classes"][0].copy_(got["best"][:1])
                got["probability"].copy_(got["best_probability"][:1])

        chosen(choose_classes_reference, expected)
        in_torch()
        for name in ("best", "best_probability"):
            _check(got[name], expected[name], "plain torch's choice")
        by_kernel()
        for name in got:
            _check(got[name], expected[name], "the choice")
        return self._timings(
            "choice",
            by_kernel,
            f"logits of {_N_CLASSES} classes → the best, the held one",
            (in_torch, "softmax, topk; none held"),
        )

    def maps(self) -> dict[str, KernelTiming]:
        """Timings by name: the sum with its scaling, and plain torch."""
        shape = (_N_INPUTS, 1, *CAM_HW)
        cams, scaled = (torch.zeros(shape, device=self._gpu.device) for _ in range(2))

        def by_kernel() -> None:
            for place in range(_N_INPUTS):
                one = slice(place, place + 1)
                self._gpu.kernels.class_maps(
                    *(self._features[one], self._weight, self._chosen[one]),
                    scaled=scaled[one],
                    cams=cams[one],
                    relu=False,
                )

        def in_torch() -> None:
            for place in range(_N_INPUTS):
                one = slice(place, place + 1)
                cams[one], scaled[one] = _maps_in_torch(
                    self._features[one], self._weight, self._chosen[one]
                )

        expected_cams, expected = torch.zeros(shape), torch.zeros(shape)
        class_maps_reference(
            *(self._features.cpu(), self._weight.cpu(), self._chosen.cpu()),
            scaled=expected,
            cams=expected_cams,
        )
        for what, work in (("plain torch's maps", in_torch), ("the maps", by_kernel)):
            cams.fill_(torch.nan)
            scaled.fill_(torch.nan)
            work()
            _check(cams, expected_cams, what)
            _check(scaled, expected, what)
        sides = f"{_N_CHANNELS}×{CAM_HW[0]}×{CAM_HW[1]}"
        return self._timings(
            "maps", by_kernel, f"features {sides} → one map, scaled", (in_torch, "einsum, min-max")
        )

    def filter(self) -> dict[str, KernelTiming]:
        """Timings by name: the filter with the scaling after it."""
        device, kernels = self._gpu.device, self._gpu.kernels
        raw = _noise(_N_INPUTS, 1, *CAM_HW)
        cams, scaled = raw.to(device), torch.zeros(1, 1, *CAM_HW, device=device)
        states = []
        for on in (device, "cpu"):
            seconds = torch.full((_N_CLASSES,), torch.nan, dtype=torch.float64, device=on)
            n_kept = 2 + CAM_HW[0] * CAM_HW[1]
            values = torch.zeros(_N_CLASSES, n_kept, dtype=torch.float64, device=on)
            states.append((seconds, values, torch.zeros(1, 1, 2, device=on)))

        def filtered() -> None:
            seconds, values, ranges = states[0]
            for place in range(_N_INPUTS):
                one = slice(place, place + 1)
                chosen = self._chosen[:1]  # one class, whose state each input reads
                kernels.smooth_maps(cams[one], chosen, self._clock, seconds, values, ranges=ranges)
                kernels.scale_maps(cams[one], scaled=scaled, ranges=ranges, relu=False)

        filtered()
        seconds, values, ranges = states[1]
        for place in range(_N_INPUTS):
            smooth_maps_reference(
                *(raw[place : place + 1], torch.zeros(1, 1, dtype=torch.int64)),
                *(self._clock.cpu(), seconds, values),
                ranges=ranges,
            )
        _check(cams, raw, "the filter")
        _check(scaled, scale_cam(raw[-1:], ranges=ranges), "the filter")
        return self._timings("filter", filtered, "map, its state → filtered, scaled; two launches")

    def _timings(
        self,
        name: str,
        work: Callable[[], None],
        region: str,
        baseline: tuple[Callable[[], None], str] | None = None,
    ) -> dict[str, KernelTiming]:
        timed_call = kernel_call(self._gpu, work, _N_INPUTS)
        if baseline is None:
            return {name: KernelTiming(timed_call, 0, None, region)}
        in_torch, said = baseline
        other = kernel_call(self._gpu, in_torch, _N_INPUTS)
        return {
            name: KernelTiming(timed_call, 0, None, region, f"{name}, torch"),
            f"{name}, torch": KernelTiming(other, 0, None, f"{region}: {said}"),
        }

    def _output_buffers(self) -> dict[str, Tensor]:
        device = self._gpu.device
        return {
            "best": torch.full((5,), -1, device=device),
            "best_probability": torch.full((5,), torch.nan, device=device),
            "classes": torch.full((1, 1), -1, device=device),
            "probability": torch.full((1,), torch.nan, device=device),
            "held": torch.full((N_HELD,), -1.0, dtype=torch.float64, device=device),
        }


def _maps_in_torch(features: Tensor, weight: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
    """Raw and scaled maps, (1, n_targets, h, w)."""
    cams = torch.einsum("nchw,tc->nthw", features, weight.index_select(0, classes[0]))
    low, high = cams.amin((2, 3), keepdim=True), cams.amax((2, 3), keepdim=True)
    return cams, (cams - low) / (high - low)


def _noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape)))


def _check(got: Tensor, expected: Tensor, what: str) -> None:
    wanted = expected.cpu().double()
    difference = float((got.cpu().double() - wanted).abs().max())
    share = difference / max(1.0, float(wanted.abs().max()))
    if not share <= _MAX_DIFFERENCE:
        raise BenchError(
            f"{what} differs from its reference by {share:.2g}, at most {_MAX_DIFFERENCE:g} is "
            "allowed; it is not timed"
        )
