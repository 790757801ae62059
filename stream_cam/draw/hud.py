"""Labels, bars and words on pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from stream_cam.cam.colormaps import color_table
from stream_cam.config import Colormap
from stream_cam.draw.text import shorten, text_mask
from stream_cam.frame import BgrImage, Explanation, Method, Prediction

_WHITE = (255, 255, 255)
_DIM = (190, 190, 190)
_BAR_BGR = (80, 200, 255)
_PAUSED = "paused"
_MOST_HEIGHT = 0.45
"""Share of the picture's height that the whole HUD may cover."""
_CAPTION_LINES = 15
"""Lines of a caption's size that would fill a panel: a panel is a third of a picture, so that the
HUD's size would be too small to read."""
_SHADE = 0.35
"""Share of the picture's brightness that is left under the HUD, so that white text is legible."""


@dataclass(frozen=True, slots=True)
class HudStatus:
    """The small print of the HUD."""

    engine: str = ""
    fps: float | None = None
    """Pictures a second."""
    age_seconds: float | None = None
    """How much older than the frame the explanation is."""
    map_opacity: float = 1.0
    """1 for a map that may count as new, 0 for one that is too old to be shown; below 1 the label
    is dimmed too, and its age stands in its probability's place."""
    mode: str = ""
    """Live: how picture and map met: own, interpolated, matched."""
    delay_seconds: float | None = None
    """Live: from the frame's capture to its picture, where pictures wait for their maps."""


