"""The heart: a frame becomes an explanation, a frame and its explanation become a picture."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
from torch import nn

from stream_cam.cam.cpu import CpuOverlay, scale_cam
from stream_cam.cam.geometry import FitPlan, check_input_size, scale_region
from stream_cam.cam.steady import SteadyMaps
from stream_cam.config import (
    FITS,
    N_PREDICTIONS,
    Device,
    EngineName,
    Fit,
    LookConfig,
    ModelConfig,
    Precision,
)
from stream_cam.engine import Engine, EngineInfo, EngineOptions, load_engine
from stream_cam.errors import WeightsError, unknown_name
from stream_cam.explain.graph.device import NotCapturedError
from stream_cam.explain.graph.request import FrameRequest
from stream_cam.explain.host_path import MAX_PLANS, SessionPool, remember
from stream_cam.frame import (
    BgrImage,
    Drawn,
    Explanation,
    Features,
    FloatArray,
    Frame,
    Prediction,
    softmax,
)
from stream_cam.model.camnet import CamNet, build_network, load_parameters
from stream_cam.model.torch_settings import loading, own_settings
from stream_cam.model.weights import Weights, load_weights
from stream_cam.targets import Target, is_single, listed_targets, resolve_target

if TYPE_CHECKING:
    from stream_cam.explain.graph.scheduler import FrameGraphs
    from stream_cam.explain.graph.slot import Results

logger = logging.getLogger(__name__)

_MAX_ENGINES = 4
"""Engines of different input shapes kept at once (`native` with frames of many shapes)."""


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
        if fit not in FITS:
            raise unknown_name("fit", fit, FITS)
        if input_size is not None:
            check_input_size(input_size)
        self.look = look or LookConfig()
        self.labels = weights.labels
        self.model_name = net.name
        self.weights = weights
        self._net = net
        self._fingerprint = net.fingerprint()
        self._options = EngineOptions(engine, device, precision, parallel)
        self._fit: Fit = fit
        self._input_size = input_size or weights.input_size
        self._class_weight = net.weight.detach().float().cpu().numpy()
        self._lock = threading.Lock()
        self._pools: OrderedDict[tuple[int, int], SessionPool] = OrderedDict()
        self._engine_info: EngineInfo | None = None
        self._plans: OrderedDict[tuple[int, int], FitPlan] = OrderedDict()
        self.graphs: FrameGraphs | None = None
        """Explains and draws frames in one pass; None: nothing here does, or not yet."""
        self._graphs_lost = False
        self._told: set[str] = set()
        self._reloading: dict[str, object] | None = None
        self._local = threading.local()
        if weights.n_classes == 1:
            self._tell(
                f"{weights.name} has one logit: its sigmoid is shown as the probability of "
                f"{self.labels[1]!r}, the rest as that of {self.labels[0]!r}"
            )
        if fit != "native":
            self._pool((self._input_size, self._input_size))

    @classmethod
    @loading()
    def load(
        cls,
        model: str = "resnet18",
        *,
        weights: str = "imagenet",
        labels: Path | str | Sequence[str] | None = None,
        checkpoint_key: str | None = None,
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
            weights: `imagenet`, `demo`, or the path of a checkpoint.
            labels: the class names, or a file with them.
            checkpoint_key: which network of a checkpoint that holds several.
            engine: `auto`, `tensorrt`, `inductor`, `openvino` or `eager`.
            device: `auto`, `cpu` or `cuda`.
            precision: `auto` is fp32 on CPUs, fp16 on GPUs; `bf16` on CPUs that have it; `int8` on
                CPUs, and on GPUs with TensorRT, if `stream-cam build` made one.
            fit: `stretch`, `crop`, `letterbox` or `native`.
            input_size: side of the network's input in pixels; default: the weights' own.
            look: how `overlay` draws.
            parallel: frames explained at once; 1 has the lowest latency.

        Raises:
            UsageError: an unknown name.
            WeightsError, NoCamError, EngineError: as their messages say.
        """
        names = Path(labels) if isinstance(labels, str) else labels
        loaded = load_weights(weights, model, names, checkpoint_key)
        network = build_network(model, loaded.n_classes)
        load_parameters(network, loaded.state_dict, loaded.name)
        explainer = cls(
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
        is_file = weights not in ("auto", "imagenet", "demo")
        explainer._reloading = {
            "model": model,
            "weights": os.path.abspath(os.path.expanduser(weights)) if is_file else weights,
            "labels": explainer.labels,
            "checkpoint_key": checkpoint_key,
        }
        return explainer

    def __reduce__(self) -> tuple[object, ...]:
        """Where it was loaded from, or the network itself; each process opens its own engine."""
        options = {
            "engine": self._options.engine,
            "device": self._options.device,
            "precision": self._options.precision,
            "fit": self._fit,
            "input_size": self._input_size,
            "look": self.look,
            "parallel": self._options.parallel,
        }
        if self._reloading is not None:
            return _reloaded, (type(self), self._reloading | options, self.weights.sha256)
        return _made_again, (type(self), self._net, self.weights, options)

    @classmethod
    def from_config(cls, model: ModelConfig, look: LookConfig, *, parallel: int = 1) -> Explainer:
        """As the command line's options say."""
        return cls.load(
            model.model,
            weights=model.weights,
            labels=model.labels,
            checkpoint_key=model.checkpoint_key,
            engine=model.engine,
            device=model.device,
            precision=model.precision,
            fit=model.fit,
            input_size=model.input_size,
            look=look,
            parallel=parallel,
        )

    @classmethod
    @loading()
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
            Weights.of_module(module, net.n_logits, labels, mean, std, input_size),
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
        return self._engine_info  # no lock: it is held while an engine is made

    @property
    def engine(self) -> Engine | None:
        """What `engine_info` is about, for those who verify or time it by itself."""
        with self._lock:
            return next(reversed(self._pools.values())).engine if self._pools else None

    @property
    def parallel(self) -> int:
        """How many threads may call `explain` at once to good effect."""
        return self._options.parallel

    def resolve(self, target: Target) -> int:
        """The class index of an index or a label."""
        return resolve_target(self.labels, target)

    @own_settings()
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
        wanted = [self.resolve(one) for one in listed_targets(target)]
        n_locked = len(wanted)
        plan = self.plan((image.shape[0], image.shape[1]))
        with self._pool(plan.input_hw).borrow() as session:
            session.run(image, plan)
            logits = session.logits[0].numpy().copy()
            predictions = self._predictions(logits)
            count = max(len(wanted), n_maps or 1)
            wanted += [p.index for p in predictions if p.index not in wanted][: count - len(wanted)]
            features = session.features[0].numpy()
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
            **_times_of(frame),
            several=len(wanted) > 1 or not is_single(target),
            n_locked=n_locked,
            features=kept,
        )

    @own_settings()
    def explain_drawn(
        self,
        frame: BgrImage | Frame,
        targets: Sequence[Target] = (),
        *,
        n_maps: int = 1,
        look: LookConfig | None = None,
        steady: SteadyMaps | None = None,
        turn: AbstractContextManager[object] | None = None,
    ) -> Explanation:
        """As `explain`; on a CUDA GPU one pass also draws the maps and makes them steady.

        What came of that is in the explanation's `drawn`, which says whether it is so: with engines
        that no graph can hold frames are explained as ever.

        Args:
            look: how the frame will be drawn; default: the explainer's own.
            steady: its times, and whether features must come along if it is left to do its work.
            turn: entered before the frame begins, left when the next one may; frames that are made
                steady must begin in their order.
        """
        look = look or self.look
        image = frame.image_bgr if isinstance(frame, Frame) else frame
        _check_frame(image)
        n_maps = min(n_maps, N_PREDICTIONS, len(self.labels))
        order = FrameRequest(
            tuple(self.resolve(one) for one in targets),
            n_maps,
            panels=look.layout == "top5" or max(n_maps, len(targets)) > 1,
            look=look,
            smooth_seconds=steady.smooth_seconds if steady else 0.0,
            hold_seconds=steady.hold_seconds if steady else 0.0,
        )
        graphs = self._graphs()
        if graphs is not None:
            plan = self.plan((image.shape[0], image.shape[1]))
            engine = self._pool(plan.input_hw).engine
            seconds = frame.pts_seconds if isinstance(frame, Frame) and frame.captured_ns else None
            try:
                found = graphs.explain(engine, plan, image, order, now_seconds=seconds, turn=turn)
            except NotCapturedError as error:
                self._tell(f"{error}; frames take the slower way through host memory")
                self._graphs_lost = True
                self.graphs = None
            else:
                return self._explanation(found, frame, plan, order)
        return self.explain(
            frame,
            targets or None,
            n_maps=n_maps,
            keep_features=steady is not None and steady.needs_features,
        )

    def draw(
        self,
        frame: BgrImage | Frame,
        target: Target | Sequence[Target] | None = None,
        *,
        look: LookConfig | None = None,
    ) -> tuple[Explanation, BgrImage]:
        """`explain` and then `overlay` of the first map, on a CUDA GPU in one pass.

        Args:
            target: as `explain` takes it.
            look: how it is drawn; default: the explainer's own.

        Raises:
            UsageError: an unknown target.
            ValueError: the frame is not (H, W, 3) uint8.
        """
        look = replace(look or self.look, layout="overlay")
        image = frame.image_bgr if isinstance(frame, Frame) else frame
        if is_single(target):
            explanation = self.explain_drawn(frame, listed_targets(target), look=look)
            explanation = replace(explanation, several=False)
        else:
            explanation = self.explain(frame, target)
        drawn = explanation.drawn.take(image, look, panels=False) if explanation.drawn else None
        return explanation, drawn[0] if drawn else self.overlay(image, explanation, look=look)

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

    def _graphs(self) -> FrameGraphs | None:
        """What explains and draws in one pass, if something here does."""
        if self.graphs is None and not self._graphs_lost:
            info = self.engine_info
            if info is None and self._fit == "native":  # its engine is made for the first frame
                return None
            with self._lock:
                if self.graphs is None and info is not None and info.device != "cpu":
                    self._open_graphs(info.device)
        return self.graphs

    def _open_graphs(self, device: str) -> None:
        try:
            from stream_cam.explain.graph.cuda_device import CudaGpu
            from stream_cam.explain.graph.scheduler import FrameGraphs

            self.graphs = FrameGraphs(CudaGpu(device), self.weights, self._class_weight)
        except ImportError as error:  # Triton is not everywhere
            self._tell(f"{error}; frames take the slower way through host memory")
            self._graphs_lost = True

    def _tell(self, what: str) -> None:
        """Warns, once of each thing."""
        if what not in self._told:
            self._told.add(what)
            logger.warning("%s", what)

    def _explanation(
        self, found: Results, frame: BgrImage | Frame, plan: FitPlan, order: FrameRequest
    ) -> Explanation:
        """What a graph found, as `explain` says it."""
        predictions, targets = (
            tuple(
                Prediction(self.labels[index], index, probability)
                for index, probability in zip(classes, probabilities, strict=True)
            )
            for classes, probabilities in (
                (found.best, found.best_probability),
                (found.classes, found.probability),
            )
        )
        image = frame.image_bgr if isinstance(frame, Frame) else frame
        return Explanation(
            logits=found.logits,
            predictions=predictions,
            targets=targets,
            cams=found.cams,
            region=plan.region,
            frame_size_hw=plan.frame_hw,
            **_times_of(frame),
            several=len(targets) > 1 or bool(order.targets),
            n_locked=len(order.targets),
            ranges=found.ranges if order.smooth_seconds > 0.0 else None,
            drawn=Drawn(image, order.look, order.panels, found.pictures),
        )

    def _predictions(self, logits: FloatArray) -> tuple[Prediction, ...]:
        probabilities = softmax(logits)
        n_best = min(N_PREDICTIONS, logits.size)
        best = np.argpartition(-logits, n_best - 1)[:n_best]
        best = best[np.argsort(-logits[best], kind="stable")]
        return tuple(
            Prediction(self.labels[int(i)], int(i), float(probabilities[int(i)])) for i in best
        )

    def plan(self, frame_hw: tuple[int, int]) -> FitPlan:
        """How frames of a size become the network's input."""
        with self._lock:
            plan = self._plans.get(frame_hw)
            if plan is None:
                plan = self.weights.plan(self._fit, frame_hw, self._input_size)
                remember(self._plans, frame_hw, plan, MAX_PLANS)
            return plan

    def _pool(self, input_hw: tuple[int, int]) -> SessionPool:
        with self._lock:
            pool = self._pools.get(input_hw)
            if pool is None:
                with loading():
                    engine = load_engine(
                        self._net,
                        self._fingerprint,
                        input_hw,
                        self._options,
                    )
                    pool = SessionPool(engine, self.weights)
                remember(self._pools, input_hw, pool, _MAX_ENGINES)
                self._engine_info = engine.info
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
        region = scale_region(explanation.region, explanation.frame_size_hw, size_hw)
        key = (size_hw, explanation.cams.shape[1:], region, look)
        kept: OrderedDict[object, CpuOverlay] | None = getattr(self._local, "overlays", None)
        if kept is None:
            kept = self._local.overlays = OrderedDict()
        overlay = kept.get(key)
        if overlay is None:
            cam_hw = (explanation.cams.shape[1], explanation.cams.shape[2])
            overlay = CpuOverlay(size_hw, cam_hw, region, look)
            remember(kept, key, overlay, MAX_PLANS)
        return overlay


