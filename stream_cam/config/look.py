"""How a picture is drawn."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Upsampling = Literal["bilinear", "nearest", "bicubic"]
Colormap = Literal["turbo", "jet", "viridis", "inferno", "magma"]
AlphaMode = Literal["constant", "heat"]
LayoutName = Literal["overlay", "side", "heatmap", "top5"]


@dataclass(frozen=True)
class LookConfig:
    """How the picture looks."""

    layout: LayoutName = "overlay"
    """overlay; side (frame | overlay); heatmap alone; top5 (the five best classes' maps)."""
    colormap: Colormap = "turbo"
    """Colours of the heatmap, cold to hot."""
    alpha: float = 0.4
    """Weight of the colours over the frame, 0..1."""
    alpha_mode: AlphaMode = "constant"
    """constant, or heat: alpha grows with the heat, so that cold regions stay clear."""
    upsampling: Upsampling = "bilinear"
    """How the low-resolution map becomes as large as the frame."""
    relu: bool = False
    """Drop what speaks against the class (negative values) before scaling, as Grad-CAM does."""
    hud: bool = True
    """Labels, bars and rates drawn on the picture."""
    smooth: float = 0.0
    """Time constant of a filter against flickering maps, such as 0.3, in seconds; 0: off."""
    hold: float = 0.0
    """Show another class only once it has been the best one for so long, in seconds; 0: at once.
    Without effect on classes chosen with --target."""
    max_age: float = 0.5
    """Live: a map that is so much older than the frame, in seconds, begins to fade; at twice that
    age it is gone."""

    def __post_init__(self) -> None:
        if not 0.0 < self.max_age < math.inf:
            raise ValueError(f"--max-age is a time in seconds above 0, got {self.max_age:g}")
        if not 0.0 <= self.alpha <= 1.0:
            raise ValueError(f"--alpha is a weight from 0 to 1, got {self.alpha:g}")
        for name in ("smooth", "hold"):
            if not 0.0 <= getattr(self, name) < math.inf:
                raise ValueError(f"--{name} is a time in seconds, got {getattr(self, name):g}")
