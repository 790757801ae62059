"""`stream-cam build`: builds, verifies and stores engines ahead of time."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stream_cam.cam.geometry import check_input_size
from stream_cam.cli.options import BuildCommand
from stream_cam.config import ModelConfig
from stream_cam.engine import Batch, EngineOptions, OnStage, check_buildable, open_builder
from stream_cam.engine.builder import EngineBuilder
from stream_cam.engine.calibration import read_calibration
from stream_cam.engine.machine import TENSORRT_INSTALL
from stream_cam.engine.manifest import Manifest
from stream_cam.engine.prepare import load_and_verify, load_or_build
from stream_cam.engine.quantize import Quantizers
from stream_cam.engine.store import EngineStore
from stream_cam.errors import EngineError, UsageError
from stream_cam.host import parallel_choices
from stream_cam.model.networks import load_network
from stream_cam.sources import open_source
from stream_cam.uri import json_text, redact_uri


@dataclasses.dataclass(frozen=True)
class Result:
    """The outcome of one engine."""

    outcome: str
    """built, kept already or verified."""
    path: Path
    manifest: Manifest


def build_command(command: BuildCommand) -> None:
    """Builds, verifies and keeps the engines that `run` would build, and prints their figures.

    Raises:
        StreamCamError: as its message says.
    """
    store = EngineStore()
    done = []
    for builder in _builders(command):
        with _progress(f"{builder.key.model} {builder.key.input_text}") as on_stage:
            result = (
                _verify_again(builder, store, on_stage)
                if command.verify_only
                else _build(builder, store, command.force, on_stage)
            )
        done.append(result)
        if not command.json:
            print(_lines(result), flush=True)
    if command.json:
        print(json_text([_as_json(result) for result in done], indent=2))
    elif not _has_gpu():
        print(
            "no GPU is usable here: a TensorRT engine needs an NVIDIA GPU with its driver, and "
            f"{TENSORRT_INSTALL}"
        )


def _batch(text: str) -> Batch:
    try:
        return Batch.parse(text)
    except ValueError as error:
        raise UsageError(f"--batch: {error}") from error


def _check(model: ModelConfig) -> None:
    """Raises UsageError for options whose engine cannot be built ahead of time."""
    if model.fit == "native":
        raise UsageError(
            "with --fit native the input's shape is the frame's, so its engine is built at the "
            "first frame: give another --fit"
        )


def _builders(command: BuildCommand) -> list[EngineBuilder]:
    """A builder for each engine; a GPU's engine does not depend on the frames at once."""
    model, calibrate, batch = command.model, command.calibrate, _batch(command.batch)
    _check(model)
    # Checked before anything slow is loaded.
    quantizing = calibrate is not None
    options = EngineOptions.from_config(model, batch=batch)
    check_buildable(options, quantizing=quantizing)
    if calibrate is not None:
        source = open_source(calibrate)
    net, loaded = load_network(model)
    size = loaded.input_size if model.input_size is None else model.input_size
    check_input_size(size)
    quantizers = None
    if calibrate is not None:
        with _progress(redact_uri(calibrate)) as on_stage:
            calibration = read_calibration(source, loaded, model.fit, size, on_stage)
        quantizers = Quantizers(net, calibration)
    builders = [
        open_builder(
            *(net, net.fingerprint(), (size, size)),
            dataclasses.replace(options, parallel=parallel),
            quantizers,
        )
        for parallel in parallel_choices()
    ]
    return list({builder.key.digest(): builder for builder in builders}.values())


def _build(builder: EngineBuilder, store: EngineStore, force: bool, on_stage: OnStage) -> Result:
    prepared = load_or_build(builder, store, force=force, on_stage=on_stage)
    if prepared.path is None:
        raise EngineError(
            f"the engine was built but could not be kept in {store.folder}: export "
            "STREAM_CAM_ENGINES=<a folder of yours with space>"
        )
    return Result("built" if prepared.built else "kept already", prepared.path, prepared.manifest)


def _verify_again(builder: EngineBuilder, store: EngineStore, on_stage: OnStage) -> Result:
    prepared, figures = load_and_verify(builder, store, on_stage=on_stage)
    assert prepared.path is not None
    manifest = dataclasses.replace(prepared.manifest, verification=figures)
    return Result("verified", prepared.path, manifest)


def _lines(result: Result) -> str:
    manifest = result.manifest
    key = manifest.key
    options = " ".join(f"{name}={value}" for name, value in key.options.items())
    unit = "frame" if key.input_shape[0] == 1 else f"call of {key.input_shape[0]} frames"
    if streams := key.options.get("NUM_STREAMS"):
        unit += f" alone on one of {streams} streams"
    return (
        f"{result.outcome}: {key.model} {key.input_text}, {key.backend} {key.precision} "
        f"({options})\n"
        f"  {manifest.verification}\n"
        f"  {manifest.latency_p50_ms:.3g} ms a {unit}, {manifest.size_bytes / 1e6:.0f} MB, "
        f"built in {manifest.build_seconds:.1f} s\n"
        f"  {result.path}"
    )


def _as_json(result: Result) -> dict[str, Any]:
    return {
        "what": result.outcome,
        "path": str(result.path),
        **dataclasses.asdict(result.manifest),
    }


@contextmanager
def _progress(title: str) -> Iterator[OnStage]:
    """Shows the current step on a terminal; nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda stage: None
        return
    from rich.console import Console

    with Console(stderr=True, highlight=False).status(title) as status:
        yield lambda stage: status.update(f"{stage} {title}")


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()
