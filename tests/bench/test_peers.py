"""Our maps are torch-cam's and pytorch-grad-cam's, on the same network and the same batch."""

from __future__ import annotations

import importlib.util
import warnings

import numpy as np
import pytest
import torch
from support.networks import untrained
from torch import Tensor, nn

from stream_cam.cam.cpu import CpuPreprocessor
from stream_cam.cam.geometry import plan_fit
from stream_cam.cam.reference import scale_cam
from stream_cam.config import EngineName
from stream_cam.explain.explainer import Explainer
from stream_cam.frame import BgrImage

pytestmark = pytest.mark.needs_peers


@pytest.fixture(autouse=True)
def _peers() -> None:
    """Skips where the two are not installed."""
    for package in ("torchcam", "pytorch_grad_cam"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed (make peers)")


MODELS = {"resnet18": "layer4", "resnet50": "layer4", "mobilenet_v2": "features"}
TARGETS = (0, 17)


@pytest.fixture(scope="module", params=MODELS)
def network(request: pytest.FixtureRequest) -> tuple[nn.Module, nn.Module]:
    """A network and its last layer; random weights, batch statistics that are not trivial."""
    module = untrained(request.param, 40)
    # Grad-CAM divides by (1e-7 + maximum): untrained weights give maps so small that this shows.
    with torch.no_grad():
        next(p for n, p in reversed(list(module.named_parameters())) if "weight" in n).mul_(100.0)
    return module, module.get_submodule(MODELS[request.param])


@pytest.fixture(scope="module", params=[(224, 224), (180, 320), (97, 61)], ids=str)
def frame(request: pytest.FixtureRequest) -> BgrImage:
    size_hw: tuple[int, int] = request.param
    rng = np.random.default_rng(size_hw[0])
    coarse = rng.integers(0, 256, (6, 6, 3)).astype(np.float32)
    rows = np.linspace(0, 5, size_hw[0]).astype(int)
    columns = np.linspace(0, 5, size_hw[1]).astype(int)
    noise = rng.normal(0, 20, (*size_hw, 3))
    return np.asarray((coarse[rows][:, columns] + noise).clip(0, 255), np.uint8)


def batch_of(frame: BgrImage, explainer: Explainer) -> Tensor:
    """The explainer's input to its network for this frame."""
    plan = plan_fit("stretch", (frame.shape[0], frame.shape[1]), 224)
    batch = np.empty((1, 3, 224, 224), np.float32)
    CpuPreprocessor(plan, explainer.weights.mean, explainer.weights.std)(frame, batch[0])
    return torch.from_numpy(batch)


@pytest.mark.parametrize("engine", ["eager", "openvino"])
def test_map_equals_torch_cams_to_1e_4(
    network: tuple[nn.Module, nn.Module], frame: BgrImage, engine: EngineName
) -> None:
    from torchcam.methods import CAM

    module, layer = network
    explainer = Explainer.from_module(module, engine=engine)
    batch = batch_of(frame, explainer)
    ours = explainer.explain(frame, TARGETS).cam
    with CAM(module, target_layer=layer) as extractor, torch.no_grad():
        scores = module(batch)
        theirs = [extractor(target, scores, normalized=False)[0][0] for target in TARGETS]
    for our_map, their_map in zip(ours, theirs, strict=True):
        difference = (torch.from_numpy(our_map) - their_map).abs().max()
        assert difference <= 1e-4 * their_map.abs().max()


def test_relu_and_min_max_equal_grad_cams_to_1e_3(
    network: tuple[nn.Module, nn.Module], frame: BgrImage
) -> None:
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    module, layer = network
    explainer = Explainer.from_module(module, engine="eager")
    batch = batch_of(frame, explainer)
    ours = explainer.explain(frame, TARGETS).cam
    for our_map, target in zip(ours, TARGETS, strict=True):
        goal = [ClassifierOutputTarget(target)]
        with GradCAM(model=module, target_layers=[layer]) as grad_cam, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch, about their hooks
            grad_cam(input_tensor=batch, targets=goal)
            theirs = grad_cam.compute_cam_per_layer(batch, goal, False)[0][0, 0]
        scaled = scale_cam(torch.from_numpy(our_map), relu=True)
        full = torch.nn.functional.interpolate(
            scaled[None, None], theirs.shape, mode="bilinear", align_corners=False
        )[0, 0]
        assert np.abs(full.numpy() - theirs).max() <= 1e-3
        assert theirs.max() > 0.9  # the map is not the zero map, where all would be equal


def test_contrast_map_equals_torch_cams_finer_cam_to_1e_4(
    network: tuple[nn.Module, nn.Module], frame: BgrImage
) -> None:
    from torchcam.methods import FinerCAM

    module, layer = network
    explainer = Explainer.from_module(module, engine="eager")
    batch = batch_of(frame, explainer)
    explanation = explainer.explain(frame, against="next:3", against_weight=0.6)
    best = explanation.targets[0].index
    ours = explanation.cam.clip(0.0)  # theirs ends with a ReLU
    with FinerCAM(module, target_layer=layer) as extractor:  # 0.6 and three by default
        scores = module(batch)
        theirs = extractor(best, scores, normalized=False)[0][0].numpy()
        named = extractor(best, module(batch), list(explanation.others()), normalized=False)[0][
            0
        ].numpy()
    # Their weights are means of the gradients over a plane.
    for their_map in (theirs * theirs.size, named * named.size):
        assert their_map.max() > 0.0
        assert np.abs(ours - their_map).max() <= 1e-4 * their_map.max()
