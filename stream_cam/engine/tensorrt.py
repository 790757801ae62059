"""CamNet as a TensorRT engine: converted by torch-tensorrt, run by TensorRT itself."""

from __future__ import annotations

import logging

import torch
from torch import Tensor

from stream_cam.engine.base import OnStage, ignore_progress
from stream_cam.engine.builder import EngineRequest
from stream_cam.engine.int8_store import int8_advice, stored_int8_key
from stream_cam.engine.machine import gpu_hardware, installed_tensorrt, require_tensorrt_for
from stream_cam.engine.manifest import EngineKey
from stream_cam.engine.options import Batch
from stream_cam.engine.quantize_layers import LayerQuantizer
from stream_cam.engine.store import EngineStore
from stream_cam.engine.tensorrt_convert import OPTIONS, convert
from stream_cam.engine.tensorrt_runtime import ALTERNATIVE, TensorRtEngine, pack, unpack
from stream_cam.engine.typed_net import TypedNet
from stream_cam.errors import EngineError

logger = logging.getLogger(__name__)


class TensorRtBuilder:
    """Builds a TensorRT engine of one network for one GPU.

    Args:
        request: int8 without quantizers stands for the newest int8 engine that `store` has.
        store: default: the usual one.

    Raises:
        EngineError: TensorRT or the GPU is not here, it has no such precision, or no int8 engine
            is kept; the message names the package or the option.
    """

    def __init__(self, request: EngineRequest, store: EngineStore | None = None) -> None:
        self._flavour = installed_tensorrt()
        hardware = gpu_hardware(request.device)
        require_tensorrt_for(self._flavour, hardware)
        precision = request.precision
        if precision == "int8":
            self._flavour.require_int8()
        self.net = request.net
        quantizer = request.quantizers.get(LayerQuantizer) if request.quantizers else None
        self._quantizer = quantizer
        self.frames: tuple[Tensor, ...] = quantizer.validating if quantizer else ()
        self.can_build = precision != "int8" or quantizer is not None
        self._device, self._precision, self._batch = request.device, precision, request.batch
        key = EngineKey(
            backend="tensorrt",
            model=self.net.name,
            network=request.fingerprint,
            input_shape=(self._batch.best, 3, *request.input_hw),
            precision=precision,
            options={"batch": str(self._batch), **OPTIONS},
            versions=self._flavour.versions(),
            hardware=hardware,
            calibration=quantizer.identity if quantizer else {},
        )
        if not self.can_build:
            single = self._batch == Batch()
            at_once = "one frame at a time" if single else f"{self._batch} frames at once"
            key = stored_int8_key(key, at_once, self._build_arguments, store or EngineStore())
        self.key = key

    def compile(self, on_stage: OnStage = ignore_progress) -> tuple[TensorRtEngine, bytes]:
        """Converts and builds: seconds with TensorRT-RTX, up to minutes with TensorRT.

        Raises:
            EngineError: TensorRT cannot do it.
        """
        typed = self._typed(on_stage)
        with torch.cuda.device(self._device):
            try:
                built, engine = self._built(typed)
            except EngineError as error:
                instead = "--precision auto" if self._precision == "int8" else ALTERNATIVE
                raise EngineError(f"{error}: give {instead}") from error
            return engine, pack(built, engine.compiled_kernels())

    def deserialize(self, blob: bytes) -> TensorRtEngine:
        """The engine that `compile` made a blob of.

        Raises:
            EngineError: TensorRT does not accept it.
        """
        return self._loaded(*unpack(blob))

    @property
    def _build_arguments(self) -> str:
        """The arguments of `stream-cam build` for such an engine."""
        return "--engine tensorrt" + ("" if self._batch == Batch() else f" --batch {self._batch}")

    def _built(self, typed: TypedNet) -> tuple[bytes, TensorRtEngine]:
        try:
            built = self._converted(typed, for_this_gpu=True)
            engine = self._loaded(built, b"")
        except EngineError as error:
            if not self._flavour.is_rtx:
                raise
            logger.info("TensorRT-RTX, for this GPU alone: %s; trying for all", error)
            built = self._converted(typed, for_this_gpu=False)
            engine = self._loaded(built, b"")
        return built, engine

    def _typed(self, on_stage: OnStage) -> TypedNet:
        if self._precision != "int8":
            return TypedNet(self.net, self._precision)
        if self._quantizer is None:
            advice = int8_advice(self._build_arguments)
            raise EngineError(f"an int8 engine is built from frames: {advice}")
        typed = self._quantizer.quantize(self._device, on_stage)
        on_stage("compiling")
        return typed

    def _converted(self, typed: TypedNet, *, for_this_gpu: bool) -> bytes:
        height, width = self.key.input_shape[2:]
        return convert(
            typed,
            self.net.name,
            (height, width),
            self._batch,
            self._flavour,
            for_this_gpu=for_this_gpu,
        )

    def _loaded(self, engine: bytes, kernels: bytes) -> TensorRtEngine:
        return TensorRtEngine(
            engine, kernels, self._flavour, self._device, self._precision, self._batch
        )
