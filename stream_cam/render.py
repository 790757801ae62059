"""Layouts, labels and bars: what a viewer sees."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from stream_cam.config import Layout
from stream_cam.explain import Explainer
from stream_cam.frame import BgrImage, Explanation, Frame, Prediction

N_PANELS = 5
"""Maps in the `top5` layout, beside the frame itself: three columns, two rows."""
_PANEL_COLUMNS = 3
_PANEL_SCALE = 0.5
_PANEL_MIN_SIDE = 160
"""Panels of small frames are not made so small that their labels cannot be read."""

_WHITE = (255, 255, 255)
_DIM = (190, 190, 190)
_BAR_BGR = (80, 200, 255)
_SHADE = 0.35
"""What is left of the picture's brightness under the HUD, so that white text is legible on it."""


@dataclass(frozen=True, slots=True)
class HudStatus:
    """The small print of the HUD."""

    engine: str = ""
    fps: float | None = None
    """Pictures a second."""
    latency_ms: float | None = None
    """From a frame's capture to its explanation."""


class Renderer:
    """Makes finished pictures of frames and explanations; not for two threads at once.

    Args:
        explainer: whose explanations are drawn.
        layout: `overlay`, `side`, `heatmap` or `top5`.
        hud: draw labels, bars and rates.
        n_targets: classes chosen by the user; of several, each gets a panel with its own map.
    """

    def __init__(
        self,
        explainer: Explainer,
        layout: Layout = "overlay",
        *,
        hud: bool = True,
        n_targets: int = 1,
    ) -> None:
        self._explainer = explainer
        self.layout: Layout = layout
        self.hud = hud
        self._n_targets = n_targets

    @property
    def n_maps(self) -> int:
        """How many maps an explanation must hold to be drawn."""
        wanted = max(N_PANELS if self.layout == "top5" else 1, self._n_targets)
        return min(wanted, len(self._explainer.labels))

    def render(
        self, frame: Frame, explanation: Explanation | None, status: HudStatus | None = None
    ) -> BgrImage:
        """One finished picture, (H, W, 3) uint8 BGR; its size depends on the layout.

        Without an explanation (live video before the first one, or when it is too old) the frame
        stands where the map would be, so that the picture keeps its size.
        """
        image = frame.image_bgr
        if explanation is None:
            return self._unexplained(image)
        if self.layout == "top5" or len(explanation.cams) > 1:
            return self._panels(image, explanation, status or HudStatus())
        if self.layout == "heatmap":
            picture = self._explainer.heatmap(image, explanation)
        else:
            picture = self._explainer.overlay(image, explanation)
        if self.hud:
            draw_hud(picture, explanation, status or HudStatus())
        if self.layout == "side":
            return np.hstack([image, picture])
        return picture

    def _unexplained(self, image: BgrImage) -> BgrImage:
        if self.n_maps > 1:
            return _Panels(image, self.n_maps).picture
        return np.hstack([image, image]) if self.layout == "side" else image

    def _panels(self, image: BgrImage, explanation: Explanation, status: HudStatus) -> BgrImage:
        panels = _Panels(image, len(explanation.cams))
        small = panels.view(0).copy()
        if self.hud:
            draw_hud(panels.view(0), explanation, status)
        for number, target in enumerate(explanation.targets):
            view = panels.view(number + 1)
            if self.layout == "heatmap":
                view[:] = self._explainer.heatmap(small, explanation, target=number)
            else:
                view[:] = self._explainer.overlay(small, explanation, target=number)
            if self.hud:
                draw_caption(view, target)
        return panels.picture


