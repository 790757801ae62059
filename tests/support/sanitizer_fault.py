"""A kernel that is wrong on purpose."""

# Triton has no types.
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _behind_kernel(target_ptr, n_bytes, COUNT: tl.constexpr):
    place = tl.arange(0, COUNT)
    tl.store(target_ptr + place, 1, mask=place <= n_bytes)


def write_behind(target: Tensor) -> None:
    """Writes to the tensor, (n,) uint8 with n < 128, and to the byte behind it."""
    _behind_kernel[(1,)](target, target.numel(), COUNT=128)
