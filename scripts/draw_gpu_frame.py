"""Draws docs/images/gpu-frame.svg: the designed steps of frames on a GPU, over time.

    python scripts/draw_gpu_frame.py [--out docs/images/gpu-frame.svg]

Nothing in it is measured. The length of a step is estimated for a 1920×1080 frame: copies by PCIe's
speed, the GPU's part by the goal. Its start follows from the rules below. With a measurement at
hand, change `DURATIONS_US` and draw it again.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

DURATIONS_US = {"upload": 110.0, "compute": 180.0, "download": 110.0}
"""Microseconds of each step of a frame; each step has a part of the GPU to itself."""
N_SLOTS = 3
N_FRAMES = 7
_COLOURS = {"upload": "#56b4e9", "compute": "#e69f00", "download": "#009e73"}
_PARTS = {"upload": "copies up", "compute": "computes", "download": "copies down"}
_NODES = (
    "preprocess",
    "network",
    "choose classes",
    "maps",
    "(filter)",
    "overlay",
)
_LEFT, _RIGHT, _SCALE = 120, 20, 0.72
_ROW, _BAR = 34, 26
ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Step:
    """One step of one frame."""

    frame: int
    kind: str
    start_us: float

    @property
    def end_us(self) -> float:
        return self.start_us + DURATIONS_US[self.kind]

    @property
    def slot(self) -> int:
        return self.frame % N_SLOTS


def schedule(n_frames: int = N_FRAMES, n_slots: int = N_SLOTS) -> list[Step]:
    """A frame's steps follow one another; its slot must be free; each part does one thing."""
    steps: list[Step] = []
    part_free = dict.fromkeys(DURATIONS_US, 0.0)
    slot_free = [0.0] * n_slots
    for frame in range(n_frames):
        ready = slot_free[frame % n_slots]
        for kind in DURATIONS_US:
            step = Step(frame, kind, max(ready, part_free[kind]))
            part_free[kind] = ready = step.end_us
            steps.append(step)
        slot_free[frame % n_slots] = ready
    return steps


def svg() -> str:
    """The picture."""
    steps = schedule()
    width = round(_LEFT + _SCALE * max(step.end_us for step in steps) + _RIGHT)
    height = 356
    parts = [
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{width}' height='{height}' "
        f"viewBox='0 0 {width} {height}' font-family='DejaVu Sans, Verdana, sans-serif' "
        "font-size='12' fill='#222'>",
        "<title>Frames on a GPU: one graph each, three at once (by design, not measured)</title>",
        f"<rect width='{width}' height='{height}' fill='#fff'/>",
        _text(12, 22, "One graph a frame, three slots", bold=True),
    ]
    parts += _axis(40 + 6 * _ROW + 18, max(step.end_us for step in steps))
    parts += _rows(40, [f"slot {slot}" for slot in range(N_SLOTS)], steps, by_slot=True)
    parts += _rows(40 + 3 * _ROW + 14, list(_PARTS.values()), steps, by_slot=False)
    notes = (
        f"computes: {' → '.join(_NODES)}",
        "Numbers are frames. With --smooth or --hold a frame's graph begins after the one before.",
        "Drawn from the design, for frames of 1920×1080 in pinned memory; not measured.",
    )
    parts += [_text(12, 302 + 18 * number, note) for number, note in enumerate(notes)]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _rows(top: int, names: list[str], steps: list[Step], *, by_slot: bool) -> list[str]:
    parts = []
    for row, name in enumerate(names):
        y = top + row * _ROW
        parts.append(_text(12, y + 17, name))
        for step in steps:
            if (step.slot if by_slot else list(_PARTS).index(step.kind)) != row:
                continue
            x, wide = _LEFT + _SCALE * step.start_us, _SCALE * DURATIONS_US[step.kind]
            parts.append(
                f"<rect x='{x:.1f}' y='{y}' width='{wide - 1:.1f}' height='{_BAR}' rx='3' "
                f"fill='{_COLOURS[step.kind]}'/>"
            )
            label = f"{step.frame} {step.kind}" if by_slot else f"{step.frame}"
            parts.append(_text(x + 5, y + 17, label))
    return parts


def _axis(y: int, end_us: float) -> list[str]:
    parts = []
    for tick_us in range(0, int(end_us) + 1, 250):
        x = _LEFT + _SCALE * tick_us
        parts.append(f"<line x1='{x:.1f}' y1='34' x2='{x:.1f}' y2='{y}' stroke='#bbb'/>")
        parts.append(_text(x + 3, y + 10, f"{tick_us / 1000:g} ms"))
    return parts


def _text(x: float, y: float, text: str, *, bold: bool = False) -> str:
    weight = " font-weight='bold'" if bold else ""
    return f"<text x='{x:.1f}' y='{y:.1f}'{weight}>{text}</text>"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images" / "gpu-frame.svg")
    options = parser.parse_args()
    options.out.write_text(svg(), encoding="utf-8")


if __name__ == "__main__":
    main()
