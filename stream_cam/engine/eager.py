"""PyTorch without a compiler: the engine that always works, and the measure of the others."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import Tensor, nn

from stream_cam.engine.base import Session
from stream_cam.engine.buffers import Buffers
from stream_cam.engine.builder import EngineRequest
from stream_cam.engine.typed_net import TypedNet, arithmetic, probe_info
from stream_cam.frame import FloatArray
from stream_cam.model.tracing import running


class EagerEngine:
    """Channels-last, inference mode; float32, or fp16 on a GPU.

    Raises:
        EngineError: the network does not take that input.
    """

    def __init__(self, request: EngineRequest) -> None:
        device, precision = request.device, request.precision
        self._net: nn.Module
        if device == "cpu" and precision == "fp32":
            self._net = copy.deepcopy(request.net).to(memory_format=torch.channels_last)
        else:
            self._net = TypedNet(request.net, precision, channels_last=True).to(device)
        with arithmetic(device, precision):
            info = probe_info(
                "eager", device, precision, request.batch, request.input_hw, self._net
            )
        self.info = replace(info, alternative="--device cpu")

    def session(self) -> Session:
        return TorchSession(self._net, Buffers(self.info), self.info.device, self.info.precision)


class TorchSession:
    """Runs a network of PyTorch's, eager or compiled, and copies its outputs."""

    def __init__(self, net: nn.Module, buffers: Buffers, device: str, precision: str) -> None:
        self._net = net
        self._buffers = buffers
        self._device, self._precision = device, precision

    def __call__(
        self,
        batch: Tensor | FloatArray,
        logits: Tensor | FloatArray,
        features: Tensor | FloatArray,
    ) -> None:
        batch, logits, features = (torch.as_tensor(one) for one in (batch, logits, features))
        self._buffers.are_new(batch, logits, features)
        with torch.inference_mode(), arithmetic(self._device, self._precision):
            with running():
                new_logits, new_features = self._net(batch)
            logits.copy_(new_logits)
            features.copy_(new_features)
