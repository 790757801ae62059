"""The GPU kernels' machine code, compiled and disassembled here: few instructions, wide accesses.

132 multiprocessors × 128 lanes × 1.75 GHz × 2.9 µs (an H200 moves a 1920×1080 frame's 12.4 MB in
that time) / 2.07 million pixels = 41 instructions a pixel.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

pytest.importorskip("triton", reason="no Triton for this system")

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
from kernel_sass import (  # noqa: E402
    ARCHITECTURES,
    FRAME_HW,
    LAUNCHES,
    Launch,
    count,
    disassemble,
    recorded,
)

from stream_cam.cam import (  # noqa: E402
    class_choice,
    class_maps,
    overlay,
    overlay_nv12,
    preprocess,
    preprocess_nv12,
    smooth_maps,
)
from stream_cam.cam.geometry import plan_fit  # noqa: E402
from stream_cam.cam.nv12 import planes  # noqa: E402
from stream_cam.cam.overlay_plan import (  # noqa: E402
    overlay_table,
    plan_overlay,
    plan_overlay_nv12,
)
from stream_cam.frame import Region  # noqa: E402

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
    # A vector is sixteen pixels of luma, of which half an entry is read, or eight of chroma.
    "overlay nv12, luma": ({"LDG.E.128": 1, "LDG.E": 16}, {"STG.E.128": 1}),
    "overlay nv12, chroma": ({"LDG.E.128": 1, "LDG.E.64": 8}, {"STG.E.128": 1}),
}
OTHERS = ("overlay, bytes", "overlay, bicubic", "preprocess", "preprocess nv12", "maps")


def faults(figures: Figures) -> list[str]:
    """The parts of a kernel's machine code that break the budget."""
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


def overlay_launches(n: int, n_targets: int, size_hw: tuple[int, int], pitch: int) -> list[Launch]:
    height, width = size_hw
    frame = torch.empty(n * height * pitch, dtype=torch.uint8)
    frame = frame.as_strided((n, height, width, 3), (height * pitch, pitch, 3, 1))
    plane = height * pitch
    out = torch.empty_strided(
        (n, n_targets, height, width, 3), (n_targets * plane, plane, pitch, 3, 1), dtype=torch.uint8
    )
    plan = plan_overlay(size_hw, (1, 1), Region.whole(size_hw), device="cpu")
    table, scaled = overlay_table(device="cpu"), torch.empty(n, n_targets, 1, 1)
    return recorded(
        overlay, "_overlay_kernel", lambda: overlay.overlay(frame, scaled, plan, table, out=out)
    )


def maps_launches(**options: Any) -> list[Launch]:
    dtype = torch.bfloat16
    scaled = torch.empty(1, 1, 1, 1)
    features, weight = torch.empty(1, 1, 1, 1, dtype=dtype), torch.empty(1, 1, dtype=dtype)
    classes = torch.zeros((1, 1), dtype=torch.int32)
    return [
        *recorded(
            class_maps,
            "_maps_kernel",
            lambda: class_maps.scale_maps(features, scaled=scaled, **options),
        ),
        *recorded(
            class_maps,
            "_maps_kernel",
            lambda: class_maps.class_maps(features, weight, classes, scaled=scaled, **options),
        ),
    ]


def preprocess_launches(size_hw: tuple[int, int], input_size: int) -> list[Launch]:
    frame = torch.empty((1, *size_hw, 3), dtype=torch.uint8)
    fit = plan_fit("letterbox", size_hw, input_size)
    plan = preprocess.plan_preprocess(fit, (0.5,) * 3, (0.2,) * 3, device="cpu")
    out = torch.empty((1, 3, *fit.input_hw))
    return recorded(
        preprocess,
        "_preprocess_kernel",
        lambda: preprocess.preprocess(frame, plan, out=out),
    )


