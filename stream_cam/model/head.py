"""Where a network's features end and its linear head begins.

A CAM exists when the logits are one linear function of the spatial mean of the last convolution's
features (Zhou et al., CVPR 2016, eq. 1-2). Here a traced network is read backwards from its output
until that linear layer and that mean are found, or until something stands in the way; then the
error names it.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from stream_cam.errors import NoCamError

Shape = tuple[int, ...]
Kind = Literal["linear", "conv", "average", "transparent", "other"]

_AVERAGES = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AvgPool2d)
_AVERAGE_CALLS = (F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.avg_pool2d, torch.mean, "mean")
_FLATTEN_CALLS = (torch.flatten, torch.reshape, "flatten", "reshape", "view")
_TRANSPARENT = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.AlphaDropout, nn.Identity, nn.Flatten)
_TRANSPARENT_CALLS = (
    *_FLATTEN_CALLS,
    *(torch.squeeze, torch.unsqueeze, operator.getitem, F.dropout),
    *("squeeze", "unsqueeze", "contiguous", "clone", "float"),
)
_AXIS_SWAPS = (
    *(torch.permute, torch.transpose, torch.movedim, torch.moveaxis, torch.swapaxes),
    *("permute", "transpose", "movedim", "moveaxis", "swapaxes"),
)
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d)
_CONVOLUTION_CALLS = (F.conv2d, F.conv_transpose2d)
_NUMBER_WORDS = {2: "two", 3: "three", 4: "four"}


def no_cam(name: str, reason: str) -> NoCamError:
    """The error for a network called `name` that has no CAM."""
    return NoCamError(
        f"{name} has no CAM: {reason}; a network needs global average pooling (GAP) and one linear "
        "layer directly after its last convolution (stream-cam's default, resnet18, has them)"
    )


@dataclass(frozen=True)
class Head:
    """Where to cut a traced network in two."""

    features: fx.Node
    """The node whose value, (N, C, h, w), is averaged."""
    weight: Tensor
    """(n_classes, C), the network's own."""
    bias: Tensor | None
    """(n_classes,), the network's own."""


class ShapeRecorder(fx.Interpreter):
    """Runs a traced network and keeps the shape of every tensor on the way."""

    def __init__(self, traced: fx.GraphModule) -> None:
        super().__init__(traced)
        # Without this fx appends the graph to a failing layer's message.
        self.extra_traceback = False
        self.shapes: dict[fx.Node, Shape] = {}

    def run_node(self, n: fx.Node) -> object:
        value: object = super().run_node(n)
        if isinstance(value, Tensor):
            self.shapes[n] = tuple(value.shape)
        return value


