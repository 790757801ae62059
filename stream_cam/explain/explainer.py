"""The explainer: a frame becomes an explanation, and on a GPU a picture in the same pass."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, fields, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from stream_cam.cam.contrast import ContrastRows
from stream_cam.cam.geometry import MAX_PLANS, FitPlan, check_input_size
from stream_cam.config import (
    FITS,
    Activation,
    Channels,
    Device,
    EngineName,
    Fit,
    InputScale,
    LookConfig,
    ModelConfig,
    Precision,
)
from stream_cam.draw.layouts import MapStyle, count_maps
from stream_cam.draw.overlay import draw_overlay
from stream_cam.engine import Engine, EngineInfo, EngineOptions
from stream_cam.errors import WeightsError, unknown_name
from stream_cam.explain.engine_pool import EnginePool
from stream_cam.explain.explanations import (
    best_predictions,
    explanation_of,
    times_of,
)
from stream_cam.explain.frame_explainer import TakeNewest
from stream_cam.explain.graph.device import NotCapturedError
from stream_cam.explain.networks import (
    KeptNetwork,
    LoadedNetwork,
    Network,
    NetworkSource,
    find_network,
    keep_network,
)
from stream_cam.frame import (
    BgrImage,
    ClassRows,
    Contrast,
    Explanation,
    Features,
    FloatArray,
    Frame,
    Prediction,
    image_of,
    probabilities_of,
)
from stream_cam.model.labels import labels_of, read_labels
from stream_cam.model.recipe import WeightsInfo
from stream_cam.model.torch_settings import own_settings
from stream_cam.settings import SettingsSnapshot
from stream_cam.targets import (
    Target,
    is_single,
    listed_targets,
    resolve_against,
    resolve_target,
)

if TYPE_CHECKING:
    from torch import nn

    from stream_cam.explain.graph.scheduler import FrameGraphs
    from stream_cam.model.camnet import CamNet
    from stream_cam.model.weights import Weights

logger = logging.getLogger(__name__)


class Explainer:
    """A network ready to explain frames; safe to call from several threads at once.

    `parallel` threads make progress at the same time, further ones wait their turn.
    """

    def __init__(
        self,
        net: CamNet | Network,
        weights: WeightsInfo,
        *,
        engine: EngineName = "auto",
        device: Device = "auto",
        precision: Precision = "auto",
        fit: Fit = "stretch",
        input_size: int | None = None,
        parallel: int = 1,
        activation: Activation | None = None,
    ) -> None:
        if activation not in (None, "softmax", "sigmoid"):
            raise unknown_name("activation", activation, ("softmax", "sigmoid"))
        if fit not in FITS:
            raise unknown_name("fit", fit, FITS)
        if input_size is not None:
            check_input_size(input_size)
        network = _as_network(net)
        self.labels = weights.labels
        self.model_name = network.name
        self.weights = weights
        self._network = network
        self._options = EngineOptions(engine, device, precision, parallel)
        self._fit: Fit = fit
        self._input_size = input_size or weights.input_size
        self.method = network.method
        """The maps' name: `cam`, or `grad-cam (head)` of a network whose head is not linear."""
        # Of one logit there are two classes, whose softmax is its sigmoid.
        own = network.net.activation if isinstance(network, LoadedNetwork) else "softmax"
        self.activation: Activation = "softmax" if weights.n_classes == 1 else activation or own
        """The function that makes probabilities of logits."""
        self._engines = EnginePool(network, weights, self._options)
        self._opening_graphs = threading.Lock()
        self._plan_of = lru_cache(MAX_PLANS)(
            partial(weights.plan, fit, input_size=self._input_size)
        )
        self.graphs: FrameGraphs | None = None
        """Explains and draws frames in one pass; None: not here, or not yet."""
        self._graphs_lost = False
        self._warned: set[str] = set()
        self._reloading: dict[str, object] | None = None
        if weights.n_classes == 1:
            self._warn_once(
                f"{weights.name} has one logit: its sigmoid is shown as the probability of "
                f"{self.labels[1]!r}, the rest as that of {self.labels[0]!r}"
            )
        if fit != "native":
            self._engines.sessions((self._input_size, self._input_size))

    @classmethod
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
        parallel: int = 1,
    ) -> Explainer:
        """Loads a torchvision network and compiles it for this machine.

        Args:
            model: a torchvision classifier's name, e.g. `resnet18`.
            weights: `imagenet`, `demo`, or the path of a checkpoint.
            labels: the class names, or a file with them.
            checkpoint_key: which network of a checkpoint that holds several.
            engine: `auto`, `tensorrt`, `fused`, `inductor`, `openvino` or `eager`.
            device: `auto`, `cpu` or `cuda`.
            precision: `auto` is fp32 on CPUs, fp16 on GPUs; `bf16` on CPUs that have it; `int8` on
                CPUs, and on GPUs with TensorRT, if `stream-cam build` made one.
            fit: `stretch`, `crop`, `letterbox` or `native`.
            input_size: side of the network's input in pixels; default: the weights' own.
            parallel: frames explained at once; 1 has the lowest latency.

        Raises:
            UsageError: an unknown name.
            WeightsError, NoCamError, EngineError: as their messages say.
        """
        is_file = weights not in ("auto", "imagenet", "demo")
        place = os.path.abspath(os.path.expanduser(weights)) if is_file else weights
        source = NetworkSource(model, place, checkpoint_key)
        kept = find_network(source, partial(_load_network, source))
        network, info = kept or _load_network(source)
        if labels is not None:
            info = _relabelled(info, labels)
        explainer = cls(
            network,
            info,
            engine=engine,
            device=device,
            precision=precision,
            fit=fit,
            input_size=input_size,
            parallel=parallel,
        )
        engine_info = explainer.engine_info
        if isinstance(network, LoadedNetwork) and engine_info and engine_info.name == "openvino":
            keep_network(source, network, info)
        explainer._reloading = {**asdict(source), "labels": explainer.labels}
        return explainer

    def __reduce__(self) -> tuple[object, ...]:
        """Pickles the place of the weights, or the network; each process opens its own engine."""
        options: dict[str, object] = {
            "engine": self._options.engine,
            "device": self._options.device,
            "precision": self._options.precision,
            "fit": self._fit,
            "input_size": self._input_size,
            "parallel": self._options.parallel,
        }
        if self._reloading is not None:
            return _reload, (
                type(self),
                self._reloading | options,
                self.weights.sha256,
            )
        assert isinstance(self._network, LoadedNetwork)
        options["activation"] = self.activation
        return _rebuild, (type(self), self._network.net, self.weights, options)

    @classmethod
    def from_config(cls, model: ModelConfig, *, parallel: int = 1) -> Explainer:
        """The explainer of the command line's options."""
        names = {field.name for field in fields(model)} - {"target", "against", "own"}
        options: dict[str, Any] = {name: getattr(model, name) for name in names}
        if model.own.module is None:
            return cls.load(**options, parallel=parallel)
        from stream_cam.model.networks import load_network

        for name in ("model", "weights", "labels", "checkpoint_key"):
            del options[name]
        activation = model.own.activation
        return cls(*load_network(model), **options, parallel=parallel, activation=activation)

    @classmethod
    def from_module(
        cls,
        module: nn.Module,
        *,
        labels: Sequence[str] | None = None,
        mean: Sequence[float] | float | None = None,
        std: Sequence[float] | float | None = None,
        input_scale: InputScale | None = None,
        channels: Channels | None = None,
        output: str | int | None = None,
        activation: Activation | None = None,
        input_size: int = 224,
        engine: EngineName = "auto",
        device: Device = "auto",
        precision: Precision = "auto",
        fit: Fit = "stretch",
        parallel: int = 1,
    ) -> Explainer:
        """A network of your own: convolutions, global average pooling, and any head on that mean.

        With one linear layer the maps are CAMs, with another head Grad-CAM's (`method`).

        Args:
            module: (N, 3, H, W) or (N, 1, H, W) → logits (N, n_classes).
            labels: one for each class; default: their numbers.
            mean: subtracted from the values of each channel, in the module's order; one number is
                for all. Default: ImageNet's; 0 for one channel, or if `std` or `input_scale` is
                given.
            std: the values are divided by it; likewise, 1 in place of 0.
            input_scale: `0..1` or `0..255`, the values before mean and std; default: 0..1.
            channels: `rgb`, `bgr`, or `gray` for the frame's luma (0.299 R + 0.587 G + 0.114 B);
                default: `gray` for a module with one input channel, else `rgb`.
            output: the logits among several outputs: a key, a field, or a number from 0.
            activation: `softmax`, or `sigmoid` for classes with probabilities of their own;
                default: `sigmoid` for a module that ends in one, else `softmax`.
            input_size: side of its square input in pixels.

        Raises:
            NoCamError: the network has another shape; the message names the part.
            UsageError: `mean`, `std` or `labels` do not fit the network.
        """
        from stream_cam.model.camnet import CamNet
        from stream_cam.model.input_color import normalisation
        from stream_cam.model.torch_settings import loading
        from stream_cam.model.weights import Weights

        check_input_size(input_size)
        hw = (input_size, input_size)
        with loading():
            net = CamNet.from_module(module, type(module).__name__, hw, channels, output)
            means, stds = normalisation(net.channels, mean, std, input_scale)
            weights = Weights.of_module(module, net.n_logits, labels, means, stds, input_size)
        return cls(
            net,
            weights,
            engine=engine,
            device=device,
            precision=precision,
            fit=fit,
            parallel=parallel,
            activation=activation,
        )

    @property
    def engine_info(self) -> EngineInfo | None:
        """The newest engine's name, device and shapes; None before the first frame with
        `fit="native"`.
        """
        return self._engines.info

    @property
    def engine(self) -> Engine | None:
        """The newest engine itself, to be verified or timed alone."""
        return self._engines.newest

    @property
    def parallel(self) -> int:
        """The number of threads that make progress in `explain` at once."""
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
        against: Target | Sequence[Target] | None = None,
        against_weight: float = LookConfig.against_weight,
    ) -> Explanation:
        """Runs the network once and computes the maps of the classes asked for.

        Args:
            frame: (H, W, 3) uint8 BGR, or a Frame.
            target: a class index, a label, or several; None: the class with the highest logit.
            n_maps: maps in all: after the targets, the best classes that are not among them.
            keep_features: the explanation holds a copy of the features (100 KB with ResNet18), of
                which the map of any further class can be made; `SteadyMaps` needs it to hold one.
            against: classes whose maps' mean is subtracted from each map; `next` is the best class
                that is left, `next:3` the three best.
            against_weight: the share of that mean that is subtracted.

        Raises:
            UsageError: an unknown target.
            ValueError: the frame is not (H, W, 3) uint8.
        """
        image = image_of(frame)
        wanted = [self.resolve(one) for one in listed_targets(target)]
        n_locked = len(wanted)
        others = resolve_against(self.labels, listed_targets(against))
        contrast = Contrast(others, against_weight, self.labels) if others else None
        plan = self.plan((image.shape[0], image.shape[1]))
        with self._engines.sessions(plan.input_hw).borrow() as session:
            session.run(image, plan)
            logits = session.logits[0].copy()
            predictions = best_predictions(logits, self.labels, self.activation)
            count = max(len(wanted), n_maps or 1)
            wanted += [p.index for p in predictions if p.index not in wanted][: count - len(wanted)]
            features = session.features[0]
            class_weight = self._network.class_weight_of(features)
            if contrast is not None:
                class_weight = ContrastRows(class_weight, contrast, logits)
            cams = np.dot(class_weight[wanted], features.reshape(features.shape[0], -1))
            kept = Features(features.copy(), class_weight) if keep_features else None
        probabilities = probabilities_of(logits, self.activation)
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
            **times_of(frame),
            several=len(wanted) > 1 or not is_single(target),
            n_locked=n_locked,
            method=self.method,
            contrast=contrast,
            activation=self.activation,
            features=kept,
        )

    @own_settings()
    def explain_drawn(
        self,
        frame: BgrImage | Frame,
        settings: SettingsSnapshot | None = None,
        *,
        ticket: AbstractContextManager[object] | None = None,
    ) -> Explanation:
        """As `explain`; on a CUDA GPU one pass also draws the maps and makes them steady.

        The explanation's `drawn` holds the pictures. It is None where no graph can hold the
        engine: then the frame is explained through host memory, and is not drawn yet.

        Args:
            settings: targets, layout, colours, smoothing and hold; default: `SettingsSnapshot()`.
            ticket: entered before the frame begins, left when the next one may begin. Frames that
                are made steady must begin in their order.
        """
        settings, image = settings or SettingsSnapshot(), image_of(frame)
        for target in settings.targets:
            self.resolve(target)
        graphs = self._graphs()
        if graphs is not None and settings.against:
            self._warn_once("maps against other classes are computed in host memory, without graph")
            graphs = None
        if graphs is not None:
            plan = self.plan((image.shape[0], image.shape[1]))
            engine = self._engines.sessions(plan.input_hw).engine
            seconds = frame.pts_seconds if isinstance(frame, Frame) and frame.captured_ns else None
            try:
                results = graphs.explain(
                    engine, plan, image, settings, now_seconds=seconds, ticket=ticket
                )
            except NotCapturedError as error:
                self._warn_once(f"{error}; frames take the slower way through host memory")
                self._graphs_lost = True
                self.graphs = None
            else:
                return explanation_of(results, self.labels, frame, plan, settings, self.activation)
        return self.explain(
            frame,
            settings.targets or None,
            n_maps=count_maps(settings, len(self.labels)),
            keep_features=settings.look.hold > 0.0,
            against=settings.against,
            against_weight=settings.look.against_weight,
        )

    def explain_newest(self, take: TakeNewest) -> Explanation:
        """As `explain_drawn`, with the frame that `take` gives at once."""
        return self.explain_drawn(*take())

    def draw(
        self,
        frame: BgrImage | Frame,
        target: Target | Sequence[Target] | None = None,
        *,
        look: LookConfig | None = None,
    ) -> tuple[Explanation, BgrImage]:
        """`explain` and then `draw_overlay` of the first map, on a CUDA GPU in one pass.

        Args:
            target: as `explain` takes it.
            look: colours, alpha, upsampling and ReLU; default: `LookConfig()`.

        Raises:
            UsageError: an unknown target.
            ValueError: the frame is not (H, W, 3) uint8.
        """
        look = replace(look or LookConfig(), layout="overlay", smooth=0.0, hold=0.0)
        if not is_single(target):
            explanation = self.explain(frame, target)
            return explanation, draw_overlay(frame, explanation, look)
        targets = tuple(self.resolve(one) for one in listed_targets(target))
        explanation = self.explain_drawn(frame, SettingsSnapshot(look, targets))
        explanation = replace(explanation, several=False)
        drawn = explanation.drawn and explanation.drawn.take(
            image_of(frame), MapStyle.of(look, n_maps=1)
        )
        return explanation, drawn[0] if drawn else draw_overlay(frame, explanation, look)

    @property
    def _class_weight(self) -> FloatArray:
        """The linear layer's, (n_classes, C) float32."""
        class_weight = self._network.class_weight
        assert class_weight is not None, "the head is not linear"
        return class_weight

    def class_weight_of(self, features: FloatArray) -> ClassRows:
        """The class weights of the frame with these features, (C, h, w)."""
        return self._network.class_weight_of(features)

    def _graphs(self) -> FrameGraphs | None:
        """The graphs, if the engine's device has them."""
        if self.graphs is None and not self._graphs_lost:
            info = self.engine_info
            if info is None and self._fit == "native":  # its engine is made for the first frame
                return None
            with self._opening_graphs:
                if self.graphs is None and info is not None and info.device != "cpu":
                    self._open_graphs(info.device)
        return self.graphs

    def _open_graphs(self, device: str) -> None:
        if self._network.class_weight is None:
            self._warn_once(
                f"the head of {self.model_name} is not one linear layer: its derivative and the "
                "maps are computed in host memory, the network on the GPU"
            )
            self._graphs_lost = True
            return
        try:
            from stream_cam.explain.graph.cuda_device import CudaGpu
            from stream_cam.explain.graph.scheduler import FrameGraphs

            self.graphs = FrameGraphs(CudaGpu(device), self.weights, self._class_weight)
        except ImportError as error:  # Triton is not everywhere
            self._warn_once(f"{error}; frames take the slower way through host memory")
            self._graphs_lost = True

    def _warn_once(self, message: str) -> None:
        if message not in self._warned:
            self._warned.add(message)
            logger.warning("%s", message)

    def plan(self, frame_hw: tuple[int, int]) -> FitPlan:
        """The way in which frames of a size become the network's input."""
        return self._plan_of(frame_hw)


