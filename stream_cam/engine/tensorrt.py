"""CamNet as a TensorRT engine: converted by torch-tensorrt, run by TensorRT itself."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from stream_cam.engine.base import Batch, OnStage, ignore_progress, way_out
from stream_cam.engine.machine import gpu_hardware, installed_tensorrt
from stream_cam.engine.manifest import EngineKey
from stream_cam.engine.quantize import calibrated, how_to_make
from stream_cam.engine.store import EngineStore
from stream_cam.engine.tensorrt_convert import OPTIONS, convert
from stream_cam.engine.tensorrt_runtime import TensorRtEngine, pack, unpack
from stream_cam.engine.typed_net import TypedNet
from stream_cam.errors import EngineError
from stream_cam.model.camnet import CamNet

if TYPE_CHECKING:
    from stream_cam.engine.quantize_layers import LayerQuantizer

logger = logging.getLogger(__name__)

_PRECISIONS = ("fp16", "fp32", "int8")


class TensorRtBackend:
    """Makes TensorRT engines of one network for one GPU.

    Args:
        net: on the CPU in float32.
        fingerprint: the network's.
        input_hw: height and width of the input in pixels.
        device: cuda:N.
        precision: fp16, fp32 or int8.
        batch: how many frames at once.
        quantizer: makes it int8; default: the newest int8 engine that `store` has is the one.
        store: default: the usual one.

    Raises:
        EngineError: TensorRT or the GPU is not here, it has no such precision, or no int8 engine
            is kept; the message says what to install or give.
    """

    def __init__(
        self,
        net: CamNet,
        fingerprint: str,
        input_hw: tuple[int, int],
        *,
        device: str = "cuda:0",
        precision: str = "fp16",
        batch: Batch | None = None,
        quantizer: LayerQuantizer | None = None,
        store: EngineStore | None = None,
    ) -> None:
        if precision not in _PRECISIONS:
            raise EngineError(
                f"the tensorrt engine has no {precision}: give --precision fp16, fp32 or int8"
            )
        self._flavour = installed_tensorrt()
        if precision == "int8":
            self._flavour.require_int8()
        self.net = net
        self._quantizer = quantizer
        self.frames: tuple[Tensor, ...] = quantizer.validating if quantizer else ()
        self.can_build = precision != "int8" or quantizer is not None
        self._device, self._precision = device, precision
        self._batch = batch or Batch()
        key = EngineKey(
            backend="tensorrt",
            model=net.name,
            network=fingerprint,
            input_shape=(self._batch.best, 3, *input_hw),
            precision=precision,
            options={"batch": str(self._batch), **OPTIONS},
            versions=self._flavour.versions(),
            hardware=gpu_hardware(device),
            calibration=quantizer.identity if quantizer else {},
        )
        if precision == "int8" and quantizer is None:
            single = self._batch == Batch()
            at_once = "one frame at a time" if single else f"{self._batch} frames at once"
            key = calibrated(key, at_once, self._build_arguments, store or EngineStore())
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
                instead = way_out(self.key.backend, self._precision)
                raise EngineError(f"{error}: give {instead}") from error
            return engine, pack(built, engine.compiled_kernels())

    def deserialize(self, blob: bytes) -> TensorRtEngine:
        """The engine that `compile` made a blob of.

        Raises:
            EngineError: TensorRT does not take it.
        """
        return self._loaded(*unpack(blob))

    @property
    def _build_arguments(self) -> str:
        """What `stream-cam build` is to be given for one of these."""
        return "--engine tensorrt" + ("" if self._batch == Batch() else f" --batch {self._batch}")

    def _built(self, typed: TypedNet) -> tuple[bytes, TensorRtEngine]:
        try:
            built = self._converted(typed, for_this_gpu=True)
            engine = self._loaded(built, b"")
        except EngineError as error:
            if not self._flavour.is_rtx:
                raise
            # It lists compute capabilities 7.5, 8.x and 12.x: what it says of 9.0 is unknown.
            logger.info("TensorRT-RTX, for this GPU alone: %s; trying for all", error)
            built = self._converted(typed, for_this_gpu=False)
            engine = self._loaded(built, b"")
        return built, engine

    def _typed(self, on_stage: OnStage) -> TypedNet:
        if self._precision != "int8":
            return TypedNet(self.net, self._precision)
        if self._quantizer is None:
            how = how_to_make(self._build_arguments)
            raise EngineError(f"an int8 engine is built from frames: {how}")
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
