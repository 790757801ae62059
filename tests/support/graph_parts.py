"""Networks, frames and comparisons for the tests of graphs, on the stand-in and on a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from stream_cam.cam.cpu import CpuOverlay, scale_cam
from stream_cam.cam.reference import upsample_heat
from stream_cam.config import LookConfig, Upsampling
from stream_cam.draw.layouts import MapStyle
from stream_cam.draw.overlay import cold_and_hot
from stream_cam.engine.base import Session
from stream_cam.explain.explainer import Explainer
from stream_cam.frame import BgrImage, Explanation, FloatArray, Frame, Region

SIDE = 64


def picture(seed: int, size_hw: tuple[int, int] = (SIDE, SIDE)) -> BgrImage:
    return np.random.default_rng(seed).integers(0, 256, (*size_hw, 3), dtype=np.uint8)


def frame(seed: int, size_hw: tuple[int, int] = (SIDE, SIDE)) -> Frame:
    return Frame(picture(seed, size_hw), seed, seed, Fraction(1, 25), 1000 + seed)


def is_tie(
    scaled: FloatArray,
    size_hw: tuple[int, int],
    region: Region,
    upsampling: Upsampling = "bilinear",
) -> npt.NDArray[np.bool_]:
    """(H, W) bool: pixels whose heat lies so near to two colours that either may be taken."""
    heat, _ = upsample_heat(torch.from_numpy(scaled), size_hw, region, upsampling)
    return np.asarray((((heat * 255.0) % 1.0 - 0.5).abs() < 2e-3).numpy())


def assert_drawn_as_on_the_cpu(
    got: BgrImage, image: BgrImage, explanation: Explanation, look: LookConfig, target: int = 0
) -> None:
    """The map that the graph found, drawn by the CPU path, is the picture that the graph drew."""
    size_hw = image.shape[0], image.shape[1]
    cam, cold_hot = explanation.cams[target], cold_and_hot(explanation, look, target)
    scaled = scale_cam(cam, relu=look.relu, cold_hot=cold_hot)
    cpu = CpuOverlay(size_hw, cam.shape, explanation.region, look)
    expected = cpu.heatmap(scaled) if look.layout == "heatmap" else cpu.blend(image, scaled)
    difference = np.abs(got.astype(int) - expected.astype(int)).max(axis=2)
    tie = is_tie(scaled, size_hw, explanation.region, look.upsampling)
    assert difference[~tie].max(initial=0) <= 1
    assert tie.mean() < 0.1


def taken(explanation: Explanation, image: BgrImage, look: LookConfig) -> Sequence[BgrImage]:
    assert explanation.drawn is not None
    pictures = explanation.drawn.take(image, MapStyle.of(look, len(explanation.cams)))
    assert pictures is not None
    return pictures


class Reads:
    """An engine whose sessions ask for a value on the host, which ends a capture."""

    def __init__(self, made: Explainer) -> None:
        assert made.engine is not None
        self._engine = made.engine
        self.info = self._engine.info

    def session(self) -> Session:
        session = self._engine.session()

        def run(batch: Tensor, logits: Tensor, features: Tensor) -> None:
            # On the CPU they may be arrays.
            batch, logits, features = map(torch.as_tensor, (batch, logits, features))
            session(batch, logits, features)
            logits.mul_(logits.max().item() * 0 + 1)

        return run
