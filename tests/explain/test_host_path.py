"""The way of a frame through host memory, and the error when its GPU fails."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from stream_cam.engine import EngineInfo
from stream_cam.errors import EngineError
from stream_cam.explain.gpu_copies import GpuCopies

INFO = EngineInfo("eager", "cpu", "fp32", (1, 3, 8, 8), (1, 4), (1, 2, 2, 2), 1)


class FakeCuda:
    """A GPU whose memory is the host's; once lost, every wait fails."""

    def __init__(self, patches: pytest.MonkeyPatch) -> None:
        self.failure: str | None = None
        stream = SimpleNamespace(synchronize=self.synchronize)
        patches.setattr(torch.cuda, "Stream", lambda device: stream)
        patches.setattr(torch.cuda, "stream", nullcontext)
        patches.setattr(torch.cuda, "synchronize", self.synchronize)

    def synchronize(self, device: str = "") -> None:
        if self.failure is not None:
            raise RuntimeError(f"{self.failure}\nCompile with TORCH_USE_CUDA_DSA")


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    return FakeCuda(monkeypatch)


def test_a_gpu_that_is_lost_is_told_with_its_reason(cuda: FakeCuda) -> None:
    def session(batch: Tensor, logits: Tensor, features: Tensor) -> None:
        cuda.failure = "CUDA error: an illegal memory access"

    message = r"the GPU failed .*\(CUDA error: an illegal memory access\); start again$"
    for _ in range(2):
        with pytest.raises(EngineError, match=message):
            GpuCopies(INFO, session).run()


def test_an_error_that_a_gpu_outlives_is_told_as_one(cuda: FakeCuda) -> None:
    def session(batch: Tensor, logits: Tensor, features: Tensor) -> None:
        if batch.max() > 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nmore")
        logits.fill_(7.0)

    copies = GpuCopies(INFO, session)
    copies.batch.fill(2.0)
    with pytest.raises(EngineError, match=r"cannot work on a frame \(CUDA out .* GiB\); see nvid"):
        copies.run()
    copies.batch.fill(1.0)
    copies.run()
    assert (copies.logits == 7.0).all()
