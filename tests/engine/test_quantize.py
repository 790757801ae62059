"""int8 engines: made by NNCF from frames, gated on their maps, kept and found again."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import PackageNotFoundError
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from support.int8_parts import HW, small_calibration, small_net

from stream_cam.engine import EngineOptions, load_engine, quantize, quantize_nncf
from stream_cam.engine.base import Engine, ignore_progress
from stream_cam.engine.builder import EngineRequest
from stream_cam.engine.calibration import Calibration, read_calibration
from stream_cam.engine.openvino import OpenVinoBuilder, _convert
from stream_cam.engine.prepare import Prepared, load_and_verify, load_or_build
from stream_cam.engine.quantize import GateMetric, Quantizers
from stream_cam.engine.quantize_nncf import NncfQuantizer, _n_quantized
from stream_cam.engine.store import BLOB, MANIFEST, EngineStore
from stream_cam.engine.verify import GATES, N_DRAWN, N_RANDOM, Comparison, compare
from stream_cam.errors import EngineError
from stream_cam.model.camnet import CamNet, build_network, load_parameters
from stream_cam.model.weights import load_weights
from stream_cam.sources import open_source

pytestmark = [
    pytest.mark.needs_nncf,
    pytest.mark.skipif(
        find_spec("nncf") is None, reason="NNCF is not installed: pip install -e '.[int8]'"
    ),
]


@pytest.fixture(scope="module")
def net() -> CamNet:
    return small_net()


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    return small_calibration()


@pytest.fixture(scope="module")
def built(
    net: CamNet, calibration: Calibration, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Prepared, list[str]]:
    """A store with one int8 engine for one frame at a time, and the messages of its build."""
    folder = tmp_path_factory.mktemp("engines")
    stages: list[str] = []
    builder = int8_builder(net, Quantizers(net, calibration), EngineStore(folder))
    return folder, load_or_build(builder, EngineStore(folder), on_stage=stages.append), stages


@pytest.fixture
def store(built: tuple[Path, Prepared, list[str]], tmp_path: Path) -> EngineStore:
    """A copy of that store, to be spoilt."""
    shutil.copytree(built[0], tmp_path / "engines")
    return EngineStore(tmp_path / "engines")


def int8_builder(
    net: CamNet,
    quantizers: Quantizers | None,
    store: EngineStore,
    parallel: int = 1,
    hw: tuple[int, int] = HW,
) -> OpenVinoBuilder:
    request = EngineRequest(
        net, "abc", hw, precision="int8", parallel=parallel, quantizers=quantizers
    )
    return OpenVinoBuilder(request, store)


def run(engine: Engine, batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    logits = torch.full(engine.info.logits_shape, torch.nan)
    features = torch.full(engine.info.features_shape, torch.nan)
    engine.session()(batch, logits, features)
    return logits, features


def test_an_int8_engine_is_near_to_the_network_but_not_the_same(
    net: CamNet, built: tuple[Path, Prepared, list[str]], calibration: Calibration
) -> None:
    engine = built[1].engine
    eager = load_engine(net, "abc", HW, EngineOptions("eager", "cpu"))
    assert replace(engine.info, name="eager", precision="fp32") == eager.info
    assert (engine.info.name, engine.info.precision) == ("openvino", "int8")
    figures = compare(engine, net, calibration.validating)
    assert GATES["int8"].failures(figures) == []
    # 8 bits are not 24: it would be float otherwise.
    assert figures.cam_difference > 1e-3
    for got, expected in zip(
        run(engine, calibration.validating[0]), run(eager, calibration.validating[0]), strict=True
    ):
        assert got.dtype == torch.float32
        assert (got - expected).abs().max() <= 0.1 * expected.abs().max()


def test_a_session_writes_into_the_callers_buffers(
    built: tuple[Path, Prepared, list[str]],
) -> None:
    engine = built[1].engine
    session = engine.session()
    outputs = []
    for seed in (1, 2, 1):
        batch = torch.randn(1, 3, *HW, generator=torch.Generator().manual_seed(seed))
        logits = torch.full(engine.info.logits_shape, torch.nan)
        features = torch.full(engine.info.features_shape, torch.nan)
        session(batch, logits, features)
        assert not torch.isnan(logits).any()
        assert not torch.isnan(features).any()
        outputs.append((logits, features))
    assert torch.equal(outputs[0][1], outputs[2][1])
    assert not torch.equal(outputs[0][1], outputs[1][1])


def test_the_manifest_names_calibration_and_nncf(
    built: tuple[Path, Prepared, list[str]], net: CamNet, calibration: Calibration
) -> None:
    manifest = built[1].manifest
    said = dict(manifest.key.calibration)
    assert said["frames"] == "12+12"
    assert said["nncf"] == quantize_nncf.nncf_version()
    assert len(said["frames_sha256"]) == 16
    assert GATES["int8"].failures(manifest.verification) == []
    assert manifest.verification == compare(built[1].engine, net, calibration.validating)


def test_progress_is_shown_and_nncf_is_silent(
    net: CamNet, calibration: Calibration, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    stages: list[str] = []
    builder = int8_builder(net, Quantizers(net, calibration), EngineStore(tmp_path))
    load_or_build(builder, EngineStore(tmp_path), on_stage=stages.append)
    assert stages[:2] == ["compiling", "quantising"]
    assert any(stage.startswith("quantising (try 2, worst map ") for stage in stages)
    assert stages[-3:] == ["verifying", "measuring", "keeping"]
    assert capfd.readouterr() == ("", "")
    assert logging.getLoggerClass() is logging.Logger
    assert not logging.getLogger("nncf").disabled


def test_frames_and_nncfs_version_are_in_the_key(
    net: CamNet, calibration: Calibration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, *others = calibration.validating
    brighter = replace(calibration, validating=(first + 1e-6, *others))
    swapped = Calibration(calibration.validating, calibration.calibrating)
    fewer = replace(calibration, validating=tuple(others))
    store = EngineStore(tmp_path)

    def digest(frames: Calibration) -> str:
        return int8_builder(net, Quantizers(net, frames), store).key.digest()

    digests = [digest(frames) for frames in (calibration, brighter, swapped, fewer)]
    assert digest(Calibration(calibration.calibrating, calibration.validating)) == digests[0]
    monkeypatch.setattr(quantize_nncf, "nncf_version", lambda: "3.99")
    digests.append(digest(calibration))
    assert len(set(digests)) == len(digests)


def test_a_run_finds_the_engine_without_its_frames_and_without_nncf(
    net: CamNet,
    store: EngineStore,
    built: tuple[Path, Prepared, list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "nncf", None)
    monkeypatch.setenv("STREAM_CAM_ENGINES", str(store.folder))
    batch = torch.randn(1, 3, *HW)
    engine = load_engine(net, "abc", HW, EngineOptions(precision="int8", device="cpu"))
    assert torch.equal(run(engine, batch)[1], run(built[1].engine, batch)[1])
    prepared, figures = load_and_verify(int8_builder(net, None, store), store)
    assert prepared.manifest == built[1].manifest
    assert GATES["int8"].failures(figures) == []


def copied(store: EngineStore, change: Callable[[dict[str, Any]], None]) -> Path:
    """Another engine in the store, with a manifest that is changed."""
    ((path, manifest),) = store.manifests()
    said = json.loads(manifest.to_json())
    change(said)
    fresh = type(manifest).from_json(json.dumps(said))
    shutil.copytree(path, store.path(fresh.key))
    (store.path(fresh.key) / MANIFEST).write_text(json.dumps(said))
    return store.path(fresh.key)


def newer(said: dict[str, Any]) -> None:
    said["built_unix_seconds"] += 1
    said["key"]["calibration"]["frames_sha256"] = "fedcba9876543210"


def test_the_newest_whole_engine_is_taken(
    net: CamNet, store: EngineStore, caplog: pytest.LogCaptureFixture
) -> None:
    (older,) = store.entries()
    newest = copied(store, newer)
    builder = int8_builder(net, None, store)
    assert store.path(builder.key) == newest
    (newest / BLOB).write_bytes(b"not what it was")
    assert store.path(int8_builder(net, None, store).key) == older
    assert f"{newest.name} is damaged" in caplog.text


@pytest.mark.parametrize(
    ("part", "value", "expected"),
    [
        ("versions", {"openvino": "2020.1"}, r"is kept here, only of openvino 2020.1 \(here "),
        ("hardware", {"cpu": "another"}, r"is kept here, only of cpu another \(here "),
    ],
)
def test_an_engine_of_other_versions_is_named(
    net: CamNet, store: EngineStore, part: str, value: dict[str, str], expected: str
) -> None:
    (path,) = store.entries()
    copied(store, lambda said: said["key"][part].update(value))
    shutil.rmtree(path)
    with pytest.raises(EngineError, match=expected) as error:
        int8_builder(net, None, store)
    assert "--calibrate clip.mp4` makes one" in str(error.value)


def test_without_a_kept_engine_one_line_names_the_command(
    net: CamNet, store: EngineStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STREAM_CAM_ENGINES", str(store.folder))
    expected = "no int8 engine of small 3×96×96 for one frame at a time is kept here: `stream-cam"
    with pytest.raises(EngineError, match=expected):
        load_engine(net, "abc", (96, 96), EngineOptions(precision="int8", device="cpu"))
    with pytest.raises(EngineError, match="square inputs, not for 3×96×64: give --fit stretch"):
        load_engine(net, "abc", (96, 64), EngineOptions(precision="int8", device="cpu"))
    with pytest.raises(EngineError, match="3×64×64 for 3 frames at once is kept here"):
        load_engine(net, "abc", HW, EngineOptions(precision="int8", device="cpu", parallel=3))
    with pytest.raises(EngineError, match="no int8 engine of small"):
        load_engine(net, "other weights", HW, EngineOptions(precision="int8", device="cpu"))
    with pytest.raises(EngineError, match="the eager engine has no int8"):
        load_engine(net, "abc", HW, EngineOptions(engine="eager", precision="int8", device="cpu"))
    with pytest.raises(EngineError, match="--calibrate"):
        int8_builder(net, None, store).compile()


def test_a_processor_without_int8_is_an_error(
    net: CamNet, store: EngineStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "stream_cam.engine.openvino_runtime.openvino_capabilities", lambda core: ["FP32"]
    )
    with pytest.raises(EngineError, match=r"no 8-bit integer arithmetic.*--precision fp32"):
        int8_builder(net, None, store)


def test_engines_for_one_frame_and_for_several_are_quantised_once(
    net: CamNet, calibration: Calibration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    control = NncfQuantizer._with_accuracy_control

    def counted(self: NncfQuantizer, *arguments: Any) -> Any:
        calls.append(self)
        return control(self, *arguments)

    monkeypatch.setattr(NncfQuantizer, "_with_accuracy_control", counted)
    store, quantizers = EngineStore(tmp_path), Quantizers(net, calibration)
    paths = [
        load_or_build(int8_builder(net, quantizers, store, parallel), store).path
        for parallel in (1, 2)
    ]
    assert len(calls) == 1
    assert len(set(paths)) == 2
    for path, parallel in zip(paths, (1, 2), strict=True):
        assert store.path(int8_builder(net, None, store, parallel).key) == path


def test_an_engine_that_fails_the_gate_is_not_published(
    net: CamNet, calibration: Calibration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ranges from frames a hundred times darker: everything saturates."""
    dark = [frame.numpy() / 100 for frame in calibration.calibrating]

    def saturated(self: NncfQuantizer, model: Any, on_stage: Any) -> Any:
        nncf = quantize_nncf._import_nncf()
        return nncf.quantize(model, nncf.Dataset(dark))

    monkeypatch.setattr(NncfQuantizer, "_with_accuracy_control", saturated)
    store = EngineStore(tmp_path)
    expected = (
        r"in int8 is not the network.*maps' correlation -?0\.\d+, at least 0\.99 is asked for"
    )
    with pytest.raises(EngineError, match=expected) as error:
        load_or_build(int8_builder(net, Quantizers(net, calibration), store), store)
    assert "give --precision fp32" in str(error.value)
    assert store.entries() == []


