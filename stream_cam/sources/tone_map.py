"""HDR pictures (PQ, HLG) as SDR ones of BT.709: one curve, in one table for each kind.

Light is measured in multiples of the reference white, 203 cd/m² (ITU-R BT.2408). White and all
that is darker than 97 % of it keep their light; brighter light rolls off towards the display's
white. HLG is shown as on a display of 1000 cd/m² (ITU-R BT.2100). FFmpeg's own conversion in
swscale clips all above the reference white, and takes 3 s to begin (measured).
"""

from __future__ import annotations

from functools import cache
from typing import Final

import numpy as np
import numpy.typing as npt

PQ, HLG = 16, 18
"""Transfers, code points of ITU-T H.273."""
SIDE: Final = 49
"""The table's side in entries: a square number, as haldclut wants it. Reference white, 0.58 in PQ
and 0.75 in HLG, lies on an entry."""
_WHITE_NITS: Final = 203.0
_HLG_NITS: Final = 1000.0
_HLG_GAMMA: Final = 1.2
_KNEE: Final = 0.97
_DISPLAY_GAMMA: Final = 2.4
"""The gamma of SDR displays, ITU-R BT.1886."""
_LUMA_BT2020: Final = np.array([0.2627, 0.6780, 0.0593])
_LUMA_BT709: Final = np.array([0.2126, 0.7152, 0.0722])
# Linear RGB of these primaries (code points of H.273) to that of BT.709; others count as BT.2020.
_BT2020_TO_BT709: Final = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]]
)
_TO_BT709: Final = {
    1: np.eye(3),
    12: np.array([[1.2249, -0.2247, 0.0], [-0.0420, 1.0419, 0.0], [-0.0197, -0.0786, 1.0979]]),
}

_Array = npt.NDArray[np.float64]


@cache
def sdr_table(transfer: int, primaries: int) -> npt.NDArray[np.float32]:
    """The SDR value of each HDR value.

    Args:
        transfer: `PQ` or `HLG`.
        primaries: a code point of H.273.

    Returns:
        (49³, 3) float32 R'G'B', 0..1, of BT.709; red counts fastest, then green, then blue.
    """
    steps = np.linspace(0.0, 1.0, SIDE)
    blue, green, red = np.meshgrid(steps, steps, steps, indexing="ij")
    coded = np.stack([red.ravel(), green.ravel(), blue.ravel()], axis=1)
    nits = _pq_nits(coded) if transfer == PQ else _hlg_nits(coded)
    light = nits / _WHITE_NITS @ _TO_BT709.get(primaries, _BT2020_TO_BT709).T
    light = _rolled_off(_in_gamut(light))
    return np.asarray(light ** (1 / _DISPLAY_GAMMA), np.float32)


def _pq_nits(coded: _Array) -> _Array:
    """The EOTF of ITU-R BT.2100, table 4."""
    m1, m2 = 2610 / 16384, 2523 / 4096 * 128
    c1, c2, c3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
    root = coded ** (1 / m2)
    nits: _Array = 10_000.0 * (np.maximum(root - c1, 0.0) / (c2 - c3 * root)) ** (1 / m1)
    return nits


def _hlg_nits(coded: _Array) -> _Array:
    """The inverse OETF and the OOTF of ITU-R BT.2100, table 5."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene = np.where(coded <= 0.5, coded**2 / 3, (np.exp((coded - c) / a) + b) / 12)
    luma = (scene @ _LUMA_BT2020)[:, None]
    nits: _Array = _HLG_NITS * luma ** (_HLG_GAMMA - 1) * scene
    return nits


def _in_gamut(light: _Array) -> _Array:
    """Takes colours outside of BT.709 as far towards grey of the same luminance as they need."""
    luma, least = (light @ _LUMA_BT709)[:, None], light.min(axis=1, keepdims=True)
    share = np.where(least < 0, luma / np.maximum(luma - least, 1e-12), 1.0)
    inside: _Array = np.maximum(luma + (light - luma) * share, 0.0)
    return inside


def _rolled_off(light: _Array) -> _Array:
    """The curve, by the brightest of R, G and B, so that hues stay."""
    most = np.maximum(light.max(axis=1, keepdims=True), 1e-12)
    beyond = np.maximum(most - _KNEE, 0.0) / (1 - _KNEE)
    mapped = np.where(most > _KNEE, _KNEE + (1 - _KNEE) * beyond / (1 + beyond), most)
    rolled: _Array = light * (mapped / most)
    return rolled
