"""Whole frames as graphs: host to host, device to device, and with all slots at work."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from itertools import cycle, islice

import numpy as np

from stream_cam.bench.kernel_timing import PerItemTimer, check_picture
from stream_cam.bench.plan import Plan, PlannedRow
from stream_cam.bench.result import Subject
from stream_cam.bench.timing import CudaTimer, HostTimer, TimedCall
from stream_cam.config import LookConfig
from stream_cam.draw.layouts import MapStyle
from stream_cam.draw.overlay import draw_overlay
from stream_cam.engine import Engine
from stream_cam.engine.manifest import Figures
from stream_cam.errors import BenchError, EngineError
from stream_cam.explain.explainer import Explainer
from stream_cam.explain.graph.scheduler import N_SLOTS, FrameGraphs
from stream_cam.explain.graph.slot import Slot, clock_of
from stream_cam.frame import BgrImage
from stream_cam.settings import SettingsSnapshot

_MAX_MAP_DIFFERENCE = 0.03
"""Share of a map's largest value. One of the two ways resizes to uint8, the other does not."""
_POISON = 0xA5
"""Every byte of a picture that was not drawn."""
_PIPELINED = 60
"""Frames in a row, to time one frame while all slots are busy."""

REGIONS = {
    "graph": "frame in memory → explanation and picture in memory, one replay and two copies",
    "graph, pinned": "frame in pinned memory → picture in pinned memory, one replay",
    "graph, on device": "frame on the device → picture on the device, one replay",
    f"graph, {N_SLOTS} slots": (
        f"a frame's share of {_PIPELINED}, pinned memory to pinned memory, {N_SLOTS} on their way"
    ),
}


class GraphFrames:
    """Frames of one size through one explainer's graphs.

    Args:
        explainer: with `fit="stretch"`, verified, on a GPU.
        frames: (H, W, 3) uint8 BGR, all of one size; taken in turns.

    Raises:
        EngineError: its engine cannot be captured.
        BenchError: the graphs' results differ from the explainer's without them.
    """

    def __init__(
        self, explainer: Explainer, frames: Sequence[BgrImage], verification: Figures | None = None
    ) -> None:
        self._explainer, self._verification = explainer, verification
        self._frame_hw = (frames[0].shape[0], frames[0].shape[1])
        # Uses each slot once, so that none holds zeros as its frame any more.
        for frame in islice(cycle(frames), N_SLOTS):
            self._check(frame)
        graphs, engine = explainer.graphs, explainer.engine
        if graphs is None or engine is None:
            raise EngineError(f"the {explainer.model_name} network is in no graph here")
        self._graphs: FrameGraphs = graphs
        self._engine: Engine = engine
        self._fit = explainer.plan(self._frame_hw)
        self._frames = cycle(frames)
        self._frame = frames[0]

    def plan(self) -> Plan:
        """All rows, ready to be timed."""
        return {
            self._subject(name): PlannedRow(timed_call, REGIONS[name], self._verification)
            for name, timed_call in self.timed_calls().items()
        }

    def timed_calls(self) -> dict[str, TimedCall]:
        on_device = self._slot_on_device()
        names = iter(REGIONS)
        return {
            next(names): TimedCall(self._whole, HostTimer(), self._next_frame),
            next(names): TimedCall(self._pinned, HostTimer()),
            next(names): self._device_case(on_device),
            next(names): TimedCall(self._pipelined, PerItemTimer(HostTimer(), _PIPELINED)),
        }

    def _whole(self) -> None:
        self._explainer.explain_drawn(self._frame)

    def _pinned(self) -> None:
        with self._graphs.begun(self._engine, self._fit, None, SettingsSnapshot()) as slot:
            slot.done.wait()

    def _pipelined(self) -> None:
        """Begins each frame as soon as a slot is free, after its last result has arrived."""
        on_their_way: list[tuple[ExitStack, Slot]] = []
        for _ in range(_PIPELINED):
            if len(on_their_way) == N_SLOTS:
                _finish(on_their_way.pop(0))
            stack = ExitStack()
            begun = self._graphs.begun(self._engine, self._fit, None, SettingsSnapshot())
            on_their_way.append((stack, stack.enter_context(begun)))
        for each in on_their_way:
            _finish(each)

    def _slot_on_device(self) -> Slot:
        """A slot without copies, with a frame in its input and a verified picture."""
        frame, settings = self._frame, SettingsSnapshot()
        slot = self._graphs.slot_without_copies(self._engine, self._fit, settings)
        clock = clock_of(settings.look, None, forget_class=False, forget_maps=False)
        slot.fill(frame, settings, clock)
        # Its graph has no upload, so the frame is loaded here; it would be zeros otherwise.
        slot.load(poison=_POISON)
        slot.start()
        slot.done.wait()
        picture = slot.pictures_on_gpu()[0]
        drawn = self._explainer.explain_drawn(frame)
        expected = draw_overlay(frame, drawn)
        check_picture(picture, expected, "the picture of the graph without copies")
        return slot

    def _device_case(self, slot: Slot) -> TimedCall:
        replay: Callable[[], None] | None = getattr(slot.graph, "replay", None)
        if replay is not None:  # a CUDA graph: on the clock's own stream
            return TimedCall(replay, CudaTimer())

        def run() -> None:
            slot.start()
            slot.done.wait()

        return TimedCall(run, HostTimer())

    def _next_frame(self) -> None:
        self._frame = next(self._frames)

    def _check(self, frame: BgrImage) -> None:
        explainer = self._explainer
        got = explainer.explain_drawn(frame)
        if got.drawn is None:
            raise EngineError("it is not captured in a graph of a whole frame")
        pictures = got.drawn.take(frame, MapStyle.of(LookConfig(), n_maps=1))
        if pictures is None:
            raise BenchError("the graph drew another frame; please report it")
        check_picture(pictures[0], draw_overlay(frame, got), "the graph's picture")
        expected = explainer.explain(frame, got.targets[0].index)
        difference = float(np.abs(got.cams[0] - expected.cams[0]).max())
        share = difference / max(float(np.abs(expected.cams).max()), 1e-12)
        if not share <= _MAX_MAP_DIFFERENCE:
            raise BenchError(
                f"the graph's map differs by {share:.1%} from the one without a graph, at most "
                f"{_MAX_MAP_DIFFERENCE:.0%} is allowed; it is not timed"
            )

    def _subject(self, name: str) -> Subject:
        info = self._engine.info
        return Subject(
            *("stage", name, info.name, info.device, info.precision, 1),
            *((info.input_shape[2], info.input_shape[3]), self._frame_hw, "graph"),
        )


def _finish(on_its_way: tuple[ExitStack, Slot]) -> None:
    stack, slot = on_its_way
    slot.done.wait()
    stack.close()
