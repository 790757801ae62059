"""A traced network, its layers, and the shapes of its tensors, read node by node."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping
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
AXIS_SWAPS = (
    *(torch.permute, torch.transpose, torch.movedim, torch.moveaxis, torch.swapaxes),
    *("permute", "transpose", "movedim", "moveaxis", "swapaxes"),
)
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d)
_CONVOLUTION_CALLS = (F.conv2d, F.conv_transpose2d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
_SOFTMAX = (nn.Softmax, nn.LogSoftmax)
_SOFTMAX_CALLS = (
    *(F.softmax, F.log_softmax, torch.softmax, torch.log_softmax, "softmax", "log_softmax"),
)
_SIGMOID_CALLS = (F.sigmoid, torch.sigmoid, "sigmoid")


def no_cam(name: str, reason: str) -> NoCamError:
    """The error for a network called `name` that has no CAM."""
    return NoCamError(
        f"{name} has no CAM: {reason}; a network needs global average pooling (GAP) of its last "
        "convolution's features, and a head that sees nothing else (as stream-cam's default, "
        "resnet18)"
    )


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


class TracedNetwork:
    """One traced network, read backwards from its output.

    Args:
        traced: the network in eval mode, its layers under `prefix`.
        shapes: of every tensor-valued node, from a run on a probe.
        name: the network's name in messages.
        prefix: left out of the layers' names in messages.
    """

    def __init__(
        self, traced: fx.GraphModule, shapes: Mapping[fx.Node, Shape], name: str, prefix: str
    ) -> None:
        self.traced = traced
        self.shapes = shapes
        self.name = name
        self.result = next(node for node in traced.graph.nodes if node.op == "output").args[0]
        self._modules = dict(traced.named_modules())
        self._tensors = {**dict(traced.named_parameters()), **dict(traced.named_buffers())}
        self._prefix = prefix

    def ancestors(self, node: fx.Node) -> set[fx.Node]:
        """All nodes that it is computed from."""
        waiting, seen = [node], set[fx.Node]()
        while waiting:
            fresh = [one for one in waiting.pop().all_input_nodes if one not in seen]
            seen.update(fresh)
            waiting.extend(fresh)
        return seen

    def tensors_into(self, node: fx.Node) -> list[fx.Node]:
        return [each for each in node.all_input_nodes if each in self.shapes]

    def backwards(self, node: fx.Node) -> Iterator[fx.Node]:
        """`node`, the tensor it is made from, and so on; of several tensors the first."""
        while True:
            yield node
            inputs = self.tensors_into(node)
            if not inputs:
                return
            node = inputs[0]

    def kind(self, node: fx.Node) -> Kind:
        module = self.module(node)
        if isinstance(module, nn.Linear) or self.calls(node, (F.linear,)):
            return "linear" if self._has_parameters(node) else "other"
        if isinstance(module, nn.Conv2d) and self._is_pointwise(module):
            return "conv"
        if isinstance(module, _AVERAGES) or self.calls(node, _AVERAGE_CALLS):
            return "other" if self.is_spatial(node) else "average"
        if isinstance(module, _TRANSPARENT) or self.calls(node, _TRANSPARENT_CALLS):
            return "transparent"
        return "other"

    def is_affine(self, node: fx.Node) -> bool:
        """Whether it is one affine function of one vector: linear layers, batch norms, reshapes."""
        if len([one for one in self.tensors_into(node) if one.op != "get_attr"]) != 1:
            return False
        module = self.module(node)
        if isinstance(module, _NORMS):
            return module.running_mean is not None  # else it depends on the other frames
        return self.kind(node) in ("linear", "conv", "transparent")

    def is_sigmoid(self, node: fx.Node) -> bool:
        return isinstance(self.module(node), nn.Sigmoid) or self.calls(node, _SIGMOID_CALLS)

    def is_softmax(self, node: fx.Node) -> bool:
        """Whether it makes probabilities of logits, or their logarithms."""
        return isinstance(self.module(node), _SOFTMAX) or self.calls(node, _SOFTMAX_CALLS)

    @staticmethod
    def _is_pointwise(conv: nn.Conv2d) -> bool:
        shape = (conv.kernel_size, conv.stride, conv.groups)
        return shape == ((1, 1), (1, 1), 1) and conv.padding in ((0, 0), "valid", "same")

    def _has_parameters(self, node: fx.Node) -> bool:
        try:
            self.parameters(node)
        except KeyError:
            return False
        return True

    def parameters(self, node: fx.Node) -> tuple[Tensor, Tensor | None]:
        """Weight and bias of a linear layer; KeyError if they are computed and not stored."""
        module = self.module(node)
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

    def is_convolution(self, node: fx.Node) -> bool:
        module = self.module(node)
        if module is None:
            return self.calls(node, _CONVOLUTION_CALLS)
        # A leaf of another kind (a fused or scripted block) may hold its convolutions inside.
        return any(isinstance(each, _CONVOLUTIONS) for each in module.modules())

    def is_spatial(self, node: fx.Node) -> bool:
        shape = self.shapes.get(node, ())
        return len(shape) == 4 and shape[2] * shape[3] > 1

    def flattens(self, node: fx.Node) -> bool:
        if not (self.calls(node, _FLATTEN_CALLS) or isinstance(self.module(node), nn.Flatten)):
            return False
        return self.is_spatial(node.all_input_nodes[0]) and len(self.shapes[node]) == 2

    def module(self, node: fx.Node) -> nn.Module | None:
        return self._modules.get(str(node.target)) if node.op == "call_module" else None

    @staticmethod
    def calls(node: fx.Node, targets: tuple[object, ...]) -> bool:
        return node.op in ("call_function", "call_method") and node.target in targets

    def label(self, node: fx.Node) -> str:
        """`classifier.0 (LayerNorm2d)`: the layer that the node is, or that calls it."""
        stack = list((node.meta.get("nn_module_stack") or {}).values())
        path, kind = stack[-1] if stack else ("", None)
        path = str(path).removeprefix(self._prefix).lstrip(".")
        if path and kind is not None:
            return f"{path} ({kind.__name__})"
        target = node.target
        return target if isinstance(target, str) else str(getattr(target, "__name__", node.name))
