"""NNCF makes OpenVINO's integer layers, except for those that the maps need in float32.

It takes the range of every layer from frames. The layers that cost most go back to float32, one
after the other, until the gate holds on other frames.
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from torch import Tensor

from stream_cam.engine.base import OnStage
from stream_cam.engine.calibration import Calibration
from stream_cam.engine.openvino_runtime import OpenVinoEngine
from stream_cam.engine.quantize import GATE_MARGIN, RANKING_FRAMES, GateMetric
from stream_cam.engine.verify import Comparison
from stream_cam.errors import EngineError, first_line
from stream_cam.model.camnet import CamNet

if TYPE_CHECKING:
    import openvino

INSTALL = "pip install 'stream-cam[int8]'"

_RANGES = "MINMAX"
"""The ranges of activations. NNCF's default, the mean over frames, cuts off the large ones that
maps are made of: the demo model's worst map correlates by 0.91 instead of 0.97."""


class NncfQuantizer:
    """Quantises one network for one calibration; once, however many engines are made of it.

    Raises:
        EngineError: NNCF is not installed.
    """

    def __init__(self, net: CamNet, calibration: Calibration) -> None:
        self._net = net
        self._calibration = calibration
        self.identity: Mapping[str, str] = {
            **calibration.identity,
            "nncf": nncf_version(),
            "settings": f"{_RANGES}, full bias correction, spare {GATE_MARGIN}",
        }
        """For the engine's key: everything that decides the result."""
        self._quantized: openvino.Model | None = None

    @property
    def validating(self) -> tuple[Tensor, ...]:
        """(1, 3, H, W) float32 each: frames to verify the engines with."""
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
        metric = GateMetric(Comparison(self._net, shape, self.validating), on_stage)
        ranges = nncf.quantization.range_estimator.RangeEstimatorParametersSet
        calibrating = [frame.numpy() for frame in self._calibration.calibrating]
        return nncf.quantize_with_accuracy_control(
            model,
            nncf.Dataset(calibrating),
            nncf.Dataset(range(len(metric.comparison))),
            _as_nncf_calls(metric),
            max_drop=metric.best - GATE_MARGIN,
            subset_size=len(calibrating),
            fast_bias_correction=False,
            advanced_quantization_parameters=nncf.AdvancedQuantizationParameters(
                activations_range_estimator_params=getattr(ranges, _RANGES)
            ),
            advanced_accuracy_restorer_parameters=nncf.AdvancedAccuracyRestorerParameters(
                ranking_subset_size=RANKING_FRAMES,
                # More would have their Ctrl-C after all models are compiled.
                num_ranking_workers=1,
            ),
        )


def _as_nncf_calls(
    metric: GateMetric,
) -> Callable[[openvino.CompiledModel, Iterable[int]], tuple[float, list[float]]]:
    """The gate's metric, as NNCF calls it."""
    return lambda compiled, numbers: metric(OpenVinoEngine(compiled, "int8", 1), numbers)


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


def _n_quantized(model: openvino.Model) -> int:
    return sum(node.get_type_name() == "FakeQuantize" for node in model.get_ops())


def _import_nncf() -> Any:
    """The module. Its import would make every later logger one of its own class."""
    logger_class = logging.getLoggerClass()
    try:
        import nncf
    finally:
        logging.setLoggerClass(logger_class)
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
