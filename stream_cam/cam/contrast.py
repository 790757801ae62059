"""Contrast maps: why this class and not those.

The map of class c against the classes D, with weight γ, has the class weights

    w[c] − γ · mean over d in D of w[d]

so that it is Σ_k of these · f_k, the map of c minus γ times the mean of the others' maps. With a
linear head its mean is the difference of the logits without their biases. γ = 0.6 and the three
next classes are Finer-CAM's (Zhang et al., "Finer-CAM", CVPR 2025, eq. 4).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stream_cam.frame import ClassRows, Contrast, FloatArray


class ContrastRows:
    """The class weights of one frame's contrast maps.

    Args:
        rows: the class weights of the frame's plain maps.
        logits: (n_classes,), the frame's, which say which classes are next.
    """

    def __init__(self, rows: ClassRows, contrast: Contrast, logits: FloatArray) -> None:
        self._rows, self._contrast, self._logits = rows, contrast, logits

    def __getitem__(self, classes: list[int], /) -> FloatArray:
        """(n, K) float32, of these classes; plain ones where nothing is left to be against."""
        groups = [self._contrast.others(index, self._logits) for index in classes]
        needed = list(dict.fromkeys([*classes, *(one for group in groups for one in group)]))
        rows = self._rows[needed]
        made = np.array(rows[_places(needed, classes)], np.float32)
        for number, group in enumerate(groups):
            if group:
                others = rows[_places(needed, group)].mean(axis=0)
                made[number] -= np.float32(self._contrast.weight) * others
        return made


def _places(needed: list[int], classes: Sequence[int]) -> list[int]:
    return [needed.index(one) for one in classes]
