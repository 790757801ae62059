"""How a picture is drawn."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Upsampling = Literal["bilinear", "nearest", "bicubic", "smooth"]
Colormap = Literal["turbo", "jet", "viridis", "inferno", "magma"]
AlphaMode = Literal["constant", "heat"]
SyncName = Literal["auto", "newest", "matched"]
ScaleName = Literal["own", "common", "fixed"]
LayoutName = Literal["overlay", "side", "heatmap", "top5"]


MAX_DELAY_SECONDS = 5.0
"""The frames of that time are held in memory: 900 MB at 1920×1080 and 30 frames/s."""


@dataclass(frozen=True)
class LookConfig:
    """How a picture is drawn."""

    layout: LayoutName = "overlay"
    """overlay; side: frame beside overlay; heatmap: the heatmap alone;
    top5: the maps of the five best classes."""
    colormap: Colormap = "inferno"
    """Colours of the heatmap, from cold to hot."""
    alpha: float = 0.8
    """Weight of the heatmap over the frame, 0 to 1; with --alpha-mode heat of its hottest place."""
    alpha_mode: AlphaMode = "heat"
    """heat: alpha grows with the heat, so that cold regions stay clear; constant: it does not."""
    scale: ScaleName = "common"
    """The values that are drawn as cold and as hot.
    common: a map's hottest place is as hot as the square root of its class's probability, so that
    a class with 0 % is cold; own: each map has a hot place;
    fixed: from --scale-low to --scale-high."""
    scale_low: float = 0.0
    """The value drawn as cold with --scale fixed, in the units of the logits."""
    scale_high: float = 20.0
    """The value drawn as hot with --scale fixed, in the units of the logits."""
    upsampling: Upsampling = "smooth"
    """Interpolation from the low-resolution map to the size of the frame.
    smooth: a quadratic B-spline, without the diamonds and crosses of bilinear."""
    against_weight: float = 1.0
    """The share of the others' mean map that --against subtracts, from 0; Finer-CAM takes 0.6."""
    relu: bool = False
    """Drop negative values, which speak against the class, before scaling, as Grad-CAM does."""
    hud: bool = True
    """Draw labels, bars and rates on the picture."""
    smooth: float = 0.0
    """Time constant of a filter against flickering maps, such as 0.3, in seconds; 0: off."""
    hold: float = 0.0
    """Show another class only after it was the best one for this time, in seconds; 0: at once.
    It has no effect on classes chosen with --target."""
    sync: SyncName = "auto"
    """Live: how picture and map meet.
    auto: a picture waits for its own map, or is drawn with those before and after it;
    newest: every picture at once, with the newest map; matched: only explained pictures."""
    max_delay: float = 0.5
    """Live: how long auto may delay a picture, in seconds. Where that is too short for the network,
    auto shows only pictures that were explained."""
    max_age: float = 0.5
    """Live: how much older than its frame a map may be before it fades, in seconds.
    At twice that age it is no longer shown."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.max_delay <= MAX_DELAY_SECONDS:
            raise ValueError(
                f"--max-delay is a time from 0 to {MAX_DELAY_SECONDS:g} seconds, got "
                f"{self.max_delay:g}"
            )
        if not 0.0 < self.max_age < math.inf:
            raise ValueError(f"--max-age is a time in seconds above 0, got {self.max_age:g}")
        if not -math.inf < self.scale_low < self.scale_high < math.inf:
            raise ValueError(
                f"--scale-high is a number above --scale-low, got {self.scale_high:g} and "
                f"{self.scale_low:g}"
            )
        if not 0.0 <= self.alpha <= 1.0:
            raise ValueError(f"--alpha is a weight from 0 to 1, got {self.alpha:g}")
        if not 0.0 <= self.against_weight < math.inf:
            raise ValueError(
                f"--against-weight is a number from 0, got {self.against_weight:g}; give 1.0 for "
                "the plain difference"
            )
        for name in ("smooth", "hold"):
            if not 0.0 <= getattr(self, name) < math.inf:
                raise ValueError(f"--{name} is a time in seconds, got {getattr(self, name):g}")
