"""PyTorch as it is: the engine that always works, and the one that others are checked against."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from stream_cam.engine.base import EngineInfo, Session
from stream_cam.errors import EngineError
from stream_cam.model import CamNet


class EagerEngine:
    """Channels-last, inference mode, float32."""

    def __init__(self, net: CamNet, input_hw: tuple[int, int], device: str = "cpu") -> None:
        self._net = copy.deepcopy(net).to(device).to(memory_format=torch.channels_last)
        batch = torch.zeros(1, 3, *input_hw, device=device)
        try:
            with torch.inference_mode():
                logits, features = self._net(batch)
        except RuntimeError as error:
            raise EngineError(
                f"the network does not take an input of {input_hw[0]}×{input_hw[1]} pixels "
                f"({str(error).splitlines()[0]}); give a larger --input-size"
            ) from error
        self.info = EngineInfo(
            name="eager",
            device=device,
            precision="fp32",
            input_shape=(1, 3, *input_hw),
            logits_shape=(1, logits.shape[1]),
            features_shape=(1, features.shape[1], features.shape[2], features.shape[3]),
            parallel=1,
        )

    def session(self) -> Session:
        return self._run

    def _run(self, batch: Tensor, logits: Tensor, features: Tensor) -> None:
        with torch.inference_mode():
            new_logits, new_features = self._net(
                batch.contiguous(memory_format=torch.channels_last)
            )
            logits.copy_(new_logits)
            features.copy_(new_features)
