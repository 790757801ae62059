"""The colour tables of the heatmap."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

from stream_cam.config import Colormap
from stream_cam.errors import unknown_name
from stream_cam.frame import BgrImage

_OPENCV: dict[str, int] = {
    "turbo": cv2.COLORMAP_TURBO,
    "jet": cv2.COLORMAP_JET,
    "viridis": cv2.COLORMAP_VIRIDIS,
    "inferno": cv2.COLORMAP_INFERNO,
    "magma": cv2.COLORMAP_MAGMA,
}


@lru_cache(maxsize=len(_OPENCV))
def color_table(name: Colormap) -> BgrImage:
    """The colormap as (256, 3) uint8 BGR, read-only; index 0 is cold, 255 hot."""
    if name not in _OPENCV:
        raise unknown_name("colormap", name, _OPENCV)
    ramp = np.arange(256, dtype=np.uint8).reshape(256, 1)
    table = np.array(cv2.applyColorMap(ramp, _OPENCV[name]), np.uint8).reshape(256, 3)
    table.flags.writeable = False
    return table
