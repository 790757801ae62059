"""The network that a benchmark measures, and that every engine is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stream_cam.bench.engines import EngineVariant, open_engine
from stream_cam.cam.cpu import CpuPreprocessor
from stream_cam.cam.geometry import FitPlan
from stream_cam.config import BenchConfig, size_hw
from stream_cam.engine import Engine
from stream_cam.engine.verify import Comparison
from stream_cam.explain.explainer import Explainer
from stream_cam.frame import BgrImage
from stream_cam.model.camnet import build_network, load_parameters
from stream_cam.model.networks import load_network
from stream_cam.model.own_module import make_module


class BenchNetwork:
    """A model with its weights, on the CPU in float32, at the configured input shapes."""

    def __init__(self, config: BenchConfig) -> None:
        self._config = config
        self._model = config.network
        self.net, self.weights = load_network(self._model)
        side = self.weights.input_size
        self.shapes_hw = [size_hw(shape) for shape in config.shape] or [(side, side)]
        self._fingerprint = self.net.fingerprint()
        self._comparisons: dict[tuple[int, ...], Comparison] = {}

    @property
    def input_size(self) -> int | None:
        """Side of the first square shape."""
        return next((side for side, wide in self.shapes_hw if side == wide), None)

    def facts(self) -> dict[str, Any]:
        """`BenchResult.network`."""
        return {
            "model": self._model.name,
            "weights": self.weights.name,
            "weights_sha256": self.weights.sha256,
            "n_classes": self.weights.n_classes,
        }

    def new_module(self) -> torch.nn.Module:
        """A copy of the plain network, to be hooked or moved."""
        own = self._model.own.module
        if own is None:
            module = build_network(self._model.model, self.weights.n_classes)
        else:
            module = make_module(own).eval()
        state_dict, name = self.weights.state_dict, self.weights.name
        load_parameters(module, state_dict, name, own_names=own is not None)
        return module

    def comparison(self, input_shape: tuple[int, ...]) -> Comparison:
        """The network's own outputs at an input shape; computed once for all engines."""
        single = (1, *input_shape[1:])
        if single not in self._comparisons:
            self._comparisons[single] = Comparison(self.net, single)
        return self._comparisons[single]

    def engine(
        self, variant: EngineVariant, input_hw: tuple[int, int], batch: int, parallel: int = 1
    ) -> Engine:
        """`open_engine` for this network."""
        return open_engine(
            *(self.net, self._fingerprint, variant, input_hw, batch, self._config.device),
            parallel=parallel,
        )

    def explainer(self, variant: EngineVariant) -> Explainer:
        return Explainer(
            self.net,
            self.weights,
            engine=variant.engine,
            device=self._config.device,
            precision=variant.precision,
            input_size=self.input_size,
        )

    def input_batch(self, frames: Sequence[BgrImage], input_hw: tuple[int, int]) -> Tensor:
        """Up to 8 frames as the network's input, (n, 3, h, w) float32."""
        chosen = frames[:: max(1, len(frames) // 8)][:8]
        frame_hw = (frames[0].shape[0], frames[0].shape[1])
        plan = FitPlan(frame_hw, input_hw, 0, 0, input_hw)
        weights = self.weights
        preprocess = CpuPreprocessor(plan, weights.mean, weights.std, weights.interpolation)
        batch = np.empty((len(chosen), 3, *input_hw), np.float32)
        for frame, out in zip(chosen, batch, strict=True):
            preprocess(frame, out)
        return torch.from_numpy(batch)
