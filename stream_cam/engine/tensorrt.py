"""CamNet as a TensorRT engine: converted by torch-tensorrt, run by TensorRT itself."""

from __future__ import annotations

import logging

import torch
from torch import Tensor

from stream_cam.engine.base import Batch, OnStage, tell_nobody
from stream_cam.engine.machine import gpu_hardware, installed_tensorrt
from stream_cam.engine.manifest import EngineKey
from stream_cam.engine.tensorrt_convert import OPTIONS, convert
from stream_cam.engine.tensorrt_runtime import TensorRtEngine, pack, unpack
from stream_cam.engine.typed_net import DTYPES
from stream_cam.errors import EngineError
from stream_cam.model import CamNet

logger = logging.getLogger(__name__)


class TensorRtBackend:
    """Makes TensorRT engines of one network for one GPU.

    Args:
        net: on the CPU in float32.
        fingerprint: the network's.
        input_hw: height and width of the input in pixels.
        device: cuda:N.
        precision: fp16 or fp32.
        batch: how many frames at once.

    Raises:
        EngineError: TensorRT or the GPU is not here; the message says what to install.
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
    ) -> None:
        if precision not in DTYPES:
            raise EngineError(
                f"the tensorrt engine has no {precision}: give --precision fp16 or fp32"
            )
        self.net = net
        self.frames: tuple[Tensor, ...] = ()
        self._flavour = installed_tensorrt()
        self._device, self._precision = device, precision
        self._batch = batch or Batch()
        self.key = EngineKey(
            backend="tensorrt",
            model=net.name,
            network=fingerprint,
            input_shape=(self._batch.best, 3, *input_hw),
            precision=precision,
            options={"batch": str(self._batch), **OPTIONS},
            versions=self._flavour.versions(),
            hardware=gpu_hardware(device),
        )

    def compile(self, on_stage: OnStage = tell_nobody) -> tuple[TensorRtEngine, bytes]:
        """Converts and builds: seconds with TensorRT-RTX, up to minutes with TensorRT.

        Raises:
            EngineError: TensorRT cannot do it.
        """
        with torch.cuda.device(self._device):
            try:
                built = self._converted(for_this_gpu=True)
                engine = self._loaded(built, b"")
            except EngineError as error:
                if not self._flavour.is_rtx:
                    raise EngineError(f"{error}; give --engine inductor") from error
                # It lists compute capabilities 7.5, 8.x and 12.x: what it says of 9.0 is unknown.
                logger.info("TensorRT-RTX, for this GPU alone: %s; trying for all", error)
                built = self._converted(for_this_gpu=False)
                engine = self._loaded(built, b"")
            return engine, pack(built, engine.compiled_kernels())

    def revive(self, blob: bytes) -> TensorRtEngine:
        """The engine that `compile` made a blob of.

        Raises:
            EngineError: TensorRT does not take it.
        """
        return self._loaded(*unpack(blob))

    def _converted(self, *, for_this_gpu: bool) -> bytes:
        height, width = self.key.input_shape[2:]
        return convert(
            self.net,
            (height, width),
            self._precision,
            self._batch,
            self._flavour,
            for_this_gpu=for_this_gpu,
        )

    def _loaded(self, engine: bytes, kernels: bytes) -> TensorRtEngine:
        return TensorRtEngine(
            engine, kernels, self._flavour, self._device, self._precision, self._batch
        )
