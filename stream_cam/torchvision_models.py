"""torchvision's classifiers by name, and state dicts put into them whole or not at all."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from stream_cam.errors import WeightsError, unknown_name

# Their auxiliary heads serve training only. Their ImageNet weights expect inputs in -1..1, which
# torchvision makes from the usual normalisation with transform_input.
_INCEPTION_OPTIONS = {"aux_logits": False, "init_weights": False, "transform_input": True}
_OPTIONS: dict[str, dict[str, Any]] = {
    "googlenet": _INCEPTION_OPTIONS,
    "inception_v3": _INCEPTION_OPTIONS,
}
_AUXILIARY = re.compile(r"(aux1|aux2|AuxLogits)\.")
# The checkpoints behind torchvision's densenets still name layers as torch 0.3 allowed.
_OLD_DENSE_LAYER = re.compile(r"(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\..+)")

# Asked in this order what a misfit state dict is of; building one takes 10-100 ms.
_LIKELY = (
    *("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"),
    *("wide_resnet50_2", "wide_resnet101_2", "resnext50_32x4d", "resnext101_32x8d"),
    *("mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large", "efficientnet_b0"),
    *("densenet121", "googlenet", "shufflenet_v2_x1_0", "mnasnet1_0", "squeezenet1_0"),
    *("alexnet", "vgg11", "vgg16", "vgg16_bn", "inception_v3"),
)


def model_names() -> list[str]:
    """The classifiers torchvision can build; not all of them have a CAM."""
    names: list[str] = torchvision.models.list_models(module=torchvision.models)
    return names


def check_model_name(name: str) -> None:
    """Raise UsageError, with the nearest names, if torchvision has no classifier of that name."""
    names = model_names()
    if name.lower() not in names:
        raise unknown_name("model", name, names)


def build_network(name: str, n_classes: int = 1000) -> nn.Module:
    """A torchvision classifier in eval mode, float32 on the CPU, with random parameters.

    Raises:
        UsageError: torchvision has no classifier of that name.
    """
    check_model_name(name)
    if n_classes < 1:
        raise ValueError(f"n_classes is a number from 1, got {n_classes}")
    return _build(name.lower(), n_classes).eval()


def _build(name: str, n_classes: int) -> nn.Module:
    options = _OPTIONS.get(name, {})
    network: nn.Module = torchvision.models.get_model(
        name, weights=None, num_classes=n_classes, **options
    )
    return network


def load_parameters(module: nn.Module, state_dict: Mapping[str, Tensor], source_name: str) -> None:
    """Copy a state dict into `module`, all of it or nothing.

    Left out are auxiliary heads that `module` does not have; `num_batches_tracked`, which serves
    training only, may be missing.

    Args:
        module: changed in place.
        state_dict: keys as torchvision writes them, values cast to the module's dtype.
        source_name: what messages call where the state dict is from.

    Raises:
        WeightsError: a tensor is missing, unknown, of another shape or not finite.
    """
    wanted = module.state_dict()
    given = _in_todays_words(state_dict, wanted)
    missing = [
        key for key in wanted if key not in given and not key.endswith("num_batches_tracked")
    ]
    unexpected = [key for key in given if key not in wanted]
    misfits = [
        f"{key} {_size(given[key])} instead of {_size(tensor)}"
        for key, tensor in wanted.items()
        if key in given and given[key].shape != tensor.shape
    ]
    if missing or unexpected or misfits:
        parts = (
            _some("missing", missing),
            _some("unexpected", unexpected),
            _some("of another shape", misfits),
        )
        raise WeightsError(
            f"{source_name} does not fit {type(module).__name__}: "
            f"{'; '.join(part for part in parts if part)}{_advice(given)}"
        )
    whole = [
        key
        for key, tensor in given.items()
        if wanted[key].is_floating_point() and not tensor.is_floating_point()
    ]
    if whole:
        raise WeightsError(
            f"{source_name} does not fit: {_some('of whole numbers', whole)}, as quantised "
            "networks have them; save the float network"
        )
    require_finite(given, source_name)
    # Shapes were compared above: load_state_dict copies what fits before it raises.
    module.load_state_dict({**wanted, **given})


def require_finite(tensors: Mapping[str, object], name: str) -> None:
    """Raise WeightsError, naming the tensor, if a value is NaN or infinite."""
    for key, tensor in tensors.items():
        # A sum is one quick pass, and finite only if all of its terms are.
        if not isinstance(tensor, Tensor) or tensor.sum().isfinite():
            continue
        n_bad = tensor.numel() - int(tensor.isfinite().sum())
        if n_bad:
            raise WeightsError(
                f"{name}: {key} holds NaN or infinity ({n_bad} of {tensor.numel()} values); "
                "these weights are damaged, take others"
            )


def _in_todays_words(
    state_dict: Mapping[str, Tensor], wanted: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    given = {}
    for key, tensor in state_dict.items():
        if _AUXILIARY.match(key) and key not in wanted:
            continue
        old = _OLD_DENSE_LAYER.fullmatch(key)
        given[old.group(1) + old.group(2) if old else key] = tensor
    return given


def _advice(given: Mapping[str, Tensor]) -> str:
    name = guess_model(given)
    return f"; it is a {name}: give --model {name}" if name else "; give --model what it is of"


def guess_model(state_dict: Mapping[str, Tensor]) -> str | None:
    """Which of the usual torchvision networks has exactly these tensors; None if none has."""
    shapes = {
        key: tuple(tensor.shape)
        for key, tensor in _in_todays_words(state_dict, {}).items()
        if not key.endswith("num_batches_tracked")
    }
    for name in _LIKELY:
        try:
            # Ten classes: the last layer's rows are not compared.
            with torch.device("meta"):
                candidate = _build(name, 10).state_dict()
        except (NotImplementedError, RuntimeError):
            continue
        if _same_network(shapes, candidate):
            return name
    return None


def _same_network(shapes: Mapping[str, tuple[int, ...]], candidate: Mapping[str, Tensor]) -> bool:
    wanted = {
        key: tuple(tensor.shape)
        for key, tensor in candidate.items()
        if not key.endswith("num_batches_tracked")
    }
    if wanted.keys() != shapes.keys():
        return False
    return all(
        shapes[key] == shape or (shape[:1] == (10,) and shapes[key][1:] == shape[1:])
        for key, shape in wanted.items()
    )


def _some(what: str, names: Iterable[str]) -> str:
    """`2 missing (fc.weight, fc.bias)`, with no more than two named."""
    listed = list(names)
    shown = ", ".join(listed[:2]) + (", …" if len(listed) > 2 else "")
    return f"{len(listed)} {what} ({shown})" if listed else ""


def _size(tensor: Tensor) -> str:
    return "×".join(str(side) for side in tensor.shape) or "scalar"
