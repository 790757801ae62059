"""Maps on frames, drawn by the CPU: blended in, or alone."""

from __future__ import annotations

import math
import threading
from functools import lru_cache

import numpy as np

from stream_cam.cam.cpu import CpuOverlay, scale_cam
from stream_cam.cam.geometry import MAX_PLANS, scale_region
from stream_cam.config import LookConfig
from stream_cam.frame import BgrImage, Explanation, FloatArray, Frame, image_of

_own = threading.local()
"""Each thread's overlays, which have buffers."""


def draw_overlay(
    frame: BgrImage | Frame,
    explanation: Explanation,
    look: LookConfig | None = None,
    *,
    target: int = 0,
    opacity: float = 1.0,
    out: BgrImage | None = None,
) -> BgrImage:
    """The frame with the heatmap of `explanation.cams[target]` blended in.

    Args:
        frame: (H, W, 3) uint8 BGR, of any size with the explained frame's shape.
        explanation: of this frame.
        look: colours, alpha, upsampling and ReLU; default: `LookConfig()`.
        target: which of the explanation's maps.
        opacity: factor of alpha, 0..1.
        out: (H, W, 3) uint8 to write to, may be the frame. Default: a new array.
    """
    image, look = image_of(frame), look or LookConfig()
    overlay = _overlay_of(image, explanation, look)
    scaled = _scaled(explanation, target, look)
    return overlay.blend(image, scaled, out, opacity=look.alpha * opacity)


def draw_heatmap(
    frame: BgrImage | Frame,
    explanation: Explanation,
    look: LookConfig | None = None,
    *,
    target: int = 0,
) -> BgrImage:
    """The coloured heatmap alone, (H, W, 3) uint8; black outside the network's input.

    Args:
        frame: as `draw_overlay` takes it.
        explanation: of this frame.
        look: colours, upsampling and ReLU; default: `LookConfig()`.
        target: which of the explanation's maps.
    """
    image, look = image_of(frame), look or LookConfig()
    return _overlay_of(image, explanation, look).heatmap(_scaled(explanation, target, look))


def _overlay_of(image: BgrImage, explanation: Explanation, look: LookConfig) -> CpuOverlay:
    """This thread's overlay for the picture's size; alpha is given with each picture."""
    make = getattr(_own, "make", None)
    if make is None:
        make = _own.make = lru_cache(MAX_PLANS)(CpuOverlay)
    size_hw = (image.shape[0], image.shape[1])
    overlay: CpuOverlay = make(
        size_hw,
        (explanation.cams.shape[1], explanation.cams.shape[2]),
        scale_region(explanation.region, explanation.frame_size_hw, size_hw),
        LookConfig(
            colormap=look.colormap,
            upsampling=look.upsampling,
            alpha_mode=look.alpha_mode,
            alpha=1.0,
        ),
    )
    return overlay


def _scaled(explanation: Explanation, target: int, look: LookConfig) -> FloatArray:
    """One map in 0..1 on the look's scale."""
    cold_hot = cold_and_hot(explanation, look, target)
    return scale_cam(explanation.cams[target], relu=look.relu, cold_hot=cold_hot)


def cold_and_hot(
    explanation: Explanation, look: LookConfig, target: int = 0
) -> tuple[float, float] | None:
    """The values that become 0 and 1; None: the map's own lowest and highest.

    On the common scale a map's highest value becomes √p, with p its class's probability.
    """
    if look.scale == "fixed":
        return look.scale_low, look.scale_high
    ranges = explanation.ranges
    if ranges is not None:
        low, high = float(ranges[target][0]), float(ranges[target][1])
    elif look.scale == "own":
        return None
    else:
        cam = explanation.cams[target]
        finite = cam[np.isfinite(cam)]
        low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    if look.scale == "own":
        return low, high
    if look.relu:
        low, high = max(low, 0.0), max(high, 0.0)
    share = math.sqrt(max(0.0, explanation.targets[target].probability))
    return low, low + (high - low) / share if share > 0.0 else math.inf
