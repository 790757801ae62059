"""Frames through graphs: a ring of slots for each shape of frame, and who comes when.

    host      fill 0 │ fill 1 │ fill 2 │ wait 0, take │ fill 0 │ wait 1, take │ …
    slot 0           └ upload ─ compute ─ download ┘           └ upload ─ …
    slot 1                    └ upload ─ compute ─ download ┘
    slot 2                             └ upload ─ compute ─ download ┘

Each slot has a stream of its own, so that the GPU may work on three frames at once. Frames that do
not depend on one another are left to it. Where a class is held or maps are filtered, a frame's
graph waits on the GPU for the one before.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor

from stream_cam.cam.geometry import FitPlan
from stream_cam.engine.base import Engine
from stream_cam.errors import EngineError, why_not_captured
from stream_cam.explain.graph.device import Event, Gpu, NotCapturedError
from stream_cam.explain.graph.device_lost import gpu_failed
from stream_cam.explain.graph.shape import Shape
from stream_cam.explain.graph.slot import Plans, Results, Slot, State, clock_of
from stream_cam.frame import BgrImage, FloatArray, Region
from stream_cam.model.recipe import WeightsInfo
from stream_cam.settings import SettingsSnapshot

logger = logging.getLogger(__name__)

N_SLOTS = 3
"""One frame uploads, one is worked on, one downloads."""
_MAX_RINGS = 3
"""Shapes of frames whose buffers are kept: at 3840×2160 one takes 192 MiB of pinned memory."""


class FrameGraphs:
    """Explains and draws frames, each by one replay; safe to call from several threads at once.

    As many threads as there are slots make progress at the same time.

    Args:
        weights: how frames are normalised.
        class_weight: (n_classes, C) float32, the linear layer's.
    """

    def __init__(
        self, gpu: Gpu, weights: WeightsInfo, class_weight: FloatArray, n_slots: int = N_SLOTS
    ) -> None:
        self._gpu, self._weights, self._n_slots = gpu, weights, n_slots
        self._class_weight: Tensor = torch.from_numpy(class_weight).to(gpu.device)
        self._rings: OrderedDict[tuple[int, Shape], _Ring] = OrderedDict()
        self._states: dict[tuple[int, ...], State] = {}
        self._beginning = threading.Lock()
        self._steadied: Event | None = None
        self._place: tuple[Region, tuple[int, int], tuple[int, ...]] | None = None
        self._held = False
        self._broken: EngineError | None = None

    def explain(
        self,
        engine: Engine,
        fit: FitPlan,
        image: BgrImage,
        settings: SettingsSnapshot,
        *,
        now_seconds: float | None = None,
        ticket: AbstractContextManager[object] | None = None,
    ) -> Results:
        """One frame, from host memory to host memory.

        Args:
            engine: for one image, on this GPU.
            fit: how the frame becomes its input.
            image: (H, W, 3) uint8.
            settings: targets, layout, colours, smoothing and hold of this frame.
            now_seconds: when the frame is from, for smoothing and hold.
            ticket: entered to begin, left when the next frame may.

        Raises:
            EngineError: the engine cannot be captured, or the GPU has failed.
        """
        with self.begun(
            engine, fit, image, settings, now_seconds=now_seconds, ticket=ticket
        ) as slot:
            try:
                return slot.finish()
            except RuntimeError as error:
                raise self._lost(error) from error

    @contextmanager
    def begun(
        self,
        engine: Engine,
        fit: FitPlan,
        image: BgrImage | None,
        settings: SettingsSnapshot,
        *,
        now_seconds: float | None = None,
        ticket: AbstractContextManager[object] | None = None,
    ) -> Iterator[Slot]:
        """The slot in which a frame is on its way; its own again when this is left.

        Args:
            image: None: the slot's `frame_bgr` holds it already.
        """
        with ticket or nullcontext(), self._beginning:
            if self._broken is not None:
                raise self._broken
            ring = self._ring(engine, self._shape(settings, fit))
            slot = ring.take()
            try:
                self._start(slot, image, settings, now_seconds, ring.place)
            except RuntimeError as error:
                ring.give_back(slot)
                raise self._lost(error) from error
            except BaseException:
                self._give_back(ring, slot)
                raise
        try:
            yield slot
        finally:
            self._give_back(ring, slot)

    def slot_without_copies(self, engine: Engine, fit: FitPlan, settings: SettingsSnapshot) -> Slot:
        """A slot of its own whose graph leaves upload and download out, to be timed."""
        gpu = self._gpu
        plans = Plans.of(self._shape(settings, fit), engine.info, self._weights, gpu.device)
        state = self._state(engine)
        return Slot(gpu, plans, engine.session(), self._class_weight, state, copies=False)

    def _start(
        self,
        slot: Slot,
        image: BgrImage | None,
        settings: SettingsSnapshot,
        now_seconds: float | None,
        place: tuple[Region, tuple[int, int], tuple[int, ...]],
    ) -> None:
        look = settings.look
        holds, smooths = look.hold > 0.0, look.smooth > 0.0
        clock = clock_of(
            look,
            now_seconds,
            forget_class=holds and not self._held,
            forget_maps=smooths and place != self._place,
        )
        slot.fill(slot.frame_bgr if image is None else image, settings, clock)
        if (holds or smooths) and self._steadied is not None:
            slot.stream.wait(self._steadied)
        slot.start()
        self._held = holds
        if holds or smooths:
            self._steadied = slot.done
        if smooths:
            self._place = place

    def _shape(self, settings: SettingsSnapshot, fit: FitPlan) -> Shape:
        return Shape.of(settings, fit, self._class_weight.shape[0])

    def _give_back(self, ring: _Ring, slot: Slot) -> None:
        """When nothing of its frame is on its way: an interrupt may have come before the result."""
        try:
            if self._broken is None:
                slot.rest()
        except RuntimeError as error:
            self._lost(error)  # told to who comes next: this frame has a reason of its own
        finally:
            ring.give_back(slot)

    def _ring(self, engine: Engine, shape: Shape) -> _Ring:
        key = id(engine), shape
        ring = self._rings.get(key)
        if ring is not None:
            self._rings.move_to_end(key)
            return ring
        logger.info("planning graphs for %s on %s", shape, self._gpu.device)
        try:
            ring = _Ring(engine, shape, self._slots(engine, shape))
        except Exception as error:  # whatever an engine or a compiler of kernels raises
            try:
                self._gpu.settle()
            except RuntimeError as failure:  # of a frame on its way: it says nothing of the plan
                raise self._lost(failure) from error
            reason = why_not_captured(error)
            raise NotCapturedError(
                f"the {engine.info.name} engine cannot be captured in a graph ({reason})"
            ) from error
        self._rings[key] = ring
        while len(self._rings) > _MAX_RINGS:
            _, oldest = self._rings.popitem(last=False)
            oldest.close()
        return ring

    def _slots(self, engine: Engine, shape: Shape) -> list[Slot]:
        gpu, state = self._gpu, self._state(engine)
        plans = Plans.of(shape, engine.info, self._weights, gpu.device)
        return [
            Slot(gpu, plans, engine.session(), self._class_weight, state)
            for _ in range(self._n_slots)
        ]

    def _state(self, engine: Engine) -> State:
        shapes = (*engine.info.logits_shape, *engine.info.features_shape)
        if shapes not in self._states:
            self._states[shapes] = State(self._gpu, engine.info)
        return self._states[shapes]

    def _lost(self, error: RuntimeError) -> EngineError:
        """After an error on a GPU all that was on its way is lost, and no more can come."""
        if self._broken is None:
            self._broken = gpu_failed(error)
        return self._broken


class _Ring:
    """The slots of one shape of frames."""

    def __init__(self, engine: Engine, shape: Shape, slots: list[Slot]) -> None:
        self._engine = engine  # kept: its address is the ring's key
        self._n_slots = len(slots)
        self._free = slots
        self._returned = threading.Condition()
        self.place = shape.fit.region, shape.fit.frame_hw, engine.info.features_shape[2:]

    def take(self) -> Slot:
        """A free slot, the one that has rested longest."""
        with self._returned:
            self._returned.wait_for(lambda: bool(self._free))
            return self._free.pop(0)

    def give_back(self, slot: Slot) -> None:
        with self._returned:
            self._free.append(slot)
            self._returned.notify_all()

    def close(self) -> None:
        """Waits until no frame is on its way."""
        with self._returned:
            self._returned.wait_for(lambda: len(self._free) == self._n_slots)
