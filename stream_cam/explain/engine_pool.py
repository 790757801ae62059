"""The engines of one network: one for each shape of its input."""

from __future__ import annotations

import threading
from collections import OrderedDict

from stream_cam.engine import Engine, EngineInfo, EngineOptions
from stream_cam.explain.host_path import SessionPool
from stream_cam.explain.networks import Network
from stream_cam.model.recipe import WeightsInfo

_MAX_ENGINES = 4
"""Engines kept at once. Only `native` with frames of many shapes needs more than one."""


class EnginePool:
    """Opens engines when they are needed first; safe to use from several threads at once."""

    def __init__(self, network: Network, weights: WeightsInfo, options: EngineOptions) -> None:
        self._network, self._weights, self._options = network, weights, options
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
                engine = self._network.open_engine(input_hw, self._options)
                pool = SessionPool(engine, self._weights)
                self._pools[input_hw] = pool
                if len(self._pools) > _MAX_ENGINES:
                    self._pools.popitem(last=False)
                self.info = engine.info
            return pool
