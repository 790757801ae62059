"""`stream-cam export`: writes a network with its maps for other runtimes."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

from stream_cam._version import __version__
from stream_cam.atomic_files import unwritable
from stream_cam.cam.geometry import check_input_size
from stream_cam.cli.messages import print_line
from stream_cam.cli.options import ExportCommand
from stream_cam.config import ModelConfig
from stream_cam.errors import OutputExistsError, SinkError, UsageError
from stream_cam.export.check import TOLERANCE, check_file
from stream_cam.export.files import check_exporter, check_suffix, files_of, write_network
from stream_cam.export.network import ExportedNetwork, Inside
from stream_cam.model.networks import load_network

_NOT_EXPORTED = ("engine", "device", "precision", "fit", "target")
"""Options of the network that say how it is run here."""


def export_command(command: ExportCommand) -> None:
    """Writes the files, checks them in the runtimes that are here, and prints what is in them.

    Raises:
        StreamCamError: as its message says; nothing is written then.
    """
    path = Path(os.path.expanduser(command.output))
    _check(command, path)
    net, weights = load_network(command.model)
    side = command.model.input_size or weights.input_size
    check_input_size(side)
    inside: Inside = "nothing"
    if command.with_preprocessing:
        inside = "resizing" if command.resize else "normalisation"
    network = ExportedNetwork(net, weights, (side, side), inside)
    facts: dict[str, object] = {
        "version": __version__,
        "model": net.name,
        "weights": f"{weights.name} {weights.sha256}",
        "labels": weights.labels,
        "input": str(network.input),
        "channels": network.input.channels,
        "mean": network.input.mean,
        "std": network.input.std,
    }
    try:
        with tempfile.TemporaryDirectory(prefix=".stream-cam-", dir=path.parent) as folder:
            made = Path(folder) / path.name
            write_network(network, made, facts)
            differences = check_file(made, network.input, net, weights)
            for part, place in zip(files_of(made), files_of(path), strict=True):
                os.replace(part, place)
    except OSError as exc:
        raise SinkError(f"cannot write {path}: {exc.strerror or exc}; give another place") from exc
    _print(network, weights.labels, path, differences)


def _check(command: ExportCommand, path: Path) -> None:
    """Raises StreamCamError before anything slow is done."""
    check_suffix(path)
    usual = ModelConfig()
    for name in _NOT_EXPORTED:
        if getattr(command.model, name) != getattr(usual, name):
            raise UsageError(
                f"--{name} says how a network is run here, and export writes float32 for all "
                f"runtimes: leave out --{name}"
            )
    if problem := unwritable(path):
        raise SinkError(f"cannot write {path}: {problem}; give another place")
    there = [str(each) for each in files_of(path) if each.exists()]
    if there and not command.overwrite:
        raise OutputExistsError.of(*there)
    check_exporter(path)


def _print(
    network: ExportedNetwork, labels: tuple[str, ...], path: Path, differences: dict[str, float]
) -> None:
    for each in files_of(path):
        print_line(f"wrote {each} ({each.stat().st_size / 1e6:.1f} MB)")
    given = network.input
    print_line(f"  input   {given}")
    if given.inside == "nothing":
        mean, std = json.dumps(given.mean), json.dumps(given.std)
        print_line(f"          mean {mean}, std {std} of values in 0..1")
    print_line(f"  outputs logits (N, {len(labels)}), maps (N, {len(labels)}, h, w), float32")
    found = ", ".join(f"{name} {value:.1e}" for name, value in differences.items())
    print_line(f"  checked against PyTorch: {found} of the largest value, {TOLERANCE:g} is allowed")
    if path.suffix.lower() == ".onnx" and "onnxruntime" not in differences:
        print_line(
            "  ONNX Runtime is not installed: pip install 'stream-cam[export]' checks it too"
        )
