"""Turning pictures upright: EXIF orientations of photographs, display matrices of videos."""

from __future__ import annotations

from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

from stream_cam.frame import BgrImage

# (a, b, c, d) of a display matrix: x' = a·x + c·y, y' = b·x + d·y, with y pointing down
# (FFmpeg, libavutil/display.h), as the EXIF orientation that means the same.
_MATRICES: Final = {
    (1, 0, 0, 1): 1,
    (-1, 0, 0, 1): 2,
    (-1, 0, 0, -1): 3,
    (1, 0, 0, -1): 4,
    (0, 1, 1, 0): 5,
    (0, 1, -1, 0): 6,
    (0, -1, -1, 0): 7,
    (0, -1, 1, 0): 8,
}


def upright(image: BgrImage, orientation: int) -> BgrImage:
    """Turn and mirror a picture (H, W, 3) as EXIF orientation 1..8 asks; 1 gives it back as is."""
    turned: npt.NDArray[Any] = image
    if orientation in (5, 6, 7, 8):
        turned = cv2.transpose(turned)
    if orientation in (2, 6):
        turned = cv2.flip(turned, 1)
    elif orientation in (3, 7):
        turned = cv2.flip(turned, -1)
    elif orientation in (4, 8):
        turned = cv2.flip(turned, 0)
    return np.asarray(turned, dtype=np.uint8)


def orientation_of_matrix(display_matrix: bytes) -> int:
    """EXIF orientation of a 3×3 display matrix of int32 (16.16); 1 if it is no right angle."""
    a, b, _, c, d = np.frombuffer(display_matrix, np.int32)[:5].tolist()
    key = tuple(int(np.sign(value)) if abs(value) > 1 << 15 else 0 for value in (a, b, c, d))
    return _MATRICES.get((key[0], key[1], key[2], key[3]), 1)