class HeadFinder:
    """Reads one traced network backwards.

    Args:
        traced: the network in eval mode, its layers under `prefix`.
        shapes: of every tensor-valued node, from a run on a probe.
        name: the network's name in messages.
        prefix: left out of the layers' names in messages.
    """

    def __init__(
        self, traced: fx.GraphModule, shapes: Mapping[fx.Node, Shape], name: str, prefix: str
    ) -> None:
        self._modules = dict(traced.named_modules())
        self._tensors = {**dict(traced.named_parameters()), **dict(traced.named_buffers())}
        self._shapes = shapes
        self._name = name
        self._prefix = prefix
        self._result = next(node for node in traced.graph.nodes if node.op == "output").args[0]

    def find(self) -> Head:
        """The features and the linear layer.

        Raises:
            NoCamError: something else stands between the last convolution and the output.
        """
        last = self._result
        if not isinstance(last, fx.Node) or len(self._shapes.get(last, ())) != 2:
            raise no_cam(self._name, "its forward does not return (N, n_classes)")
        head: fx.Node | None = None
        averaged = False
        for node in self._backwards(last):
            kind = self._kind(node)
            if averaged and self._calls(node, _AXIS_SWAPS):
                continue  # whether the right axes are averaged is checked with numbers
            if head is not None and averaged and self._is_spatial(node):
                self._require_convolution(node)
                weight, bias = self._parameters(head)
                self._require_channels(node, weight)
                return Head(node, weight.flatten(1), bias)
            if kind == "average":
                averaged = True
            elif head is None and (kind == "conv" or (kind == "linear" and not averaged)):
                head = node
            elif kind != "transparent":
                break
        raise no_cam(self._name, self._reason(self._tail(last)))

    # Reading the graph

    def _backwards(self, node: fx.Node) -> Iterator[fx.Node]:
        """`node`, the tensor it is made from, and so on; of several tensors the first."""
        while True:
            yield node
            inputs = [each for each in node.all_input_nodes if each in self._shapes]
            if not inputs:
                return
            node = inputs[0]

    def _kind(self, node: fx.Node) -> Kind:
        module = self._module(node)
        if isinstance(module, nn.Linear) or self._calls(node, (F.linear,)):
            return "linear" if self._has_parameters(node) else "other"
        if isinstance(module, nn.Conv2d) and self._is_pointwise(module):
            return "conv"
        if isinstance(module, _AVERAGES) or self._calls(node, _AVERAGE_CALLS):
            return "other" if self._is_spatial(node) else "average"
        if isinstance(module, _TRANSPARENT) or self._calls(node, _TRANSPARENT_CALLS):
            return "transparent"
        return "other"

    @staticmethod
    def _is_pointwise(conv: nn.Conv2d) -> bool:
        shape = (conv.kernel_size, conv.stride, conv.groups)
        return shape == ((1, 1), (1, 1), 1) and conv.padding in ((0, 0), "valid", "same")

    def _has_parameters(self, node: fx.Node) -> bool:
        try:
            self._parameters(node)
        except KeyError:
            return False
        return True

    def _parameters(self, node: fx.Node) -> tuple[Tensor, Tensor | None]:
        """Weight and bias of a linear layer; KeyError if they are computed and not stored."""
        module = self._module(node)
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            return module.weight, module.bias
        given = dict(zip(("input", "weight", "bias"), node.args, strict=False)) | node.kwargs
        weight, bias = (
            self._tensors[str(value.target)] if isinstance(value, fx.Node) else None
            for value in (given.get("weight"), given.get("bias"))
        )
        if weight is None:
            raise KeyError("weight")
        return weight, bias

    def _require_convolution(self, features: fx.Node) -> None:
        """Some way back from the features meets a convolution before any linear layer."""
        waiting, seen, blockers = [features], {features}, list[str]()
        while waiting:
            node = waiting.pop()
            if self._is_convolution(node):
                return
            if isinstance(self._module(node), (nn.Linear, nn.MultiheadAttention)):
                blockers.append(self._label(node))
                continue
            fresh = [each for each in node.all_input_nodes if each not in seen]
            seen.update(fresh)
            waiting.extend(fresh)
        source = blockers[0] if blockers else self._label(features)
        raise no_cam(self._name, f"its last features come from {source}, not from a convolution")

    def _require_channels(self, features: fx.Node, weight: Tensor) -> None:
        _, channels, height, width = self._shapes[features]
        if weight.shape[1] != channels:
            raise no_cam(
                self._name,
                f"its linear layer takes {weight.shape[1]} values, and the mean of "
                f"{channels}×{height}×{width} features over a plane has {channels}",
            )

    def _is_convolution(self, node: fx.Node) -> bool:
        module = self._module(node)
        if module is None:
            return self._calls(node, _CONVOLUTION_CALLS)
        # A leaf of another kind (a fused or scripted block) may hold its convolutions inside.
        return any(isinstance(each, _CONVOLUTIONS) for each in module.modules())

    def _is_spatial(self, node: fx.Node) -> bool:
        shape = self._shapes.get(node, ())
        return len(shape) == 4 and shape[2] * shape[3] > 1

    def _module(self, node: fx.Node) -> nn.Module | None:
        return self._modules.get(str(node.target)) if node.op == "call_module" else None

    @staticmethod
    def _calls(node: fx.Node, targets: tuple[object, ...]) -> bool:
        return node.op in ("call_function", "call_method") and node.target in targets

    # The reason in the message

    def _tail(self, last: fx.Node) -> list[fx.Node]:
        """From the output back to the last convolution over a plane, which is included."""
        tail = list[fx.Node]()
        for node in self._backwards(last):
            tail.append(node)
            if self._is_convolution(node) and self._is_spatial(node.all_input_nodes[0]):
                break
        return tail

    def _reason(self, tail: list[fx.Node]) -> str:
        kinds = [self._kind(node) for node in tail]
        linear = [
            node
            for node, kind in zip(tail, kinds, strict=True)
            if kind == "linear" or (kind == "conv" and not self._is_spatial(node))
        ]
        if "average" in kinds:
            pool = kinds.index("average")
            return self._reason_around(tail, pool, [node for node in linear if node in tail[:pool]])
        for position, node in enumerate(tail):
            if self._flattens(node):
                size = "×".join(str(side) for side in self._shapes[node.all_input_nodes[0]][1:])
                after = [each for each in linear if each in tail[:position]]
                where = f" before {self._label(after[-1])}" if after else ""
                return f"flatten of {size} features{where}, where they should be averaged"
            if "max" in node.name.lower() or "Max" in type(self._module(node)).__name__:
                return f"{self._label(node)}, maxima where averages should be"
        if not linear:
            return f"it ends in {self._label(tail[0])}, not in a linear layer"
        return f"no convolutional features reach an average pooling before {self._label(linear[0])}"

    def _reason_around(self, tail: list[fx.Node], pool: int, linear: list[fx.Node]) -> str:
        """The reason when there is an average pooling, at `tail[pool]`."""
        if len(linear) > 1:
            names = ", ".join(self._label(node) for node in reversed(linear))
            count = _NUMBER_WORDS.get(len(linear), str(len(linear)))
            return f"{count} linear layers after the pooling ({names})"
        if not linear:
            blocker = self._label(self._first_other(tail[pool + 1 :]) or tail[-1])
            return (
                f"{blocker} between {self._label(tail[-1])} and the pooling, and no linear layer "
                "after it"
            )
        head = tail.index(linear[0])
        after = self._first_other(tail[:head])
        if after is not None:
            return f"{self._label(after)} follows the linear layer; forward must return the logits"
        between = self._first_other(tail[head + 1 : pool])
        if between is not None:
            return f"{self._label(between)} between the pooling and {self._label(linear[0])}"
        shape = "×".join(str(side) for side in self._shapes[tail[min(pool + 1, len(tail) - 1)]][1:])
        return f"features of {shape} are averaged, where a plane C×h×w should be (input too small?)"

    def _first_other(self, nodes: list[fx.Node]) -> fx.Node | None:
        """The first layer that is neither linear nor transparent; mere axis swaps come last."""
        others = [node for node in nodes if self._kind(node) == "other"]
        others.sort(key=lambda node: "permute" in node.name or "transpose" in node.name)
        return others[0] if others else None

    def _flattens(self, node: fx.Node) -> bool:
        if not (self._calls(node, _FLATTEN_CALLS) or isinstance(self._module(node), nn.Flatten)):
            return False
        return self._is_spatial(node.all_input_nodes[0]) and len(self._shapes[node]) == 2

    def _label(self, node: fx.Node) -> str:
        """`classifier.0 (LayerNorm2d)`: the layer that the node is, or that calls it."""
        stack = list((node.meta.get("nn_module_stack") or {}).values())
        path, kind = stack[-1] if stack else ("", None)
        path = str(path).removeprefix(self._prefix).lstrip(".")
        if path and kind is not None:
            return f"{path} ({kind.__name__})"
        target = node.target
        return target if isinstance(target, str) else str(getattr(target, "__name__", node.name))
