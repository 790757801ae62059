"""A serialized TensorRT engine run by TensorRT's own runtime, on PyTorch's tensors and streams."""

from __future__ import annotations

import importlib
import logging
import threading
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from stream_cam.engine.base import EngineInfo, Session
from stream_cam.engine.buffers import Buffers, own_stream, wait_for
from stream_cam.engine.machine import TensorRt
from stream_cam.engine.options import Batch
from stream_cam.engine.tensorrt_convert import INPUT, OUTPUTS
from stream_cam.engine.tensorrt_log import tensorrt_log
from stream_cam.errors import EngineError

logger = logging.getLogger(__name__)

ALTERNATIVE = "--engine inductor"
"""The option to give on the command line where TensorRT fails."""

_LENGTH_BYTES = 8


def pack(engine: bytes, kernels: bytes) -> bytes:
    """One blob of an engine and its kernels, if TensorRT-RTX compiled some."""
    return len(engine).to_bytes(_LENGTH_BYTES, "little") + engine + kernels


def unpack(blob: bytes) -> tuple[bytes, bytes]:
    """The engine and the kernels of a blob of `pack`.

    Raises:
        EngineError: it is too short.
    """
    length = int.from_bytes(blob[:_LENGTH_BYTES], "little")
    end = _LENGTH_BYTES + length
    if not 0 < length <= len(blob) - _LENGTH_BYTES:
        raise EngineError("the kept file is no TensorRT engine")
    return blob[_LENGTH_BYTES:end], blob[end:]


class TensorRtEngine:
    """A deserialized engine on one GPU; each session has its own execution context.

    Args:
        engine: made by `tensorrt_convert.convert`.
        kernels: made by `compiled_kernels`, so that TensorRT-RTX need not compile them again.
        device: cuda:N.
        precision: of the network in it.
        batch: the frames it was built for.

    Raises:
        EngineError: TensorRT does not accept it on this GPU, or it is another network's.
    """

    def __init__(
        self,
        engine: bytes,
        kernels: bytes,
        flavour: TensorRt,
        device: str,
        precision: str,
        batch: Batch,
    ) -> None:
        self._trt = importlib.import_module(flavour.module)
        self._log = tensorrt_log(self._trt)
        self._lock = threading.Lock()
        # On another device a capture could be empty, and a replay would show stale outputs.
        with torch.cuda.device(device):
            self._runtime = self._trt.Runtime(self._log)
            self._log.forget()
            self._engine = self._runtime.deserialize_cuda_engine(engine)
            if self._engine is None:
                raise EngineError(
                    f"TensorRT does not accept the engine on this GPU ({self._log.last_error})"
                )
            self._cache = self._kernel_cache(kernels) if flavour.is_rtx else None
        shapes = _shapes(self._trt, self._engine, batch)
        self.info = EngineInfo(
            *("tensorrt", device, precision, *shapes),
            parallel=1,
            batch=batch,
            alternative=ALTERNATIVE,
        )

    def session(self) -> Session:
        """A session with a context of its own, which holds its own memory for activations.

        Raises:
            EngineError: there is not enough memory for it.
        """
        with self._lock, torch.cuda.device(self.info.device):
            config = self._runtime_config() if self._cache is not None else None
            self._log.forget()
            if config is None:
                context = self._engine.create_execution_context()
            else:
                config.set_runtime_cache(self._cache)
                context = self._engine.create_execution_context(config)
        if context is None:
            raise EngineError(
                f"TensorRT has no memory for another session ({self._log.last_error}): give a "
                "smaller --batch"
            )
        return TensorRtSession(context, self.info, self._log, (self, config))

    def compiled_kernels(self) -> bytes:
        """The kernels that TensorRT-RTX compiles at first use; empty with TensorRT."""
        if self._cache is None:
            return b""
        info, session = self.info, self.session()
        with own_stream(info.device):
            for n_frames in info.batch.sizes:
                buffers = [
                    torch.zeros(n_frames, *shape[1:], device=info.device)
                    for shape in (info.input_shape, info.logits_shape, info.features_shape)
                ]
                session(*buffers)
            wait_for(info.device)
        with torch.cuda.device(info.device):
            return bytes(memoryview(self._cache.serialize()))

    def _kernel_cache(self, kernels: bytes) -> Any:
        cache = self._runtime_config().create_runtime_cache()
        if kernels and not cache.deserialize(kernels):
            logger.debug("TensorRT-RTX compiles its kernels anew: %s", self._log.last_error)
        return cache

    def _runtime_config(self) -> Any:
        config = self._engine.create_runtime_config()
        # Lazily, better kernels would replace the first ones later, but not inside a captured
        # graph.
        strategies = self._trt.DynamicShapesKernelSpecializationStrategy
        config.dynamic_shapes_kernel_specialization_strategy = strategies.EAGER
        return config


