"""The heart: a frame becomes an explanation, a frame and its explanation become a picture."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from stream_cam.cam.cpu import CpuOverlay, CpuPreprocessor, scale_cam
from stream_cam.cam.geometry import FitPlan
from stream_cam.config import Device, EngineName, Fit, LookConfig, ModelConfig, Precision
from stream_cam.engine import Engine, EngineInfo, Session, load_engine
from stream_cam.errors import UsageError, unknown_name
from stream_cam.frame import (
    BgrImage,
    Explanation,
    Features,
    FloatArray,
    Frame,
    Prediction,
    Region,
    softmax,
)
from stream_cam.labels import Target, resolve_target
from stream_cam.model import CamNet, build_network, load_parameters
from stream_cam.weights import Weights, load_weights

logger = logging.getLogger(__name__)

N_PREDICTIONS = 5

_MAX_ENGINES = 4
"""Engines of different input shapes kept at once (`native` with frames of many shapes)."""
_MAX_PLANS = 16
"""Frame sizes whose buffers a lane, or whose overlay a thread, keeps."""


class Explainer:
    """A network ready to explain frames; safe to call from several threads at once.

    `parallel` threads make progress at the same time, further ones wait their turn.
    """

    def __init__(
        self,
        net: CamNet,
        weights: Weights,
        *,
        engine: EngineName = "auto",
        device: Device = "auto",
        precision: Precision = "auto",
        fit: Fit = "stretch",
        input_size: int | None = None,
        look: LookConfig | None = None,
        parallel: int = 1,
    ) -> None:
        if fit not in ("stretch", "crop", "letterbox", "native"):
            raise unknown_name("fit", fit, ("stretch", "crop", "letterbox", "native"))
        if input_size is not None and input_size < 32:
            raise UsageError(f"--input-size is a side in pixels from 32, got {input_size}")
        self.look = look or LookConfig()
        self.labels = weights.labels
        self.model_name = net.name
        self.weights = weights
        self._net = net
        self._fingerprint = net.fingerprint()
        self._engine_name: EngineName = engine
        self._device: Device = device
        self._precision: Precision = precision
        self._fit: Fit = fit
        self._input_size = input_size or weights.input_size
        self._parallel = parallel
        self._class_weight = net.weight.detach().float().cpu().numpy()
        self._lock = threading.Lock()
        self._lanes: OrderedDict[tuple[int, int], _LanePool] = OrderedDict()
        self._plans: OrderedDict[tuple[int, int], FitPlan] = OrderedDict()
        self._local = threading.local()
        if fit != "native":
            self._pool((self._input_size, self._input_size))

    @classmethod
    def load(
        cls,
        model: str = "resnet18",
        *,
        weights: str = "imagenet",
        labels: Path | str | None = None,
        engine: EngineName = "auto",
        device: Device = "auto",
        precision: Precision = "auto",
        fit: Fit = "stretch",
        input_size: int | None = None,
        look: LookConfig | None = None,
        parallel: int = 1,
    ) -> Explainer:
        """Loads a torchvision network and compiles it for this machine.

        Args:
            model: a torchvision classifier's name, e.g. `resnet18`.
            weights: `imagenet`, `demo`, or a path to a state dict.
            labels: a file with the class names, for weights from a file.
            engine: `auto`, `openvino` or `eager`.
            device: `auto`, `cpu` or `cuda`.
            precision: `auto` is fp32 on CPUs, fp16 on GPUs; `bf16` where the processor has it;
                `int8` if `stream-cam build` made one.
            fit: `stretch`, `crop`, `letterbox` or `native`.
            input_size: side of the network's input in pixels; default: the weights' own.
            look: how `overlay` draws.
            parallel: frames explained at once; 1 has the lowest latency.

        Raises:
            UsageError: an unknown name.
            WeightsError, NoCamError, EngineError: as their messages say.
        """
        loaded = load_weights(weights, model, Path(labels) if labels is not None else None)
        network = build_network(model, loaded.n_classes)
        load_parameters(network, loaded.state_dict, loaded.name)
        return cls(
            CamNet.from_module(network, name=model),
            loaded,
            engine=engine,
            device=device,
            precision=precision,
            fit=fit,
            input_size=input_size,
            look=look,
            parallel=parallel,
        )

    @classmethod
    def from_config(cls, model: ModelConfig, look: LookConfig, *, parallel: int = 1) -> Explainer:
        """As the command line's options say."""
        return cls.load(
            model.model,
            weights=model.weights,
            labels=model.labels,
            engine=model.engine,
            device=model.device,
            precision=model.precision,
            fit=model.fit,
            input_size=model.input_size,
            look=look,
            parallel=parallel,
        )

    @classmethod
    def from_module(
        cls,
        module: nn.Module,
        *,
        labels: Sequence[str] | None = None,
        mean: tuple[float, float, float] = (0.485, 0.456, 0.406),
        std: tuple[float, float, float] = (0.229, 0.224, 0.225),
        input_size: int = 224,
        engine: EngineName = "auto",
        device: Device = "auto",
        precision: Precision = "auto",
        fit: Fit = "stretch",
        look: LookConfig | None = None,
        parallel: int = 1,
    ) -> Explainer:
        """A network of your own: convolutions, global average pooling, one linear layer.

        `mean` and `std` are per channel R, G, B for values in 0..1; default ImageNet's.

        Raises:
            NoCamError: the network has another shape; the message names the part.
        """
        net = CamNet.from_module(module, name=type(module).__name__, probe_hw=(input_size,) * 2)
        return cls(
            net,
            Weights.of_module(module, net.n_classes, labels, mean, std, input_size),
            engine=engine,
            device=device,
            precision=precision,
            fit=fit,
            look=look,
            parallel=parallel,
        )

    @property
    def engine_info(self) -> EngineInfo | None:
        """What runs the network; None before the first frame with `fit="native"`."""
        with self._lock:
            return next(reversed(self._lanes.values())).engine.info if self._lanes else None

    @property
    def engine(self) -> Engine | None:
        """What `engine_info` is about, for those who verify or time it by itself."""
        with self._lock:
            return next(reversed(self._lanes.values())).engine if self._lanes else None

    @property
    def parallel(self) -> int:
        """How many threads may call `explain` at once to good effect."""
        return self._parallel

    def resolve(self, target: Target) -> int:
        """The class index of an index or a label."""
        return resolve_target(self.labels, target)

    def explain(
        self,
        frame: BgrImage | Frame,
        target: Target | Sequence[Target] | None = None,
        *,
        n_maps: int | None = None,
        keep_features: bool = False,
    ) -> Explanation:
        """Runs the network once and computes the maps of the classes asked for.

        Args:
            frame: (H, W, 3) uint8 BGR, or a Frame.
            target: a class index, a label, or several; None: the class with the highest logit.
            n_maps: maps in all: after the targets, the best classes that are not among them.
            keep_features: the explanation holds a copy of the features (100 KB with ResNet18), of
                which the map of any further class can be made; `SteadyMaps` needs it to hold one.

        Raises:
            UsageError: an unknown target.
            ValueError: the frame is not (H, W, 3) uint8.
        """
        image = frame.image_bgr if isinstance(frame, Frame) else frame
        _check_frame(image)
        wanted = [self.resolve(one) for one in _as_targets(target)]
        n_locked = len(wanted)
        plan = self._plan((image.shape[0], image.shape[1]))
        with self._pool(plan.input_hw).borrow() as lane:
            lane.run(image, plan)
            logits = lane.logits[0].numpy().copy()
            predictions = self._predictions(logits)
            count = max(len(wanted), n_maps or 1)
            wanted += [p.index for p in predictions if p.index not in wanted][: count - len(wanted)]
            features = lane.features[0].numpy()
            cams = np.dot(self._class_weight[wanted], features.reshape(features.shape[0], -1))
            kept = Features(features.copy(), self._class_weight) if keep_features else None
        probabilities = softmax(logits)
        return Explanation(
            logits=logits,
            predictions=predictions,
            targets=tuple(
                Prediction(self.labels[index], index, float(probabilities[index]))
                for index in wanted
            ),
            cams=cams.reshape(len(wanted), *features.shape[1:]),
            region=plan.region,
            frame_size_hw=plan.frame_hw,
            frame_index=frame.index if isinstance(frame, Frame) else 0,
            pts_seconds=frame.pts_seconds if isinstance(frame, Frame) else 0.0,
            captured_ns=frame.captured_ns if isinstance(frame, Frame) else 0,
            explained_ns=time.monotonic_ns(),
            several=len(wanted) > 1 or not _is_single(target),
            n_locked=n_locked,
            features=kept,
        )

    def overlay(
        self,
        frame: BgrImage | Frame,
        explanation: Explanation,
        *,
        target: int = 0,
        opacity: float = 1.0,
        out: BgrImage | None = None,
        look: LookConfig | None = None,
    ) -> BgrImage:
        """The frame with the heatmap of `explanation.cams[target]` blended in.

        Args:
            frame: (H, W, 3) uint8 BGR of any size with the explained frame's shape.
            explanation: what `explain` returned for it.
            target: which of the explanation's maps.
            opacity: what the look's alpha is multiplied by, 0..1.
            out: (H, W, 3) uint8 to write to; may be the frame. Default: a new array.
            look: instead of the explainer's own.
        """
        image = frame.image_bgr if isinstance(frame, Frame) else frame
        _check_frame(image)
        look = look or self.look
        overlay = self._overlay(image, explanation, look)
        scaled = _scaled(explanation, target, look)
        return overlay.blend(image, scaled, out, opacity=look.alpha * opacity)

    def heatmap(
        self,
        frame: BgrImage | Frame,
        explanation: Explanation,
        *,
        target: int = 0,
        look: LookConfig | None = None,
    ) -> BgrImage:
        """The coloured heatmap alone, (H, W, 3) uint8; black where the network did not look."""
        image = frame.image_bgr if isinstance(frame, Frame) else frame
        look = look or self.look
        overlay = self._overlay(image, explanation, look)
        return overlay.heatmap(_scaled(explanation, target, look))

    def _predictions(self, logits: FloatArray) -> tuple[Prediction, ...]:
        probabilities = softmax(logits)
        n_best = min(N_PREDICTIONS, logits.size)
        best = np.argpartition(-logits, n_best - 1)[:n_best]
        best = best[np.argsort(-logits[best], kind="stable")]
        return tuple(
            Prediction(self.labels[int(i)], int(i), float(probabilities[int(i)])) for i in best
        )

    def _plan(self, frame_hw: tuple[int, int]) -> FitPlan:
        with self._lock:
            plan = self._plans.get(frame_hw)
            if plan is None:
                plan = self.weights.plan(self._fit, frame_hw, self._input_size)
                _remember(self._plans, frame_hw, plan, _MAX_PLANS)
            return plan

    def _pool(self, input_hw: tuple[int, int]) -> _LanePool:
        with self._lock:
            pool = self._lanes.get(input_hw)
            if pool is None:
                engine = load_engine(
                    self._net,
                    self._fingerprint,
                    input_hw,
                    name=self._engine_name,
                    device=self._device,
                    precision=self._precision,
                    parallel=self._parallel,
                )
                pool = _LanePool(engine, self.weights)
                _remember(self._lanes, input_hw, pool, _MAX_ENGINES)
            return pool

    def _overlay(self, image: BgrImage, explanation: Explanation, look: LookConfig) -> CpuOverlay:
        # Its strength is given with each picture: it may change with every one.
        look = LookConfig(
            colormap=look.colormap,
            upsampling=look.upsampling,
            alpha_mode=look.alpha_mode,
            alpha=1.0,
        )
        size_hw = (image.shape[0], image.shape[1])
        region = _scale_region(explanation.region, explanation.frame_size_hw, size_hw)
        key = (size_hw, explanation.cams.shape[1:], region, look)
        kept: OrderedDict[object, CpuOverlay] | None = getattr(self._local, "overlays", None)
        if kept is None:
            kept = self._local.overlays = OrderedDict()
        overlay = kept.get(key)
        if overlay is None:
            cam_hw = (explanation.cams.shape[1], explanation.cams.shape[2])
            overlay = CpuOverlay(size_hw, cam_hw, region, look)
            _remember(kept, key, overlay, _MAX_PLANS)
        return overlay


