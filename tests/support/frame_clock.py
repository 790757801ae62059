"""Reads the clock that rtsp_server.py draws into its pictures."""

from __future__ import annotations

import time

from support.rtsp_harness import BAND, COLUMNS, ROWS

from stream_cam.frame import BgrImage

_MODULUS = 1 << 24
_THRESHOLD = 125.0
"""Between black and white, under an overlay of weight 0.4 as well."""


def read_clock_ms(image_bgr: BgrImage) -> int | None:
    """CLOCK_MONOTONIC in ms, modulo 2^24, when the picture was drawn; None: it cannot be read."""
    height, width = image_bgr.shape[:2]
    row_px = height // BAND // ROWS
    word = 0
    for row in range(ROWS):
        y = row * row_px + row_px // 2
        for column in range(COLUMNS):
            x = (2 * column + 1) * width // (2 * COLUMNS)
            block = image_bgr[y - 1 : y + 2, x - 2 : x + 3]
            word = word << 1 | int(float(block.mean()) > _THRESHOLD)
    value, check = word >> 8, word & 0xFF
    expected = ((value >> 16) ^ (value >> 8) ^ value ^ 0x5A) & 0xFF
    return value if check == expected else None


def age_ms(image_bgr: BgrImage) -> int | None:
    """How long ago the picture was drawn by the server, on the same machine."""
    drawn = read_clock_ms(image_bgr)
    if drawn is None:
        return None
    age = (time.monotonic_ns() // 1_000_000 - drawn) % _MODULUS
    return age if age < _MODULUS // 2 else age - _MODULUS
