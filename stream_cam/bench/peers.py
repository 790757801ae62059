"""pytorch-grad-cam and torch-cam on the same frames, network and weights, as their READMEs show.

The timed region goes from a decoded frame, (H, W, 3) uint8, to a full-size picture with the map on
it: preprocessing, network, map, colours, blend. All take turns, so that other load on the machine
affects all alike.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import cycle
from typing import Any

import cv2
import numpy as np
import torch
from torch import nn

from stream_cam.bench.plan import PlannedRow, time_rows
from stream_cam.bench.result import Row, Subject
from stream_cam.bench.stages import FrameStages
from stream_cam.bench.timing import Sampling, TimedCall
from stream_cam.cam.reference import scale_cam
from stream_cam.errors import BenchError, first_line
from stream_cam.explain.explainer import Explainer
from stream_cam.frame import BgrImage, FloatArray
from stream_cam.model.weights import Weights

_MIN_CORRELATION = 0.8
"""Least correlation of a peer's map with ours. The resize in its README does not smooth as
torchvision's does, so its network sees other pixels."""
REGION = "decoded frame → picture, host to host"
_IMPORTED = {
    "pytorch-grad-cam": ("pytorch_grad_cam", "pytorch_grad_cam.utils.image"),
    "torch-cam": ("torchcam.methods", "torchcam.utils", "PIL.Image"),
}
"""Modules that each peer imports."""
PEERS = tuple(_IMPORTED)


class Peer:
    """One peer; `heat` is the map of the last frame, scaled to 0..1, of any size."""

    def __init__(self, name: str, draw: Callable[[BgrImage], tuple[BgrImage, FloatArray]]) -> None:
        self.name = name
        self._draw = draw
        self.heat: FloatArray = np.zeros((1, 1), np.float32)

    def __call__(self, frame_bgr: BgrImage) -> BgrImage:
        picture, self.heat = self._draw(frame_bgr)
        return picture


def grad_cam(module: nn.Module, layer: nn.Module, weights: Weights, device: str) -> Peer:
    """pytorch-grad-cam's own functions: preprocess_image, GradCAM, show_cam_on_image."""
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.image import preprocess_image, show_cam_on_image

    extractor = GradCAM(model=module.to(device), target_layers=[layer])
    side = weights.input_size

    def draw(frame_bgr: BgrImage) -> tuple[BgrImage, FloatArray]:
        rgb = cv2.cvtColor(frame_bgr, cv2.COLOR_BGR2RGB)
        small = cv2.resize(rgb, (side, side)).astype(np.float32) / 255.0
        batch = preprocess_image(small, mean=list(weights.mean), std=list(weights.std)).to(device)
        heat = extractor(input_tensor=batch, targets=None)[0]
        full = cv2.resize(heat, (rgb.shape[1], rgb.shape[0]))
        picture = show_cam_on_image(rgb.astype(np.float32) / 255.0, full, use_rgb=True)
        return np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), np.uint8), heat

    return Peer("pytorch-grad-cam", draw)


def torch_cam(module: nn.Module, layer: nn.Module, weights: Weights, device: str) -> Peer:
    """torch-cam's own functions: CAM, to_pil_image, overlay_mask."""
    from PIL import Image
    from torchcam.methods import CAM
    from torchcam.utils import overlay_mask
    from torchvision.transforms.v2.functional import normalize, resize, to_pil_image

    module = module.to(device)
    extractor = CAM(module, target_layer=layer, fc_layer="fc")
    size = [weights.input_size] * 2

    def draw(frame_bgr: BgrImage) -> tuple[BgrImage, FloatArray]:
        rgb = cv2.cvtColor(frame_bgr, cv2.COLOR_BGR2RGB)
        image = torch.from_numpy(rgb).permute(2, 0, 1)
        batch = normalize(
            resize(image, size).float() / 255.0, list(weights.mean), list(weights.std)
        )
        with torch.no_grad():
            scores = module(batch[None].to(device))
            heat = extractor(int(scores.argmax()), scores)[0].cpu()
        mask = to_pil_image(heat[0], mode="F")
        picture = overlay_mask(Image.fromarray(rgb), mask, alpha=0.6)
        return np.asarray(cv2.cvtColor(np.asarray(picture), cv2.COLOR_RGB2BGR), np.uint8), heat[
            0
        ].numpy()

    return Peer("torch-cam", draw)


def peer_problem(name: str, module: nn.Module) -> str | None:
    """The reason why a peer cannot be timed with a network here; None if it can."""
    if getattr(module, "layer4", None) is None:
        return "--peers knows the last layer of ResNets only: give --model resnet18"
    try:
        for part in _IMPORTED[name]:
            importlib.import_module(part)
    except Exception as error:  # a dependency may have an unsupported version
        return f"{name} is not installed ({first_line(error)}): pip install 'stream-cam[bench]'"
    return None