def _scaled(explanation: Explanation, target: int, look: LookConfig) -> FloatArray:
    """A map in 0..1, as it is drawn."""
    ranges = explanation.ranges
    cold_hot = None if ranges is None else (float(ranges[target][0]), float(ranges[target][1]))
    return scale_cam(explanation.cams[target], relu=look.relu, cold_hot=cold_hot)


class _Lane:
    """One session with the buffers it works on."""

    def __init__(self, engine: Engine, weights: Weights) -> None:
        info = engine.info
        self._weights = weights
        self._session = engine.session()
        self._preprocessors: OrderedDict[FitPlan, CpuPreprocessor] = OrderedDict()
        on_gpu = info.device != "cpu"
        self._batch, self.logits, self.features = (
            torch.empty(shape, pin_memory=on_gpu)
            for shape in (info.input_shape, info.logits_shape, info.features_shape)
        )
        self._gpu = _GpuCopies(info) if on_gpu else None

    def run(self, image: BgrImage, plan: FitPlan) -> None:
        preprocessor = self._preprocessors.get(plan)
        if preprocessor is None:
            preprocessor = CpuPreprocessor(
                plan, self._weights.mean, self._weights.std, self._weights.interpolation
            )
            _remember(self._preprocessors, plan, preprocessor, _MAX_PLANS)
        preprocessor(image, self._batch[0].numpy())
        if self._gpu is None:
            self._session(self._batch, self.logits, self.features)
        else:
            self._gpu.run(self._session, self._batch, self.logits, self.features)


