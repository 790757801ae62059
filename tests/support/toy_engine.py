"""A builder that needs no time, for a network that runs in no time."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from stream_cam.config import Precision
from stream_cam.engine.base import Engine, EngineInfo, OnStage, Session, ignore_progress
from stream_cam.engine.manifest import EngineKey
from stream_cam.errors import EngineError
from stream_cam.model.camnet import CamNet

Change = Callable[[Tensor, Tensor], None]
"""Spoils logits and features in place."""

KEY = EngineKey(
    backend="toy",
    model="toy",
    network="0123456789abcdef",
    input_shape=(1, 3, 64, 64),
    precision="fp32",
    options={"HINT": "LATENCY"},
    versions={"toy": "1.0", "torch": "2.0"},
    hardware={"cpu": "toy cpu", "cpu_can": "FP32"},
)


def toy_net() -> CamNet:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 8, 9, stride=8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 7),
    )
    return CamNet.from_module(module.eval(), name="toy", probe_hw=(64, 64))


class ToyEngine:
    """The network itself, spoilt on request."""

    def __init__(
        self, net: CamNet, change: Change | None = None, precision: Precision | str = "fp32"
    ) -> None:
        logits, features = net(torch.zeros(1, 3, 64, 64))
        self._net, self._change = net, change
        self.info = EngineInfo(
            name="toy",
            device="cpu",
            precision=precision,
            input_shape=(1, 3, 64, 64),
            logits_shape=(1, logits.shape[1]),
            features_shape=(1, *features.shape[1:]),
            parallel=1,
        )

    def session(self) -> Session:
        return self._run

    def _run(self, batch: Tensor, logits: Tensor, features: Tensor) -> None:
        with torch.inference_mode():
            new_logits, new_features = self._net(batch)
            logits.copy_(new_logits)
            features.copy_(new_features)
            if self._change is not None:
                self._change(logits, features)


class ToyBuilder:
    """Counts its builds; its blob names the network."""

    def __init__(
        self, key: EngineKey = KEY, net: CamNet | None = None, change: Change | None = None
    ) -> None:
        self.key = key
        self.can_build = True
        self.net = net or toy_net()
        self.frames: tuple[Tensor, ...] = ()
        self.change = change
        self.n_compiled = 0
        self.n_deserialized = 0

    def compile(self, on_stage: OnStage = ignore_progress) -> tuple[Engine, bytes]:
        self.n_compiled += 1
        engine = ToyEngine(self.net, self.change, self.key.precision)
        return engine, toy_blob(self.key)

    def deserialize(self, blob: bytes) -> Engine:
        self.n_deserialized += 1
        if blob != toy_blob(self.key):
            raise EngineError("not my blob")
        return ToyEngine(self.net, None, self.key.precision)


def toy_blob(key: EngineKey) -> bytes:
    return json.dumps([key.network, "weights" * 300]).encode()


def with_version(version: str) -> EngineKey:
    return replace(KEY, versions={**KEY.versions, "toy": version})
