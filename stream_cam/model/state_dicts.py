"""State dicts: the parameters of a network found in a file, and loaded into it as a whole."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from stream_cam.errors import WeightsError
from stream_cam.model.parameter_names import (
    to_torchvision_names,
    with_head_at,
    without_wrappers,
)
from stream_cam.model.torchvision_models import ANY, LIKELY, Shape, shapes_of

logger = logging.getLogger(__name__)

StateDict = Mapping[str, Tensor]

# Beside a network's own tensors: the loss, torch's AveragedModel's counter, thop's counts.
_OF_TRAINING = re.compile(
    r"(?:criterion|loss|loss_fn|loss_function)\..+|n_averaged|(?:.+\.)?total_(?:ops|params)"
)
_AUXILIARY = re.compile(r"(aux1|aux2|AuxLogits)\.")
_EMA = re.compile(r"(?i)(?:^|[._])(?:ema|swa|averaged)(?:$|[._])")


@dataclass(frozen=True, eq=False)
class Parameters:
    """The tensors of one network in a file."""

    state_dict: dict[str, Tensor]
    """Keys as torchvision writes them, where the network is one of torchvision's."""
    place: str = ""
    """Where they are in the file, such as `state_dict.model`; empty: at its top."""

    @property
    def is_average(self) -> bool:
        """Whether these are a moving average of the weights (EMA), by their name."""
        return bool(_EMA.search(self.place))

    def __str__(self) -> str:
        place = self.place or "the top level"
        return f"{place} (EMA)" if self.is_average else place


def find_parameters(
    groups: Mapping[str, StateDict], model_name: str, source_name: str, key: str | None = None
) -> Parameters:
    """The one set of tensors behind a common prefix that is the whole network.

    If there is none, the nearest set: `load_parameters` then names the missing tensors.

    Args:
        groups: tensors by key, by the place where the file has them (`Checkpoint.groups`).
        model_name: one of torchvision's.
        source_name: the file's name in messages.
        key: the place to take, where several fit.

    Raises:
        WeightsError: several fit, or nothing is at `key`.
    """
    everything = {place: to_torchvision_names(tensors) for place, tensors in groups.items()}
    within = everything if key is None else _at(everything, key.strip("."), source_name)
    for name in (model_name, *LIKELY):
        wanted = shapes_of(name)
        fitting = [one for one in _candidates(within, wanted) if fits(one.state_dict, wanted)]
        if fitting:
            break
    else:
        return _nearest(within, shapes_of(model_name))
    found = _distinct(fitting)
    if name == model_name:
        _require_one(found, name, source_name)
    _warn_unused(everything, found[0], source_name, chosen=key is not None)
    return found[0]


def find_own_parameters(
    groups: Mapping[str, StateDict], module: nn.Module, source_name: str, key: str | None = None
) -> Parameters:
    """As `find_parameters`, for a network with names of its own.

    Raises:
        WeightsError: several fit, or nothing is at `key`.
    """
    wanted = {
        name: tuple(tensor.shape)
        for name, tensor in module.state_dict().items()
        if isinstance(tensor, Tensor) and not name.endswith("num_batches_tracked")
    }
    everything = {place: without_wrappers(tensors) for place, tensors in groups.items()}
    within = everything if key is None else _at(everything, key.strip("."), source_name)
    found = _distinct([one for one in _candidates(within, wanted) if fits(one.state_dict, wanted)])
    if not found:
        return _nearest(within, wanted)
    _require_one(found, type(module).__name__, source_name)
    _warn_unused(everything, found[0], source_name, chosen=key is not None)
    return found[0]


def _require_one(found: list[Parameters], name: str, source_name: str) -> None:
    if len(found) > 1:
        choices = "; ".join(map(str, found))
        example = next(one.place for one in found if one.place)
        raise WeightsError(
            f"{source_name} holds {len(found)} networks that fit {name}: {choices}; choose one, "
            f"such as --checkpoint-key {example}"
        )


