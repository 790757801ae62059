"""CamNet compiled by OpenVINO for the CPU."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import torch

from stream_cam.engine.base import OnStage, ignore_progress
from stream_cam.engine.builder import EngineRequest
from stream_cam.engine.int8_store import int8_advice
from stream_cam.engine.machine import openvino_core
from stream_cam.engine.openvino_runtime import (
    BUILD_ARGUMENTS,
    OpenVinoEngine,
    import_engine,
    newest_int8_key,
    openvino_key,
)
from stream_cam.engine.quantize_nncf import NncfQuantizer
from stream_cam.engine.store import EngineStore
from stream_cam.errors import EngineError, first_line
from stream_cam.model.camnet import CamNet
from stream_cam.model.tracing import tracing

if TYPE_CHECKING:
    import openvino

OUTPUTS = ("logits", "features")


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
        precision, parallel = request.precision, request.parallel
        self.net = request.net
        self._precision, self._parallel = precision, parallel
        quantizer = request.quantizers.get(NncfQuantizer) if request.quantizers else None
        self._quantizer = quantizer
        self.frames = quantizer.validating if quantizer else ()
        self.can_build = precision != "int8" or quantizer is not None
        self.key = openvino_key(
            request.net.name,
            request.fingerprint,
            request.input_hw,
            precision,
            parallel,
            quantizer.identity if quantizer else None,
        )
        if not self.can_build:
            self.key = newest_int8_key(self.key, parallel, store or EngineStore())

    def compile(self, on_stage: OnStage = ignore_progress) -> tuple[OpenVinoEngine, bytes]:
        """Converts and compiles: seconds; for int8 quantises: minutes.

        Raises:
            EngineError: OpenVINO or NNCF cannot do it.
        """
        if not self.can_build:
            raise EngineError(
                f"an int8 engine is built from frames: {int8_advice(BUILD_ARGUMENTS)}"
            )
        with warnings.catch_warnings():
            # torch.export and OpenVINO's frontend warn of their own deprecations.
            warnings.simplefilter("ignore")
            try:
                model = _convert(self.net, self.key.input_shape)
                if self._quantizer is not None:
                    model = self._quantizer.quantize(model, on_stage)
                    on_stage("compiling")
                compiled = openvino_core().compile_model(model, "CPU", dict(self.key.options))
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
        return import_engine(blob, self.key, self._parallel)


def _convert(net: CamNet, shape: tuple[int, ...]) -> openvino.Model:
    import openvino

    with tracing():
        exported = torch.export.export(net, (torch.zeros(shape),), strict=False)
        model = openvino.convert_model(exported)
    model.reshape(list(shape))
    for index, name in enumerate(OUTPUTS):
        model.output(index).set_names({name})
    return model
