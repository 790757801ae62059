"""The GPU kernels' machine code, compiled and disassembled here: few instructions, wide accesses.

132 multiprocessors × 128 lanes × 1.75 GHz × 2.9 µs (an H200 moves a 1920×1080 frame's 12.4 MB in
that time) / 2.07 million pixels = 41 instructions a pixel.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("triton", reason="no Triton for this system")

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))
from kernel_sass import ARCHITECTURES, FRAME_HW, LAUNCHES, count  # noqa: E402

if TYPE_CHECKING:
    from kernel_sass import Figures

KEPT = ROOT / "docs" / "benchmarks" / "kernels-sass.json"
BUDGET_PER_PIXEL = 41
AHEAD = 2
"""Rows that the overlay's loop works on in one round."""
WIDE = {
    # Sixteen pixels of a row are three vectors of 128 bits; the rest are looks into the table.
    "overlay, vectors": ({"LDG.E.128": 3, "LDG.E.64": 16}, {"STG.E.128": 3}),
    # Four pixels of a row are three words of 32 bits.
    "overlay, words": ({"LDG.E": 3, "LDG.E.64": 4}, {"STG.E": 3}),
}
OTHERS = ("overlay, bytes", "preprocess", "maps")


def faults(figures: Figures) -> list[str]:
    """What of a kernel's machine code breaks the budget."""
    found = []
    if figures.stack_bytes or figures.local_instructions:
        found.append(
            f"{figures.stack_bytes} bytes of stack, {figures.local_instructions} local accesses"
        )
    if figures.kernel in WIDE:
        for name in ("instructions_per_pixel", "with_walk_per_pixel"):
            value = getattr(figures, name)
            if value > BUDGET_PER_PIXEL:
                found.append(f"{name} is {value}, above {BUDGET_PER_PIXEL}")
        got = figures.loop_loads, figures.loop_stores
        wanted = tuple({kind: AHEAD * n for kind, n in one.items()} for one in WIDE[figures.kernel])
        if got != wanted:
            found.append(f"loads and stores are {got}, not {wanted}")
    return found


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("name", list(WIDE))
def test_overlay_keeps_its_budget_with_wide_accesses(name: str, architecture: int) -> None:
    figures = count(name, architecture)
    print(figures)
    assert faults(figures) == []


@pytest.mark.parametrize("name", OTHERS)
def test_no_kernel_spills(name: str) -> None:
    figures = count(name, ARCHITECTURES[0])
    print(figures)
    assert faults(figures) == []


def test_a_broken_budget_is_found() -> None:
    good = count("overlay, words", 90)
    assert faults(replace(good, instructions_per_pixel=41.1)) != []
    assert faults(replace(good, with_walk_per_pixel=41.1)) != []
    assert faults(replace(good, stack_bytes=8)) != []
    assert faults(replace(good, local_instructions=1)) != []
    assert faults(replace(good, loop_stores={"STG.E.U8": 24})) != []


def test_kept_figures_are_of_every_kernel_and_architecture() -> None:
    kept = json.loads(KEPT.read_text(encoding="utf-8"))
    assert tuple(kept["frame_hw"]) == FRAME_HW
    assert [(one["kernel"], one["architecture"]) for one in kept["figures"]] == [
        (name, f"sm_{architecture}") for name in LAUNCHES for architecture in ARCHITECTURES
    ]
    overlays = [one for one in kept["figures"] if one["kernel"] in WIDE]
    assert len(overlays) == 6
    assert all(one["with_walk_per_pixel"] <= BUDGET_PER_PIXEL for one in overlays)
