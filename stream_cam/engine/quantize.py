"""A network in 8-bit integers, except for the layers that its maps need in float32.

NNCF takes the range of every layer from frames of what the network will see. Quantised throughout,
the demo model's worst map misses the gate of `verify` (docs/engines.md); so the layers that cost
most are put back into float32, one after the other, until the gate holds on other frames.
"""

from __future__ import annotations

import io
import logging
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from torch import Tensor

from stream_cam.engine.base import Engine, OnStage
from stream_cam.engine.manifest import Figures
from stream_cam.engine.verify import GATES, Comparison, overall
from stream_cam.errors import EngineError, first_line
from stream_cam.fingerprint import fingerprint
from stream_cam.model import CamNet

if TYPE_CHECKING:
    import openvino

logger = logging.getLogger(__name__)

INSTALL = "pip install 'stream-cam[int8]'"

_SPARE = 0.001
"""By how much the gate is to be passed: its frames are not all that there will be."""
_RANGES = "MINMAX"
"""Of activations. NNCF's default, the mean over frames, cuts off large ones, and maps are made of
these: the demo model's worst one correlates by 0.91 instead of 0.97."""
_RANKING_FRAMES = 32
"""The frames with the worst maps, on which it is found out what each layer costs."""


@dataclass(frozen=True, eq=False)
class Calibration:
    """Frames of what the network will see, prepared as it will see them.

    All are (1, 3, H, W) float32, normalised RGB.
    """

    calibrating: tuple[Tensor, ...]
    """Give the ranges."""
    validating: tuple[Tensor, ...]
    """Others: decide which layers stay in float32, and are what the engine is verified with."""


class Quantizer:
    """Quantises one network for one calibration; once, however many engines are made of it.

    Raises:
        EngineError: NNCF is not installed.
    """

    def __init__(self, net: CamNet, calibration: Calibration) -> None:
        self._net = net
        self._calibration = calibration
        frames = (*calibration.calibrating, *calibration.validating)
        self.identity: Mapping[str, str] = {
            "frames": f"{len(calibration.calibrating)}+{len(calibration.validating)}",
            "frames_sha256": fingerprint({f"{i:06}": frame for i, frame in enumerate(frames)}),
            "nncf": nncf_version(),
            "settings": f"{_RANGES}, full bias correction, spare {_SPARE}",
        }
        """For the engine's key: all that decides what comes out."""
        self._quantized: openvino.Model | None = None

    @property
    def validating(self) -> tuple[Tensor, ...]:
        """(1, 3, H, W) float32 each: what the engines are to be verified with."""
        return self._calibration.validating

    def quantize(self, model: openvino.Model, on_stage: OnStage) -> openvino.Model:
        """The network with integer layers: minutes, at the first call.

        Args:
            model: the network in float32, for a batch of one.

        Raises:
            EngineError: NNCF cannot do it, or no layer can be spared.
        """
        if self._quantized is None:
            on_stage("quantising")
            try:
                with _in_silence():
                    quantized = self._with_accuracy_control(model, on_stage)
            except Exception as error:  # whatever NNCF may raise
                reason = first_line(error)
                raise EngineError(
                    f"NNCF cannot quantise {self._net.name} ({reason}); give --precision fp32"
                ) from error
            if _n_quantized(quantized) == 0:
                raise EngineError(
                    f"{self._net.name} cannot be int8: its maps reach the gate only with every "
                    "layer in float32; give --precision fp32"
                )
            self._quantized = quantized
        return self._quantized

    def _with_accuracy_control(self, model: openvino.Model, on_stage: OnStage) -> openvino.Model:
        nncf = _import_nncf()
        shape = tuple(model.input(0).shape)
        metric = _Metric(Comparison(self._net, shape, self.validating), on_stage)
        ranges = nncf.quantization.range_estimator.RangeEstimatorParametersSet
        calibrating = [frame.numpy() for frame in self._calibration.calibrating]
        return nncf.quantize_with_accuracy_control(
            model,
            nncf.Dataset(calibrating),
            nncf.Dataset(range(len(metric.comparison))),
            metric,
            max_drop=metric.best - _SPARE,
            subset_size=len(calibrating),
            fast_bias_correction=False,
            advanced_quantization_parameters=nncf.AdvancedQuantizationParameters(
                activations_range_estimator_params=getattr(ranges, _RANGES)
            ),
            advanced_accuracy_restorer_parameters=nncf.AdvancedAccuracyRestorerParameters(
                ranking_subset_size=_RANKING_FRAMES,
                # More would have their Ctrl-C after all models are compiled.
                num_ranking_workers=1,
            ),
        )


class _Metric:
    """How far a model is within the int8 gate: what NNCF must not let fall below `_SPARE`."""

    best = 1.0 - (GATES["int8"].least_correlation or 0.0)
    """What a perfect engine has."""

    def __init__(self, comparison: Comparison, on_stage: OnStage) -> None:
        self.comparison = comparison
        self._on_stage = on_stage
        self._n_tried = 0

    def __call__(
        self, compiled: openvino.CompiledModel, numbers: Iterable[int]
    ) -> tuple[float, list[float]]:
        """For all frames with these numbers, and for each."""
        from stream_cam.engine.openvino import OpenVinoEngine

        engine: Engine = OpenVinoEngine(compiled, "int8", 1)
        frames = self.comparison.each(engine, list(numbers))
        figures = overall(frames)
        self._n_tried += 1
        self._on_stage(f"quantising (try {self._n_tried}, {_in_words(figures)})")
        logger.info("try %d of %d frames: %s", self._n_tried, len(frames), figures)
        return _within(figures), [_within(overall([frame])) for frame in frames]


def nncf_version() -> str:
    """NNCF's, as 3.4.0.

    Raises:
        EngineError: it is not installed.
    """
    try:
        return version("nncf")
    except PackageNotFoundError as error:
        raise EngineError(
            f"--precision int8 is built with NNCF, which is not installed: {INSTALL}"
        ) from error


def _within(figures: Figures) -> float:
    """The distance to the nearer limit of the gate; negative beyond it."""
    gate = GATES["int8"]
    assert gate.least_correlation is not None
    assert gate.least_agreement is not None
    return min(
        figures.cam_correlation - gate.least_correlation,
        figures.top1_agreement - gate.least_agreement,
    )


def _in_words(figures: Figures) -> str:
    return f"worst map {figures.cam_correlation:.4f}, best class {figures.top1_agreement:.1%}"


def _n_quantized(model: openvino.Model) -> int:
    return sum(node.get_type_name() == "FakeQuantize" for node in model.get_ops())


def _import_nncf() -> Any:
    """The module, without what its import does to others.

    It tells its makers over the network how it is used, if it finds the package for that; and
    every logger that is made afterwards is of its own class.
    """
    logger_class, telemetry = logging.getLoggerClass(), sys.modules.get("openvino_telemetry")
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    try:
        import nncf
    finally:
        logging.setLoggerClass(logger_class)
        del sys.modules["openvino_telemetry"]
        if telemetry is not None:
            sys.modules["openvino_telemetry"] = telemetry
    return nncf


@contextmanager
def _in_silence() -> Iterator[None]:
    """NNCF logs every step, draws bars on stdout, and makes PyTorch look for CUDA's compiler."""
    loggers = [logging.getLogger(name) for name in ("nncf", "torch.utils.cpp_extension")]
    disabled = [log.disabled for log in loggers]
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            for log in loggers:
                log.disabled = True
            yield
        finally:
            for log, was in zip(loggers, disabled, strict=True):
                log.disabled = was