def open_peer(name: str, module: nn.Module, weights: Weights, device: str) -> Peer:
    """Opens a peer for which `peer_problem` found none.

    Args:
        module: for this peer alone, which puts hooks into it.
    """
    layer: Any = module.eval().layer4
    if name == "torch-cam":
        return torch_cam(module, layer, weights, device)
    return grad_cam(module, layer[-1], weights, device)


def check_peer(peer: Peer, explainer: Explainer, frames: Sequence[BgrImage]) -> float:
    """The median correlation of a peer's maps with ours.

    Raises:
        BenchError: its picture has another size, or its maps are another network's.
    """
    found = []
    for frame in frames:
        picture = peer(frame)
        if picture.shape != frame.shape or picture.dtype != np.uint8:
            raise BenchError(f"{peer.name} gave {picture.shape} {picture.dtype}; it is not timed")
        heat = torch.from_numpy(np.asarray(peer.heat, np.float32))[None, None]
        cam = torch.from_numpy(explainer.explain(frame).cam)[None]
        ours = scale_cam(cam, relu=peer.name == "pytorch-grad-cam")
        theirs = nn.functional.interpolate(heat, ours.shape[1:], mode="area")[0]
        both = torch.stack([ours.flatten(), theirs.flatten()])
        found.append(float(torch.corrcoef(both)[0, 1].nan_to_num(0.0)))
    correlation = float(np.median(found))
    if not correlation >= _MIN_CORRELATION:
        raise BenchError(
            f"the maps of {peer.name} are not this network's (correlation {correlation:.2f} with "
            f"ours, at least {_MIN_CORRELATION:g} is asked for); it is not timed"
        )
    return correlation


@dataclass(frozen=True)
class StreamCamEngine:
    """One of stream-cam's engines, verified."""

    stages: FrameStages
    is_graph: bool
    """Whether its explainer draws a frame by one graph, which is verified too."""

    def timed_call(self, frames: Sequence[BgrImage]) -> TimedCall:
        """A whole frame, in the way that `run` uses here."""
        if not self.is_graph:
            return self.stages.timed_calls()["frame"]
        turns, explainer = cycle(frames), self.stages.explainer
        return TimedCall(lambda: explainer.draw(next(turns)))


def measure_peers(
    modules: Mapping[str, nn.Module],
    weights: Weights,
    ours: Sequence[StreamCamEngine],
    frames: Sequence[BgrImage],
    sampling: Sampling,
    device: str,
    leave_out: Callable[[str, str], None],
) -> list[Row]:
    """Rows of the verified peers and of stream-cam's engines; none without a peer.

    Args:
        modules: a copy of the network for each peer, by the peer's name.
        leave_out: gets each peer that fails, and the reason.
    """
    # The same input size for all, whatever size the weights were trained at.
    first = ours[0].stages
    weights = replace(weights, input_size=first.info.input_shape[2])
    opened = [
        _open_checked(name, module, weights, device, first.explainer, frames[::3], leave_out)
        for name, module in modules.items()
    ]
    peers = [peer for peer in opened if peer is not None]
    return time_peers(peers, ours, frames, sampling, device) if peers else []


def _open_checked(
    name: str,
    module: nn.Module,
    weights: Weights,
    device: str,
    explainer: Explainer,
    frames: Sequence[BgrImage],
    leave_out: Callable[[str, str], None],
) -> Peer | None:
    """Opens and verifies a peer; None after it was left out."""
    try:
        peer = open_peer(name, module, weights, device)
        check_peer(peer, explainer, frames)
    except Exception as error:  # it is not our code
        leave_out(name, first_line(error))
        return None
    return peer


def time_peers(
    peers: Sequence[Peer],
    ours: Sequence[StreamCamEngine],
    frames: Sequence[BgrImage],
    sampling: Sampling,
    device: str,
) -> list[Row]:
    """Times whole frames: the peers and stream-cam's verified engines, in turns."""
    frame_hw = (frames[0].shape[0], frames[0].shape[1])
    plan: dict[Subject, PlannedRow] = {}
    for peer in peers:
        subject = Subject("peer", peer.name, "", device, "fp32", 1, None, frame_hw, "launch")
        turns = cycle(frames)
        timed_call = TimedCall(lambda peer=peer, turns=turns: peer(next(turns)))  # type: ignore[misc]
        plan[subject] = PlannedRow(timed_call, REGION)
    for own in ours:
        info = own.stages.info
        input_hw = (info.input_shape[2], info.input_shape[3])
        subject = Subject(
            *("peer", "stream-cam", info.name, info.device, info.precision, 1),
            *(input_hw, frame_hw, "graph" if own.is_graph else "launch"),
        )
        plan[subject] = PlannedRow(own.timed_call(frames), REGION, own.stages.verification)
    return time_rows(plan, sampling)
