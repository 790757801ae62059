"""The way to a GPU and back: pinned arrays on the host, tensors there, a stream between them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from stream_cam.engine import EngineInfo, Session
from stream_cam.errors import EngineError, first_line
from stream_cam.explain.graph.cuda_capture import capturing
from stream_cam.explain.graph.device_lost import gpu_failed, register_gpu_memory


class GpuCopies:
    """One session on a GPU, with arrays on the host."""

    def __init__(self, info: EngineInfo, session: Session) -> None:
        register_gpu_memory(self)
        self._device, self._session = info.device, session
        shapes = (info.input_shape, info.logits_shape, info.features_shape)
        on_gpu = info.device != "cpu"
        self._pinned = [torch.empty(shape, pin_memory=on_gpu) for shape in shapes]
        self.batch, self.logits, self.features = (tensor.numpy() for tensor in self._pinned)
        # A network compiled for an ordinary tensor is compiled anew for an inference tensor.
        with torch.inference_mode(False):
            self._there = [torch.empty(shape, device=info.device) for shape in shapes]
        self._stream = torch.cuda.Stream(info.device)  # type: ignore[no-untyped-call]

    def run(self) -> None:
        """`batch` up, through the network, `logits` and `features` down; returns when all is done.

        Raises:
            EngineError: CUDA or the engine failed.
        """
        there_batch, there_logits, there_features = self._there
        here_batch, here_logits, here_features = self._pinned
        with _translate_errors(self._device):
            with torch.cuda.stream(self._stream):
                there_batch.copy_(here_batch, non_blocking=True)
                self._session(there_batch, there_logits, there_features)
                here_logits.copy_(there_logits, non_blocking=True)
                here_features.copy_(there_features, non_blocking=True)
            self._stream.synchronize()


@contextmanager
def _translate_errors(device: str) -> Iterator[None]:
    """Translates CUDA's errors to EngineError, which says whether the GPU is lost."""
    try:
        yield
    except RuntimeError as error:
        try:
            with capturing:
                torch.cuda.synchronize(device)
        except RuntimeError:
            raise gpu_failed(error) from error
        raise EngineError(
            f"{device} cannot work on a frame ({first_line(error)}); see nvidia-smi, or give "
            "--device cpu"
        ) from error
