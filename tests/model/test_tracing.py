"""Loading a network disturbs none that runs or is loaded in another thread."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from support.pipeline_parts import DEADLINE_SECONDS, tiny_network
from torch import nn

from stream_cam.explain.explainer import Explainer
from stream_cam.model.camnet import CamNet
from stream_cam.model.tracing import running, tracing


def test_networks_wait_for_the_tracer_and_it_for_them() -> None:
    order: list[str] = []

    def trace() -> None:
        with tracing():
            order.append("traced")

    def run() -> None:
        with running():
            order.append("ran")

    with running():
        first = threading.Thread(target=trace)
        first.start()
    first.join(DEADLINE_SECONDS)
    with tracing():
        with running():  # the tracer's own thread may
            order.append("own")
        others = [threading.Thread(target=work) for work in (run, trace)]
        for thread in others:
            thread.start()
        for thread in others:
            thread.join(0.05)
        assert order == ["traced", "own"]
    for thread in others:
        thread.join(DEADLINE_SECONDS)
    assert sorted(order[2:]) == ["ran", "traced"]


def test_a_failed_trace_lets_other_threads_go_on() -> None:
    with pytest.raises(RuntimeError, match="broken"), tracing():
        raise RuntimeError("broken")
    with pytest.raises(RuntimeError, match="broken"), running():
        raise RuntimeError("broken")
    with tracing(), running():
        pass


def test_networks_are_loaded_in_several_threads_while_one_runs() -> None:
    call, getattr_ = nn.Module.__call__, nn.Module.__getattr__
    explainer = Explainer.from_module(tiny_network(), engine="eager", input_size=32)
    frame = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    expected = explainer.explain(frame).logits
    loaded = threading.Event()

    def load(_: int) -> int:
        return CamNet.from_module(tiny_network()).n_classes

    def explain() -> int:
        count = 0
        while not loaded.is_set() or not count:
            np.testing.assert_array_equal(explainer.explain(frame).logits, expected)
            count += 1
        return count

    with ThreadPoolExecutor(5) as pool:
        runs = [pool.submit(explain) for _ in range(2)]
        try:
            assert list(pool.map(load, range(40))) == [4] * 40
        finally:
            loaded.set()
        assert all(run.result(DEADLINE_SECONDS) for run in runs)
    assert nn.Module.__call__ is call
    assert nn.Module.__getattr__ is getattr_
