"""Lines of text as coverage, in whatever script a label is written."""

from __future__ import annotations

import logging
import unicodedata
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from stream_cam.uri import printable

logger = logging.getLogger(__name__)

_DEJAVU = Path(__file__).parents[1] / "assets" / "DejaVuSans.ttf"
"""Has Latin, Greek, Cyrillic, Armenian, Georgian, Arabic, Hebrew; Pillow's own has
hardly more than ASCII."""
_OF_SYSTEMS = (
    "NotoSansCJK-Regular.ttc",  # Linux
    "wqy-microhei.ttc",
    "DroidSansFallbackFull.ttf",
    "msyh.ttc",  # Windows
    "PingFang.ttc",  # macOS
    "Arial Unicode.ttf",
)
"""Fonts of operating systems that have Chinese, Japanese and Korean, looked for by name."""
_PROBE_PX = 20
_NO_LETTER = "\U0010ffff"

TextMask = np.ndarray[tuple[int, int], np.dtype[np.uint8]]


@lru_cache(maxsize=2048)
def shorten(text: str, size: int, room: int) -> str:
    """A line of text that is at most `room` pixels wide, with an ellipsis where it was cut."""
    text = printable(text)
    font = _font_for(text, size)
    if font.getlength(text) <= room:
        return text
    while text and font.getlength(text + "…") > room:
        text = text[:-1]
    return text + "…" if text else ""


@lru_cache(maxsize=256)
def text_mask(text: str, size: int) -> TextMask:
    """Coverage of a line of text, (height, width) uint8; kept, because most text is drawn again."""
    text = unicodedata.normalize("NFC", printable(text))
    font = _font_for(text, size)
    width = max(1, int(np.ceil(font.getlength(text))))
    image = Image.new("L", (width, round(size * 1.35)))
    ImageDraw.Draw(image).text((0, 0), text, fill=255, font=font)
    mask = np.asarray(image)
    mask.flags.writeable = False
    return mask


def _font_for(text: str, size: int) -> ImageFont.FreeTypeFont:
    """The first font that has all letters of a text; of none, the one that lacks fewest."""
    letters = "".join(sorted({letter for letter in text if not letter.isspace()}))
    path, lacking = _best_font(letters)
    if lacking:
        _warn_once(lacking)
    return _font(path, size)


@lru_cache(maxsize=2048)
def _best_font(letters: str) -> tuple[str, str]:
    """Where a font is ("" is Pillow's own), and which of the letters it lacks."""
    best, best_lacking = "", letters
    for path in ("", str(_DEJAVU), *_OF_SYSTEMS):
        if not _is_there(path):
            continue
        lacking = "".join(letter for letter in letters if not _has(path, letter))
        if len(lacking) < len(best_lacking) or not lacking:
            best, best_lacking = path, lacking
        if not lacking:
            break
    return best, best_lacking


@cache
def _is_there(path: str) -> bool:
    try:
        _font(path, _PROBE_PX)
    except OSError:
        return False
    return True


@cache
def _has(path: str, letter: str) -> bool:
    return _drawn(path, letter) != _drawn(path, _NO_LETTER)


def _drawn(path: str, letter: str) -> tuple[tuple[int, int], bytes]:
    mask = _font(path, _PROBE_PX).getmask(letter)
    return mask.size, bytes(mask)


@lru_cache(maxsize=32)
def _font(path: str, size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.truetype(path, size) if path else ImageFont.load_default(size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise RuntimeError("Pillow was built without FreeType: reinstall it (pip install pillow)")
    return font


@cache
def _warn_once(lacking: str) -> None:
    logger.warning(
        "no font here has %s, which is drawn as boxes: install one that has it, such as Noto Sans "
        "CJK (Debian: sudo apt-get install fonts-noto-cjk)",
        " ".join(lacking),
    )
