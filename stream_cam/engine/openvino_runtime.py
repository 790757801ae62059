"""A model compiled by OpenVINO, run on the caller's memory; needs no PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from stream_cam.config import Precision
from stream_cam.engine.base import EngineInfo
from stream_cam.engine.int8_store import stored_int8_key
from stream_cam.engine.machine import openvino_capabilities, openvino_core, openvino_machine
from stream_cam.engine.manifest import EngineKey
from stream_cam.engine.store import EngineStore
from stream_cam.errors import EngineError, first_line
from stream_cam.frame import FloatArray

if TYPE_CHECKING:
    import openvino
    from torch import Tensor

BUILD_ARGUMENTS = "--engine openvino"
"""The arguments of `stream-cam build` for these engines."""


def openvino_key(
    model: str,
    fingerprint: str,
    input_hw: tuple[int, int],
    precision: Precision,
    parallel: int,
    calibration: Mapping[str, str] | None = None,
) -> EngineKey:
    """The key of an engine on this machine.

    Args:
        model, fingerprint: the network's (`CamNet.name`, `CamNet.fingerprint`).
        parallel: how many frames will be explained at once.
        calibration: of a new int8 engine.

    Raises:
        EngineError: OpenVINO is not here, or the processor has no such precision.
    """
    core = openvino_core()
    arithmetic = {"bf16": "bfloat16", "int8": "8-bit integer"}.get(precision)
    if arithmetic and precision.upper() not in openvino_capabilities(core):
        raise EngineError(
            f"this processor has no {arithmetic} arithmetic, so --precision {precision} would "
            "gain nothing: give --precision fp32"
        )
    versions, hardware = openvino_machine(core)
    return EngineKey(
        backend="openvino",
        model=model,
        network=fingerprint,
        input_shape=(1, 3, *input_hw),
        precision=precision,
        options=_options(precision, parallel),
        versions=versions,
        hardware=hardware,
        calibration=calibration or {},
    )


def newest_int8_key(key: EngineKey, parallel: int, store: EngineStore) -> EngineKey:
    """The key of the newest int8 engine that the store has for the same use.

    Raises:
        EngineError: there is none.
    """
    at_once = "one frame at a time" if parallel == 1 else f"{parallel} frames at once"
    return stored_int8_key(key, at_once, BUILD_ARGUMENTS, store)


def import_engine(blob: bytes, key: EngineKey, parallel: int) -> OpenVinoEngine:
    """The engine of a kept blob.

    Raises:
        EngineError: OpenVINO does not accept it.
    """
    try:
        compiled = openvino_core().import_model(blob, "CPU", dict(key.options))
    except RuntimeError as error:
        reason = first_line(error)
        raise EngineError(f"OpenVINO does not accept the kept engine: {reason}") from error
    return OpenVinoEngine(compiled, key.precision, parallel)


def _options(precision: Precision, parallel: int) -> dict[str, str]:
    """One frame at a time on all cores, or several frames at once on a core each."""
    # Without the hint OpenVINO takes bf16 where the CPU has it, and the maps would differ. In an
    # int8 network it concerns the layers that stayed in float32.
    hints = {"INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32"}
    if parallel == 1:
        return {"PERFORMANCE_HINT": "LATENCY", **hints}
    return {"NUM_STREAMS": str(parallel), **hints}


class OpenVinoEngine:
    """A compiled model; each session has its own inference request."""

    def __init__(self, compiled: openvino.CompiledModel, precision: str, parallel: int) -> None:
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

    def session(self) -> _OpenVinoSession:
        return _OpenVinoSession(self._compiled.create_infer_request())


class _OpenVinoSession:
    """Binds the caller's memory to a request; rebinds only when the memory changes."""

    def __init__(self, request: openvino.InferRequest) -> None:
        self._request = request
        self._bound: tuple[int, ...] | None = None
        self._kept: tuple[FloatArray, ...] = ()

    def __call__(
        self,
        batch: Tensor | FloatArray,
        logits: Tensor | FloatArray,
        features: Tensor | FloatArray,
    ) -> None:
        arrays = [_array(buffer) for buffer in (batch, logits, features)]
        addresses = tuple(array.ctypes.data for array in arrays)
        if addresses != self._bound:
            self._bind(*arrays)
            self._bound = addresses
        self._request.infer()

    def _bind(self, batch: FloatArray, logits: FloatArray, features: FloatArray) -> None:
        import openvino

        request = self._request
        request.set_input_tensor(openvino.Tensor(batch, shared_memory=True))
        for index, array in enumerate((logits, features)):
            request.set_output_tensor(index, openvino.Tensor(array, shared_memory=True))
        self._kept = (batch, logits, features)


def _array(buffer: Tensor | FloatArray) -> FloatArray:
    """The caller's own memory."""
    if isinstance(buffer, np.ndarray):
        return buffer
    array: Any = buffer.numpy()
    return np.asarray(array, np.float32)


def _threads(compiled: openvino.CompiledModel) -> str:
    """The count and the pinning; empty where this version does not tell."""
    try:
        count = compiled.get_property("INFERENCE_NUM_THREADS")
        pinned = compiled.get_property("ENABLE_CPU_PINNING")
    except RuntimeError:
        return ""
    return f"{count}, {'pinned' if pinned else 'not pinned'}"
