"""CamNet compiled by TorchInductor, for GPUs without TensorRT.

It is not kept in the store. AOTInductor would keep a shared library, which runs as code when it is
loaded. `torch._inductor.aoti_load_package` also unpickles constants that may lie beside it in the
package, and the store promises that nothing is unpickled. So the network is compiled at every
start, and compared with its original each time. The second start is quicker, because Inductor
keeps its kernels in PyTorch's cache folder.
"""

from __future__ import annotations

import warnings
from typing import cast

import torch
from torch import fx, nn

from stream_cam.engine.base import EngineInfo, Session
from stream_cam.engine.buffers import Buffers
from stream_cam.engine.builder import EngineRequest
from stream_cam.engine.eager import TorchSession
from stream_cam.engine.gpu_errors import is_gpu_error
from stream_cam.engine.typed_net import TypedNet, arithmetic, probe_info
from stream_cam.errors import EngineError, first_line
from stream_cam.model.tracing import tracing


class InductorEngine:
    """`torch.compile`d, channels-last, for one number of frames; on a CPU it works too, in fp32.

    Raises:
        EngineError: the network does not take that input, or Inductor cannot compile it here.
    """

    def __init__(self, request: EngineRequest) -> None:
        batch, device, precision = request.batch, request.device, request.precision
        if not batch.is_fixed:
            raise EngineError(
                f"inductor compiles for one number of frames, got --batch {batch}: give one, or "
                "--engine tensorrt"
            )
        typed = TypedNet(request.net, precision, channels_last=True).to(device)
        self.info: EngineInfo
        with arithmetic(device, precision):
            self.info = probe_info("inductor", device, precision, batch, request.input_hw, typed)
            self._net = _compiled(typed, self.info, request.net.name)

    def session(self) -> Session:
        return TorchSession(self._net, Buffers(self.info), self.info.device, self.info.precision)


def _compiled(typed: TypedNet, info: EngineInfo, name: str) -> nn.Module:
    """Compiled by a first call."""
    # Traced, so that its forward is its own. Dynamo counts recompilations by the function, and
    # all networks of one class would share a limit of eight.
    with tracing():
        own = fx.symbolic_trace(typed)
    batch = torch.zeros(info.input_shape, device=info.device)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Inductor's advice and deprecations
        try:
            compiled = cast("nn.Module", torch.compile(own, fullgraph=True, dynamic=False))
            with torch.inference_mode(), tracing():
                compiled(batch)
        except Exception as error:  # whatever Dynamo, Inductor, Triton and a compiler may raise
            if isinstance(error, RuntimeError) and is_gpu_error(error):
                raise
            raise EngineError(
                f"inductor cannot compile {name} ({_reason(error)}): it needs Triton and a C "
                "compiler (Debian: sudo apt-get install g++ python3-dev)"
            ) from error
    return compiled


def _reason(error: Exception) -> str:
    """The first cause: Dynamo wraps it."""
    while error.__cause__ is not None and isinstance(error.__cause__, Exception):
        error = error.__cause__
    inner = getattr(error, "inner_exception", error)
    return first_line(inner)
