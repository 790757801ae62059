"""cuDNN's fused convolutions: ResNet and its relatives on a GPU without TensorRT.

A frame of ResNet18 is 24 kernels instead of 72. Inside a graph a kernel boundary costs about as
much as a small convolution, so that the number of kernels is the network's time. Nothing is
compiled: the engine is made in a moment, and verified at every start.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, fx, nn

from stream_cam.engine.base import Session
from stream_cam.engine.buffers import Buffers
from stream_cam.engine.builder import EngineRequest
from stream_cam.engine.eager import TorchSession
from stream_cam.engine.fused_layers import FusedConvolution, fuse_layers
from stream_cam.engine.typed_net import TypedNet, arithmetic, probe_info
from stream_cam.errors import EngineError, UnsuitableEngineError, first_line
from stream_cam.frame import FloatArray

_LEAST_SHARE = 0.5
"""Of the convolutions: with fewer fused, Inductor saves more kernels."""
_benchmark = threading.RLock()


class FusedEngine:
    """Channels-last; float32, or convolutions in fp16 on a GPU.

    Raises:
        UnsuitableEngineError: less than half of the convolutions are followed by a ReLU.
        EngineError: the network does not take that input, or cuDNN has no such operation for it.
    """

    def __init__(self, request: EngineRequest) -> None:
        device, precision = request.device, request.precision
        self._net = fused_net(request, precision)
        self._net.to(device)
        try:
            with _choosing_fastest(), arithmetic(device, precision):
                self.info = probe_info(
                    "fused", device, precision, request.batch, request.input_hw, self._net
                )
        except RuntimeError as error:
            if not _is_refusal(error):
                raise
            raise EngineError(
                f"cuDNN has no fused convolution for {request.net.name} ({first_line(error)}): "
                "give --engine inductor or eager"
            ) from error

    def session(self) -> Session:
        return _FusedSession(self._net, Buffers(self.info), self.info.device, self.info.precision)


def fused_net(request: EngineRequest, precision: str) -> TypedNet:
    """The network with fused layers, on the CPU.

    Raises:
        UnsuitableEngineError: less than half of the convolutions are followed by a ReLU.
    """
    # Biases are added in float32, before they are rounded.
    net = TypedNet(request.net, "fp32", channels_last=True)
    n_fused = 0
    if isinstance(net.backbone, fx.GraphModule):
        net.backbone, n_fused = fuse_layers(net.backbone)
    convolutions = (FusedConvolution, nn.Conv2d)
    n_all = sum(isinstance(layer, convolutions) for layer in net.backbone.modules())
    if n_fused < max(1.0, _LEAST_SHARE * n_all):
        raise UnsuitableEngineError(
            f"the fused engine is for networks of ResNet's kind, and {request.net.name} has a ReLU "
            f"after {n_fused} of {n_all} convolutions: give --engine inductor"
        )
    return net.compute_in(precision)


class _FusedSession(TorchSession):
    """Lets cuDNN time its algorithms in a thread's first calls, and take the fastest."""

    def __call__(
        self,
        batch: Tensor | FloatArray,
        logits: Tensor | FloatArray,
        features: Tensor | FloatArray,
    ) -> None:
        with _choosing_fastest():
            super().__call__(batch, logits, features)


@contextmanager
def _choosing_fastest() -> Iterator[None]:
    """Benchmark mode. cuDNN's plans are kept by thread and looked up before the mode is.

    So the mode is on from a thread's first call. It is one for the whole process: one thread at a
    time holds it, while it launches.
    """
    with _benchmark:
        before = torch.backends.cudnn.benchmark
        torch.backends.cudnn.benchmark = True
        try:
            yield
        finally:
            torch.backends.cudnn.benchmark = before


def _is_refusal(error: RuntimeError) -> bool:
    """Whether cuDNN runs, but has no such operation on this GPU."""
    said = str(error)
    return "NOT_SUPPORTED" in said or "unable to find an engine" in said
