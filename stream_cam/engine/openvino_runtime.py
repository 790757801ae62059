"""A model compiled by OpenVINO, run on the caller's memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from stream_cam.engine.base import EngineInfo, Session

if TYPE_CHECKING:
    import openvino


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
    """The count and the pinning; empty where this version does not tell."""
    try:
        count = compiled.get_property("INFERENCE_NUM_THREADS")
        pinned = compiled.get_property("ENABLE_CPU_PINNING")
    except RuntimeError:
        return ""
    return f"{count}, {'pinned' if pinned else 'not pinned'}"
