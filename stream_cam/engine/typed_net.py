"""A network in the precision of a GPU engine."""

from __future__ import annotations

import copy
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor, fx, nn

from stream_cam.engine.base import EngineInfo
from stream_cam.engine.gpu_errors import is_gpu_error
from stream_cam.engine.options import Batch
from stream_cam.errors import EngineError, first_line
from stream_cam.model.camnet import CamNet
from stream_cam.model.head_module import logits_of
from stream_cam.model.tracing import running

with warnings.catch_warnings():
    # PyTorch 2.11 warns of its own use of TorchScript while this is imported.
    warnings.simplefilter("ignore", DeprecationWarning)
    from torch.fx.experimental.optimization import fuse

DTYPES = {"fp32": torch.float32, "fp16": torch.float16}
"""The types of GPU engines' convolutions, by precision."""

_tf32 = threading.RLock()


class TypedNet(nn.Module):
    """float32 in and out; convolutions in `dtype`, pooling and the head in float32.

    So with a linear head the logits are the maps' means plus bias (Zhou et al., CVPR 2016, eq. 1-2)
    to float32's rounding at every precision: only the features, which both are made of, are rounded
    further.
    Batch normalisation is folded into the convolutions before it.

    Args:
        net: on the CPU in float32; copied.
        precision: fp32 or fp16.
        channels_last: the layout that PyTorch's half precision convolutions want.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, net: CamNet, precision: str, *, channels_last: bool = False) -> None:
        super().__init__()
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.backbone = _folded(net.backbone).to(memory_format=self.memory_format)
        self.compute_in(precision)
        self.head = copy.deepcopy(net.head)
        if net.head is None:
            self.register_buffer("weight", net.weight.detach().clone())
            self.register_buffer("bias", net.bias.detach().clone())
        self.eval().requires_grad_(False)

    def compute_in(self, precision: str) -> TypedNet:
        """Changes the backbone's type in place."""
        self.dtype = DTYPES[precision]
        self.backbone.to(dtype=self.dtype)
        return self

    def forward(self, batch_nchw: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 3, H, W) float32 → logits (N, n_classes) and features (N, C, h, w), float32."""
        if self.dtype != torch.float32 or self.memory_format != torch.contiguous_format:
            batch_nchw = batch_nchw.to(dtype=self.dtype, memory_format=self.memory_format)
        features = self.backbone(batch_nchw)
        if self.dtype != torch.float32:
            features = features.float()
        return logits_of(features, self), features


def probe_info(
    name: str, device: str, precision: str, batch: Batch, input_hw: tuple[int, int], net: nn.Module
) -> EngineInfo:
    """Describes an engine of PyTorch's, after one run on zeros.

    Raises:
        EngineError: the network does not take that input.
        RuntimeError: the GPU does not run it.
    """
    zeros = torch.zeros(batch.best, 3, *input_hw, device=device)
    try:
        with torch.inference_mode(), running():
            logits, features = net(zeros)
    except RuntimeError as error:
        if is_gpu_error(error):
            raise
        raise EngineError(
            f"the network does not take an input of {input_hw[0]}×{input_hw[1]} pixels "
            f"({first_line(error)}); give a larger --input-size"
        ) from error
    return EngineInfo(
        name=name,
        device=device,
        precision=precision,
        input_shape=(batch.best, 3, *input_hw),
        logits_shape=(batch.best, logits.shape[1]),
        features_shape=(batch.best, features.shape[1], features.shape[2], features.shape[3]),
        parallel=1,
        batch=batch,
    )


@contextmanager
def arithmetic(device: str, precision: str) -> Iterator[None]:
    """In fp32 on CUDA: convolutions in float32, not in TF32, which cuDNN takes by default.

    TF32 keeps 11 bits of precision, as fp16 does, and would miss the gate of fp32. The setting is
    one for the whole process, so one thread at a time holds it, while it launches.
    """
    if device == "cpu" or precision != "fp32":
        yield
        return
    cudnn: Any = torch.backends.cudnn
    with _tf32:
        if cudnn.conv.fp32_precision != "tf32":
            yield
            return
        before = cudnn.rnn.fp32_precision
        _set_tf32(False)
        try:
            yield
        finally:
            _set_tf32(True)
            cudnn.rnn.fp32_precision = before


def _set_tf32(allowed: bool) -> None:
    # The older of PyTorch's two ways: after the newer one, whoever reads by the older one gets an
    # exception, PyTorch's own compiler too (pytorch/pytorch#166387).
    _take_its_warning()
    torch.backends.cudnn.allow_tf32 = allowed


@cache
def _take_its_warning() -> None:
    """PyTorch says once that the newer way is preferred."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.backends.cudnn.allow_tf32 = True


def _folded(backbone: nn.Module) -> nn.Module:
    if not isinstance(backbone, fx.GraphModule):
        return copy.deepcopy(backbone)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own deprecations
        folded: nn.Module = fuse(backbone)
    return folded
