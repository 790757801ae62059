"""The way of a frame through host memory: sessions of an engine with the buffers they work on."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache, partial

import torch
from torch import Tensor

from stream_cam.cam.cpu import CpuPreprocessor
from stream_cam.cam.geometry import MAX_PLANS, FitPlan
from stream_cam.engine import Engine, EngineInfo, Session
from stream_cam.errors import EngineError, first_line
from stream_cam.explain.graph.cuda_capture import capturing
from stream_cam.explain.graph.device_lost import gpu_failed, register_gpu_memory
from stream_cam.frame import BgrImage
from stream_cam.model.weights import Weights


class _PooledSession:
    """One session with the buffers it works on."""

    def __init__(self, engine: Engine, weights: Weights) -> None:
        info = engine.info
        self._session = engine.session()
        self._preprocessor_of = lru_cache(MAX_PLANS)(
            partial(
                CpuPreprocessor,
                mean=weights.mean,
                std=weights.std,
                interpolation=weights.interpolation,
            )
        )
        on_gpu = info.device != "cpu"
        if on_gpu:
            register_gpu_memory(self)
        self._batch, self.logits, self.features = (
            torch.empty(shape, pin_memory=on_gpu)
            for shape in (info.input_shape, info.logits_shape, info.features_shape)
        )
        self._gpu = _GpuCopies(info) if on_gpu else None

    def run(self, image: BgrImage, plan: FitPlan) -> None:
        self._preprocessor_of(plan)(image, self._batch[0].numpy())
        if self._gpu is None:
            self._session(self._batch, self.logits, self.features)
        else:
            self._gpu.run(self._session, self._batch, self.logits, self.features)


class _GpuCopies:
    """An engine's tensors on its GPU, and a stream of its own between the host's pinned ones."""

    def __init__(self, info: EngineInfo) -> None:
        self._device = info.device
        # A network compiled for an ordinary tensor is compiled anew for an inference tensor.
        with torch.inference_mode(False):
            self._batch, self._logits, self._features = (
                torch.empty(shape, device=info.device)
                for shape in (info.input_shape, info.logits_shape, info.features_shape)
            )
        self._stream = torch.cuda.Stream(info.device)  # type: ignore[no-untyped-call]

    def run(self, session: Session, batch: Tensor, logits: Tensor, features: Tensor) -> None:
        """Up, through the network, down; returns when the results are there.

        Raises:
            EngineError: CUDA or the engine failed.
        """
        with _translate_errors(self._device):
            with torch.cuda.stream(self._stream):
                self._batch.copy_(batch, non_blocking=True)
                session(self._batch, self._logits, self._features)
                logits.copy_(self._logits, non_blocking=True)
                features.copy_(self._features, non_blocking=True)
            self._stream.synchronize()


@contextmanager
def _translate_errors(device: str) -> Iterator[None]:
    """Translates CUDA's errors to EngineError, which says whether the GPU is lost."""
    try:
        yield
    except RuntimeError as error:
        try:
            with capturing:
                torch.cuda.synchronize(device)
        except RuntimeError:
            raise gpu_failed(error) from error
        raise EngineError(
            f"{device} cannot work on a frame ({first_line(error)}); see nvidia-smi, or give "
            "--device cpu"
        ) from error


class SessionPool:
    """As many sessions as the engine serves at once."""

    def __init__(self, engine: Engine, weights: Weights) -> None:
        self.engine = engine
        self._free = [_PooledSession(engine, weights) for _ in range(engine.info.parallel)]
        self._returned = threading.Condition()

    @contextmanager
    def borrow(self) -> Iterator[_PooledSession]:
        with self._returned:
            self._returned.wait_for(lambda: bool(self._free))
            session = self._free.pop()
        try:
            yield session
        finally:
            with self._returned:
                self._free.append(session)
                self._returned.notify()
