"""CamNet compiled by OpenVINO for the CPU and kept in the store."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from stream_cam.config import Precision
from stream_cam.engine.base import EngineInfo, Session
from stream_cam.engine.store import EngineStore
from stream_cam.errors import EngineError
from stream_cam.model import CamNet

if TYPE_CHECKING:
    import openvino

logger = logging.getLogger(__name__)

OUTPUTS = ("logits", "features")


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
        )

    @classmethod
    def load(
        cls,
        net: CamNet,
        fingerprint: str,
        input_hw: tuple[int, int],
        *,
        precision: Precision = "fp32",
        parallel: int = 1,
        store: EngineStore | None = None,
    ) -> OpenVinoEngine:
        """From the store if it is there; otherwise converted, compiled and kept."""
        try:
            import openvino
        except ImportError as error:
            raise EngineError(
                f"OpenVINO cannot be imported ({error}): pip install openvino"
            ) from error
        store = store or EngineStore()
        core = openvino.Core()
        if precision == "bf16" and "BF16" not in _capabilities(core):
            raise EngineError(
                "this processor has no bfloat16 arithmetic, so --precision bf16 would gain "
                "nothing: give --precision fp32"
            )
        options = _options(precision, parallel)
        key = {
            "engine": "openvino",
            "model": net.name,
            "network": fingerprint,
            "input_shape": [1, 3, *input_hw],
            "options": options,
            "openvino": openvino.__version__,
            "torch": torch.__version__,
            "cpu": str(core.get_property("CPU", "FULL_DEVICE_NAME")),
            "cpu_can": _capabilities(core),
        }
        with warnings.catch_warnings():
            # torch.export and OpenVINO's frontend warn of their own deprecations.
            warnings.simplefilter("ignore")
            try:
                compiled = _load_or_build(core, net, input_hw, options, store, key)
            except Exception as error:  # whatever torch.export and OpenVINO may raise
                reason = (str(error).strip() or type(error).__name__).splitlines()[0]
                raise EngineError(
                    f"OpenVINO cannot compile {net.name} ({reason}); give --engine eager"
                ) from error
        return cls(compiled, precision, parallel)

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


def _capabilities(core: openvino.Core) -> list[str]:
    return sorted(core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"))


def _options(precision: Precision, parallel: int) -> dict[str, str]:
    """One frame at a time on all cores, or several frames at once on a core each."""
    # Without the hint OpenVINO takes bf16 where the CPU has it, and the maps would differ.
    hints = {"INFERENCE_PRECISION_HINT": "f32" if precision == "fp32" else precision}
    if parallel == 1:
        return {"PERFORMANCE_HINT": "LATENCY", **hints}
    return {"NUM_STREAMS": str(parallel), **hints}


def _load_or_build(
    core: openvino.Core,
    net: CamNet,
    input_hw: tuple[int, int],
    options: dict[str, str],
    store: EngineStore,
    key: Mapping[str, Any],
) -> openvino.CompiledModel:
    kept = store.read(key)
    if kept is not None:
        try:
            return core.import_model(kept, "CPU", options)
        except RuntimeError as error:
            logger.warning(
                "a kept engine is rebuilt: OpenVINO does not take it (%s)",
                str(error).strip().splitlines()[0],
            )
    logger.info("compiling %s for %d×%d with OpenVINO", net.name, *input_hw)
    compiled = core.compile_model(_convert(net, input_hw), "CPU", options)
    store.write(key, compiled.export_model().getvalue())
    return compiled


def _convert(net: CamNet, input_hw: tuple[int, int]) -> openvino.Model:
    import openvino

    shape = (1, 3, *input_hw)
    exported = torch.export.export(net, (torch.zeros(shape),), strict=False)
    model = openvino.convert_model(exported)
    model.reshape(list(shape))
    for index, name in enumerate(OUTPUTS):
        model.output(index).set_names({name})
    return model
