"""The caller's tensors that a session works on, and the CUDA streams it works in."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from stream_cam.engine.base import EngineInfo


class Buffers:
    """A caller's batch, logits and features, checked when they are not the last ones."""

    def __init__(self, info: EngineInfo) -> None:
        self._info = info
        self._last: tuple[Tensor, Tensor, Tensor] | None = None

    def are_new(self, batch: Tensor, logits: Tensor, features: Tensor) -> bool:
        """Whether they are others than in the last call; keeps them alive.

        Raises:
            ValueError: the engine cannot work on them.
        """
        last = self._last
        if last is not None and last[0] is batch and last[1] is logits and last[2] is features:
            return False
        info, n_frames = self._info, batch.shape[0]
        if not info.batch.least <= n_frames <= info.batch.most:
            raise ValueError(f"the engine takes {info.batch} frames at once, got {n_frames}")
        shapes = (info.input_shape, info.logits_shape, info.features_shape)
        names = ("batch", "logits", "features")
        for name, tensor, shape in zip(names, (batch, logits, features), shapes, strict=True):
            _check(name, tensor, (n_frames, *shape[1:]), info.device)
        self._last = (batch, logits, features)
        return True

    def forget(self) -> None:
        """The next ones are new, whatever they are."""
        self._last = None


def own_stream(device: str) -> AbstractContextManager[object]:
    """A CUDA stream that is not the default one; nothing on a CPU."""
    if device == "cpu":
        return nullcontext()
    return torch.cuda.stream(torch.cuda.Stream(device))  # type: ignore[no-untyped-call]


def wait_for(device: str) -> None:
    """Until the current stream of a CUDA device is done; a CPU's sessions return when they are."""
    if device != "cpu":
        torch.cuda.current_stream(device).synchronize()


def _check(name: str, tensor: Tensor, shape: tuple[int, ...], device: str) -> None:
    got = (str(tensor.device), tuple(tensor.shape), tensor.dtype)
    if got != (device, shape, torch.float32) or not tensor.is_contiguous():
        layout = "" if tensor.is_contiguous() else ", not contiguous"
        raise ValueError(
            f"{name} is {shape} torch.float32 on {device} for this engine, got {got[1]} {got[2]} "
            f"on {got[0]}{layout}"
        )
