"""Checkpoint files, read without running the code in them."""

from __future__ import annotations

import contextlib
import json
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from stream_cam.errors import WeightsError
from stream_cam.model import safe_globals
from stream_cam.model.download import reason_of
from stream_cam.model.labels import LABEL_KEYS
from stream_cam.uri import printable

SUFFIXES = (".pth", ".pt", ".ckpt", ".th", ".bin", ".pth.tar", ".safetensors")

_OPTIMIZER = re.compile(
    r"(?i)(?:.*_)?(?:opt|optim|optimizers?|schedulers?|scaler)(?:_states?)?(?:_dict)?"
)
"""Keys whose tensors are no network's."""
_DEPTH = 8
_NO_CODE = "only tensors are read: save `model.state_dict()` instead"


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The tensors of a file, with its metadata and class names."""

    groups: dict[str, dict[str, Tensor]]
    """Tensors by key, as in the file, by their place in it: such as `state_dict`, or "" at its
    top."""
    metadata: dict[str, str] = field(default_factory=dict)
    """The safetensors header, or `arch` beside a state dict."""
    labels: dict[str, object] = field(default_factory=dict)
    """Data under keys that class names have, such as `class_to_idx`, by the place in the file."""


def read_checkpoint(path: Path) -> Checkpoint:
    """All tensors in a checkpoint file, whatever they are wrapped in.

    Raises:
        WeightsError: there is no such file, it is damaged, or it holds something else.
    """
    try:
        _refuse_other_files(path)
        if path.suffix.lower() == ".safetensors":
            tensors, metadata = _read_safetensors(path)
            found = _Found({"": tensors} if tensors else {}, metadata, _labels_of_header(metadata))
        else:
            found = _collected(_read_torch(path), path)
    except OSError as exc:
        raise WeightsError(f"cannot read weights {path}: {reason_of(exc)}") from exc
    if not found.groups:
        raise WeightsError(f"{path} holds no tensors; save `model.state_dict()` into it")
    return Checkpoint(found.groups, found.metadata, found.labels)


def plain_tensors(tensors: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The tensors detached, the floating ones float32.

    Raises:
        WeightsError: one is no plain strided tensor.
    """
    return {key: _plain(key, tensor, path) for key, tensor in tensors.items()}


def _refuse_other_files(path: Path) -> None:
    """Raises WeightsError for a file that is no checkpoint, and names its kind."""
    if path.is_dir():
        raise WeightsError(f"weights {path} is a folder; give a {', '.join(SUFFIXES)} file")
    if not path.exists():
        raise WeightsError(
            f"no weights at {path}; --weights is imagenet, demo or a {', '.join(SUFFIXES)} file"
        )
    if not path.name.lower().endswith(SUFFIXES):
        raise WeightsError(
            f"weights {path} is none of {', '.join(SUFFIXES)}; rename it if it is one"
        )
    if path.suffix.lower() == ".safetensors" and printable(str(path)) != str(path):
        raise WeightsError(f"{path}: safetensors reads no name that is not UTF-8; rename the file")
    with path.open("rb") as file:
        head = file.read(256).lstrip()
    if not head:
        raise WeightsError(f"{path} is empty; copy or download it again")
    if head[:1] == b"<":
        raise WeightsError(f"{path} is a web page, not weights; download the file itself")
    if head.startswith(b"version https://git-lfs"):
        raise WeightsError(f"{path} is a Git LFS pointer; fetch the file with `git lfs pull`")


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            tensors: dict[str, Tensor] = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            return tensors, dict(file.metadata() or {})
    except SafetensorError as exc:
        raise WeightsError(
            f"{path} is damaged, truncated or not safetensors ({reason_of(exc)}); copy it again"
        ) from exc


def _read_torch(path: Path) -> object:
    try:
        if _is_torchscript(path):
            raise WeightsError(f"{path} is a TorchScript archive; {_NO_CODE}")
        # torch warns of pickle protocols before it refuses them.
        with warnings.catch_warnings(), safe_globals.allow_plain_data():
            warnings.simplefilter("ignore")
            loaded: object = torch.load(path, map_location="cpu", weights_only=True)
    except WeightsError:
        raise
    except Exception as exc:
        # On a damaged file zipfile and torch.load fail with nearly any exception.
        raise _unreadable(path, exc) from exc
    return loaded


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("constants.pkl") for name in archive.namelist())


def _unreadable(path: Path, exc: Exception) -> WeightsError:
    refused = re.search(r"GLOBAL (\S+)", str(exc))
    if isinstance(exc, pickle.UnpicklingError) and refused:
        return WeightsError(f"{path} holds code ({refused[1]}), which is not run; {_NO_CODE}")
    with path.open("rb") as file:
        head = file.read(2)
    if head[:1] == b"\x80" and "Unsupported operand" in str(exc):
        return WeightsError(f"{path} is a pickle, which may hold code and is not run; {_NO_CODE}")
    return WeightsError(
        f"{path} is damaged, truncated or not a PyTorch file; copy or download it again"
    )


@dataclass
class _Found:
    """The tensors, metadata and class names that a walk through a file meets."""

    groups: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)
    labels: dict[str, object] = field(default_factory=dict)

    def walk(self, value: object, place: str = "", depth: int = 0) -> None:
        """Collects from a mapping or a list and from all that these hold."""
        if isinstance(value, list | tuple):
            value = dict(enumerate(value))
        if not isinstance(value, Mapping) or depth > _DEPTH:
            return
        tensors = {str(key): each for key, each in value.items() if isinstance(each, Tensor)}
        if tensors:
            self.groups[place] = tensors
        for key, each in value.items():
            there = f"{place}.{key}" if place else str(key)
            if key == "arch" and isinstance(each, str):
                self.metadata.setdefault("arch", each)
            elif key in LABEL_KEYS:
                self.labels[there] = (
                    each.values if isinstance(each, safe_globals.NumpyArray) else each
                )
            elif not _OPTIMIZER.fullmatch(str(key)):
                self.walk(each, there, depth + 1)


def _collected(loaded: object, path: Path) -> _Found:
    found = _Found()
    if not isinstance(loaded, Mapping):
        ignored = isinstance(loaded, safe_globals.IgnoredData)
        kind = "single setting" if ignored else type(loaded).__name__
        raise WeightsError(f"{path} holds a {kind}; {_NO_CODE}")
    found.walk(loaded)
    return found


def _labels_of_header(metadata: Mapping[str, str]) -> dict[str, object]:
    """Class names in a safetensors header, whose values are text."""
    labels: dict[str, object] = {}
    for key in LABEL_KEYS:
        with contextlib.suppress(ValueError, RecursionError):
            if key in metadata:
                labels[key] = json.loads(metadata[key])
    return labels


def _plain(key: str, tensor: Tensor, path: Path) -> Tensor:
    odd = tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta
    if odd or tensor.is_complex():
        raise WeightsError(
            f"{path}: {key} is sparse, quantised, complex or empty; save the float network"
        )
    return tensor.detach().float() if tensor.is_floating_point() else tensor.detach()