def _as_network(net: CamNet | Network) -> Network:
    if isinstance(net, (LoadedNetwork, KeptNetwork)):
        return net
    return LoadedNetwork(cast("CamNet", net))


def _load_network(source: NetworkSource) -> tuple[LoadedNetwork, Weights]:
    """The network and its weights, through PyTorch."""
    from stream_cam.model.networks import load_network

    net, weights = load_network(ModelConfig(**asdict(source)))
    return LoadedNetwork(net), weights


def _relabelled(info: WeightsInfo, labels: Path | str | Sequence[str]) -> WeightsInfo:
    if isinstance(labels, (str, Path)):
        return replace(info, labels=read_labels(Path(labels), info.n_classes))
    return replace(info, labels=labels_of(labels, info.n_classes, "labels"))


def _reload(kind: type[Explainer], options: dict[str, Any], sha256: str) -> Explainer:
    """An explainer that loads its weights again.

    Raises:
        WeightsError: the weights are gone, or have changed.
    """
    explainer = kind.load(**options)
    if explainer.weights.sha256 != sha256:
        raise WeightsError(
            f"{options['weights']} has changed since the explainer was pickled; make another one"
        )
    return explainer


def _rebuild(
    kind: type[Explainer], net: CamNet, weights: Weights, options: dict[str, Any]
) -> Explainer:
    return kind(net, weights, **options)
