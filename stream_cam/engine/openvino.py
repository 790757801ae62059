"""CamNet compiled by OpenVINO for the CPU."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from stream_cam.config import Precision
from stream_cam.engine.base import EngineInfo, OnStage, Session, ignore_progress
from stream_cam.engine.machine import openvino_capabilities, openvino_core, openvino_machine
from stream_cam.engine.manifest import EngineKey
from stream_cam.engine.quantize import calibrated, how_to_make
from stream_cam.engine.store import EngineStore
from stream_cam.errors import EngineError, first_line
from stream_cam.model.camnet import CamNet
from stream_cam.model.tracing import tracing

if TYPE_CHECKING:
    import openvino

    from stream_cam.engine.quantize_nncf import NncfQuantizer

OUTPUTS = ("logits", "features")
_BUILD = "--engine openvino"
"""What `stream-cam build` is to be given for one of these."""


class OpenVinoBackend:
    """Makes OpenVINO engines of one network.

    Args:
        net: on the CPU in float32.
        fingerprint: the network's.
        input_hw: height and width of the input in pixels.
        parallel: how many frames will be explained at once.
        quantizer: makes it int8; default: the newest int8 engine that `store` has is the one.
        store: default: the usual one.

    Raises:
        EngineError: OpenVINO is not here, the processor has no such precision, or no int8 engine
            is kept.
    """

    def __init__(
        self,
        net: CamNet,
        fingerprint: str,
        input_hw: tuple[int, int],
        *,
        precision: Precision = "fp32",
        parallel: int = 1,
        quantizer: NncfQuantizer | None = None,
        store: EngineStore | None = None,
    ) -> None:
        self._core = openvino_core()
        arithmetic = {"bf16": "bfloat16", "int8": "8-bit integer"}.get(precision)
        if arithmetic and precision.upper() not in openvino_capabilities(self._core):
            raise EngineError(
                f"this processor has no {arithmetic} arithmetic, so --precision {precision} would "
                "gain nothing: give --precision fp32"
            )
        self.net = net
        self._precision: Precision = precision
        self._parallel = parallel
        self._quantizer = quantizer
        self.frames = quantizer.validating if quantizer else ()
        self.can_build = precision != "int8" or quantizer is not None
        versions, hardware = openvino_machine(self._core)
        key = EngineKey(
            backend="openvino",
            model=net.name,
            network=fingerprint,
            input_shape=(1, 3, *input_hw),
            precision=precision,
            options=_options(precision, parallel),
            versions=versions,
            hardware=hardware,
            calibration=quantizer.identity if quantizer else {},
        )
        if precision == "int8" and quantizer is None:
            at_once = "one frame at a time" if parallel == 1 else f"{parallel} frames at once"
            key = calibrated(key, at_once, _BUILD, store or EngineStore())
        self.key = key

    def compile(self, on_stage: OnStage = ignore_progress) -> tuple[OpenVinoEngine, bytes]:
        """Converts and compiles: seconds; for int8 quantises: minutes.

        Raises:
            EngineError: OpenVINO or NNCF cannot do it.
        """
        if self._precision == "int8" and self._quantizer is None:
            raise EngineError(f"an int8 engine is built from frames: {how_to_make(_BUILD)}")
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
            EngineError: OpenVINO does not take it.
        """
        try:
            compiled = self._core.import_model(blob, "CPU", dict(self.key.options))
        except RuntimeError as error:
            reason = first_line(error)
            raise EngineError(f"OpenVINO does not take what is kept: {reason}") from error
        return OpenVinoEngine(compiled, self._precision, self._parallel)


class OpenVinoEngine:
    """A compiled model; each session has its own inference request."""

    def __init__(
        self, compiled: openvino.CompiledModel, precision: Precision, parallel: int
    ) -> None:
        self._compiled = compiled
        self.info = EngineInfo(
            name="openvino",
            device="cpu",
            precision=precision,
            input_shape=tuple(compiled.input(0).shape),
            logits_shape=tuple(compiled.output(0).shape),
            features_shape=tuple(compiled.output(1).shape),
            parallel=parallel,
            threads=_threads(compiled),
        )

    def session(self) -> Session:
        return _OpenVinoSession(self._compiled.create_infer_request())


class _OpenVinoSession:
    """Binds the caller's memory to a request; rebinds only when the memory changes."""

    def __init__(self, request: openvino.InferRequest) -> None:
        self._request = request
        self._bound: tuple[int, int, int] | None = None
        self._kept: tuple[Tensor, ...] = ()

    def __call__(self, batch: Tensor, logits: Tensor, features: Tensor) -> None:
        addresses = (batch.data_ptr(), logits.data_ptr(), features.data_ptr())
        if addresses != self._bound:
            self._bind(batch, logits, features)
            self._bound = addresses
        self._request.infer()

    def _bind(self, batch: Tensor, logits: Tensor, features: Tensor) -> None:
        import openvino

        request = self._request
        request.set_input_tensor(openvino.Tensor(batch.numpy(), shared_memory=True))
        for index, tensor in enumerate((logits, features)):
            request.set_output_tensor(index, openvino.Tensor(tensor.numpy(), shared_memory=True))
        self._kept = (batch, logits, features)


def _threads(compiled: openvino.CompiledModel) -> str:
    """In OpenVINO's own words; empty where this version does not say."""
    try:
        count = compiled.get_property("INFERENCE_NUM_THREADS")
        pinned = compiled.get_property("ENABLE_CPU_PINNING")
    except RuntimeError:
        return ""
    return f"{count}, {'pinned' if pinned else 'not pinned'}"


def _options(precision: Precision, parallel: int) -> dict[str, str]:
    """One frame at a time on all cores, or several frames at once on a core each."""
    # Without the hint OpenVINO takes bf16 where the CPU has it, and the maps would differ; of an
    # int8 network it is about the layers that stayed in float32.
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