def fits(given: StateDict, wanted: Mapping[str, Shape]) -> bool:
    """Whether these are all tensors of a network, each with its shape; any number of classes."""
    shapes = {
        key: tuple(tensor.shape)
        for key, tensor in given.items()
        if not key.endswith("num_batches_tracked")
    }
    if shapes.keys() != wanted.keys():
        return False
    n_classes = set[int]()
    for key, shape in wanted.items():
        if len(shapes[key]) != len(shape):
            return False
        for got, want in zip(shapes[key], shape, strict=True):
            if want == ANY:
                n_classes.add(got)
            elif got != want:
                return False
    return len(n_classes) <= 1


def guess_model(state_dict: StateDict) -> str | None:
    """The usual torchvision network that has exactly these tensors; None if there is none."""
    given = _own(to_torchvision_names(state_dict), {})
    return next((name for name in LIKELY if fits(given, shapes_of(name))), None)


def _at(groups: Mapping[str, StateDict], key: str, source_name: str) -> dict[str, StateDict]:
    """The tensors at a place of the file and below it."""
    within: dict[str, StateDict] = {}
    for place, tensors in groups.items():
        chosen = {
            name: tensor
            for name, tensor in tensors.items()
            if f"{_joined(place, name)}.".startswith(f"{key}.")
        }
        if chosen:
            within[place] = chosen
    if not within:
        there = ", ".join(place or "the top level" for place in groups)
        raise WeightsError(f"{source_name} holds no tensors at {key}; it has some at {there}")
    return within


def _joined(*parts: str) -> str:
    return ".".join(part.strip(".") for part in parts if part)


def _candidates(
    groups: Mapping[str, StateDict], wanted: Mapping[str, Shape]
) -> Iterator[Parameters]:
    """Sets of tensors that have most of the network's keys behind one prefix."""
    for place, tensors in groups.items():
        for prefix, count in _prefixes(tensors, wanted).items():
            if 2 * count > len(wanted):
                yield _behind(prefix, tensors, place, wanted)


def _prefixes(tensors: StateDict, wanted: Mapping[str, Shape]) -> Counter[str]:
    """The prefixes of the network's keys, each with the number of these."""
    counts = Counter[str]()
    for key in tensors:
        start = 0
        while True:
            if key[start:] in wanted:
                counts[key[:start]] += 1
            start = key.find(".", start) + 1
            if not start:
                break
    return counts


def _behind(prefix: str, tensors: StateDict, place: str, wanted: Mapping[str, Shape]) -> Parameters:
    """The tensors whose keys begin with a prefix, without it, and where these are."""
    found = {
        key.removeprefix(prefix): tensor
        for key, tensor in tensors.items()
        if key.startswith(prefix)
    }
    found = {key: tensor for key, tensor in found.items() if not _OF_TRAINING.fullmatch(key)}
    heads = [key for key, shape in wanted.items() if shape[0] == ANY and len(shape) > 1]
    if len(heads) == 1 and heads[0] not in found:
        found = with_head_at(found, heads[0].removesuffix(".weight"))
    return Parameters(_own(found, wanted), _joined(place, prefix))


def _own(tensors: StateDict, wanted: Mapping[str, object]) -> dict[str, Tensor]:
    """Without auxiliary heads that the network does not have."""
    return {
        key: tensor for key, tensor in tensors.items() if key in wanted or not _AUXILIARY.match(key)
    }


def _nearest(groups: Mapping[str, StateDict], wanted: Mapping[str, Shape]) -> Parameters:
    """The tensors with most of the network's keys, or else the largest group."""
    ranked = [
        (count, place, prefix)
        for place, tensors in groups.items()
        for prefix, count in _prefixes(tensors, wanted).items()
    ]
    if not ranked:
        place = max(groups, key=lambda one: len(groups[one]))
        return Parameters(dict(groups[place]), place)
    _, place, prefix = max(ranked, key=lambda one: one[0])
    return _behind(prefix, groups[place], place, wanted)


