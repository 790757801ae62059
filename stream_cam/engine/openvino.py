"""CamNet compiled by OpenVINO for the CPU."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import torch

from stream_cam.config import Precision
from stream_cam.engine.base import OnStage, ignore_progress
from stream_cam.engine.builder import EngineRequest
from stream_cam.engine.int8_store import int8_advice, stored_int8_key
from stream_cam.engine.machine import openvino_capabilities, openvino_core, openvino_machine
from stream_cam.engine.manifest import EngineKey
from stream_cam.engine.openvino_runtime import OpenVinoEngine
from stream_cam.engine.quantize_nncf import NncfQuantizer
from stream_cam.engine.store import EngineStore
from stream_cam.errors import EngineError, first_line
from stream_cam.model.camnet import CamNet
from stream_cam.model.tracing import tracing

if TYPE_CHECKING:
    import openvino

OUTPUTS = ("logits", "features")
_BUILD_ARGUMENTS = "--engine openvino"
"""The arguments of `stream-cam build` for these engines."""


class OpenVinoBuilder:
    """Builds an OpenVINO engine of one network, for one frame a call.

    Args:
        request: int8 without quantizers stands for the newest int8 engine that `store` has.
        store: default: the usual one.

    Raises:
        EngineError: OpenVINO is not here, the processor has no such precision, or no int8 engine
            is kept.
    """

    def __init__(self, request: EngineRequest, store: EngineStore | None = None) -> None:
        self._core = openvino_core()
        precision, parallel = request.precision, request.parallel
        arithmetic = {"bf16": "bfloat16", "int8": "8-bit integer"}.get(precision)
        if arithmetic and precision.upper() not in openvino_capabilities(self._core):
            raise EngineError(
                f"this processor has no {arithmetic} arithmetic, so --precision {precision} would "
                "gain nothing: give --precision fp32"
            )
        self.net = request.net
        self._precision, self._parallel = precision, parallel
        quantizer = request.quantizers.get(NncfQuantizer) if request.quantizers else None
        self._quantizer = quantizer
        self.frames = quantizer.validating if quantizer else ()
        self.can_build = precision != "int8" or quantizer is not None
        versions, hardware = openvino_machine(self._core)
        key = EngineKey(
            backend="openvino",
            model=self.net.name,
            network=request.fingerprint,
            input_shape=(1, 3, *request.input_hw),
            precision=precision,
            options=_options(precision, parallel),
            versions=versions,
            hardware=hardware,
            calibration=quantizer.identity if quantizer else {},
        )
        if not self.can_build:
            at_once = "one frame at a time" if parallel == 1 else f"{parallel} frames at once"
            key = stored_int8_key(key, at_once, _BUILD_ARGUMENTS, store or EngineStore())
        self.key = key

    def compile(self, on_stage: OnStage = ignore_progress) -> tuple[OpenVinoEngine, bytes]:
        """Converts and compiles: seconds; for int8 quantises: minutes.

        Raises:
            EngineError: OpenVINO or NNCF cannot do it.
        """
        if not self.can_build:
            raise EngineError(
                f"an int8 engine is built from frames: {int8_advice(_BUILD_ARGUMENTS)}"
            )
        with warnings.catch_warnings():
            # torch.export and OpenVINO's frontend warn of their own deprecations.
            warnings.simplefilter("ignore")
            try:
                model = _convert(self.net, self.key.input_shape)
                if self._quantizer is not None:
                    model = self._quantizer.quantize(model, on_stage)
                    on_stage("compiling")
                compiled = self._core.compile_model(model, "CPU", dict(self.key.options))
                blob = compiled.export_model().getvalue()
            except EngineError:
                raise
            except Exception as error:  # whatever torch.export and OpenVINO may raise
                raise EngineError(
                    f"OpenVINO cannot compile {self.net.name} ({first_line(error)}); give "
                    "--engine eager"
                ) from error
        return OpenVinoEngine(compiled, self._precision, self._parallel), blob

    def deserialize(self, blob: bytes) -> OpenVinoEngine:
        """The engine that `compile` made a blob of.

        Raises:
            EngineError: OpenVINO does not accept it.
        """
        try:
            compiled = self._core.import_model(blob, "CPU", dict(self.key.options))
        except RuntimeError as error:
            reason = first_line(error)
            raise EngineError(f"OpenVINO does not accept the kept engine: {reason}") from error
        return OpenVinoEngine(compiled, self._precision, self._parallel)


def _options(precision: Precision, parallel: int) -> dict[str, str]:
    """One frame at a time on all cores, or several frames at once on a core each."""
    # Without the hint OpenVINO takes bf16 where the CPU has it, and the maps would differ. In an
    # int8 network it concerns the layers that stayed in float32.
    hints = {"INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32"}
    if parallel == 1:
        return {"PERFORMANCE_HINT": "LATENCY", **hints}
    return {"NUM_STREAMS": str(parallel), **hints}


def _convert(net: CamNet, shape: tuple[int, ...]) -> openvino.Model:
    import openvino

    with tracing():
        exported = torch.export.export(net, (torch.zeros(shape),), strict=False)
        model = openvino.convert_model(exported)
    model.reshape(list(shape))
    for index, name in enumerate(OUTPUTS):
        model.output(index).set_names({name})
    return model
