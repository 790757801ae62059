"""PyTorch's global settings change neither the loading of networks nor their outputs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from support.networks import small_network
from torch import Tensor, nn

from stream_cam import Explainer
from stream_cam.config import EngineName
from stream_cam.frame import BgrImage, Explanation
from stream_cam.model.torch_settings import loading, own_settings


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """More threads change the order of sums, and small networks wait for them."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def default_device(name: str) -> Iterator[None]:
    torch.set_default_device(name)
    try:
        yield
    finally:
        torch.set_default_device(None)


@contextmanager
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


SETTINGS: dict[str, Callable[[], AbstractContextManager[object]]] = {
    "float64": lambda: default_dtype(torch.float64),
    "bfloat16": lambda: default_dtype(torch.bfloat16),
    "device": lambda: default_device("meta"),
    "device block": lambda: torch.device("meta"),
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "deterministic": deterministic,
    "inference": torch.inference_mode,
    "no_grad": torch.no_grad,
    "grad": torch.enable_grad,
}


class MakesTensors(nn.Module):
    """Its forward makes tensors of the default type on the default device."""

    def __init__(self) -> None:
        super().__init__()
        self.network = small_network()

    def forward(self, batch: Tensor) -> Tensor:
        logits: Tensor = self.network(batch * torch.full((1, 3, 1, 1), 0.5) + torch.ones(1))
        return logits


FRAME = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)


def explained(explainer: Explainer, frame: BgrImage = FRAME) -> Explanation:
    return explainer.explain(frame, [0, 1])


def assert_equal(got: Explanation, expected: Explanation) -> None:
    assert got.cams.dtype == np.float32
    np.testing.assert_array_equal(got.cams, expected.cams)
    np.testing.assert_array_equal(got.logits, expected.logits)


@pytest.fixture(scope="module", params=["eager", "openvino"])
def engine(request: pytest.FixtureRequest) -> EngineName:
    name: EngineName = request.param
    return name


@pytest.fixture(scope="module")
def module() -> nn.Module:
    return MakesTensors()


@pytest.fixture(scope="module")
def plain(engine: EngineName, module: nn.Module) -> tuple[Explainer, Explanation]:
    """Made and used without any of the settings."""
    explainer = Explainer.from_module(module, engine=engine, device="cpu", input_size=64)
    return explainer, explained(explainer)


@pytest.mark.parametrize("name", SETTINGS)
def test_a_running_explainer_does_not_see_the_setting(
    name: str, plain: tuple[Explainer, Explanation]
) -> None:
    explainer, expected = plain
    with SETTINGS[name]():
        assert_equal(explained(explainer), expected)
    assert_equal(explained(explainer), expected)


@pytest.mark.parametrize("name", SETTINGS)
def test_an_explainer_made_within_the_setting_is_the_same(
    name: str, engine: EngineName, module: nn.Module, plain: tuple[Explainer, Explanation]
) -> None:
    with SETTINGS[name]():
        explainer = Explainer.from_module(
            module, engine=engine, device="cpu", input_size=64, fit="native"
        )
        square = np.ascontiguousarray(FRAME[:, :48])
        first = explained(explainer, square)
    assert_equal(explained(explainer, square), first)
    with SETTINGS[name]():
        made = Explainer.from_module(module, engine=engine, device="cpu", input_size=64)
    assert_equal(explained(made), plain[1])


def test_weights_are_loaded_within_any_setting(tiny: Path) -> None:
    def load() -> Explainer:
        return Explainer.load(weights=str(tiny), engine="eager", device="cpu", input_size=64)

    expected = explained(load())
    for name in ("float64", "device", "autocast", "deterministic", "inference"):
        with SETTINGS[name]():
            explainer = load()
            assert_equal(explained(explainer), expected)
        assert_equal(explained(explainer), expected)


@pytest.mark.parametrize("name", ["float64", "inference"])
def test_a_network_made_within_the_setting_is_explained(name: str) -> None:
    with SETTINGS[name]():
        made = small_network()
        inside = Explainer.from_module(made, engine="eager", device="cpu", input_size=64)
    outside = Explainer.from_module(made, engine="eager", device="cpu", input_size=64)
    assert_equal(explained(inside), explained(outside))


def test_settings_are_restored_also_after_an_error() -> None:
    with default_dtype(torch.float64), default_device("meta"), deterministic():
        for aside in (own_settings, loading):
            with aside():
                assert torch.get_default_dtype() == torch.float32
                assert torch.zeros(1).device.type == "cpu"
                assert not torch.are_deterministic_algorithms_enabled()
            with pytest.raises(KeyError), aside():
                raise KeyError
        assert torch.get_default_dtype() == torch.float64
        assert torch.zeros(1).device.type == "meta"
        assert torch.are_deterministic_algorithms_enabled()


def test_the_last_thread_out_restores_the_default_type() -> None:
    inside, leave = threading.Event(), threading.Event()

    def stay() -> None:
        with own_settings():
            inside.set()
            leave.wait(10)

    with default_dtype(torch.float64):
        thread = threading.Thread(target=stay)
        thread.start()
        assert inside.wait(10)
        with own_settings():
            pass
        assert torch.get_default_dtype() == torch.float32
        leave.set()
        thread.join(10)
        assert torch.get_default_dtype() == torch.float64
