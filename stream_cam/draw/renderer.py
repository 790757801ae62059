"""From a frame, its explanation and the settings to the finished picture."""

from __future__ import annotations

from collections.abc import Sequence

from stream_cam.draw.grid import draw_grid
from stream_cam.draw.hud import HudStatus
from stream_cam.draw.layout import Scene
from stream_cam.draw.layouts import LAYOUTS, MapStyle, count_maps
from stream_cam.frame import BgrImage, Explanation, Frame, image_of
from stream_cam.settings import SettingsSnapshot


class Renderer:
    """Makes finished pictures; keeps no settings, each picture comes with its own.

        renderer = Renderer()
        settings = Settings(LookConfig(layout="side", hud=False))
        picture_bgr = renderer.render(frame, explainer.explain(frame), settings.now)

    Args:
        n_classes: of the network. A network with fewer than five classes has fewer panels, also
            in pictures without an explanation.
    """

    def __init__(self, n_classes: int = 1000) -> None:
        self._n_classes = n_classes

    def render(
        self,
        frame: BgrImage | Frame,
        explanation: Explanation | None,
        settings: SettingsSnapshot,
        status: HudStatus | None = None,
    ) -> BgrImage:
        """One finished picture, (H, W, 3) uint8 BGR; its size depends on the layout.

        Without an explanation (live video before the first one) the frame stands in the map's
        place, so that the picture keeps its size. A map that becomes too old fades into it.
        """
        image, status = image_of(frame), status or HudStatus()
        layout = LAYOUTS[settings.look.layout]
        if explanation is None:
            n_maps, pictures = count_maps(settings, self._n_classes), None
        else:
            n_maps = len(explanation.cams)
            pictures = self._drawn_by_gpu(image, explanation, settings, status)
        scene = Scene(image, explanation, n_maps, settings, status, layout, pictures)
        # A layout for one map leaves the maps of several targets to the grid.
        return draw_grid(scene) if n_maps > layout.n_maps == 1 else layout.draw(scene)

    def _drawn_by_gpu(
        self,
        image: BgrImage,
        explanation: Explanation,
        settings: SettingsSnapshot,
        status: HudStatus,
    ) -> Sequence[BgrImage] | None:
        """The maps that a GPU drew with the explanation, if they fit the settings."""
        if explanation.drawn is None:
            return None
        style = MapStyle.of(settings.look, len(explanation.cams))
        pictures = explanation.drawn.take(image, style)
        return pictures if settings.cam and status.map_opacity == 1.0 else None
