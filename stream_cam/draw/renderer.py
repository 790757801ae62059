"""From a frame, its explanation and the settings to the finished picture."""

from __future__ import annotations

from collections.abc import Sequence

from stream_cam.draw.drawing import Drawing, add_labels
from stream_cam.draw.grid import TOP5
from stream_cam.draw.hud import HudStatus
from stream_cam.draw.layout import Layout, Scene
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
        scene, layout = self._scene(frame, explanation, settings, status)
        picture = layout.draw(scene)
        if settings.look.hud:
            add_labels(picture, scene, layout)
        return picture

    def draw(
        self,
        frame: BgrImage | Frame,
        explanation: Explanation | None,
        settings: SettingsSnapshot,
        status: HudStatus | None = None,
    ) -> Drawing:
        """The same picture, for sinks of which some want the labels and some do not."""
        scene, layout = self._scene(frame, explanation, settings, status)
        return Drawing(layout.draw(scene), scene, layout)

    def _scene(
        self,
        frame: BgrImage | Frame,
        explanation: Explanation | None,
        settings: SettingsSnapshot,
        status: HudStatus | None,
    ) -> tuple[Scene, Layout]:
        """Everything to be drawn, and the layout that draws it."""
        image, status = image_of(frame), status or HudStatus()
        layout = LAYOUTS[settings.look.layout]
        if explanation is None:
            n_maps, pictures = count_maps(settings, self._n_classes), None
        else:
            n_maps = len(explanation.cams)
            pictures = self._drawn_by_gpu(image, explanation, settings, status)
        scene = Scene(image, explanation, n_maps, settings, status, layout, pictures)
        # A layout for one map leaves the maps of several targets to the grid.
        return scene, (TOP5 if n_maps > layout.n_maps == 1 else layout)

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
