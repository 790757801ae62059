"""Which convolutions TensorRT may compute in 8-bit integers: as many as the maps survive.

TensorRT rounds where it is told to, so PyTorch can simulate it. All convolutions in integers miss
the gate of `verify` (docs/engines.md). So they go back to fp16 one after the other, the one that
gains most first, until the gate holds on frames that gave no ranges.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from stream_cam.engine.base import EngineInfo, OnStage, Session
from stream_cam.engine.buffers import Buffers
from stream_cam.engine.calibration import Calibration
from stream_cam.engine.eager import TorchSession
from stream_cam.engine.int8_net import Int8Convolution, largest_inputs, replace_by_int8
from stream_cam.engine.options import Batch
from stream_cam.engine.quantize import GATE_MARGIN, RANKING_FRAMES, GateMetric
from stream_cam.engine.typed_net import TypedNet, probe_info
from stream_cam.engine.verify import Comparison
from stream_cam.errors import EngineError
from stream_cam.model.camnet import CamNet

logger = logging.getLogger(__name__)


class LayerQuantizer:
    """Quantises one network for one calibration, convolution by convolution; once."""

    def __init__(self, net: CamNet, calibration: Calibration) -> None:
        self._net = net
        self._calibration = calibration
        self.identity: Mapping[str, str] = {
            **calibration.identity,
            "settings": f"symmetric, largest values, spare {GATE_MARGIN}",
        }
        """For the engine's key: everything that decides the result."""
        self.validating = calibration.validating
        self._largest: Mapping[str, float] | None = None

    def quantize(self, device: str, on_stage: OnStage) -> TypedNet:
        """The network in fp16, on the CPU, with the chosen convolutions in integers.

        Args:
            device: where to find out which: seconds on a GPU, minutes on a CPU.

        Raises:
            EngineError: no convolution can be spared.
        """
        if self._largest is None:
            on_stage("quantising")
            self._largest = self._chosen(device, on_stage)
        typed = TypedNet(self._net, "fp32")
        replace_by_int8(typed, self._largest)
        # Only now, so that the integers are those that were measured.
        return typed.compute_in("fp16")

    def _chosen(self, device: str, on_stage: OnStage) -> dict[str, float]:
        """The convolutions that may be in integers, and their largest inputs."""
        typed = TypedNet(self._net, "fp32").to(device)
        simulated = _Simulated(self._net.name, typed, device, self.validating[0].shape)
        frames = (frame.to(device) for frame in self._calibration.calibrating)
        largest = largest_inputs(typed, frames)
        layers = replace_by_int8(typed, largest)
        comparison = Comparison(self._net, simulated.info.input_shape, self.validating)
        metric = GateMetric(comparison, on_stage)
        within, each = metric(simulated)
        if within < GATE_MARGIN:
            worst = sorted(range(len(each)), key=each.__getitem__)[:RANKING_FRAMES]
            for name in _by_gain(layers, simulated, metric, worst):
                layers[name].is_int8 = False
                within, _ = metric(simulated)
                if within >= GATE_MARGIN:
                    break
        chosen = {name: largest[name] for name, layer in layers.items() if layer.is_int8}
        if within < GATE_MARGIN or not chosen:
            raise EngineError(
                f"{self._net.name} cannot be int8: its maps reach the gate only with every layer "
                "in fp16; give --precision fp16"
            )
        logger.info("%d of %d convolutions in int8", len(chosen), len(layers))
        return chosen


class _Simulated:
    """The network with integers simulated by PyTorch, as an engine that can be compared."""

    def __init__(self, name: str, typed: TypedNet, device: str, shape: tuple[int, ...]) -> None:
        self._typed = typed
        self.info: EngineInfo = probe_info(
            *(name, device, "fp32", Batch(), (shape[2], shape[3]), typed)
        )

    def session(self) -> Session:
        return TorchSession(self._typed, Buffers(self.info), self.info.device, "fp32")


def _by_gain(
    layers: Mapping[str, Int8Convolution],
    simulated: _Simulated,
    metric: GateMetric,
    numbers: list[int],
) -> list[str]:
    """Names of layers: first the one without which the frames with these numbers are best."""
    without: dict[str, float] = {}
    for name, layer in layers.items():
        layer.is_int8 = False
        without[name] = sum(metric(simulated, numbers)[1])
        layer.is_int8 = True
    return sorted(without, key=without.__getitem__, reverse=True)