def _distinct(found: list[Parameters]) -> list[Parameters]:
    """Drops sets with the numbers of an earlier one: they are the same network."""
    kept = list[Parameters]()
    for one in found:
        if not any(_same(one.state_dict, other.state_dict) for other in kept):
            kept.append(one)
    return kept


def _same(one: StateDict, other: StateDict) -> bool:
    """Whether two sets with the same keys hold the same numbers."""
    return all(torch.equal(tensor, other[key]) for key, tensor in one.items() if key in other)


def _warn_unused(
    groups: Mapping[str, StateDict], found: Parameters, source_name: str, *, chosen: bool
) -> None:
    """Warns of a moving average, used or not, and of layers beside the network."""
    if chosen:
        return
    if found.is_average:
        logger.warning(
            "%s: the weights are a moving average (EMA), from %s", source_name, found.place
        )
    inside = f"{found.place}." if found.place else ""
    for place, tensors in groups.items():
        if (
            _EMA.search(place)
            and not f"{place}.".startswith(inside)
            and not inside.startswith(place)
        ):
            logger.warning("%s: the moving average (EMA) at %s is not used", source_name, place)
        elif inside.startswith(f"{place}." if place else ""):
            layers = [
                name
                for name, tensor in tensors.items()
                if tensor.ndim > 1
                and tensor.is_floating_point()
                and not _joined(place, name).startswith(inside)
            ]
            if layers:
                logger.warning(
                    "%s: the network is at %s; beside it are %s, which is left out",
                    *(source_name, found, _listed("tensors", layers)),
                )


def load_parameters(
    module: nn.Module, state_dict: StateDict, source_name: str, *, own_names: bool = False
) -> None:
    """Copies a state dict into `module`, all of it or nothing.

    Auxiliary heads that `module` does not have are left out. `num_batches_tracked`, which serves
    training only, may be missing.

    Args:
        module: changed in place.
        state_dict: keys as torchvision writes them, values cast to the module's dtype.
        source_name: the origin of the state dict in messages.
        own_names: the keys are the module's own and no other names of torchvision's.

    Raises:
        WeightsError: a tensor is missing, unknown, of another shape or not finite.
    """
    wanted = module.state_dict()
    named = without_wrappers(state_dict) if own_names else to_torchvision_names(state_dict)
    given = _own(named, wanted)
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
            _listed("missing", missing),
            _listed("unexpected", unexpected),
            _listed("of another shape", misfits),
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
            f"{source_name} does not fit: {_listed('of whole numbers', whole)}, as quantised "
            "networks have them; save the float network"
        )
    require_finite(given, source_name)
    # Shapes were compared above: load_state_dict copies fitting tensors before it raises.
    module.load_state_dict({**wanted, **given})


def require_finite(tensors: Mapping[str, object], name: str) -> None:
    """Raises WeightsError, naming the tensor, if a value is NaN or infinite."""
    for key, tensor in tensors.items():
        # A sum is one quick pass, and finite only if all of its terms are.
        if not isinstance(tensor, Tensor) or tensor.sum().isfinite():
            continue
        n_bad = tensor.numel() - int(tensor.isfinite().sum())
        if n_bad:
            raise WeightsError(
                f"{name}: {key} holds NaN or infinity ({n_bad} of {tensor.numel()} values); "
                "these weights are damaged; give others"
            )


def _advice(given: StateDict) -> str:
    name = guess_model(given)
    if name:
        return f"; it is a {name}: give --model {name}"
    return "; give --model the network's name, or a network of your own with --module"


def _listed(kind: str, names: Iterable[str]) -> str:
    """`2 missing (fc.weight, fc.bias)`, with no more than two named."""
    listed = list(names)
    shown = ", ".join(listed[:2]) + (", …" if len(listed) > 2 else "")
    return f"{len(listed)} {kind} ({shown})" if listed else ""


def _size(tensor: Tensor) -> str:
    return "×".join(str(side) for side in tensor.shape) or "scalar"
