"""A network's head on its own: what follows the mean of the features, cut out of the trace."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from stream_cam.frame import FloatArray
from stream_cam.model.traced import TracedNetwork, no_cam
from stream_cam.model.tracing import running


class HeadModule(nn.Module):
    """A head that is not linear: (N, C) → logits (N, n_classes), float32 on the CPU.

    The class weights of a frame are its derivative at the frame's mean features g, ∂logit_c/∂g. The
    map that they give is Grad-CAM's of the features, before its ReLU (Selvaraju et al., ICCV 2017,
    eq. 1-2): the mean passes the derivative on to every cell alike.

    Args:
        layers: (N, C) → the network's own logits.
        n_logits: the network's own; 1: it becomes two, as `CamNet` says.
        is_affine: Several linear layers without an activation between them are one; so is a batch
            norm with a linear layer.
    """

    def __init__(
        self, layers: nn.Module, n_channels: int, n_logits: int, *, is_affine: bool
    ) -> None:
        super().__init__()
        self.layers = layers
        self.n_channels, self.n_logits, self.is_affine = n_channels, n_logits, is_affine

    @property
    def n_classes(self) -> int:
        return max(2, self.n_logits)

    def forward(self, pooled: Tensor) -> Tensor:
        logits: Tensor = self.layers(pooled)
        return torch.cat([-logits / 2, logits / 2], 1) if self.n_logits == 1 else logits

    def class_weight(self, pooled: Tensor, classes: Sequence[int]) -> Tensor:
        """∂logit_c/∂g of some classes, (n, C) float32, for one frame's mean features g, (C,).

        Its parameters must not have been made in inference mode (`own_head`).
        """
        with torch.inference_mode(False), torch.enable_grad():
            # An inference tensor cannot be differentiated by. A clone outside of that mode can.
            given = pooled.detach().clone()[None].requires_grad_()
            # Layers that write into their input may not write into the one asked for.
            logits = self(given.clone())[0]
            rows = [torch.autograd.grad(logits[c], given, retain_graph=True)[0] for c in classes]
        return torch.cat(rows).detach()


def own_head(head: HeadModule | None) -> HeadModule | None:
    """A copy that can be differentiated, also of a head that was made in inference mode."""
    with torch.inference_mode(False):
        return copy.deepcopy(head)


class HeadRows:
    """The class weights of one frame with a head that is not linear, computed when asked for.

    Args:
        features: (C, h, w) float32, the frame's; read now and not kept.
    """

    def __init__(self, head: HeadModule, features: FloatArray) -> None:
        self._head = head
        self._pooled = torch.from_numpy(features).mean((1, 2))

    def __getitem__(self, classes: list[int], /) -> FloatArray:
        """(n, C) float32, of these classes."""
        with running():
            rows: FloatArray = self._head.class_weight(self._pooled, classes).numpy()
        return rows


class Headed(Protocol):
    """A network with the parts that make logits of its features."""

    @property
    def head(self) -> HeadModule | None: ...
    @property
    def weight(self) -> Tensor: ...
    @property
    def bias(self) -> Tensor: ...


def logits_of(features: Tensor, net: Headed) -> Tensor:
    """The head of the features' mean (Zhou et al., CVPR 2016, eq. 1)."""
    pooled = features.mean((2, 3))
    if net.head is not None:
        logits: Tensor = net.head(pooled)
        return logits
    return F.linear(pooled, net.weight, net.bias)


def cut_head(net: TracedNetwork, pooled: fx.Node, logits: fx.Node) -> HeadModule:
    """The layers between the mean and the logits.

    Raises:
        NoCamError: the logits depend on more than the mean.
    """
    graph = fx.Graph()
    given = graph.placeholder("pooled")
    if len(net.shapes[pooled]) == 4:
        given = graph.call_function(torch.unsqueeze, (given, -1))
        given = graph.call_function(torch.unsqueeze, (given, -1))
    copied = {pooled: given}
    required = _required(net, pooled, logits)
    for node in net.traced.graph.nodes:
        if node in required:
            # Of a tensor before the mean the head may ask for the number of frames.
            copied[node] = graph.node_copy(node, lambda one: copied.get(one, given))
    graph.output(copied[logits])
    layers = [one for one in required if one in net.shapes and one.op != "get_attr"]
    return HeadModule(
        fx.GraphModule(net.traced, graph, "Head"),
        net.shapes[pooled][1],
        net.shapes[logits][1],
        is_affine=all(net.is_affine(one) for one in layers),
    )


def _required(net: TracedNetwork, pooled: fx.Node, logits: fx.Node) -> set[fx.Node]:
    """The nodes that make the logits of the mean."""
    before = net.ancestors(pooled)
    required, waiting = set[fx.Node](), [logits]
    while waiting:
        node = waiting.pop()
        if node is pooled or node in required:
            continue
        required.add(node)
        for one in node.all_input_nodes:
            if one not in net.shapes:  # a number, such as the number of frames
                waiting.append(one)
            elif one.op == "get_attr":
                required.add(one)
            elif one not in before and one.op != "placeholder":
                waiting.append(one)
            elif node in net.shapes:
                raise no_cam(
                    net.name,
                    f"{net.label(node)} takes the values of {net.label(one)}, where a head may "
                    "see nothing but the mean of the last features",
                )
    return required


def affine_part(head: HeadModule) -> tuple[Tensor, Tensor]:
    """Weight (n_logits, C) and bias (n_logits,) of an affine head, float32."""
    exact = copy.deepcopy(head.layers).double()
    bias: Tensor = exact(torch.zeros(1, head.n_channels, dtype=torch.float64))
    columns: Tensor = exact(torch.eye(head.n_channels, dtype=torch.float64))
    return (columns - bias).T.float().contiguous(), bias[0].float()


def single_layer(node: fx.Node, traced: fx.GraphModule) -> fx.GraphModule:
    """One layer of one input as a network."""
    graph = fx.Graph()
    given = graph.placeholder("value")
    graph.output(graph.node_copy(node, lambda one: given))
    return fx.GraphModule(traced, graph, "Layer")