def away_picture(last_bgr: BgrImage, text: str) -> BgrImage:
    """The last picture, dimmed, with a line of text over its middle; for a source that is away."""
    picture = np.asarray(cv2.convertScaleAbs(last_bgr, alpha=_SHADE), np.uint8)
    unit = _text_size(picture)
    top = max(0, (picture.shape[0] - unit) // 2)
    room = picture.shape[1] - 2 * max(2, unit // 3)
    left = (picture.shape[1] - min(room, text_mask(text, unit).shape[1])) // 2
    _draw_text(picture, text, left, top, unit, room=room)
    return picture


def draw_caption(picture: BgrImage, prediction: Prediction, status: HudStatus) -> None:
    """One class's label and probability along the bottom of a panel, in place."""
    unit = max(_text_size(picture), picture.shape[0] // _CAPTION_LINES)
    margin = max(2, unit // 3)
    height = unit + 2 * margin
    if not _fits(picture, height):
        return
    top = picture.shape[0] - height
    _shade(picture[top:])
    _draw_headline(picture[top:], prediction, status, unit, margin)


def paused_picture(picture: BgrImage) -> BgrImage:
    """The picture with a quiet sign in its upper right corner, in a new array."""
    marked = picture.copy()
    unit = _text_size(marked)
    margin = max(2, unit // 3)
    height, width = unit + 2 * margin, text_mask(_PAUSED, unit).shape[1] + 2 * margin
    if _fits(marked, height):
        corner = marked[:height, max(0, marked.shape[1] - width) :]
        _shade(corner)
        _draw_text(corner, _PAUSED, corner.shape[1] - margin, margin, unit, right=True)
    return marked


def with_note(picture: BgrImage, lines: Sequence[str]) -> BgrImage:
    """The picture with lines of text in a shaded panel in its upper left corner, in a new array.

    Args:
        lines: a tab parts two columns.
    """
    marked = picture.copy()
    unit = _text_size(marked)
    margin = max(2, unit // 3)
    height = len(lines) * (unit + margin) + margin
    cells = [line.split("\t") for line in lines]
    indent = max((_width(cell[0], unit) + 2 * margin for cell in cells if cell[1:]), default=0)
    width = max((indent * (len(cell) - 1) + _width(cell[-1], unit) for cell in cells), default=0)
    panel = marked[:height, : width + 2 * margin]
    if not lines or not panel.size:
        return marked
    _shade(panel)
    for number, line in enumerate(cells):
        y = margin + number * (unit + margin)
        for x, text in zip((margin, margin + indent), line, strict=False):
            if text:
                _draw_text(panel, text, x, y, unit, room=panel.shape[1] - margin - x)
    return marked


def _width(text: str, size: int) -> int:
    return text_mask(text, size).shape[1] if text else 0


def captioned(picture: BgrImage, left: str, right: str) -> BgrImage:
    """The picture with a line of text below it."""
    height, width = picture.shape[:2]
    unit = max(12, width // 26)
    margin = unit // 3
    taller = np.zeros((height + unit + 2 * margin, width, 3), np.uint8)
    taller[:height] = picture
    bar = taller[height:]
    taken = _draw_text(bar, right, width - margin, margin, unit, right=True)
    _draw_text(bar, left, margin, margin, unit, room=width - 3 * margin - taken)
    return taller


def draw_hud(
    picture: BgrImage,
    explanation: Explanation,
    status: HudStatus,
    colormap: Colormap | None = None,
) -> None:
    """Label and probability, bars of the five best classes, engine and rates; in place.

    It is a shaded panel in the lower left corner. On a small picture the label stands alone.

    Args:
        colormap: the map's colours, for the bar from cold to hot; None: no bar.
    """
    unit = _text_size(picture)
    small = max(9, round(unit * 0.62))
    margin = max(2, unit // 3)
    width = min(picture.shape[1], max(unit * 13, round(picture.shape[1] * 0.28)))
    line = small + margin
    footer = _footer(status, explanation.method, small, width - 2 * margin)
    bars = explanation.predictions
    head = unit + 2 * margin
    n_lines = len(bars) + bool(footer) + (colormap is not None)
    height = head + n_lines * line + margin
    if height > picture.shape[0] * _MOST_HEIGHT:
        bars, footer, colormap, height = (), "", None, head
    if not _fits(picture, height):
        return
    panel = picture[picture.shape[0] - height :, :width]
    _shade(panel)
    _draw_headline(panel, explanation.shown(), status, unit, margin)
    y = head
    for prediction in bars:
        _draw_bar(panel, prediction, margin, y, small, stale=status.map_opacity < 1.0)
        y += line
    if footer:
        _draw_text(panel, footer, margin, y, small, color=_DIM)
        y += line
    if colormap is not None:
        _draw_color_bar(panel, colormap, margin, y, small)


def _draw_headline(
    panel: BgrImage, shown: Prediction, status: HudStatus, unit: int, margin: int
) -> None:
    """The label and its probability, or, dimmed, the label and how old it is."""
    stale = status.map_opacity < 1.0
    color = _DIM if stale else _WHITE
    figure = f"{status.age_seconds or 0.0:.1f} s old" if stale else _percent(shown.probability)
    right = panel.shape[1] - margin
    taken = _draw_text(panel, figure, right, margin, unit, right=True, color=color)
    room = right - 2 * margin - taken
    _draw_text(panel, shown.label, margin, margin, unit, room=room, color=color)


def _draw_bar(
    panel: BgrImage, prediction: Prediction, margin: int, y: int, size: int, *, stale: bool
) -> None:
    width = panel.shape[1]
    color = _DIM if stale else _WHITE
    label_room = (width - 4 * margin) * 45 // 100
    left = 2 * margin + label_room
    right = width - 2 * margin - text_mask("100 %", size).shape[1]
    _draw_text(panel, prediction.label, margin, y, size, room=label_room, color=color)
    top, bottom = y + size // 4, y + size
    if right > left:
        panel[top:bottom, left:right] //= 2
        end = left + round((right - left) * min(1.0, max(0.0, prediction.probability)))
        panel[top:bottom, left:end] = _DIM if stale else _BAR_BGR
    percent = _percent(prediction.probability)
    _draw_text(panel, percent, width - margin, y, size, right=True, color=color)


def _draw_color_bar(panel: BgrImage, colormap: Colormap, margin: int, y: int, size: int) -> None:
    """The map's colours from cold to hot."""
    width = panel.shape[1]
    left = 2 * margin + _draw_text(panel, "cold", margin, y, size, color=_DIM)
    right = width - 2 * margin
    right -= _draw_text(panel, "hot", width - margin, y, size, right=True, color=_DIM)
    if right > left:
        steps = np.linspace(0.0, 255.0, right - left).round().astype(int)
        panel[y + size // 4 : y + size, left:right] = color_table(colormap)[steps]


def _footer(status: HudStatus, method: Method, size: int, room: int) -> str:
    """The small print; without the engine, where there is no room for all of it."""
    parts = [] if method == "cam" else [str(method)]
    if status.fps is not None:
        parts.append(f"{status.fps:.0f} fps")
    if status.delay_seconds is not None:
        parts.append(f"{status.mode} {10 * round(100 * status.delay_seconds)} ms")
    elif status.age_seconds is not None and status.map_opacity == 1.0:
        parts.append(f"age {10 * round(100 * status.age_seconds)} ms")
    whole = " · ".join(filter(None, (status.engine, *parts)))
    return whole if _width(whole, size) <= room else shorten(" · ".join(parts) or whole, size, room)


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
    mask = text_mask(text if room is None else shorten(text, size, room), size)
    width = mask.shape[1]
    left = max(0, x - width if right else x)
    target = area[y : y + mask.shape[0], left : left + width]
    if target.size == 0:
        return width
    weight = mask[: target.shape[0], : target.shape[1], None].astype(np.uint16)
    mixed = target * (255 - weight) + np.array(color, np.uint16) * weight
    target[:] = (mixed + 127) // 255
    return width
