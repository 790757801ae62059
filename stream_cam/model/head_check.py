"""Checks with numbers that a network was cut where its features are averaged."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from stream_cam.errors import ModelError, first_line
from stream_cam.model.head_module import Headed
from stream_cam.model.traced import no_cam
from stream_cam.model.tracing import running

_LINEAR_TOLERANCE = 1e-5
"""As a share of the magnitudes that make up a logit, |b| + Σ_k |w_k| · mean |f_k|.

Pooling and the linear layer round in float32 (unit roundoff 6e-8); the largest deviation seen over
torchvision's networks was 7e-8 of that sum. A layer in the way moves logits by percents.
"""
_HEAD_TOLERANCE = 1e-4
"""As a share of the largest logit. The largest deviation seen over torchvision's networks with
other heads was 2e-6 of it."""
_FINAL_TOLERANCE = 1e-5
"""Of probabilities, or as a share of their logarithms."""


class Cut(Headed, Protocol):
    """A network that was cut in two: a CamNet."""

    name: str
    n_logits: int

    def __call__(self, batch_nchw: Tensor) -> tuple[Tensor, Tensor]: ...


@torch.inference_mode()
def check_invariant(
    net: Cut, probe: Tensor, own_output: object, final: nn.Module | None = None
) -> None:
    """Checks that the logits are the head of the mean of the features, for all classes.

    With a linear head that is mean(M_c) + b_c == logit_c.

    Args:
        own_output: the network's own, for `probe`.
        final: the softmax or sigmoid after the logits that was left out.

    Raises:
        NoCamError: they are not.
        ModelError: they are not finite.
    """
    with running():
        logits, features = net(probe)
    if net.head is None:
        wanted, bound, said = _of_maps(net, features)
    else:
        wanted, bound, said = _of_head(net, features)
    _compare(net.name, "CamNet's logits", logits, wanted, bound, said)
    if final is None:
        if net.n_logits == 1 and isinstance(own_output, Tensor) and own_output.shape == (1, 1):
            own_output = torch.cat([-own_output / 2, own_output / 2], 1)
        _compare(net.name, "its own logits", own_output, wanted, bound, said)
    else:
        own = final(logits if net.n_logits > 1 else 2 * logits[:, 1:])[0].double()
        bound = _FINAL_TOLERANCE * own.abs().clamp_min(1.0)
        said = "of its logits, the probability is {value:.6g} for class {index}"
        _compare(net.name, "its own outputs", own_output, own, bound, said)


def _of_maps(net: Cut, features: Tensor) -> tuple[Tensor, Tensor, str]:
    """Logits from the maps, how far others may be from them, and how to say them."""
    maps = torch.einsum("ck,khw->chw", net.weight.double(), features[0].double())
    from_maps = maps.mean((1, 2)) + net.bias.double()
    magnitude = net.weight.abs() @ features[0].abs().mean((1, 2)) + net.bias.abs()
    _require_finite(net.name, magnitude, "features")
    bound = _LINEAR_TOLERANCE * magnitude.double()
    return from_maps, bound, "mean(M_c) + b_c is {value:.6g} for class {index}"


def _of_head(net: Cut, features: Tensor) -> tuple[Tensor, Tensor, str]:
    """The same of a head that is not linear."""
    assert net.head is not None
    pooled = features.double().mean((2, 3)).float()
    _require_finite(net.name, pooled, "features")
    try:
        # Of two frames: what a head says of one must not depend on the other.
        with running():
            from_head = net.head(torch.cat([pooled, pooled.roll(1, 1)]))[0].double()
            weight = net.head.class_weight(pooled[0], [int(from_head.argmax())])
    except Exception as exc:
        reason = f"its head cannot be run or differentiated alone ({first_line(exc)})"
        raise no_cam(net.name, reason) from exc
    _require_finite(net.name, from_head, "logits")
    _require_finite(net.name, weight, "derivatives of its head")
    bound = _HEAD_TOLERANCE * from_head.abs().max().expand_as(from_head)
    return from_head, bound, "the head of the mean features gives {value:.6g} for class {index}"


def _require_finite(name: str, values: Tensor, of: str) -> None:
    if not bool(torch.isfinite(values).all()):
        raise ModelError(f"{name} gives infinite or NaN {of}; these weights are damaged")


def _compare(name: str, source: str, got: object, wanted: Tensor, bound: Tensor, said: str) -> None:
    if not isinstance(got, Tensor) or got.shape != (1, *wanted.shape):
        raise no_cam(name, "its forward does not return (N, n_classes)")
    bound = bound.clamp_min(torch.finfo(torch.float32).tiny)
    excess = ((got[0].double() - wanted).abs() / bound).nan_to_num(torch.inf)
    if excess.max() > 1.0:
        worst = int(excess.argmax())
        raise no_cam(
            name,
            f"{said.format(value=float(wanted[worst]), index=worst)}, {source} say "
            f"{float(got[0, worst]):.6g}, so its features are not simply averaged",
        )
