"""Captures of CUDA graphs, without CUDA as far as they are Python's own."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import pytest
import torch

from stream_cam.explain.graph.cuda_capture import captured


@pytest.fixture
def no_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch's CUDA without CUDA: work is done, and nothing is captured."""

    def nothing(*args: object, **options: object) -> Any:
        return nullcontext()

    for name in ("device", "stream", "graph", "synchronize", "CUDAGraph"):
        monkeypatch.setattr(torch.cuda, name, nothing)


@pytest.fixture(params=[True, False])
def collects(request: pytest.FixtureRequest) -> Iterator[bool]:
    """Whether Python collects before, and so after."""
    was_on = gc.isenabled()
    (gc.enable if request.param else gc.disable)()
    yield request.param
    (gc.enable if was_on else gc.disable)()


@pytest.mark.usefixtures("no_cuda")
def test_nothing_is_collected_within_a_capture(collects: bool) -> None:
    found: list[bool] = []
    captured(lambda: found.append(gc.isenabled()), None, "cuda:0")
    assert found == [collects] * 3 + [False]
    assert gc.isenabled() == collects


@pytest.mark.usefixtures("no_cuda")
def test_after_a_capture_that_fails_python_collects_as_before(collects: bool) -> None:
    calls = iter(range(4))

    def work() -> None:
        if next(calls) == 3:
            raise RuntimeError("operation not permitted when stream is capturing")

    with pytest.raises(RuntimeError, match="not permitted"):
        captured(work, None, "cuda:0")
    assert gc.isenabled() == collects


class Ring:
    """Garbage that only the collector finds."""

    def __init__(self, held: object) -> None:
        self.held, self.itself = held, self


@pytest.mark.needs_gpu
def test_graphs_that_become_garbage_meanwhile_end_no_capture() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA GPU")
    total = torch.zeros(1, device="cuda")
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]

    def little() -> None:
        total.add_(0)

    others = [captured(little, stream, "cuda:0") for _ in range(4)]

    def work() -> None:
        Ring(others.pop())
        for _ in range(100_000):  # so many that Python would collect
            Ring(None)
        total.add_(1)

    graph = captured(work, stream, "cuda:0")
    before = float(total)
    graph.replay()
    torch.cuda.synchronize()
    assert float(total) == before + 1
