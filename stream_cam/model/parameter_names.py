"""The names of torchvision's parameters in other tools and in older versions."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

# torch.compile, FSDP, DeepSpeed and activation checkpointing name their wrappers inside of keys.
_WRAPPERS = re.compile(
    r"(?:(?<=\.)|^)"
    r"(?:_orig_mod|_fsdp_wrapped_module|_forward_module|_checkpoint_wrapped_module)\."
)
# The checkpoints behind torchvision's densenets still name layers as torch 0.3 allowed.
_OLD_DENSE_LAYER = re.compile(r"(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\..+)")
_BLOCK = r"encoder\.stages\.(\d+)\.layers\.(\d+)\."
_HUGGING_FACE = (
    (r"embedder\.embedder\.convolution\.", "conv1."),
    (r"embedder\.embedder\.normalization\.", "bn1."),
    (_BLOCK + r"shortcut\.convolution\.", "layer{}.{}.downsample.0."),
    (_BLOCK + r"shortcut\.normalization\.", "layer{}.{}.downsample.1."),
    (_BLOCK + r"layer\.(\d+)\.convolution\.", "layer{}.{}.conv{}."),
    (_BLOCK + r"layer\.(\d+)\.normalization\.", "layer{}.{}.bn{}."),
    (r"classifier\.1\.", "fc."),
)
"""Keys of transformers' ResNet and of torchvision, which counts stages and convolutions from 1."""
_HUGGING_FACE_MARK = "embedder.embedder.convolution.weight"


def without_wrappers(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors without the names of torch's wrappers in their keys."""
    return {_WRAPPERS.sub("", key): tensor for key, tensor in state_dict.items()}


def to_torchvision_names(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors under torchvision's present names; unknown names and prefixes stay."""
    given = {}
    for key, tensor in _from_hugging_face(without_wrappers(state_dict)).items():
        old = _OLD_DENSE_LAYER.fullmatch(key)
        given[old.group(1) + old.group(2) if old else key] = tensor
    return given


def _from_hugging_face(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Renames the keys of transformers' ResNetForImageClassification to torchvision's."""
    marks = [key for key in state_dict if key.endswith(_HUGGING_FACE_MARK)]
    if len(marks) != 1:
        return state_dict
    prefix = marks[0].removesuffix(_HUGGING_FACE_MARK).removesuffix("resnet.")
    return {_translated(key, prefix): tensor for key, tensor in state_dict.items()}


def _translated(key: str, prefix: str) -> str:
    if not key.startswith(prefix):
        return key
    own = key.removeprefix(prefix).removeprefix("resnet.")
    for pattern, words in _HUGGING_FACE:
        if found := re.match(pattern, own):
            # Stages and convolutions are counted from 1 here, blocks from 0.
            counted = [int(each) + (place != 1) for place, each in enumerate(found.groups())]
            return prefix + words.format(*counted) + own[found.end() :]
    return key


def with_head_at(state_dict: dict[str, Tensor], head: str) -> dict[str, Tensor]:
    """`fc.1.weight` of `Sequential(Dropout, Linear)` as `fc.weight`, where it is the only layer.

    Args:
        head: the layer's name in the network, such as `fc`.
    """
    root = f"{head.split('.')[0]}."
    inside = [key for key in state_dict if key.startswith(root)]
    layers = {key.rpartition(".")[0] for key in inside}
    if len(layers) != 1:
        return state_dict
    renamed = {key: f"{head}.{key.rpartition('.')[2]}" for key in inside}
    return {renamed.get(key, key): tensor for key, tensor in state_dict.items()}
