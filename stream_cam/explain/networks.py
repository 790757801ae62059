"""The network of an explainer: loaded, or remembered from an earlier run without loading it.

A run with an engine that the store keeps needs little of the network itself: the linear layer's
weight, the labels, the normalisation. `keep_network` writes these beside the engines, and
`find_network` reads them back where the weights' file is still the same. So a start imports neither
PyTorch nor torchvision.

    <engines>/networks/<hash of model, weights and versions>.safetensors
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from stream_cam._version import __version__
from stream_cam.atomic_files import write_atomic
from stream_cam.engine import Engine, EngineOptions, load_engine, read_kept_engine
from stream_cam.engine.store import engines_folder
from stream_cam.frame import ClassRows, FloatArray, Method
from stream_cam.model.recipe import WeightsInfo

if TYPE_CHECKING:
    from stream_cam.model.camnet import CamNet

logger = logging.getLogger(__name__)

_FORMAT = 1
"""Raise it when the meaning of a file changes."""
_MAX_KEPT = 32
_WEIGHT = "class_weight"
_PACKAGES = ("torch", "torchvision", "openvino")
"""Their versions decide about labels, fingerprints and engines."""


class Network(Protocol):
    """What an explainer needs of its network."""

    name: str
    method: Method

    @property
    def class_weight(self) -> FloatArray | None:
        """The linear layer's, (n_classes, C) float32; None: the head is not linear."""
        ...

    def class_weight_of(self, features: FloatArray) -> ClassRows:
        """The class weights of the frame with these features, (C, h, w) float32."""
        ...

    def open_engine(self, input_hw: tuple[int, int], options: EngineOptions) -> Engine:
        """An engine for an input's height and width in pixels.

        Raises:
            UsageError, EngineError: as `load_engine`.
        """
        ...


class LoadedNetwork:
    """A network in memory."""

    def __init__(self, net: CamNet) -> None:
        from stream_cam.model.head_module import own_head

        self.net = net
        self.name, self.method = net.name, net.method
        self.fingerprint = net.fingerprint()
        self._head = own_head(net.head)
        self.class_weight: FloatArray | None = None
        if net.head is None:
            self.class_weight = net.weight.detach().float().cpu().numpy()

    def class_weight_of(self, features: FloatArray) -> ClassRows:
        if self.class_weight is not None:
            return self.class_weight
        from stream_cam.model.head_module import HeadRows

        assert self._head is not None
        return HeadRows(self._head, features)

    def open_engine(self, input_hw: tuple[int, int], options: EngineOptions) -> Engine:
        from stream_cam.model.torch_settings import loading

        with loading():
            return load_engine(self.net, self.fingerprint, input_hw, options)


class KeptNetwork:
    """A network of which only the engines are read; it is loaded where one of them is missing."""

    method: Method = "cam"

    def __init__(
        self,
        name: str,
        fingerprint: str,
        class_weight: FloatArray,
        load: Callable[[], tuple[LoadedNetwork, object]],
    ) -> None:
        self.name, self.fingerprint = name, fingerprint
        self.class_weight = class_weight
        self._load = load
        self._loaded: LoadedNetwork | None = None

    def class_weight_of(self, features: FloatArray) -> ClassRows:
        return self.class_weight

    def open_engine(self, input_hw: tuple[int, int], options: EngineOptions) -> Engine:
        kept = read_kept_engine(self.name, self.fingerprint, input_hw, options)
        if kept is not None:
            return kept
        if self._loaded is None:
            self._loaded, _ = self._load()
        return self._loaded.open_engine(input_hw, options)


@dataclass(frozen=True)
class NetworkSource:
    """The options that name a network."""

    model: str
    weights: str
    """`imagenet`, `demo`, or the absolute path of a file."""
    checkpoint_key: str | None = None

    def path(self) -> Path:
        """The place of its description."""
        what = {
            **asdict(self),
            "format": _FORMAT,
            "stream_cam": __version__,
            **{package: _version(package) for package in _PACKAGES},
        }
        digest = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]
        return engines_folder() / "networks" / f"{digest}.safetensors"


def find_network(
    source: NetworkSource, load: Callable[[], tuple[LoadedNetwork, object]]
) -> tuple[KeptNetwork, WeightsInfo] | None:
    """The network as an earlier run left it; None if it must be loaded.

    Args:
        load: loads it.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(source.path(), "numpy") as file:
            weight = file.get_tensor(_WEIGHT)
            stored = json.loads(file.metadata()["network"])
        info = WeightsInfo(**_typed(stored["weights"]))
        if info.file is None or _sha256_of(info.file) != stored["file_sha256"]:
            return None
        kept = KeptNetwork(stored["name"], stored["fingerprint"], weight, load)
    except (OSError, SafetensorError, ValueError, TypeError, KeyError) as error:
        if not isinstance(error, FileNotFoundError):
            logger.debug("%s is of no use: %s", source.path(), error)
        return None
    return kept, info


def keep_network(source: NetworkSource, network: LoadedNetwork, info: WeightsInfo) -> None:
    """Writes the description that `find_network` reads; where that fails, the next run loads."""
    from safetensors.numpy import save

    path = source.path()
    if info.file is None or network.class_weight is None:
        return
    with suppress(OSError):
        names = [field.name for field in fields(WeightsInfo)]
        stored = {
            "name": network.name,
            "fingerprint": network.fingerprint,
            "weights": {name: getattr(info, name) for name in names},
            "file_sha256": _sha256_of(info.file),
        }
        text = json.dumps(stored, default=os.fspath)
        path.parent.mkdir(parents=True, exist_ok=True)
        weight = np.ascontiguousarray(network.class_weight)
        write_atomic(path, save({_WEIGHT: weight}, {"network": text}))
        _remove_oldest(path.parent)


def _remove_oldest(folder: Path) -> None:
    """Those of former versions and of networks long gone."""
    found = sorted(folder.glob("*.safetensors"), key=lambda path: path.stat().st_mtime)
    for path in found[:-_MAX_KEPT]:
        path.unlink()


def _typed(stored: dict[str, Any]) -> dict[str, Any]:
    """JSON has no tuples and no paths."""
    values = {
        name: tuple(value) if isinstance(value, list) else value for name, value in stored.items()
    }
    return {**values, "file": Path(stored["file"])}


def _sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"
