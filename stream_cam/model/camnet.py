"""CamNet: a classifier as one forward that returns logits and the features its CAMs are made of."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, fx, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import remove_spectral_norm, remove_weight_norm
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from stream_cam.config import Activation, Channels
from stream_cam.errors import ModelError, first_line
from stream_cam.frame import Method
from stream_cam.model.fingerprint import fingerprint
from stream_cam.model.head import Head, HeadFinder
from stream_cam.model.head_check import check_invariant
from stream_cam.model.head_module import HeadModule, logits_of, single_layer
from stream_cam.model.input_color import color_layer, detect_channels, prepend
from stream_cam.model.one_output import OneOutput
from stream_cam.model.state_dicts import load_parameters, require_finite
from stream_cam.model.torch_settings import loading
from stream_cam.model.torchvision_models import build_network
from stream_cam.model.traced import ShapeRecorder, TracedNetwork, no_cam
from stream_cam.model.tracing import running, tracing

__all__ = ["CamNet", "build_network", "load_parameters"]

_PREFIX = "network"


class CamNet(nn.Module):
    """A network whose single forward returns the logits and the last convolution's features.

    A network with one logit z becomes one with the two logits −z/2 and z/2: their softmax is
    sigmoid(−z) and sigmoid(z), and the second class's map is half of z's.

    With f the features and w, b the linear layer, the map of class c is M_c = Σ_k w[c, k] · f_k
    and mean(M_c) + b[c] is the logit (Zhou et al., CVPR 2016, eq. 1-2). With any other head,
    w[c] is ∂logit_c/∂mean(f) at the frame, and M_c is Grad-CAM's map before its ReLU. Always in
    eval mode, without gradients for its parameters; exports and compiles as any module does.

    Args:
        backbone: (N, 3, H, W) normalised RGB → features (N, C, h, w), also for a network that
            takes other channels.
        weight: (n_logits, C); None: the head is not linear.
        bias: (n_logits,); zeros for a layer without one.
        name: the network's name in messages.
        head: (N, C) → logits, where it is not linear.
    """

    weight: nn.Parameter
    """(n_classes, C) float32 on the CPU, until the module is moved or cast; not there if `head` is.
    """
    bias: nn.Parameter
    """(n_classes,), likewise."""

    def __init__(
        self,
        backbone: nn.Module,
        weight: Tensor | None,
        bias: Tensor | None,
        name: str,
        head: HeadModule | None = None,
    ) -> None:
        super().__init__()
        self.n_logits: int
        """The network's own; 1: the probability of the second class is its sigmoid."""
        self.backbone = backbone
        self.head = head
        if weight is not None and bias is not None:
            self.n_logits = len(weight)
            if self.n_logits == 1:
                weight, bias = _halved(weight), _halved(bias)
            self.weight = nn.Parameter(weight, requires_grad=False)
            self.bias = nn.Parameter(bias, requires_grad=False)
        elif head is not None:
            self.n_logits = head.n_logits
        else:
            raise ValueError("a CamNet needs weight and bias, or a head")
        self.name = name
        self.channels: Channels = "rgb"
        """The channels of the network it was made of, before a layer that takes RGB."""
        self.activation: Activation = "softmax"
        """sigmoid: the network it was made of ends in one, which is left out."""
        self.requires_grad_(False)
        self.train(False)

    @property
    def n_classes(self) -> int:
        return self.weight.shape[0] if self.head is None else self.head.n_classes

    @property
    def n_channels(self) -> int:
        """C, the number of feature planes."""
        return self.weight.shape[1] if self.head is None else self.head.n_channels

    def class_weight(self, features: Tensor, classes: Sequence[int]) -> Tensor:
        """What the maps of some classes are weighted sums by, (n, C) float32 on the CPU.

        Args:
            features: (C, h, w) float32 on the CPU, of the frame.
        """
        if self.head is None:
            return self.weight.detach()[list(classes)]
        with running():
            return self.head.class_weight(features.mean((1, 2)), classes)

    @property
    def method(self) -> Method:
        """The maps' name: those of a head that is not linear are Grad-CAM's."""
        return "cam" if self.head is None else "grad-cam (head)"

    def fingerprint(self) -> str:
        """16 hex digits that change with any parameter, layer or operation of the network."""
        tensors = {**self.state_dict(), **dict(self.named_buffers())}
        parts = [self.backbone] if self.head is None else [self.backbone, self.head]
        return fingerprint(tensors, "\n".join(f"{part}\n{_settings(part)}" for part in parts))

    def train(self, mode: bool = True) -> CamNet:
        """Stays in eval mode whatever `mode` is: dropout and batch statistics would change maps."""
        super().train(False)
        return self

    def forward(self, batch_nchw: Tensor) -> tuple[Tensor, Tensor]:
        """One pass.

        Args:
            batch_nchw: (N, 3, H, W), normalised RGB, in the parameters' dtype, on their device.

        Returns:
            logits (N, n_classes) and features (N, C, h, w), same dtype and device.
        """
        features = self.backbone(batch_nchw)
        return logits_of(features, self), features

    @classmethod
    @loading()
    def from_module(
        cls,
        module: nn.Module,
        name: str | None = None,
        probe_hw: tuple[int, int] = (224, 224),
        channels: Channels | None = None,
        output: str | int | None = None,
    ) -> CamNet:
        """Wraps a classifier that ends convolution → GAP → a head that sees nothing else.

        The result holds a copy of the parameters, float32 on the CPU: `module` itself keeps its
        mode, gradients and device, and may be trained on without changing the result.

        Args:
            module: (N, 3 or 1, H, W) → logits (N, n_classes).
            name: its name in messages; default: its class name.
            probe_hw: size of the random picture on which `mean(M_c) + b_c == logit_c` and the
                module's own logits are checked.
            channels: `rgb`, `bgr` or `gray`, as the module takes them; default: `gray` for a module
                with one input channel, else `rgb`. CamNet itself always takes RGB.
            output: the logits among several outputs: a key, a field, or a number from 0.

        Raises:
            NoCamError: the network does not have that shape; the message names the part.
            WeightsError: a parameter is not finite.
            ModelError: the network does not take a picture of `probe_hw`.
        """
        name = name or type(module).__name__
        network = _copied(module, name)
        require_finite(network.state_dict(), name)
        one = OneOutput(network, name, output).eval()
        probe = torch.randn(1, 3, *probe_hw, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            with running():
                channels, own_output = detect_channels(one, probe, name, channels)
            with tracing():
                traced = _traced(one, name)
            recorder = ShapeRecorder(traced)
            color = color_layer(channels)
            with running():
                recorder.run(probe if color is None else color(probe))
        whole = TracedNetwork(traced, recorder.shapes, name, _PREFIX)
        head = HeadFinder(whole).find()
        final = None if head.final is None else single_layer(head.final, traced)
        backbone = prepend(color, _cut_after(head.features, traced))
        net = cls(backbone, *_own_parameters(head), name, head.module)
        net.channels = channels
        if head.final is not None and whole.is_sigmoid(head.final):
            net.activation = "sigmoid"
        check_invariant(net, probe, own_output, final)
        return net


def _own_parameters(head: Head) -> tuple[Tensor | None, Tensor | None]:
    """Copies of a linear head's weight and bias; None for another head."""
    if head.weight is None:
        return None, None
    weight = head.weight.detach().clone()
    return weight, weight.new_zeros(
        len(weight)
    ) if head.bias is None else head.bias.detach().clone()


def _halved(logit: Tensor) -> Tensor:
    """(1, …) → (2, …): −z/2 and z/2, whose softmax is the sigmoid of −z and z."""
    return torch.cat([-logit / 2, logit / 2])


def _settings(backbone: nn.Module) -> str:
    """The settings of each layer, one a line; its repr leaves some of them out.

    `AvgPool2d` does not show `count_include_pad`, `Upsample` not `align_corners`.
    """
    return "\n".join(
        f"{name} {type(layer).__qualname__} {key} {_shown(value)}"
        for name, layer in backbone.named_modules()
        if not isinstance(layer, fx.GraphModule)  # its code is in its text
        for key, value in sorted(vars(layer).items())
        if not key.startswith("_")  # PyTorch's own
    )


def _shown(value: object) -> str:
    """A setting as a text that is the same in every process; of an object, only its kind."""
    if value is None or isinstance(value, (bool, int, float, str, torch.dtype)):
        return repr(value)
    if isinstance(value, (tuple, list)):
        return f"({', '.join(map(_shown, value))})"
    return str(getattr(value, "__qualname__", type(value).__qualname__))


def _copied(module: nn.Module, name: str) -> nn.Module:
    """A float32 copy on the CPU, in eval mode, without the wrapper of DataParallel or compile."""
    if isinstance(module, torch.jit.ScriptModule):
        raise ModelError(f"{name} is TorchScript, which cannot be cut; pass the nn.Module it is of")
    while isinstance(inner := getattr(module, "_orig_mod", None), nn.Module) or (
        isinstance(module, nn.DataParallel) and isinstance(inner := module.module, nn.Module)
    ):
        module = inner
    if any(map(is_lazy, [*module.parameters(), *module.buffers()])):
        raise ModelError(
            f"{name} has lazy layers that have no parameters yet; run it once on a batch before"
        )
    # Such as the weight that weight_norm computes before each pass: PyTorch does not copy it.
    computed = {
        id(value): value.detach().clone()
        for part in module.modules()
        for value in vars(part).values()
        if isinstance(value, Tensor) and not value.is_leaf
    }
    try:
        network = copy.deepcopy(module, computed)
    except Exception as exc:
        raise ModelError(f"{name} cannot be copied: {first_line(exc)}") from exc
    _remove_norms(network.eval())
    return network.to(device="cpu", dtype=torch.float32).eval()


def _remove_norms(network: nn.Module) -> None:
    """Makes plain parameters of those that weight_norm and spectral_norm compute in hooks."""
    for part in network.modules():
        for hook in list(part._forward_pre_hooks.values()):
            if isinstance(hook, WeightNorm):
                remove_weight_norm(part, hook.name)
            elif isinstance(hook, SpectralNorm):
                remove_spectral_norm(part, hook.name)


def _traced(network: nn.Module, name: str) -> fx.GraphModule:
    try:
        return fx.GraphModule(network, fx.Tracer().trace(network))
    except Exception as exc:
        raise no_cam(
            name,
            f"its layers cannot be followed ({first_line(exc)}): forward must not branch on a "
            "tensor's values or shape",
        ) from exc


def _cut_after(features: fx.Node, traced: fx.GraphModule) -> fx.GraphModule:
    """The traced network up to `features`, which it then returns."""
    graph = traced.graph
    after = list(graph.nodes)
    after = after[after.index(features) + 1 :]
    for node in reversed(after):
        graph.erase_node(node)
    graph.output(features)
    # Takes over the layers that the graph still calls, and no others.
    return fx.GraphModule(traced, graph)