class TensorRtSession:
    """Tells the context where the caller's buffers are when they change, and enqueues.

    Args:
        context: an execution context of its own.
        owners: objects that must live as long as the context.
    """

    def __init__(self, context: Any, info: EngineInfo, log: Any, owners: object = None) -> None:
        self._owners = owners
        self._context = context
        self._info = info
        self._log = log
        self._buffers = Buffers(info)
        self._n_frames = 0
        self._has_run = False

    def __call__(self, batch: Tensor, logits: Tensor, features: Tensor) -> None:
        if self._buffers.are_new(batch, logits, features):
            self._bind(batch, logits, features)
        device = self._info.device
        with torch.cuda.device(device):
            if not self._has_run and torch.cuda.is_current_stream_capturing():
                raise RuntimeError(
                    f"call the session with {self._n_frames} frames before its call is captured: "
                    "TensorRT's first call cannot be"
                )
            stream = torch.cuda.current_stream(device).cuda_stream
            if not self._context.execute_async_v3(stream):
                raise EngineError(
                    f"TensorRT does not run ({self._log.last_error}): give {self._info.advice}, "
                    "or see `stream-cam doctor`"
                )
        self._has_run = True

    def _bind(self, batch: Tensor, logits: Tensor, features: Tensor) -> None:
        if batch.shape[0] != self._n_frames:
            self._n_frames, self._has_run = batch.shape[0], False
            self._require_accepted(self._context.set_input_shape(INPUT, tuple(batch.shape)))
        for name, tensor in zip((INPUT, *OUTPUTS), (batch, logits, features), strict=True):
            self._require_accepted(self._context.set_tensor_address(name, tensor.data_ptr()))

    def _require_accepted(self, accepted: bool) -> None:
        if not accepted:
            self._buffers.forget()
            self._n_frames = 0
            raise EngineError(
                f"TensorRT does not accept the buffers ({self._log.last_error}): give "
                f"{self._info.advice}, or see `stream-cam doctor`"
            )


def _shapes(
    trt: ModuleType, engine: Any, batch: Batch
) -> tuple[tuple[int, int, int, int], tuple[int, int], tuple[int, int, int, int]]:
    """The shapes of the input and both outputs, for the best number of frames.

    Raises:
        EngineError: the engine has other inputs and outputs, or takes other numbers of frames.
    """
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    types = [engine.get_tensor_dtype(name) for name in names]
    if sorted(names) != sorted((INPUT, *OUTPUTS)) or set(types) != {trt.float32}:
        raise EngineError(f"the engine has {', '.join(names)} of {types}: not this network's")
    if not batch.is_fixed:
        profile = [shape[0] for shape in engine.get_tensor_profile_shape(INPUT, 0)]
        if profile != [batch.least, batch.best, batch.most]:
            raise EngineError(f"the engine takes {profile} frames, not {batch}")
    image, logits, features = (
        (batch.best, *tuple(engine.get_tensor_shape(name))[1:]) for name in (INPUT, *OUTPUTS)
    )
    if batch.is_fixed and engine.get_tensor_shape(INPUT)[0] != batch.best:
        raise EngineError(f"the engine takes {engine.get_tensor_shape(INPUT)}, not {batch} frames")
    return image, logits, features
