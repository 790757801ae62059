"""Engines agree with each other, and the store never hands out what it should not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from networks import untrained
from torch import nn

from stream_cam.engine import load_engine
from stream_cam.engine.base import Engine
from stream_cam.engine.openvino import OpenVinoBackend
from stream_cam.engine.prepare import take_or_build
from stream_cam.engine.store import EngineStore
from stream_cam.errors import EngineError
from stream_cam.model import CamNet


@pytest.fixture(scope="module")
def net() -> CamNet:
    module = untrained("resnet18", 13)
    return CamNet.from_module(module, name="resnet18", probe_hw=(64, 64))


def openvino_engine(
    net: CamNet, fingerprint: str, input_hw: tuple[int, int], *, store: EngineStore, **options: Any
) -> Engine:
    return take_or_build(OpenVinoBackend(net, fingerprint, input_hw, **options), store).engine


def run(engine: Engine, batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    logits = torch.full(engine.info.logits_shape, torch.nan)
    features = torch.full(engine.info.features_shape, torch.nan)
    engine.session()(batch, logits, features)
    return logits, features


@pytest.mark.parametrize("parallel", [1, 2])
@pytest.mark.parametrize("input_hw", [(64, 64), (96, 160)])
def test_openvino_equals_eager_to_1e_3(
    net: CamNet, input_hw: tuple[int, int], parallel: int, tmp_path: Path
) -> None:
    openvino = openvino_engine(net, "abc", input_hw, parallel=parallel, store=EngineStore(tmp_path))
    eager = load_engine(net, "abc", input_hw, name="eager", device="cpu")
    assert openvino.info.input_shape == eager.info.input_shape == (1, 3, *input_hw)
    assert openvino.info.features_shape == eager.info.features_shape
    for seed in range(3):
        batch = torch.randn(1, 3, *input_hw, generator=torch.Generator().manual_seed(seed))
        for got, expected in zip(run(openvino, batch), run(eager, batch), strict=True):
            assert (got - expected).abs().max() <= 1e-3 * expected.abs().max()


def test_bfloat16_is_near_to_eager_where_the_processor_has_it(net: CamNet, tmp_path: Path) -> None:
    import openvino

    store = EngineStore(tmp_path)
    if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        with pytest.raises(EngineError, match="give --precision fp32"):
            openvino_engine(net, "abc", (64, 64), precision="bf16", store=store)
        return
    full = openvino_engine(net, "abc", (64, 64), store=store)
    brief = openvino_engine(net, "abc", (64, 64), precision="bf16", store=store)
    eager = load_engine(net, "abc", (64, 64), name="eager", device="cpu")
    assert (full.info.precision, brief.info.precision) == ("fp32", "bf16")
    batch = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(5))
    for exact, got, expected in zip(
        run(full, batch), run(brief, batch), run(eager, batch), strict=True
    ):
        far = (got - expected).abs().max()
        # Half a unit in the last of bfloat16's eight bits is 2e-3; twenty layers add up.
        assert far <= 3e-2 * expected.abs().max()
        assert not torch.equal(got, exact)


def test_bfloat16_is_refused_where_it_is_not(
    net: CamNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "stream_cam.engine.openvino.openvino_capabilities", lambda core: ["FP32", "INT8"]
    )
    with pytest.raises(EngineError, match=r"no bfloat16 arithmetic.*--precision fp32"):
        openvino_engine(net, "abc", (64, 64), precision="bf16", store=EngineStore(tmp_path))
    with pytest.raises(EngineError, match="no bfloat16 arithmetic"):
        load_engine(net, "abc", (64, 64), precision="bf16", device="cpu")
    with pytest.raises(EngineError, match="the eager engine has no bf16"):
        load_engine(net, "abc", (64, 64), name="eager", precision="bf16", device="cpu")


def test_a_session_follows_new_buffers(net: CamNet, tmp_path: Path) -> None:
    engine = openvino_engine(net, "abc", (64, 64), store=EngineStore(tmp_path))
    session = engine.session()
    outputs = []
    for seed in (1, 2, 1):
        batch = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(seed))
        logits = torch.full(engine.info.logits_shape, torch.nan)
        features = torch.full(engine.info.features_shape, torch.nan)
        session(batch, logits, features)
        outputs.append(logits)
    assert torch.equal(outputs[0], outputs[2])
    assert not torch.equal(outputs[0], outputs[1])


def test_second_load_comes_from_the_store(
    net: CamNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = torch.randn(1, 3, 64, 64)
    first = run(openvino_engine(net, "abc", (64, 64), store=EngineStore(tmp_path)), batch)

    def not_again(*_: Any) -> None:
        raise AssertionError("converted again although it is in the store")

    monkeypatch.setattr("stream_cam.engine.openvino._convert", not_again)
    second = run(openvino_engine(net, "abc", (64, 64), store=EngineStore(tmp_path)), batch)
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    with pytest.raises(EngineError, match="converted again"):
        openvino_engine(net, "other weights", (64, 64), store=EngineStore(tmp_path))


def test_a_damaged_kept_engine_is_built_again(
    net: CamNet, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    batch = torch.randn(1, 3, 64, 64)
    store = EngineStore(tmp_path)
    first = run(openvino_engine(net, "abc", (64, 64), store=store), batch)
    blob = next(tmp_path.glob("*/engine.blob"))
    data = bytearray(blob.read_bytes())
    data[len(data) // 2] ^= 0xFF
    blob.write_bytes(data)
    second = run(openvino_engine(net, "abc", (64, 64), store=store), batch)
    assert torch.equal(first[0], second[0])
    assert "checksum" in caplog.text


def test_cuda_without_a_gpu_says_what_to_do(net: CamNet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(EngineError, match="--device cpu"):
        load_engine(net, "abc", (64, 64), name="eager", device="cuda")
    with pytest.raises(EngineError, match="--engine eager"):
        load_engine(net, "abc", (64, 64), name="openvino", device="cuda")


def test_an_input_too_small_for_the_network_says_so() -> None:
    deep = nn.Sequential(
        nn.Conv2d(3, 4, 33), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    )
    net = CamNet.from_module(deep, name="deep", probe_hw=(64, 64))
    with pytest.raises(EngineError, match="--input-size"):
        load_engine(net, "abc", (32, 32), name="eager", device="cpu")


def test_auto_falls_back_and_says_why(
    net: CamNet, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise EngineError("OpenVINO cannot be imported: pip install openvino")

    monkeypatch.setattr("stream_cam.engine.openvino.OpenVinoBackend", broken)
    engine = load_engine(net, "abc", (64, 64), device="cpu")
    assert engine.info.name == "eager"
    assert "pip install openvino" in caplog.text
    with pytest.raises(EngineError, match="pip install openvino"):
        load_engine(net, "abc", (64, 64), name="openvino", device="cpu")


@pytest.mark.needs_gpu
def test_eager_on_cuda_equals_the_cpu(net: CamNet) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA GPU")
    cuda = load_engine(net, "abc", (64, 64), name="eager", device="cuda")
    cpu = load_engine(net, "abc", (64, 64), name="eager", device="cpu")
    batch = torch.randn(1, 3, 64, 64)
    logits = torch.empty(cuda.info.logits_shape, device="cuda")
    features = torch.empty(cuda.info.features_shape, device="cuda")
    cuda.session()(batch.cuda(), logits, features)
    for got, expected in zip((logits, features), run(cpu, batch), strict=True):
        assert (got.cpu() - expected).abs().max() <= 1e-2 * expected.abs().max()
