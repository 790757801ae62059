"""Why a network has no CAM: the reason in the message, which names the part in the way."""

from __future__ import annotations

from torch import fx

from stream_cam.model.traced import TracedNetwork


def reason_without_pooling(net: TracedNetwork, last: fx.Node) -> str:
    """Why no mean of features over a plane is found behind `last`, the node of the logits."""
    tail = _tail(net, last)
    kinds = [net.kind(node) for node in tail]
    linear = [
        node
        for node, kind in zip(tail, kinds, strict=True)
        if kind == "linear" or (kind == "conv" and not net.is_spatial(node))
    ]
    if "average" in kinds:
        return _reason_around(net, tail, kinds.index("average"))
    for position, node in enumerate(tail):
        if net.flattens(node):
            size = "×".join(str(side) for side in net.shapes[node.all_input_nodes[0]][1:])
            after = [each for each in linear if each in tail[:position]]
            where = f" before {net.label(after[-1])}" if after else ""
            return f"flatten of {size} features{where}, where they should be averaged"
        if "max" in node.name.lower() or "Max" in type(net.module(node)).__name__:
            return f"{net.label(node)}, maxima where averages should be"
    if not linear:
        return f"it ends in {net.label(tail[0])}, not in a linear layer"
    return f"no convolutional features reach an average pooling before {net.label(linear[0])}"


def _tail(net: TracedNetwork, last: fx.Node) -> list[fx.Node]:
    """From the output back to the last convolution over a plane, which is included."""
    tail = list[fx.Node]()
    for node in net.backwards(last):
        tail.append(node)
        if net.is_convolution(node) and net.is_spatial(node.all_input_nodes[0]):
            break
    return tail


def _reason_around(net: TracedNetwork, tail: list[fx.Node], pool: int) -> str:
    """The reason when there is an average pooling, at `tail[pool]`."""
    behind = tail[pool + 1 :]
    planes = [place for place, node in enumerate(behind) if net.is_spatial(node)]
    between = [node for node in behind[: planes[0]] if net.kind(node) == "other"] if planes else []
    if between:
        return f"{net.label(between[0])} between the features and their mean"
    shape = "×".join(str(side) for side in net.shapes[tail[min(pool + 1, len(tail) - 1)]][1:])
    return f"features of {shape} are averaged, where a plane C×h×w should be (input too small?)"
