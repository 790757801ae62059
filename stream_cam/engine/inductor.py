"""CamNet compiled by TorchInductor, for GPUs without TensorRT.

Not kept in the store. What AOTInductor could keep is a shared library, which would run as code
when it is loaded, and `torch._inductor.aoti_load_package` also unpickles constants that may lie
beside it in the package: the store promises that nothing is unpickled. So it is compiled at every
start, and compared with its network each time; the second start is quicker by what Inductor itself
keeps of its kernels, in PyTorch's cache folder.
"""

from __future__ import annotations

import warnings
from typing import cast

import torch
from torch import fx, nn

from stream_cam.engine.base import Batch, EngineInfo, Session
from stream_cam.engine.buffers import Buffers
from stream_cam.engine.eager import TorchSession
from stream_cam.engine.gpu_errors import is_of_gpu
from stream_cam.engine.typed_net import TypedNet, arithmetic, made_for
from stream_cam.errors import EngineError, first_line
from stream_cam.model.camnet import CamNet
from stream_cam.model.tracing import tracing


class InductorEngine:
    """`torch.compile`d, channels-last, for one number of frames.

    Args:
        net: on the CPU in float32.
        input_hw: height and width of the input in pixels.
        device: cuda:N; on a CPU it works too, in fp32.
        precision: fp32 or fp16.
        batch: of one size.

    Raises:
        EngineError: the network does not take that input, or Inductor cannot compile it here.
    """

    def __init__(
        self,
        net: CamNet,
        input_hw: tuple[int, int],
        device: str,
        precision: str = "fp16",
        batch: Batch | None = None,
    ) -> None:
        batch = batch or Batch()
        if not batch.is_fixed:
            raise EngineError(
                f"inductor compiles for one number of frames, got --batch {batch}: give one, or "
                "--engine tensorrt"
            )
        typed = TypedNet(net, precision, channels_last=True).to(device)
        self.info: EngineInfo
        with arithmetic(device, precision):
            self.info = made_for("inductor", device, precision, batch, input_hw, typed)
            self._net = _compiled(typed, self.info, net.name)

    def session(self) -> Session:
        return TorchSession(self._net, Buffers(self.info), self.info.device, self.info.precision)


def _compiled(typed: TypedNet, info: EngineInfo, name: str) -> nn.Module:
    """Compiled by a first call."""
    # Traced, so that its forward is its own: Dynamo counts recompilations by the function, and all
    # networks of one class would share a limit of eight.
    with tracing():
        own = fx.symbolic_trace(typed)
    batch = torch.zeros(info.input_shape, device=info.device)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Inductor's advice and deprecations
        try:
            compiled = cast("nn.Module", torch.compile(own, fullgraph=True, dynamic=False))
            with torch.inference_mode(), tracing():
                compiled(batch)
        except Exception as error:  # whatever Dynamo, Inductor, Triton and a compiler may raise
            if isinstance(error, RuntimeError) and is_of_gpu(error):
                raise
            raise EngineError(
                f"inductor cannot compile {name} ({_reason(error)}): it needs Triton and a C "
                "compiler (Debian: sudo apt-get install g++ python3-dev)"
            ) from error
    return compiled


def _reason(error: Exception) -> str:
    """What it was at first: Dynamo wraps it."""
    while error.__cause__ is not None and isinstance(error.__cause__, Exception):
        error = error.__cause__
    inner = getattr(error, "inner_exception", error)
    return first_line(inner)