class _Panels:
    """The frame made smaller in the first cell of a black grid, and room for its maps."""

    def __init__(self, image: BgrImage, n_maps: int) -> None:
        height, width = image.shape[:2]
        scale = min(1.0, max(_PANEL_SCALE, _PANEL_MIN_SIDE / min(height, width)))
        self._height, self._width = max(1, round(height * scale)), max(1, round(width * scale))
        n_cells = 1 + n_maps
        rows, self._columns = -(-n_cells // _PANEL_COLUMNS), min(n_cells, _PANEL_COLUMNS)
        self.picture: BgrImage = np.zeros(
            (rows * self._height, self._columns * self._width, 3), np.uint8
        )
        size = (self._width, self._height)
        self.view(0)[:] = (
            image if scale == 1.0 else cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        )

    def view(self, cell: int) -> BgrImage:
        """The part of the picture that is a cell, to write to."""
        row, column = divmod(cell, self._columns)
        y, x = row * self._height, column * self._width
        return self.picture[y : y + self._height, x : x + self._width]


def away_picture(last_bgr: BgrImage, text: str) -> BgrImage:
    """The last picture, dimmed, with a line of text over its middle; for a source that is away."""
    picture = np.asarray(cv2.convertScaleAbs(last_bgr, alpha=_SHADE), np.uint8)
    unit = _text_size(picture)
    top = max(0, (picture.shape[0] - unit) // 2)
    room = picture.shape[1] - 2 * max(2, unit // 3)
    left = (picture.shape[1] - min(room, _text_mask(text, unit).shape[1])) // 2
    _draw_text(picture, text, left, top, unit, room=room)
    return picture


def draw_caption(picture: BgrImage, prediction: Prediction) -> None:
    """One class's label and probability along the bottom, in place."""
    unit = _text_size(picture)
    margin = max(2, unit // 3)
    height = unit + 2 * margin
    if not _fits(picture, height):
        return
    top = picture.shape[0] - height
    _shade(picture[top:])
    percent = _percent(prediction.probability)
    taken = _draw_text(picture, percent, picture.shape[1] - margin, top + margin, unit, right=True)
    room = picture.shape[1] - 3 * margin - taken
    _draw_text(picture, prediction.label, margin, top + margin, unit, room=room)


def draw_hud(picture: BgrImage, explanation: Explanation, status: HudStatus) -> None:
    """Label and probability, bars of the five best classes, engine and rates; in place.

    A shaded panel in the lower left corner; what does not fit on a tiny picture is left out, bars
    first.
    """
    unit = _text_size(picture)
    small = max(9, round(unit * 0.62))
    margin = max(2, unit // 3)
    shown = explanation.targets[0]
    width = min(picture.shape[1], max(unit * 13, round(picture.shape[1] * 0.28)))
    line = small + margin
    footer = _footer(status)
    bars = explanation.predictions
    head = unit + 2 * margin
    height = head + len(bars) * line + (line if footer else 0) + margin
    if height > picture.shape[0] * 0.6:
        bars, footer, height = (), "", head
    if not _fits(picture, height):
        return
    panel = picture[picture.shape[0] - height :, :width]
    _shade(panel)
    taken = _draw_text(panel, _percent(shown.probability), width - margin, margin, unit, right=True)
    _draw_text(panel, shown.label, margin, margin, unit, room=width - 3 * margin - taken)
    y = head
    for prediction in bars:
        _draw_bar(panel, prediction, margin, y, small)
        y += line
    if footer:
        _draw_text(panel, footer, margin, y, small, room=width - 2 * margin, color=_DIM)


def _draw_bar(panel: BgrImage, prediction: Prediction, margin: int, y: int, size: int) -> None:
    width = panel.shape[1]
    label_room = (width - 4 * margin) * 45 // 100
    left = 2 * margin + label_room
    right = width - 2 * margin - _text_mask("100 %", size).shape[1]
    _draw_text(panel, prediction.label, margin, y, size, room=label_room)
    top, bottom = y + size // 4, y + size
    if right > left:
        panel[top:bottom, left:right] //= 2
        end = left + round((right - left) * min(1.0, max(0.0, prediction.probability)))
        panel[top:bottom, left:end] = _BAR_BGR
    _draw_text(panel, _percent(prediction.probability), width - margin, y, size, right=True)


def _footer(status: HudStatus) -> str:
    parts = [status.engine]
    if status.fps is not None:
        parts.append(f"{status.fps:.0f} fps")
    if status.latency_ms is not None:
        parts.append(f"{status.latency_ms:.0f} ms")
    return " · ".join(part for part in parts if part)


def _percent(probability: float) -> str:
    return f"{100.0 * probability:.0f} %"


def _text_size(picture: BgrImage) -> int:
    """Height of the main text in pixels: 12 at 320×240, 26 at 720p, 78 at 4K."""
    height, width = picture.shape[:2]
    return int(max(12, round(min(height / 27.5, width / 22.0))))


def _fits(picture: BgrImage, height: int) -> bool:
    return bool(picture.shape[0] >= height and picture.shape[1] >= 48)


def _shade(area: BgrImage) -> None:
    cv2.convertScaleAbs(area, area, alpha=_SHADE)


def _draw_text(
    area: BgrImage,
    text: str,
    x: int,
    y: int,
    size: int,
    *,
    room: int | None = None,
    right: bool = False,
    color: tuple[int, int, int] = _WHITE,
) -> int:
    """Draws a line of text with its top at `y`; returns its width in pixels.

    Args:
        x: the left edge, or the right edge with `right`.
        room: the text is shortened with an ellipsis to fit into this width.
    """
    mask = _text_mask(text if room is None else _shorten(text, size, room), size)
    width = mask.shape[1]
    left = max(0, x - width if right else x)
    target = area[y : y + mask.shape[0], left : left + width]
    if target.size == 0:
        return width
    weight = mask[: target.shape[0], : target.shape[1], None].astype(np.uint16)
    mixed = target * (255 - weight) + np.array(color, np.uint16) * weight
    target[:] = (mixed + 127) // 255
    return width


@lru_cache(maxsize=2048)
def _shorten(text: str, size: int, room: int) -> str:
    font = _font(size)
    if font.getlength(text) <= room:
        return text
    while text and font.getlength(text + "…") > room:
        text = text[:-1]
    return text + "…" if text else ""


@lru_cache(maxsize=2048)
def _text_mask(text: str, size: int) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    """Coverage of a line of text, (height, width) uint8; kept, because most text is drawn again."""
    font = _font(size)
    width = max(1, int(np.ceil(font.getlength(text))))
    image = Image.new("L", (width, round(size * 1.35)))
    ImageDraw.Draw(image).text((0, 0), text, fill=255, font=font)
    mask = np.asarray(image)
    mask.flags.writeable = False
    return mask


@lru_cache(maxsize=16)
def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise RuntimeError("Pillow was built without FreeType: reinstall it (pip install pillow)")
    return font
