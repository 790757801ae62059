"""Several tensors in one piece of memory, so that one copy moves them all."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

Fields = Mapping[str, tuple[tuple[int, ...], torch.dtype]]
"""Shape and type of each tensor, by its name."""

_ALIGNMENT_BYTES = 256
"""Where TensorRT and 128-bit loads want tensors to begin."""


class Block:
    """Contiguous tensors one after the other.

    Args:
        fields: their shapes and types.
        allocate: gives (n_bytes,) uint8, beginning at a multiple of 256 bytes on a GPU.
    """

    def __init__(self, fields: Fields, allocate: Callable[[int], Tensor]) -> None:
        starts, end = [], 0
        for shape, dtype in fields.values():
            starts.append(end)
            n_bytes = torch.Size(shape).numel() * dtype.itemsize
            # Bytes between two tensors may be read, such as the end of a frame's last word.
            end += -(-(n_bytes + 1) // _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES
        self.bytes = allocate(end)
        self._tensors = {
            name: _view(self.bytes, start, shape, dtype)
            for start, (name, (shape, dtype)) in zip(starts, fields.items(), strict=True)
        }

    def __getitem__(self, name: str) -> Tensor:
        return self._tensors[name]


def _view(memory: Tensor, start: int, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    n_bytes = torch.Size(shape).numel() * dtype.itemsize
    return memory[start : start + n_bytes].view(dtype).view(shape)
