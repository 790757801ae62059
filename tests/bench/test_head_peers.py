"""With a head that is not linear, our map is pytorch-grad-cam's before its ReLU."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from support.networks import untrained
from torch import Tensor, nn

from stream_cam.model.camnet import CamNet

pytestmark = pytest.mark.needs_peers

SIZE = 96
TARGETS = (0, 3)


@pytest.fixture(autouse=True)
def _peers() -> None:
    if importlib.util.find_spec("pytorch_grad_cam") is None:
        pytest.skip("pytorch_grad_cam is not installed (make peers)")


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Pictures are tiny here: threads would only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def camera_classifier() -> nn.Module:
    """MobileNetV2 → GAP → Dense(128, ReLU) → Dense(n) → softmax, as web tools train it."""
    network = untrained("mobilenet_v2", 7)
    network.classifier = nn.Sequential(
        nn.Dropout(0.2),
        nn.Linear(1280, 128),
        nn.ReLU(inplace=True),
        nn.Linear(128, 7),
        nn.Softmax(1),
    )
    return network


def with_neck(*layers: nn.Module) -> nn.Module:
    network = untrained("resnet18", 7)
    network.fc = nn.Sequential(*layers, nn.Linear(512, 7))
    for norm in network.fc.modules():
        if isinstance(norm, nn.BatchNorm1d):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias)
            norm.running_var = torch.rand(512) + 0.5
    return network.eval()


class Attention(nn.Module):
    """A gate over the mean features, with a way around it."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(512, 512)

    def forward(self, pooled: Tensor) -> Tensor:
        return pooled + pooled * torch.sigmoid(self.gate(pooled))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], str, bool]] = {
    "mobilenet_v3_small": (lambda: untrained("mobilenet_v3_small", 7), "features", False),
    "mobilenet_v3_large": (lambda: untrained("mobilenet_v3_large", 7), "features", False),
    "convnext_tiny": (lambda: untrained("convnext_tiny", 7), "features", False),
    "squeezenet1_1": (lambda: untrained("squeezenet1_1", 7), "classifier.2", True),
    "mobilenet_v2 with Dense(128)": (camera_classifier, "features", False),
    "resnet18 with a batch norm": (lambda: with_neck(nn.BatchNorm1d(512)), "layer4", True),
    "resnet18 with a layer norm": (
        lambda: with_neck(nn.LayerNorm(512), nn.GELU()),
        "layer4",
        False,
    ),
    "resnet18 with a gate": (lambda: with_neck(Attention(), nn.Dropout(0.5)), "layer4", False),
}
"""How it is made, the layer that is averaged, and whether its head is linear."""


def without_softmax(module: nn.Module) -> nn.Module:
    """Grad-CAM's derivative is asked of the logit, as ours."""
    head = getattr(module, "classifier", None)
    if isinstance(head, nn.Sequential) and isinstance(head[-1], nn.Softmax):
        module.classifier = head[:-1]
    return module


def grad_cam_before_relu(
    module: nn.Module, layer: nn.Module, batch: Tensor, target: int
) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    goal = [ClassifierOutputTarget(target)]
    with GradCAM(model=module, target_layers=[layer]) as theirs, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, about their hooks
        theirs(input_tensor=batch, targets=goal)
        activations, gradients = (
            theirs.activations_and_grads.activations,
            theirs.activations_and_grads.gradients,
        )
        image = theirs.get_cam_image(
            batch, layer, goal, activations[0].numpy(), gradients[0].numpy()
        )
    # Their weights are means of the gradients over a plane; ours are their sums, so that with a
    # linear head they are the layer's own.
    return np.asarray(image[0] * image[0].size, np.float32)


@pytest.mark.parametrize("name", NETWORKS)
def test_map_equals_grad_cams_before_its_relu_to_1e_4(name: str) -> None:
    make, layer, is_linear = NETWORKS[name]
    torch.manual_seed(0)
    module = make().eval()
    net = CamNet.from_module(module, name, probe_hw=(SIZE, SIZE))
    assert net.method == ("cam" if is_linear else "grad-cam (head)")
    batch = torch.randn(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        _, features = net(batch)
    weight = net.class_weight(features[0], TARGETS)
    ours = torch.einsum("nk,khw->nhw", weight, features[0]).numpy()
    plain = without_softmax(module)
    for our_map, target in zip(ours, TARGETS, strict=True):
        theirs = grad_cam_before_relu(plain, plain.get_submodule(layer), batch, target)
        assert np.ptp(theirs) > 0.0
        assert np.abs(our_map - theirs).max() <= 1e-4 * np.abs(theirs).max()
