"""What a graph is captured for, and what comes along with every frame."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

from torch import Tensor

from stream_cam.cam.geometry import FitPlan
from stream_cam.cam.panels import panel_hw
from stream_cam.config import AlphaMode, Colormap, LookConfig, Upsampling


@dataclass(frozen=True)
class FrameRequest:
    """What is to be done with one frame."""

    targets: tuple[int, ...] = ()
    """Classes asked for; none: the best one, or the one that is held."""
    n_maps: int = 1
    """After the targets, the best classes that are not among them."""
    panels: bool = False
    """Draw each map on a smaller frame; else the first one on the frame itself."""
    look: LookConfig = field(default_factory=LookConfig)
    smooth_seconds: float = 0.0
    hold_seconds: float = 0.0

    @property
    def is_steady(self) -> bool:
        """Whether it depends on the frames before."""
        return self.smooth_seconds > 0.0 or self.hold_seconds > 0.0


@dataclass(frozen=True)
class Shape:
    """What a captured graph cannot change: for another one of these another is captured."""

    fit: FitPlan
    n_maps: int
    panels: bool
    upsampling: Upsampling
    relu: bool
    smooths: bool

    @classmethod
    def of(cls, order: FrameRequest, fit: FitPlan) -> Shape:
        look = order.look
        return cls(
            fit,
            max(order.n_maps, len(order.targets), 1),
            order.panels,
            look.upsampling,
            look.relu,
            order.smooth_seconds > 0.0,
        )

    @property
    def n_drawn(self) -> int:
        return self.n_maps if self.panels else 1

    @property
    def canvas_hw(self) -> tuple[int, int]:
        """Height and width of what maps are drawn on."""
        return panel_hw(self.fit.frame_hw) if self.panels else self.fit.frame_hw

    def __str__(self) -> str:
        height, width = self.fit.frame_hw
        panels = f" in {self.n_drawn} panels" if self.panels else ""
        return f"frames of {width}×{height}{panels}"


def table_of(look: LookConfig) -> Tensor:
    """(512,) int64 on the CPU: how a look colours; a look changes by another table."""
    if look.layout == "heatmap":
        return _table(look.colormap, 1.0, "constant", 1.0)
    return _table(look.colormap, look.alpha, look.alpha_mode, 0.0)


@lru_cache(maxsize=16)
def _table(colormap: Colormap, alpha: float, alpha_mode: AlphaMode, outside_alpha: float) -> Tensor:
    from stream_cam.cam.overlay_plan import overlay_table

    return overlay_table(
        colormap, alpha, alpha_mode, outside_alpha=outside_alpha, device="cpu"
    ).entries
