"""The shape of a graph, and the colours that come along with every frame."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from torch import Tensor

from stream_cam.cam.geometry import FitPlan
from stream_cam.config import AlphaMode, Colormap, ScaleName, Upsampling
from stream_cam.draw.layouts import MapStyle, count_maps
from stream_cam.settings import SettingsSnapshot


@dataclass(frozen=True)
class Shape:
    """The properties that a captured graph cannot change; another shape needs another graph."""

    fit: FitPlan
    n_maps: int
    panels: bool
    canvas_hw: tuple[int, int]
    """Height and width of the canvas of a map."""
    upsampling: Upsampling
    relu: bool
    smooths: bool
    scale: ScaleName

    @classmethod
    def of(cls, settings: SettingsSnapshot, fit: FitPlan, n_classes: int) -> Shape:
        n_maps = count_maps(settings, n_classes)
        style = MapStyle.of(settings.look, n_maps)
        return cls(
            fit,
            n_maps,
            style.panels,
            style.canvas_hw(fit.frame_hw),
            style.upsampling,
            style.relu,
            settings.look.smooth > 0.0,
            settings.look.scale,
        )

    @property
    def n_drawn(self) -> int:
        return self.n_maps if self.panels else 1

    def __str__(self) -> str:
        height, width = self.fit.frame_hw
        panels = f" in {self.n_drawn} panels" if self.panels else ""
        return f"frames of {width}×{height}{panels}"


def table_of(style: MapStyle) -> Tensor:
    """(512,) int64 on the CPU: the colours of a style; other colours are another table."""
    outside_alpha = 1.0 if style.map_only else 0.0
    return _table(style.colormap, style.alpha, style.alpha_mode, outside_alpha)


@lru_cache(maxsize=16)
def _table(colormap: Colormap, alpha: float, alpha_mode: AlphaMode, outside_alpha: float) -> Tensor:
    from stream_cam.cam.overlay_plan import overlay_table

    return overlay_table(
        colormap, alpha, alpha_mode, outside_alpha=outside_alpha, device="cpu"
    ).entries
