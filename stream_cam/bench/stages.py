"""The stages of one frame, one by one and as a whole.

The stages are those of `Explainer`: the same classes, on the same buffers. The engine is verified
before anything is timed, and all stages in a row must give the explainer's picture.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import cycle

import numpy as np
import torch

from stream_cam.bench.engines import BoundSession
from stream_cam.bench.plan import Plan, PlannedRow
from stream_cam.bench.result import Subject
from stream_cam.bench.timing import HostTimer, TimedCall, Timer
from stream_cam.cam.cpu import CpuOverlay, CpuPreprocessor, scale_cam
from stream_cam.cam.geometry import plan_fit
from stream_cam.config import LookConfig
from stream_cam.draw.overlay import draw_overlay
from stream_cam.engine.manifest import Figures
from stream_cam.engine.verify import Comparison
from stream_cam.errors import BenchError
from stream_cam.explain.explainer import Explainer
from stream_cam.frame import BgrImage, FloatArray, softmax
from stream_cam.model.camnet import CamNet

_MAX_LEVELS = 2
"""Levels of 255 between the stages' picture and the explainer's. The class map of a float16 or
bfloat16 engine may be rounded once more where it is computed elsewhere."""

REGIONS = {
    "decode": "next frame of the file → BGR in memory",
    "preprocess": "BGR frame → normalised batch in host memory",
    "upload": "batch: pinned host memory → GPU",
    "network": "batch → logits, features",
    "download": "logits, features: GPU → pinned host memory",
    "cam+overlay": "logits, features → class, map, colours, picture",
    "frame": "decoded frame → picture, host to host",
}


class FrameStages:
    """One explainer's stages on frames of one size.

    Args:
        explainer: with `fit="stretch"`.
        net: its network, on the CPU in float32.
        frames: (H, W, 3) uint8 BGR, all of one size; taken in turns.
        comparison: as `Bound.verify` takes it.

    Raises:
        EngineError: the engine's outputs are not the network's.
        BenchError: the stages do not add up to the explainer's picture.
    """

    def __init__(
        self,
        explainer: Explainer,
        net: CamNet,
        frames: Sequence[BgrImage],
        comparison: Comparison | None = None,
    ) -> None:
        engine = explainer.engine
        if engine is None:
            raise BenchError("an explainer with --fit native has no engine before its first frame")
        weights, info = explainer.weights, engine.info
        self.info = info
        frame_hw = (frames[0].shape[0], frames[0].shape[1])
        self.frame_hw = frame_hw
        plan = plan_fit("stretch", frame_hw, info.input_shape[2])
        self.explainer = explainer
        self._preprocess = CpuPreprocessor(plan, weights.mean, weights.std, weights.interpolation)
        self._bound = BoundSession(engine)
        # Pinned for a GPU, as in `run`.
        self._batch, self._logits, self._features = (
            torch.zeros(shape, pin_memory=info.device != "cpu")
            for shape in (info.input_shape, info.logits_shape, info.features_shape)
        )
        cam_hw = (info.features_shape[2], info.features_shape[3])
        self._overlay = CpuOverlay(frame_hw, cam_hw, plan.region, LookConfig())
        self._picture = np.empty_like(frames[0])
        self._frames = cycle(frames)
        self._frame = frames[0]
        self.verification: Figures = self._bound.verify(net, comparison)
        for frame in frames[:3]:
            self._check(frame)

    def plan(self) -> Plan:
        """All stages, ready to be timed."""
        return {
            self._subject(name): PlannedRow(
                timed_call,
                REGIONS[name],
                self.verification if name in ("network", "frame") else None,
            )
            for name, timed_call in self.timed_calls().items()
        }

    def timed_calls(self) -> dict[str, TimedCall]:
        """Stages by name, in the order of a frame's way; the whole frame last."""
        host, device = HostTimer(), self._bound.timer
        stages: dict[str, tuple[Callable[[], object], Timer]] = {
            "preprocess": (self.preprocess, host),
            "upload": (self.upload, device),
            "network": (self._bound.call, device),
            "download": (self.download, device),
            "cam+overlay": (self.cam_overlay, host),
            "frame": (self.frame, host),
        }
        if not device.is_asynchronous:
            del stages["upload"], stages["download"]
        return {
            name: TimedCall(call, timer, self._next_frame) for name, (call, timer) in stages.items()
        }

    def preprocess(self) -> None:
        self._preprocess(self._frame, self._batch[0].numpy())

    def upload(self) -> None:
        self._bound.batch.copy_(self._batch, non_blocking=True)

    def download(self) -> None:
        self._logits.copy_(self._bound.logits, non_blocking=True)
        self._features.copy_(self._bound.features, non_blocking=True)

    def cam_overlay(self) -> BgrImage:
        features = self._features[0].numpy()
        logits = self._logits[0].numpy()
        best = int(logits.argmax())
        row = self.explainer.class_weight_of(features)[[best]][0]
        cam: FloatArray = np.dot(row, features.reshape(len(features), -1))
        low, high = float(cam.min()), float(cam.max())
        share = math.sqrt(float(softmax(logits)[best]))
        cold_hot = low, low + (high - low) / share
        scaled = scale_cam(cam.reshape(features.shape[1:]), cold_hot=cold_hot)
        return self._overlay.blend(self._frame, scaled, self._picture)

    def frame(self) -> BgrImage:
        explainer = self.explainer
        return draw_overlay(self._frame, explainer.explain(self._frame), out=self._picture)

    def _next_frame(self) -> None:
        self._frame = next(self._frames)

    def _check(self, frame: BgrImage) -> None:
        self._frame = frame
        whole = self.frame().copy()
        for stage in (self.preprocess, self.upload, self._bound.call, self.download):
            stage()
        self._bound.wait()
        by_stages = self.cam_overlay()
        difference = int(np.abs(by_stages.astype(np.int16) - whole).max())
        if difference > _MAX_LEVELS:
            raise BenchError(
                f"the stages of {self.info.name} do not add up to a frame: their picture differs "
                f"from the explainer's by {difference} of 255 levels; please report it"
            )

    def _subject(self, name: str) -> Subject:
        info = self.info
        return Subject(
            group="stage",
            name=name,
            engine=info.name,
            device=info.device if name in ("upload", "network", "download", "frame") else "cpu",
            precision=info.precision,
            batch=1,
            input_hw=(info.input_shape[2], info.input_shape[3]),
            frame_hw=None if name in ("upload", "network", "download") else self.frame_hw,
            mode="launch",
        )
