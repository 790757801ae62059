"""A network of the user's own: a function in a Python file that returns an `nn.Module`.

The file is run, as `python FILE.py` would; nothing runs code that the user did not name.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType

from torch import nn

from stream_cam.cam.geometry import check_input_size
from stream_cam.config import ModuleConfig
from stream_cam.errors import ModelError, UsageError, first_line, unknown_name
from stream_cam.model.camnet import CamNet
from stream_cam.model.checkpoint import Checkpoint, plain_tensors, read_checkpoint
from stream_cam.model.fingerprint import fingerprint
from stream_cam.model.input_color import normalisation
from stream_cam.model.labels import labels_of, read_labels
from stream_cam.model.state_dicts import find_own_parameters, load_parameters
from stream_cam.model.torch_settings import loading
from stream_cam.model.weights import Preprocessing, Weights, from_metadata, stored_labels

__all__ = ["load_own_network", "make_module"]


@loading()
def load_own_network(
    own: ModuleConfig,
    weights: str = "auto",
    labels: Path | Sequence[str] | None = None,
    checkpoint_key: str | None = None,
    input_size: int | None = None,
) -> tuple[CamNet, Weights]:
    """Runs the user's file, and reads the weights for its network.

    Args:
        own: with a `module`.
        weights: `auto` for the network's own parameters, or a checkpoint's path.
        labels: class names, or a file with them; default: those in the checkpoint, or numbers.
        checkpoint_key: which of several networks in a file.
        input_size: side of the square input in pixels; default: the checkpoint's, or 224.

    Raises:
        UsageError: there is no such file or function, or the options do not fit the network.
        ModelError, NoCamError, WeightsError: as their messages say.
    """
    module = make_module(own.module or "")
    name, path, read = own.name or type(module).__name__, None, None
    if weights != "auto":
        path = Path(os.path.expanduser(weights))
        read = read_checkpoint(path)
        found = find_own_parameters(read.groups, module, str(path), checkpoint_key)
        load_parameters(module, plain_tensors(found.state_dict, path), path.name, own_names=True)
    recipe = from_metadata(read.metadata, Preprocessing(), path) if read and path else None
    size = input_size or (recipe or Preprocessing()).input_size
    check_input_size(size)
    net = CamNet.from_module(module, name, (size, size), own.channels, own.output_name)
    mean, std = normalisation(net.channels, own.mean_numbers, own.std_numbers, own.input_scale)
    if recipe is not None and read is not None and _says_nothing(own, read.metadata):
        mean, std = recipe.mean, recipe.std
    made = Weights.of_module(module, net.n_logits, None, mean, std, size)
    return net, replace(
        made,
        labels=_labels(labels, read, net.n_logits, path) or made.labels,
        name=f"{name}, its own parameters" if path is None else path.name,
        sha256=fingerprint(made.state_dict),
    )


def make_module(spec: str) -> nn.Module:
    """The network that `FILE.py:FUNCTION` returns.

    Raises:
        UsageError: there is no such file, or no such function in it.
        ModelError: the file or the function fails, or returns something else.
    """
    file, _, name = spec.rpartition(":")
    path = Path(os.path.abspath(os.path.expanduser(file)))
    if not path.is_file():
        raise UsageError(f"--module: there is no file {file}; give FILE.py:FUNCTION")
    if path.suffix != ".py":
        raise UsageError(f"--module: {file} is no Python file; give FILE.py:FUNCTION")
    run = _run_file(path, file)
    found: object = getattr(run, name, None)
    if found is None:
        raise unknown_name(f"name in {file}", name, _names_in(run) or ["(none)"])
    if isinstance(found, nn.Module):
        return found
    if not callable(found):
        raise ModelError(
            f"{spec} is of type {type(found).__name__}; name a function that returns an nn.Module"
        )
    try:
        made: object = found()
    except (Exception, SystemExit) as exc:
        raise _failed(f"{name}()", file, path, exc) from exc
    if not isinstance(made, nn.Module):
        raise ModelError(
            f"{name}() of {file} returns {type(made).__name__}; it must return an nn.Module"
        )
    return made


def _run_file(path: Path, file: str) -> ModuleType:
    """The file as a module. Its folder is searched for its imports, as Python does for scripts."""
    key = f"_stream_cam_module_{path.stem}"
    spec = importlib.util.spec_from_file_location(key, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"--module: {file} cannot be imported; give FILE.py:FUNCTION")
    module = importlib.util.module_from_spec(spec)
    sys.modules[key] = module  # dataclasses and pickle look it up
    if (folder := str(path.parent)) not in sys.path:
        sys.path.append(folder)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as exc:
        del sys.modules[key]
        raise _failed("the code", file, path, exc) from exc
    return module


def _failed(call: str, file: str, path: Path, exc: BaseException) -> ModelError:
    """The user's own error, with the line of the user's file that it came through."""
    lines = [
        each.lineno
        for each in traceback.extract_tb(exc.__traceback__)
        if each.filename == str(path)
    ]
    if isinstance(exc, SyntaxError) and exc.filename == str(path):
        lines.append(exc.lineno)
    where = f", line {lines[-1]}" if lines else ""
    return ModelError(
        f"--module: {call} of {file} fails{where} ({type(exc).__name__}: {first_line(exc)}); "
        "correct it there"
    )


def _names_in(module: ModuleType) -> list[str]:
    """Functions, classes and networks that the file itself defines."""
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (isinstance(value, nn.Module) or getattr(value, "__module__", "") == module.__name__)
    ]


def _says_nothing(own: ModuleConfig, metadata: Mapping[str, str]) -> bool:
    """Whether the file says how pixels are normalised, and the options do not."""
    told = own.mean is not None or own.std is not None or own.input_scale is not None
    return not told and ("mean" in metadata or "std" in metadata)


def _labels(
    labels: Path | Sequence[str] | None, read: Checkpoint | None, n_logits: int, path: Path | None
) -> tuple[str, ...] | None:
    if isinstance(labels, Path):
        return read_labels(labels, n_logits)
    if labels is not None:
        return labels_of(labels, n_logits, "labels")
    return None if read is None or path is None else stored_labels(read, n_logits, path)
