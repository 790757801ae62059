"""A network as one input and one output, to be traced."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, fx, nn

from stream_cam.errors import UsageError


class OneOutput(nn.Module):
    """Hides a forward's optional arguments from the tracer, and all outputs but one.

    Args:
        name: the network's name in messages.
        output: which of several outputs: a key, a field, or a number from 0; None: there is one.
    """

    def __init__(self, network: nn.Module, name: str, output: str | int | None = None) -> None:
        super().__init__()
        self.network = network
        self._name = name
        self._output = output

    def forward(self, batch_nchw: Tensor) -> object:
        """What the network returns, or the one of its outputs that was asked for.

        Raises:
            UsageError: there are several outputs and none of that name.
        """
        return self._chosen(self.network(batch_nchw))

    def _chosen(self, outputs: object) -> object:
        if isinstance(outputs, (Tensor, fx.Proxy)):
            if self._output not in (None, 0, "0") and isinstance(outputs, Tensor):
                raise UsageError(f"{self._name} returns one tensor: leave out --output-name")
            return outputs
        found = _named(outputs)
        if not found:
            return outputs
        if self._output is None and len(found) > 1:
            shown = ", ".join(f"{name} {_shape(value)}" for name, value in found.items())
            raise UsageError(
                f"{self._name} returns {len(found)} outputs ({shown}): give --output-name with the "
                "one that has the logits"
            )
        wanted = next(iter(found)) if self._output is None else str(self._output)
        if wanted not in found:
            raise UsageError(
                f"{self._name} has no output {wanted!r}: give --output-name with one of "
                f"{', '.join(found)}"
            )
        return found[wanted]


def _named(outputs: object) -> dict[str, object]:
    """The outputs by key, field or number; empty for an object of another kind."""
    if isinstance(outputs, Mapping):
        return {str(key): value for key, value in outputs.items() if value is not None}
    if isinstance(outputs, tuple) and hasattr(outputs, "_fields"):
        return dict(zip(outputs._fields, outputs, strict=True))
    if isinstance(outputs, (tuple, list)):
        return {str(place): value for place, value in enumerate(outputs)}
    return {
        name: value
        for name, value in getattr(outputs, "__dict__", {}).items()
        if isinstance(value, (Tensor, fx.Proxy))
    }


def _shape(value: object) -> str:
    return "×".join(map(str, value.shape)) if isinstance(value, torch.Tensor) else "(no tensor)"
