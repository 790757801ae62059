"""Where a network's features end and its head begins.

A CAM exists when the logits are a function of the spatial mean of the last convolution's features
alone. A traced network is read backwards from its output until that mean is found, or until
something stands in the way; then the error names it. If the function is one linear layer its
weights are the class weights (Zhou et al., CVPR 2016, eq. 1-2). For any other head they are its
derivative at a frame, as in Grad-CAM (Selvaraju et al., ICCV 2017, eq. 1-2).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from stream_cam.model.head_module import HeadModule, affine_part, cut_head
from stream_cam.model.head_reason import reason_without_pooling
from stream_cam.model.traced import AXIS_SWAPS, TracedNetwork, no_cam


@dataclass(frozen=True)
class Head:
    """Where to cut a traced network in two, and its second part."""

    features: fx.Node
    """The node whose value, (N, C, h, w), is averaged."""
    weight: Tensor | None
    """(n_classes, C), if the head is linear."""
    bias: Tensor | None = None
    """(n_classes,), if the head is linear and has one."""
    module: HeadModule | None = None
    """(N, C) → logits (N, n_classes), if the head is not linear."""
    final: fx.Node | None = None
    """The softmax or sigmoid that follows the logits, and is left out."""


class HeadFinder:
    """Finds the head of one traced network."""

    def __init__(self, net: TracedNetwork) -> None:
        self._net = net

    def find(self) -> Head:
        """The features and the head.

        Raises:
            NoCamError: something else stands between the last convolution and the output.
        """
        logits, final = self._logits()
        return self._linear(logits, final) or self._pooled(logits, final)

    def _logits(self) -> tuple[fx.Node, fx.Node | None]:
        """The node of the logits, and the softmax or sigmoid after it."""
        net, last = self._net, self._net.result
        if not isinstance(last, fx.Node) or len(net.shapes.get(last, ())) != 2:
            raise no_cam(net.name, "its forward does not return (N, n_classes)")
        before = net.tensors_into(last)
        is_final = net.is_softmax(last) or net.is_sigmoid(last)
        if is_final and net.shapes[before[0]] == net.shapes[last]:
            return before[0], last
        return last, None

    def _linear(self, logits: fx.Node, final: fx.Node | None) -> Head | None:
        """The head, if it is one linear layer after the mean, or before it as a convolution."""
        net = self._net
        head: fx.Node | None = None
        averaged = False
        for node in net.backwards(logits):
            kind = net.kind(node)
            if averaged and net.calls(node, AXIS_SWAPS):
                continue  # whether the right axes are averaged is checked with numbers
            if head is not None and averaged and net.is_spatial(node):
                self._require_convolution(node)
                weight, bias = net.parameters(head)
                self._require_channels(node, weight.shape[1])
                return Head(node, weight.flatten(1), bias, final=final)
            if kind == "average":
                averaged = True
            elif head is None and (kind == "conv" or (kind == "linear" and not averaged)):
                head = node
            elif kind != "transparent":
                break
        return None

    def _pooled(self, logits: fx.Node, final: fx.Node | None) -> Head:
        """The head, whatever it is, if it sees the mean and nothing else."""
        net = self._net
        found = self._mean_and_features(logits)
        if found is None:
            raise no_cam(net.name, reason_without_pooling(net, logits))
        pooled, features = found
        self._require_convolution(features)
        shape = net.shapes[pooled][1:]
        n_values = int(torch.Size(shape).numel())
        if shape not in ((n_values,), (n_values, 1, 1)):
            raise no_cam(net.name, f"a mean of {'×'.join(map(str, shape))} is not a vector")
        self._require_channels(features, n_values)
        cut = cut_head(net, pooled, logits)
        if cut.is_affine:
            return Head(features, *affine_part(cut), final=final)
        return Head(features, None, module=cut, final=final)

    def _mean_and_features(self, logits: fx.Node) -> tuple[fx.Node, fx.Node] | None:
        """The last node that is a mean over a plane, and the node of that plane."""
        net, pooled = self._net, None
        for node in net.backwards(logits):
            kind = net.kind(node)
            if pooled is not None and net.is_spatial(node) and not net.calls(node, AXIS_SWAPS):
                return pooled, node
            if pooled is None and kind == "average":
                pooled = node
            elif pooled is not None and not (
                kind in ("average", "transparent") or net.calls(node, AXIS_SWAPS)
            ):
                return None
        return None

    def _require_convolution(self, features: fx.Node) -> None:
        """Some way back from the features meets a convolution before any linear layer."""
        net = self._net
        waiting, seen, blockers = [features], {features}, list[str]()
        while waiting:
            node = waiting.pop()
            if net.is_convolution(node):
                return
            if isinstance(net.module(node), (nn.Linear, nn.MultiheadAttention)):
                blockers.append(net.label(node))
                continue
            fresh = [each for each in node.all_input_nodes if each not in seen]
            seen.update(fresh)
            waiting.extend(fresh)
        source = blockers[0] if blockers else net.label(features)
        raise no_cam(net.name, f"its last features come from {source}, not from a convolution")

    def _require_channels(self, features: fx.Node, n_values: int) -> None:
        _, channels, height, width = self._net.shapes[features]
        if n_values != channels:
            raise no_cam(
                self._net.name,
                f"its head takes {n_values} values, and the mean of "
                f"{channels}×{height}×{width} features over a plane has {channels}",
            )