class _GpuCopies:
    """An engine's tensors on its GPU, and a stream of its own between the host's pinned ones."""

    def __init__(self, info: EngineInfo) -> None:
        self._batch, self._logits, self._features = (
            torch.empty(shape, device=info.device)
            for shape in (info.input_shape, info.logits_shape, info.features_shape)
        )
        self._stream = torch.cuda.Stream(info.device)  # type: ignore[no-untyped-call]

    def run(self, session: Session, batch: Tensor, logits: Tensor, features: Tensor) -> None:
        """Up, through the network, down; returns when the results are there."""
        with torch.cuda.stream(self._stream):
            self._batch.copy_(batch, non_blocking=True)
            session(self._batch, self._logits, self._features)
            logits.copy_(self._logits, non_blocking=True)
            features.copy_(self._features, non_blocking=True)
        self._stream.synchronize()


class _LanePool:
    """As many lanes as the engine serves at once."""

    def __init__(self, engine: Engine, weights: Weights) -> None:
        self.engine = engine
        self._free = [_Lane(engine, weights) for _ in range(engine.info.parallel)]
        self._returned = threading.Condition()

    @contextmanager
    def borrow(self) -> Iterator[_Lane]:
        with self._returned:
            self._returned.wait_for(lambda: bool(self._free))
            lane = self._free.pop()
        try:
            yield lane
        finally:
            with self._returned:
                self._free.append(lane)
                self._returned.notify()


def _remember(cache: OrderedDict, key: object, value: object, limit: int) -> None:  # type: ignore[type-arg]
    cache[key] = value
    while len(cache) > limit:
        cache.popitem(last=False)


def _check_frame(image: BgrImage) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
        raise ValueError(
            f"a frame is (H, W, 3) uint8 BGR, got {image.shape} {image.dtype}; convert greyscale "
            "with cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)"
        )


def _as_targets(target: Target | Sequence[Target] | None) -> list[Target]:
    if target is None:
        return []
    return [target] if _is_single(target) else list(target)  # type: ignore[arg-type, list-item]


def _is_single(target: Target | Sequence[Target] | None) -> bool:
    return target is None or isinstance(target, int | str | np.integer)


def _scale_region(region: Region, old_hw: tuple[int, int], new_hw: tuple[int, int]) -> Region:
    if old_hw == new_hw:
        return region
    sy, sx = new_hw[0] / old_hw[0], new_hw[1] / old_hw[1]
    return Region(region.x0 * sx, region.y0 * sy, region.x1 * sx, region.y1 * sy)
