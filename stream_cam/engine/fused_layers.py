"""A traced backbone with each convolution, its bias, ReLU and residual addition as one operation.

PyTorch has cuDNN's fused operations as `aten::cudnn_convolution_relu` and
`aten::cudnn_convolution_add_relu`. A ResNet18 needs three kernels for a convolution with batch
normalisation and ReLU, four with an addition; here each needs one. On a CPU, where cuDNN does not
run, the same layers compute the same sums with PyTorch's own convolution: that is their reference.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

_ADDITIONS = (operator.add, operator.iadd, torch.add)
_RELUS = (F.relu, F.relu_, torch.relu, torch.relu_)


class FusedConvolution(nn.Module):
    """ReLU(convolution + bias), or ReLU(convolution + bias + addend), as one kernel on CUDA.

    Args:
        layer: without padding by words and with padding by zeros; its parameters are taken over.
        extra_bias: (C_out,), added to the layer's own.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, layer: nn.Conv2d, extra_bias: Tensor | None = None) -> None:
        super().__init__()
        bias = _bias(layer) if extra_bias is None else _bias(layer) + extra_bias
        self.register_buffer("weight", layer.weight.detach())
        self.register_buffer("bias", bias)
        self.stride, self.dilation, self.groups = layer.stride, layer.dilation, layer.groups
        self.padding = _numbers(layer.padding)

    def forward(self, x: Tensor, addend: Tensor | None = None) -> Tensor:
        """(N, C, H, W), and for the addition (N, C_out, h, w) → (N, C_out, h, w)."""
        if not x.is_cuda:
            sums = F.conv2d(
                *(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)
            )
            return torch.relu(sums if addend is None else sums + addend)
        where = (self.stride, self.padding, self.dilation, self.groups)
        ops: Any = torch.ops.aten
        fused: Tensor
        if addend is None:
            fused = ops.cudnn_convolution_relu(x, self.weight, self.bias, *where)
        else:
            fused = ops.cudnn_convolution_add_relu(x, self.weight, addend, 1.0, self.bias, *where)
        return fused


def fuse_layers(backbone: fx.GraphModule) -> tuple[fx.GraphModule, int]:
    """The same network with fused layers, and how many; batch norms must be folded before.

    Of two convolutions that are added, the second one's bias moves into the first one's.

    Args:
        backbone: changed in place.
    """
    graph, n_fused = backbone.graph, 0
    for node in list(graph.nodes):
        if not _is_relu(node, backbone):
            continue
        before = node.args[0]
        if _is_addition(before):
            fused = _fuse_addition(backbone, node, before)
        else:
            fused = _is_fusable(before, backbone)
            if fused:
                _replace(backbone, node, before, FusedConvolution(_layer(backbone, before)))
        n_fused += fused
    graph.eliminate_dead_code()
    graph.lint()
    backbone.delete_all_unused_submodules()
    backbone.recompile()
    return backbone, n_fused


def _fuse_addition(backbone: fx.GraphModule, relu: fx.Node, addition: fx.Node) -> bool:
    """Makes one layer of convolution, addition and ReLU; False if it cannot be."""
    one, other = addition.args[:2]
    if one is other or not (isinstance(one, fx.Node) and isinstance(other, fx.Node)):
        return False
    if not _is_fusable(one, backbone):
        one, other = other, one
    if not _is_fusable(one, backbone):
        return False
    extra_bias = None
    if _is_fusable(other, backbone):
        layer = _layer(backbone, other)
        extra_bias = _bias(layer)
        layer.bias = None
    fused = FusedConvolution(_layer(backbone, one), extra_bias)
    # The addend is computed before the ReLU, but perhaps after the convolution.
    _replace(backbone, relu, one, fused, other)
    return True


def _replace(
    backbone: fx.GraphModule,
    relu: fx.Node,
    convolution: fx.Node,
    fused: FusedConvolution,
    *addend: fx.Node,
) -> None:
    name = f"{str(convolution.target).replace('.', '_')}_fused"
    backbone.add_submodule(name, fused)
    with backbone.graph.inserting_before(relu):
        new = backbone.graph.call_module(name, (convolution.args[0], *addend))
    relu.replace_all_uses_with(new)
    backbone.graph.erase_node(relu)


def _is_relu(node: fx.Node, backbone: fx.GraphModule) -> bool:
    if not (node.args and isinstance(node.args[0], fx.Node) and len(node.args[0].users) == 1):
        return False
    if node.op == "call_module":
        return type(backbone.get_submodule(str(node.target))) is nn.ReLU
    if node.op == "call_method":
        return node.target in ("relu", "relu_")
    return node.op == "call_function" and node.target in _RELUS


def _is_addition(node: fx.Node) -> bool:
    return node.op == "call_function" and node.target in _ADDITIONS and len(node.args) == 2


def _is_fusable(node: object, backbone: fx.GraphModule) -> bool:
    """Whether it is a convolution that cuDNN fuses well, whose result is used once."""
    if not (isinstance(node, fx.Node) and node.op == "call_module" and len(node.users) == 1):
        return False
    layer = backbone.get_submodule(str(node.target))
    return (
        type(layer) is nn.Conv2d
        and layer.padding_mode == "zeros"
        and not isinstance(layer.padding, str)
        # PyTorch has faster kernels for depthwise convolutions.
        and (layer.groups == 1 or layer.groups < layer.in_channels)
        and _is_called_once(node, backbone)
    )


def _is_called_once(node: fx.Node, backbone: fx.GraphModule) -> bool:
    calls = [one for one in backbone.graph.nodes if one.op == "call_module"]
    return [one.target for one in calls].count(node.target) == 1


def _layer(backbone: fx.GraphModule, node: fx.Node) -> nn.Conv2d:
    layer = backbone.get_submodule(str(node.target))
    assert isinstance(layer, nn.Conv2d)
    return layer


def _bias(layer: nn.Conv2d) -> Tensor:
    if layer.bias is None:
        return layer.weight.new_zeros(layer.out_channels)
    return layer.bias.detach().clone()


def _numbers(padding: str | tuple[int, ...]) -> tuple[int, ...]:
    assert not isinstance(padding, str)
    return padding
