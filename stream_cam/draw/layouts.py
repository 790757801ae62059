"""The table of layouts, and the questions that the settings answer by it.

A new layout is a `Layout` in a module of its own, a line in this table, and its name in
`config.LayoutName`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from stream_cam.cam.panels import panel_hw
from stream_cam.config import AlphaMode, Colormap, LayoutName, LookConfig, ScaleName, Upsampling
from stream_cam.draw.grid import TOP5
from stream_cam.draw.layout import Layout
from stream_cam.draw.one_map import HEATMAP, OVERLAY, SIDE
from stream_cam.settings import SettingsSnapshot

LAYOUTS: Final[Mapping[LayoutName, Layout]] = {
    layout.name: layout for layout in (OVERLAY, SIDE, HEATMAP, TOP5)
}


def count_maps(settings: SettingsSnapshot, n_classes: int) -> int:
    """How many maps of a frame the settings ask for."""
    layout = LAYOUTS[settings.look.layout]
    return min(max(layout.n_maps, len(settings.targets)), n_classes)


@dataclass(frozen=True)
class MapStyle:
    """How maps are drawn on their canvas; maps of one style are drawn alike everywhere."""

    panels: bool
    """The canvas is a smaller copy of the frame, one for each map."""
    map_only: bool
    colormap: Colormap
    upsampling: Upsampling
    relu: bool
    scale: ScaleName
    scale_low: float
    scale_high: float
    alpha: float
    alpha_mode: AlphaMode

    @classmethod
    def of(cls, look: LookConfig, n_maps: int) -> MapStyle:
        """The style of `n_maps` maps of one frame."""
        layout = LAYOUTS[look.layout]
        return cls(
            layout.panels or n_maps > 1,
            layout.map_only,
            look.colormap,
            look.upsampling,
            look.relu,
            look.scale,
            look.scale_low,
            look.scale_high,
            1.0 if layout.map_only else look.alpha,
            "constant" if layout.map_only else look.alpha_mode,
        )

    def canvas_hw(self, frame_hw: tuple[int, int]) -> tuple[int, int]:
        """Height and width of the canvas of a map."""
        return panel_hw(frame_hw) if self.panels else frame_hw
