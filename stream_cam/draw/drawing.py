"""A picture whose labels are drawn when they are first asked for."""

from __future__ import annotations

import threading

from stream_cam.draw.layout import Layout, Scene
from stream_cam.frame import BgrImage


class Drawing:
    """One picture with and without its labels, each drawn once; any thread.

    Args:
        bare_bgr: (H, W, 3) uint8, without labels.
        scene: the scene that it shows.
        layout: the layout that has drawn it.
    """

    def __init__(self, bare_bgr: BgrImage, scene: Scene, layout: Layout) -> None:
        self._bare = bare_bgr
        self._scene = scene
        self._layout = layout
        self._lock = threading.Lock()
        self._labelled: dict[bool, BgrImage] = {}

    def labelled(self, hud: bool) -> BgrImage:
        """The picture with the HUD, or only with the names of maps that stand side by side."""
        if self._scene.explanation is None or not (hud or self._layout.caption):
            return self._bare
        with self._lock:
            if hud not in self._labelled:
                picture = self._bare.copy()
                add_labels(picture, self._scene, self._layout, hud=hud)
                self._labelled[hud] = picture
            return self._labelled[hud]

    def as_set(self) -> BgrImage:
        """The picture by the settings: with all labels, or with none."""
        return self.labelled(True) if self._scene.settings.look.hud else self._bare


def add_labels(picture_bgr: BgrImage, scene: Scene, layout: Layout, *, hud: bool = True) -> None:
    """Draws labels on a picture of this layout, in place.

    Args:
        hud: the HUD as well as the names of maps that stand side by side.
    """
    if hud:
        layout.label(picture_bgr, scene)
    if layout.caption is not None:
        layout.caption(picture_bgr, scene)