def test_a_network_that_stays_in_float_is_no_int8_engine(
    net: CamNet, calibration: Calibration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(NncfQuantizer, "_with_accuracy_control", lambda _, model, on_stage: model)
    store = EngineStore(tmp_path)
    with pytest.raises(EngineError, match=r"small cannot be int8.*give --precision fp32"):
        load_or_build(int8_builder(net, Quantizers(net, calibration), store), store)
    assert store.entries() == []


def test_layers_go_back_to_float_until_the_gate_holds(
    net: CamNet, calibration: Calibration, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a stricter gate than the network reaches with every layer in integers."""
    model = _convert(net, (1, 3, *HW))
    n_quantized = [_n_quantized(NncfQuantizer(net, calibration).quantize(model, ignore_progress))]
    monkeypatch.setattr(quantize_nncf, "GATE_MARGIN", 0.009)
    stages: list[str] = []
    n_quantized.append(_n_quantized(NncfQuantizer(net, calibration).quantize(model, stages.append)))
    assert 0 < n_quantized[1] < n_quantized[0]
    worst = [float(stage.split("map ")[1].split(",")[0]) for stage in stages if "map" in stage]
    assert worst[2] < 0.999 <= worst[-1]


def test_a_failure_of_nncf_is_one_line(
    net: CamNet, calibration: Calibration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> None:
        raise RuntimeError("unknown operation\nand much more")

    monkeypatch.setattr(NncfQuantizer, "_with_accuracy_control", fails)
    store = EngineStore(tmp_path)
    with pytest.raises(EngineError) as error:
        load_or_build(int8_builder(net, Quantizers(net, calibration), store), store)
    assert str(error.value) == (
        "NNCF cannot quantise small (unknown operation); give --precision fp32"
    )


def test_without_nncf_one_line_names_the_package(
    net: CamNet, calibration: Calibration, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(package: str) -> str:
        raise PackageNotFoundError(package)

    monkeypatch.setattr(quantize_nncf, "version", missing)
    with pytest.raises(EngineError, match=r"not installed: pip install 'stream-cam\[int8\]'"):
        NncfQuantizer(net, calibration)


def test_the_metric_is_the_distance_to_the_gate(net: CamNet, calibration: Calibration) -> None:
    eager = load_engine(net, "abc", HW, EngineOptions("eager", "cpu"))
    comparison = Comparison(net, (1, 3, *HW), calibration.validating)
    assert len(comparison) == len(calibration.validating) + N_DRAWN + N_RANDOM
    perfect = comparison.figures(eager)
    assert quantize._gate_margin(perfect) == pytest.approx(GateMetric.best)
    assert quantize._gate_margin(replace(perfect, cam_correlation=0.98)) == pytest.approx(-0.01)
    assert quantize._gate_margin(replace(perfect, top1_agreement=0.5)) == pytest.approx(-0.48)
    assert comparison.figures(eager, [0, 3]).top1_agreement == 1.0


def test_nncf_leaves_loggers_alone() -> None:
    """In a process of its own: NNCF is imported once."""
    code = (
        "import logging\n"
        "from stream_cam.engine import quantize_nncf\n"
        "quantize_nncf._import_nncf()\n"
        "assert logging.getLoggerClass() is logging.Logger\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=120)


def test_the_demo_model_survives_int8(tmp_path: Path) -> None:
    """ResNet18 with trained weights, at half their own side for the time's sake; at a quarter of it
    (two cells by two) the gate is reached with hardly any layer in int8."""
    side = 128
    weights = load_weights("demo", "resnet18")
    module = build_network("resnet18", weights.n_classes)
    load_parameters(module, weights.state_dict, weights.name)
    net = CamNet.from_module(module, name="resnet18")
    source = open_source("demo://shapes?size=192x128&fps=10&seconds=8&seed=7")
    calibration = read_calibration(source, weights, "stretch", side, ignore_progress)
    store = EngineStore(tmp_path)
    quantizers = Quantizers(net, calibration)
    prepared = load_or_build(int8_builder(net, quantizers, store, hw=(side, side)), store)
    figures = prepared.manifest.verification
    assert figures.cam_correlation >= 0.99
    assert figures.top1_agreement >= 0.98
    full = load_or_build(OpenVinoBuilder(EngineRequest(net, "abc", (side, side))), store)
    assert prepared.manifest.size_bytes < 0.7 * full.manifest.size_bytes