def _reloaded(kind: type[Explainer], options: dict[str, Any], sha256: str) -> Explainer:
    """A pickled explainer.

    Raises:
        WeightsError: its weights are gone, or others by now.
    """
    explainer = kind.load(**options)
    if explainer.weights.sha256 != sha256:
        raise WeightsError(
            f"{options['weights']} has changed since the explainer was pickled; make another one"
        )
    return explainer


def _made_again(
    kind: type[Explainer], net: CamNet, weights: Weights, options: dict[str, Any]
) -> Explainer:
    return kind(net, weights, **options)


def _scaled(explanation: Explanation, target: int, look: LookConfig) -> FloatArray:
    """A map in 0..1, as it is drawn."""
    ranges = explanation.ranges
    cold_hot = None if ranges is None else (float(ranges[target][0]), float(ranges[target][1]))
    return scale_cam(explanation.cams[target], relu=look.relu, cold_hot=cold_hot)


def _check_frame(image: BgrImage) -> None:
    """Raises ValueError, with the way to what a frame is, for what is none."""
    if not isinstance(image, np.ndarray):
        got = f"a {type(image).__name__}"
        if image is None:
            got = "None, which cv2.imread gives for a file that it cannot read"
        raise ValueError(f"a frame is a NumPy array, (H, W, 3) uint8 BGR, got {got}")
    if image.dtype != np.uint8:
        way = "scale its values to 0..255 and give image.astype(numpy.uint8)"
    elif image.ndim == 2 or image.shape[2:] == (1,):
        way = "convert greyscale with cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)"
    elif image.shape[2:] == (4,):
        way = "take away its alpha with cv2.cvtColor(image, cv2.COLOR_BGRA2BGR)"
    elif image.ndim != 3 or image.shape[2] != 3:
        way = "give one frame, colours last"
    elif 0 in image.shape:
        way = "it has no pixels"
    else:
        return
    raise ValueError(f"a frame is (H, W, 3) uint8 BGR, got {image.shape} {image.dtype}: {way}")


def _times_of(frame: BgrImage | Frame) -> _Times:
    """When a frame is from, and that it is explained now."""
    source = frame if isinstance(frame, Frame) else None
    return {
        "frame_index": source.index if source else 0,
        "pts_seconds": source.pts_seconds if source else 0.0,
        "captured_ns": source.captured_ns if source else 0,
        "explained_ns": time.monotonic_ns(),
    }


class _Times(TypedDict):
    frame_index: int
    pts_seconds: float
    captured_ns: int
    explained_ns: int
