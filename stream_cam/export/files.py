"""Writes an exported network as ONNX, or as OpenVINO's .xml and .bin."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from stream_cam.errors import ModelError, StreamCamError, UsageError, first_line
from stream_cam.export.network import OUTPUTS, ExportedNetwork
from stream_cam.model.tracing import tracing

SUFFIXES = (".onnx", ".xml")
_INSTALL = "pip install 'stream-cam[export]'"


def check_suffix(path: Path) -> None:
    """Raises UsageError for a file in no format that can be written."""
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"{path}: give a file in {' or '.join(SUFFIXES)}")


def check_exporter(path: Path) -> None:
    """Raises StreamCamError if a package is missing, before anything slow is done."""
    if path.suffix.lower() != ".onnx":
        return
    try:
        import onnxscript  # noqa: F401
    except ImportError as exc:
        raise StreamCamError(
            f"ONNX files need the package onnxscript ({first_line(exc)}): {_INSTALL}, or give a "
            "file in .xml"
        ) from exc


def files_of(path: Path) -> tuple[Path, ...]:
    """All files that are written for `path`."""
    return (path,) if path.suffix.lower() == ".onnx" else (path, path.with_suffix(".bin"))


def write_network(network: ExportedNetwork, path: Path, facts: Mapping[str, object]) -> None:
    """Writes the files.

    Args:
        path: in .onnx or .xml; must not exist.
        facts: written into the file, values as JSON.

    Raises:
        ModelError: the network cannot be exported.
        OSError: the files cannot be written.
    """
    texts = {key: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
             for key, value in facts.items()}  # fmt: skip
    example = network.input.example()
    write = _write_onnx if path.suffix.lower() == ".onnx" else _write_openvino
    with warnings.catch_warnings(), _quiet("torch.onnx", "onnxscript", "onnx_ir"):
        warnings.simplefilter("ignore")  # their own deprecations
        try:
            with tracing():
                exported = torch.export.export(
                    network, (example,), dynamic_shapes=_sides(network), strict=False
                )
                write(exported, network, path, texts)
        except OSError:
            raise
        except Exception as exc:  # whatever torch.export and the writers may raise
            raise ModelError(
                f"the network cannot be exported ({type(exc).__name__}: {first_line(exc)}); "
                "its forward must work for any number of pictures"
            ) from exc


def _sides(network: ExportedNetwork) -> tuple[dict[int, Any]]:
    """The sides of the input that may change from call to call."""
    return (
        {
            place: torch.export.Dim(name, min=1)
            for place, name in enumerate(network.input.shape)
            if isinstance(name, str)
        },
    )


def _write_onnx(
    exported: Any, network: ExportedNetwork, path: Path, texts: Mapping[str, str]
) -> None:
    program: Any = torch.onnx.export(
        exported,
        dynamo=True,
        dynamic_shapes=_sides(network),  # only for their names
        input_names=[network.input.name],
        output_names=list(OUTPUTS),
        external_data=False,
        verbose=False,
    )
    program.model.metadata_props.update({f"stream_cam.{key}": text for key, text in texts.items()})
    program.model.producer_name = "stream-cam"
    program.save(str(path), external_data=False)


def _write_openvino(
    exported: Any, network: ExportedNetwork, path: Path, texts: Mapping[str, str]
) -> None:
    import openvino

    model = openvino.convert_model(exported)
    model.input(0).set_names({network.input.name})
    shape = [-1 if isinstance(side, str) else side for side in network.input.shape]
    model.reshape({network.input.name: openvino.PartialShape(shape)})
    for place, name in enumerate(OUTPUTS):
        model.output(place).set_names({name})
    for key, text in texts.items():
        model.set_rt_info(text, ["stream_cam", key])
    openvino.save_model(model, str(path), compress_to_fp16=False)


class _quiet:
    """Keeps loggers of libraries below errors."""

    def __init__(self, *names: str) -> None:
        self._loggers = [logging.getLogger(name) for name in names]

    def __enter__(self) -> None:
        self._levels = [logger.level for logger in self._loggers]
        for logger in self._loggers:
            logger.setLevel(logging.ERROR)

    def __exit__(self, *_: object) -> None:
        for logger, level in zip(self._loggers, self._levels, strict=True):
            logger.setLevel(level)
