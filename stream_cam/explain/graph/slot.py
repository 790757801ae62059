"""One place in the ring: buffers for one frame on its way, and the graph that works on them.

Everything that one frame differs in from the next lies in the block that is uploaded: the pixels,
the time, the classes asked for, the colour table. So live changes cost no capture and no copy more.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from stream_cam.cam.class_choice import N_HELD, FrameTiming
from stream_cam.cam.geometry import scale_region
from stream_cam.cam.overlay_plan import OverlayPlan, OverlayTable, plan_overlay
from stream_cam.cam.panels import panel_image
from stream_cam.cam.preprocess import PreprocessPlan, plan_preprocess
from stream_cam.cam.steady import gap_seconds
from stream_cam.config import N_PREDICTIONS, LookConfig
from stream_cam.draw.layouts import MapStyle
from stream_cam.engine.base import EngineInfo, Session
from stream_cam.explain.graph.device import Gpu
from stream_cam.explain.graph.device_lost import register_gpu_memory
from stream_cam.explain.graph.memory_block import Block, Fields
from stream_cam.explain.graph.shape import Shape, table_of
from stream_cam.frame import BgrImage, FloatArray
from stream_cam.model.recipe import WeightsInfo
from stream_cam.settings import SettingsSnapshot

ClockArray = npt.NDArray[np.float64]
"""(6,), the values of `class_choice.FrameTiming`."""


class State:
    """The state that frames leave for the next ones, on the device; shared by all slots."""

    def __init__(self, gpu: Gpu, info: EngineInfo) -> None:
        n_classes, cells = info.logits_shape[1], info.features_shape[2:]
        fields: Fields = {
            "held": ((N_HELD,), torch.float64),
            "seconds": ((n_classes,), torch.float64),
            "values": ((n_classes, 2 + cells[0] * cells[1]), torch.float64),
        }
        self._block = Block(fields, gpu.memory)
        self.held, self.seconds = self._block["held"], self._block["seconds"]
        self.values = self._block["values"]
        self.held.fill_(-1.0)
        self.seconds.fill_(torch.nan)
        self.values.zero_()


@dataclass(frozen=True, eq=False)
class Plans:
    """The kernels' plans and the buffers' shapes; the same for all slots of a ring."""

    shape: Shape
    info: EngineInfo
    preprocess: PreprocessPlan
    overlay: OverlayPlan

    @classmethod
    def of(cls, shape: Shape, info: EngineInfo, weights: WeightsInfo, device: str) -> Plans:
        fit, cam_hw = shape.fit, (info.features_shape[2], info.features_shape[3])
        region = scale_region(fit.region, fit.frame_hw, shape.canvas_hw)
        return cls(
            shape,
            info,
            plan_preprocess(fit, weights.mean, weights.std, weights.interpolation, device=device),
            plan_overlay(shape.canvas_hw, cam_hw, region, shape.upsampling, device=device),
        )

    @property
    def uploaded(self) -> Fields:
        shape = self.shape
        fields = {
            "table": ((512,), torch.int64),
            "clock": ((len(FrameTiming),), torch.float64),
            "locked": ((shape.n_maps,), torch.int64),
            "fixed_range": ((2,), torch.float32),
            "frame": ((1, *shape.fit.frame_hw, 3), torch.uint8),
        }
        if shape.panels:
            fields["panel"] = ((1, *shape.canvas_hw, 3), torch.uint8)
        return fields

    @property
    def downloaded(self) -> Fields:
        shape, info = self.shape, self.info
        n_best = min(N_PREDICTIONS, info.logits_shape[1])
        return {
            "logits": (info.logits_shape, torch.float32),
            "best": ((n_best,), torch.int64),
            "best_probability": ((n_best,), torch.float32),
            "classes": ((1, shape.n_maps), torch.int64),
            "probability": ((shape.n_maps,), torch.float32),
            "cams": ((1, shape.n_maps, *info.features_shape[2:]), torch.float32),
            "ranges": ((1, shape.n_maps, 2), torch.float32),
            "pictures": ((1, shape.n_drawn, *shape.canvas_hw, 3), torch.uint8),
        }


@dataclass(frozen=True, eq=False)
class Results:
    """The results of one frame, in memory of their own."""

    logits: FloatArray
    """(n_classes,) float32."""
    best: list[int]
    """Indices of the most probable classes, the best first."""
    best_probability: list[float]
    """0..1, one for each of `best`."""
    classes: list[int]
    """Indices of the classes whose maps these are, n_maps."""
    probability: list[float]
    """0..1, one for each of `classes`."""
    cams: FloatArray
    """(n_maps, h, w) float32."""
    ranges: FloatArray
    """(n_maps, 2) float32; meaningful if maps are smoothed."""
    pictures: BgrImage
    """(n_drawn, H, W, 3) uint8."""


class Slot:
    """Buffers for one frame, and the graph of its way.

    Args:
        plans: on the GPU.
        session: this slot's own, because its inner buffers must not be another frame's.
        weight: (n_classes, C) float32 on the GPU, the linear layer's.
        state: of all slots.
        copies: False: without upload and download, to be timed.
    """

    def __init__(
        self,
        gpu: Gpu,
        plans: Plans,
        session: Session,
        weight: Tensor,
        state: State,
        *,
        copies: bool = True,
    ) -> None:
        register_gpu_memory(self)
        self._gpu, self._plans, self._session = gpu, plans, session
        self._weight, self._state, self._copies = weight, state, copies
        info, shape = plans.info, plans.shape
        self._upload = Block(plans.uploaded, gpu.host)
        self._input = Block(plans.uploaded, gpu.memory)
        self._output = Block(plans.downloaded, gpu.memory)
        self._download = Block(plans.downloaded, gpu.host)
        between: Fields = {
            "batch": (info.input_shape, torch.float32),
            "features": (info.features_shape, torch.float32),
            "scaled": ((1, shape.n_maps, *info.features_shape[2:]), torch.float32),
            "cold_hot": ((1, shape.n_maps, 2), torch.float32),
        }
        self._between = Block(between, gpu.memory)
        for block in (self._upload, self._input, self._between):
            block.bytes.zero_()  # the capture's own run touches no state, and meets no poison
        self._table = OverlayTable(self._input["table"], keeps_outside=False)
        self.frame_bgr: BgrImage = self._upload["frame"][0].numpy()
        """(H, W, 3) uint8 in pinned memory: who fills it himself saves a copy."""
        self.pictures_bgr: BgrImage = self._download["pictures"][0].numpy()
        """(n_drawn, H, W, 3) uint8 in pinned memory, until the slot's next frame."""
        self.stream, self.done = gpu.stream(), gpu.event()
        self._is_on_its_way = False
        gpu.settle()
        self.graph = self.stream.capture(self._work)

    def fill(self, image: BgrImage, settings: SettingsSnapshot, clock: ClockArray) -> None:
        """Fills the buffer that the next replay uploads; the slot must be free.

        Args:
            image: (H, W, 3) uint8; `frame_bgr` itself is left as it is.
            settings: of the shape that the slot was made for.
            clock: as `clock_of` makes it.
        """
        shape = self._plans.shape
        if image is not self.frame_bgr:
            np.copyto(self.frame_bgr, image)
        if shape.panels:
            panel_image(image, self._upload["panel"][0].numpy())
        style = MapStyle.of(settings.look, shape.n_maps)
        self._upload["table"].copy_(table_of(style))
        self._upload["clock"].numpy()[:] = clock
        self._upload["fixed_range"].numpy()[:] = (
            settings.look.scale_low,
            settings.look.scale_high,
        )
        locked = self._upload["locked"].numpy()
        locked[:] = -1
        locked[: len(settings.targets)] = settings.targets

    def load(self, *, poison: int) -> None:
        """For a slot without copies: uploads the filled buffer, and poisons the results.

        Args:
            poison: every byte of the results, until they are written.
        """
        self._input.bytes.copy_(self._upload.bytes)
        self._output.bytes.fill_(poison)
        self._gpu.settle()

    def pictures_on_gpu(self) -> BgrImage:
        """(n_drawn, H, W, 3) uint8, of a slot without copies: fetches the pictures drawn last."""
        pictures: BgrImage = self._output["pictures"][0].cpu().numpy()
        return pictures

    def start(self) -> None:
        """Gives the frame to the GPU and returns."""
        self._is_on_its_way = True
        try:
            self.stream.replay(self.graph)
        finally:
            self.stream.record(self.done)

    def rest(self) -> None:
        """Waits for a frame that nobody has finished.

        Raises:
            RuntimeError: the GPU failed.
        """
        if self._is_on_its_way:
            self.done.wait()
            self._is_on_its_way = False

    def finish(self) -> Results:
        """Waits for the frame.

        Raises:
            RuntimeError: the GPU failed.
        """
        self.rest()
        small = {
            name: self._download[name].numpy().copy()
            for name in self._plans.downloaded
            if name != "pictures"
        }
        return Results(
            logits=small["logits"][0],
            best=small["best"].tolist(),
            best_probability=small["best_probability"].tolist(),
            classes=small["classes"][0].tolist(),
            probability=small["probability"].tolist(),
            cams=small["cams"][0],
            ranges=small["ranges"][0],
            pictures=self.pictures_bgr.copy(),
        )

    def _work(self) -> None:
        """One frame's way, as it is captured."""
        gpu, kernels, plans, shape = self._gpu, self._gpu.kernels, self._plans, self._plans.shape
        given, made, own = self._input, self._output, self._between
        if self._copies:
            gpu.copy(given.bytes, self._upload.bytes)
        kernels.preprocess(given["frame"], plans.preprocess, out=own["batch"])
        self._session(own["batch"], made["logits"], own["features"])
        kernels.choose_classes(
            made["logits"],
            given["locked"],
            given["clock"],
            self._state.held,
            best=made["best"],
            best_probability=made["best_probability"],
            classes=made["classes"],
            probability=made["probability"],
        )
        kernels.class_maps(
            own["features"],
            self._weight,
            made["classes"],
            scaled=own["scaled"],
            cams=made["cams"],
            relu=shape.relu,
        )
        if shape.smooths:
            self._smooth()
        if shape.scale == "common":
            self._scale_by_probability()
        elif shape.scale == "fixed":
            self._scale_by_fixed_range()
        canvas = given["panel" if shape.panels else "frame"]
        scaled = own["scaled"][:, : shape.n_drawn]
        kernels.overlay(canvas, scaled, plans.overlay, self._table, out=made["pictures"])
        if self._copies:
            gpu.copy(self._download.bytes, made.bytes)

    def _smooth(self) -> None:
        """The maps are filtered, and scaled anew by their filtered ranges."""
        kernels, made, state = self._gpu.kernels, self._output, self._state
        kernels.smooth_maps(
            made["cams"],
            made["classes"],
            self._input["clock"],
            state.seconds,
            state.values,
            ranges=made["ranges"],
        )
        if self._plans.shape.scale == "own":
            self._scale(made["ranges"])

    def _scale(self, ranges: Tensor) -> None:
        self._gpu.kernels.scale_maps(
            self._output["cams"],
            scaled=self._between["scaled"],
            ranges=ranges,
            relu=self._plans.shape.relu,
        )

    def _scale_by_probability(self) -> None:
        """As `draw.overlay.cold_and_hot` on the common scale."""
        made, own, shape = self._output, self._between, self._plans.shape
        if shape.smooths:
            own["cold_hot"].copy_(made["ranges"])
        else:
            torch.amin(made["cams"].flatten(2), 2, out=own["cold_hot"][..., 0])
            torch.amax(made["cams"].flatten(2), 2, out=own["cold_hot"][..., 1])
        if shape.relu:
            own["cold_hot"].clamp_(min=0.0)
        low, high = own["cold_hot"][..., 0], own["cold_hot"][..., 1]
        high.sub_(low).div_(made["probability"].sqrt()).add_(low)
        self._scale(own["cold_hot"])

    def _scale_by_fixed_range(self) -> None:
        cold_hot = self._between["cold_hot"]
        cold_hot.copy_(self._input["fixed_range"].expand_as(cold_hot))
        self._scale(cold_hot)


def clock_of(
    look: LookConfig, now_seconds: float | None, *, forget_class: bool, forget_maps: bool
) -> ClockArray:
    """The values of `FrameTiming`, (6,) float64; a frame without a time has the present one."""
    clock = np.zeros(len(FrameTiming))
    clock[FrameTiming.NOW] = time.monotonic() if now_seconds is None else now_seconds
    clock[FrameTiming.HOLD], clock[FrameTiming.SMOOTH] = look.hold, look.smooth
    clock[FrameTiming.GAP] = gap_seconds(look)
    clock[FrameTiming.FORGET_CLASS], clock[FrameTiming.FORGET_MAPS] = forget_class, forget_maps
    return clock
