"""Classifiers by name: torchvision's, and EfficientNet-Lite0."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import torch
import torchvision
from torch import nn

from stream_cam.errors import unknown_name
from stream_cam.model import efficientnet_lite0
from stream_cam.model.efficientnet_lite0 import EfficientNetLite0
from stream_cam.model.torch_settings import loading

Shape = tuple[int, ...]

# Their auxiliary heads serve training only. Their ImageNet weights expect inputs in -1..1, which
# torchvision makes from the usual normalisation with transform_input.
_INCEPTION_OPTIONS = {"aux_logits": False, "init_weights": False, "transform_input": True}
_OPTIONS: dict[str, dict[str, Any]] = {
    "googlenet": _INCEPTION_OPTIONS,
    "inception_v3": _INCEPTION_OPTIONS,
}

LIKELY = (
    *("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"),
    *("wide_resnet50_2", "wide_resnet101_2", "resnext50_32x4d", "resnext101_32x8d"),
    *("mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large", "efficientnet_b0"),
    *("densenet121", "googlenet", "shufflenet_v2_x1_0", "mnasnet1_0", "squeezenet1_0"),
    *("alexnet", "vgg11", "vgg16", "vgg16_bn", "inception_v3"),
    efficientnet_lite0.NAME,
)
"""The order in which an unknown state dict is compared; building one network takes 10-100 ms."""

ANY = -1
"""In a shape: as many as there are classes."""
_N_CLASSES = 7919  # prime: no layer inside a network has so many


def model_names() -> list[str]:
    """The classifiers that can be built; not all of them have a CAM."""
    names: list[str] = torchvision.models.list_models(module=torchvision.models)
    return sorted([*names, efficientnet_lite0.NAME])


def check_model_name(name: str) -> None:
    """Raises UsageError, with the nearest names, if there is no classifier of that name."""
    names = model_names()
    if name.lower() not in names:
        raise unknown_name("model", name, names)


def build_network(name: str, n_classes: int = 1000) -> nn.Module:
    """A classifier in eval mode, float32 on the CPU, with random parameters.

    Raises:
        UsageError: there is no classifier of that name.
    """
    check_model_name(name)
    if n_classes < 1:
        raise ValueError(f"n_classes is a number from 1, got {n_classes}")
    with loading():
        return _build(name.lower(), n_classes).eval()


def _build(name: str, n_classes: int) -> nn.Module:
    if name == efficientnet_lite0.NAME:
        return EfficientNetLite0(n_classes)
    options = _OPTIONS.get(name, {})
    network: nn.Module = torchvision.models.get_model(
        name, weights=None, num_classes=n_classes, **options
    )
    return network


@lru_cache(maxsize=32)
def shapes_of(name: str) -> Mapping[str, Shape]:
    """The shapes of a classifier's tensors by key, without `num_batches_tracked`.

    The number of classes is `ANY` in them.
    """
    try:
        with loading(), torch.device("meta"):
            tensors = _build(name.lower(), _N_CLASSES).state_dict()
    except NotImplementedError:  # RegNet computes its widths with tensors
        tensors = build_network(name, _N_CLASSES).state_dict()
    return {
        key: tuple(ANY if side == _N_CLASSES else side for side in tensor.shape)
        for key, tensor in tensors.items()
        if not key.endswith("num_batches_tracked")
    }
