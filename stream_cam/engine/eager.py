"""PyTorch as it is: the engine that always works, and the one that others are checked against."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from stream_cam.engine.base import Batch, Session
from stream_cam.engine.buffers import Buffers
from stream_cam.engine.typed_net import TypedNet, arithmetic, made_for
from stream_cam.model.camnet import CamNet
from stream_cam.model.tracing import running


class EagerEngine:
    """Channels-last, inference mode; float32, or fp16 on a GPU.

    Args:
        net: on the CPU in float32.
        input_hw: height and width of the input in pixels.
        device: cpu or cuda:N.
        precision: fp32 or fp16.
        batch: any number of frames costs nothing to prepare for.

    Raises:
        EngineError: the network does not take that input.
    """

    def __init__(
        self,
        net: CamNet,
        input_hw: tuple[int, int],
        device: str = "cpu",
        precision: str = "fp32",
        batch: Batch | None = None,
    ) -> None:
        self._net: nn.Module
        if device == "cpu" and precision == "fp32":
            self._net = copy.deepcopy(net).to(memory_format=torch.channels_last)
        else:
            self._net = TypedNet(net, precision, channels_last=True).to(device)
        with arithmetic(device, precision):
            self.info = made_for("eager", device, precision, batch or Batch(), input_hw, self._net)

    def session(self) -> Session:
        return TorchSession(self._net, Buffers(self.info), self.info.device, self.info.precision)


class TorchSession:
    """Runs what PyTorch made of a network, eager or compiled, and copies what it returns."""

    def __init__(self, net: nn.Module, buffers: Buffers, device: str, precision: str) -> None:
        self._net = net
        self._buffers = buffers
        self._device, self._precision = device, precision

    def __call__(self, batch: Tensor, logits: Tensor, features: Tensor) -> None:
        self._buffers.are_new(batch, logits, features)
        with torch.inference_mode(), arithmetic(self._device, self._precision):
            with running():
                new_logits, new_features = self._net(batch)
            logits.copy_(new_logits)
            features.copy_(new_features)