def nv12_launches(size_hw: tuple[int, int], pitch: int) -> list[Launch]:
    height, width = size_hw
    rows = height // 2 * 3
    frame = torch.empty(rows * pitch, dtype=torch.uint8)
    luma, chroma = planes(frame.as_strided((1, rows, width), (rows * pitch, pitch, 1)))
    plan = plan_overlay_nv12(size_hw, (1, 1), Region.whole(size_hw), device="cpu")
    table, scaled = overlay_table(device="cpu"), torch.empty(1, 1, 1, 1)
    fit = plan_fit("letterbox", size_hw, 4)
    taps = preprocess.plan_preprocess(fit, (0.5,) * 3, (0.2,) * 3, device="cpu")
    color = preprocess_nv12.color_of("bt601", full_range=True, device="cpu")
    return [
        *recorded(
            overlay,
            "_overlay_kernel",
            lambda: overlay_nv12.overlay_nv12(
                luma, chroma, scaled, plan, table,
                out_luma=luma[:, None], out_chroma=chroma[:, None],
            ),
        ),
        *recorded(
            preprocess_nv12,
            "_preprocess_nv12_kernel",
            lambda: preprocess_nv12.preprocess_nv12(
                luma, chroma, taps, color, out=torch.empty(1, 3, 4, 4)
            ),
        ),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "launches",
    [
        lambda: overlay_launches(1, 1, (1, 1), 3),
        lambda: overlay_launches(2, 3, (5, 6), 20),
        lambda: maps_launches(),
        lambda: maps_launches(relu=True, ranges=torch.zeros(1, 1, 2)),
        lambda: preprocess_launches((1, 1), 1),
        lambda: preprocess_launches((33, 35), 8),
        lambda: nv12_launches((2, 2), 2),
        lambda: nv12_launches((6, 22), 24),
    ],
    ids=[
        *("one-pixel", "words-and-tail", "maps", "maps-in-ranges", "one-pixel-in", "unaligned"),
        *("nv12-smallest", "nv12-words-and-tail"),
    ],
)
def test_unusual_launches_compile(launches: Callable[[], list[Launch]]) -> None:
    """The interpreter accepts code that the compiler may refuse: a size of 1 is a constant
    there."""
    found = launches()
    assert found
    for one in found:
        assert disassemble(one, 90).stack_bytes == 0


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
    assert len(overlays) == len(WIDE) * len(ARCHITECTURES)
    assert all(one["with_walk_per_pixel"] <= BUDGET_PER_PIXEL for one in overlays)


def choice_launch() -> Launch:
    """With ImageNet's classes, for the `top5` layout."""
    numbers = {name: torch.zeros(5, dtype=torch.int64) for name in ("locked", "best")}
    (launch,) = recorded(
        class_choice,
        "_classes_kernel",
        lambda: class_choice.choose_classes(
            torch.zeros(1, 1000),
            clock=torch.zeros(6, dtype=torch.float64),
            held=torch.zeros(4, dtype=torch.float64),
            best_probability=torch.zeros(5),
            classes=torch.zeros((1, 5), dtype=torch.int64),
            probability=torch.zeros(5),
            **numbers,
        ),
    )
    return launch


def filter_launch() -> Launch:
    (launch,) = recorded(
        smooth_maps,
        "_smooth_kernel",
        lambda: smooth_maps.smooth_maps(
            torch.zeros(1, 5, 7, 7),
            torch.zeros((1, 5), dtype=torch.int64),
            torch.zeros(6, dtype=torch.float64),
            torch.zeros(1000, dtype=torch.float64),
            torch.zeros((1000, 51), dtype=torch.float64),
            ranges=torch.zeros(1, 5, 2),
        ),
    )
    return launch


@pytest.mark.parametrize("launch", [choice_launch, filter_launch])
def test_choice_and_filter_compile_without_spills(launch: Callable[[], Launch]) -> None:
    """They handle a few numbers only; the test is that they compile."""
    for architecture in ARCHITECTURES:
        sass = disassemble(launch(), architecture)
        assert sass.stack_bytes == 0
        assert not any("LDL" in text or "STL" in text for _, text in sass.code)
        print(launch.__name__, architecture, len(sass.code), sass.registers)


def test_overlay_is_not_compiled_anew_for_another_size() -> None:
    kernel: Any = overlay._overlay_kernel
    told = {
        one.name
        for one in kernel.params
        if not (one.is_constexpr or one.name.endswith("_ptr") or one.do_not_specialize)
    }
    pixels = {
        f"{of}_{stride}_stride" for of in ("frame", "out") for stride in ("column", "channel")
    }
    assert told == pixels | {"row_step"}, "a float, of which Triton is told nothing"
