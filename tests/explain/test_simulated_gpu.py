"""The simulated GPU: it must show errors, or the tests on it show nothing."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton", reason="no Triton for this system")

from support.simulated_gpu import POISON, SimulatedGpu

SEEDS = range(20)


class Doubling:
    """Doubles its input and adds a shared sum, which it updates."""

    def __init__(self, gpu: SimulatedGpu, total: Tensor) -> None:
        self.upload, self.download = gpu.host(4), gpu.host(4)
        self._given, self._made = gpu.memory(4), gpu.memory(4)
        self._gpu, self._total = gpu, total
        self.stream, self.done = gpu.stream(), gpu.event()
        self.upload.zero_()
        total.zero_()
        self.graph = self.stream.capture(self._work)
        total.zero_()

    def _work(self) -> None:
        self._gpu.copy(self._given, self.upload)
        before = self._total + 0
        self._made.copy_(self._given * 2 + before)
        self._total.copy_(before + self._given)
        self._gpu.copy(self.download, self._made)

    def start(self, value: int) -> None:
        self.upload.fill_(value)
        self.stream.replay(self.graph)
        self.stream.record(self.done)


def doublings(seed: int) -> tuple[SimulatedGpu, Doubling, Doubling]:
    gpu = SimulatedGpu(seed)
    total = torch.zeros(4, dtype=torch.uint8)
    return gpu, Doubling(gpu, total), Doubling(gpu, total)


def test_what_is_done_in_order_is_right() -> None:
    for seed in SEEDS:
        _, first, second = doublings(seed)
        first.start(3)
        second.stream.wait(first.done)
        second.start(5)
        second.done.wait()
        first.done.wait()
        assert first.download.tolist() == [6] * 4
        assert second.download.tolist() == [13] * 4


def test_a_result_that_is_read_too_early_is_poison() -> None:
    _, first, _ = doublings(0)
    first.start(3)
    assert first.download.tolist() == [POISON] * 4
    first.done.wait()
    first.start(3)
    assert first.download.tolist() == [POISON] * 4


def test_an_upload_that_is_overwritten_too_early_shows() -> None:
    _, first, _ = doublings(0)
    first.start(3)
    first.upload.fill_(4)
    first.done.wait()
    assert first.download.tolist() == [8] * 4


def test_a_missing_wait_between_streams_shows() -> None:
    found = set()
    for seed in SEEDS:
        _, first, second = doublings(seed)
        first.start(3)
        second.start(5)
        second.done.wait()
        first.done.wait()
        found.add((first.download[0].item(), second.download[0].item()))
    # In turn, the other way round, and torn: both read the sum before one of them wrote it.
    assert {(6, 13), (11, 10), (6, 10)} <= found


def test_a_number_of_pythons_stays_what_it_was_at_the_capture() -> None:
    gpu, factor = SimulatedGpu(), [2]
    given, made = gpu.memory(4), gpu.memory(4)
    stream, done = gpu.stream(), gpu.event()
    given.fill_(7)
    graph = stream.capture(lambda: made.copy_(given * factor[0]))  # type: ignore[arg-type]
    factor[0] = 3
    stream.replay(graph)
    stream.record(done)
    done.wait()
    assert made.tolist() == [14] * 4


@pytest.mark.parametrize("read", [lambda t: t.sum().item(), lambda t: bool(t.any()), torch.nonzero])
def test_a_read_by_the_host_cannot_be_captured(read: object) -> None:
    gpu = SimulatedGpu()
    given = gpu.memory(4)
    with pytest.raises(RuntimeError, match="operation not permitted when stream is capturing"):
        gpu.stream().capture(lambda: read(given))  # type: ignore[operator]


def test_a_wait_is_for_the_last_record_so_far() -> None:
    """As CUDA has it: one that was never recorded keeps nobody waiting."""
    _, first, second = doublings(0)
    first.stream.wait(second.done)
    second.stream.wait(first.done)
    first.start(1)
    first.done.wait()
    assert first.download.tolist() == [2] * 4


def test_a_lost_device_tells_all_who_wait() -> None:
    gpu = SimulatedGpu(fail_replay=1)
    total = torch.zeros(4, dtype=torch.uint8)
    first, second = Doubling(gpu, total), Doubling(gpu, total)
    first.start(1)
    first.done.wait()
    assert first.download.tolist() == [2] * 4
    second.start(1)
    for waiting in (second, first):
        with pytest.raises(RuntimeError, match="illegal memory access in replay 1"):
            waiting.done.wait()
    assert second.download.tolist() == [POISON] * 4
