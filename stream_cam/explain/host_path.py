"""The way of a frame through host memory: sessions of an engine with the buffers they work on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache, partial
from typing import cast

import numpy as np

from stream_cam.cam.cpu import CpuPreprocessor
from stream_cam.cam.geometry import MAX_PLANS, FitPlan
from stream_cam.engine import Engine, HostSession
from stream_cam.frame import BgrImage
from stream_cam.model.recipe import WeightsInfo


class _PooledSession:
    """One session with the buffers it works on."""

    def __init__(self, engine: Engine, weights: WeightsInfo) -> None:
        info = engine.info
        self._preprocessor_of = lru_cache(MAX_PLANS)(
            partial(
                CpuPreprocessor,
                mean=weights.mean,
                std=weights.std,
                interpolation=weights.interpolation,
            )
        )
        self._run: Callable[[], None]
        if info.device == "cpu":
            session = cast(HostSession, engine.session())
            self._batch, self.logits, self.features = (
                np.empty(shape, np.float32)
                for shape in (info.input_shape, info.logits_shape, info.features_shape)
            )
            self._run = partial(session, self._batch, self.logits, self.features)
        else:
            from stream_cam.explain.gpu_copies import GpuCopies

            copies = GpuCopies(info, engine.session())
            self._batch, self.logits, self.features = copies.batch, copies.logits, copies.features
            self._run = copies.run

    def run(self, image: BgrImage, plan: FitPlan) -> None:
        self._preprocessor_of(plan)(image, self._batch[0])
        self._run()


class SessionPool:
    """As many sessions as the engine serves at once."""

    def __init__(self, engine: Engine, weights: WeightsInfo) -> None:
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
