"""The engines of one network: one for each shape of its input."""

from __future__ import annotations

import threading
from collections import OrderedDict

from stream_cam.engine import Engine, EngineInfo, EngineOptions, load_engine
from stream_cam.explain.host_path import SessionPool
from stream_cam.model.camnet import CamNet
from stream_cam.model.torch_settings import loading
from stream_cam.model.weights import Weights

_MAX_ENGINES = 4
"""Engines kept at once. Only `native` with frames of many shapes needs more than one."""


class EnginePool:
    """Opens engines when they are needed first; safe to use from several threads at once."""

    def __init__(self, net: CamNet, weights: Weights, options: EngineOptions) -> None:
        self._net, self._weights, self._options = net, weights, options
        self._fingerprint = net.fingerprint()
        self._opening = threading.Lock()
        self._pools: OrderedDict[tuple[int, int], SessionPool] = OrderedDict()
        self.info: EngineInfo | None = None
        """The newest engine's description; readable while another engine is opened."""

    @property
    def newest(self) -> Engine | None:
        with self._opening:
            return next(reversed(self._pools.values())).engine if self._pools else None

    def sessions(self, input_hw: tuple[int, int]) -> SessionPool:
        """The engine for an input's height and width, with its sessions."""
        with self._opening:
            pool = self._pools.get(input_hw)
            if pool is None:
                with loading():
                    engine = load_engine(self._net, self._fingerprint, input_hw, self._options)
                    pool = SessionPool(engine, self._weights)
                self._pools[input_hw] = pool
                if len(self._pools) > _MAX_ENGINES:
                    self._pools.popitem(last=False)
                self.info = engine.info
            return pool
